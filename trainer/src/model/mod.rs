//! The model: its shape, its parameters, and its forward pass from fused operations.

mod cached;
pub(crate) mod config;
mod forward;
mod params;
mod weights;

pub(crate) use cached::{CachedRow, KvCache};
pub use config::{ConfigError, ModelConfig};
pub use forward::{Network, RecomputePolicy};
pub use params::{Grads, Params, layout};
pub(crate) use weights::{Layer, Weights};
