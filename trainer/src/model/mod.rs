//! The model: its shape, its parameters, and its forward pass from fused operations.

pub(crate) mod config;
mod forward;
mod params;

pub use config::{ConfigError, ModelConfig};
pub use forward::{Network, RecomputePolicy};
pub use params::{Grads, Params, layout};
