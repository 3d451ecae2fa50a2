//! Sampling from a masked diffusion model (method §6): mask ids, wherever they stand, become tokens
//! over a number of steps.

mod choose;
mod denoise;
mod prompt;
mod reveal;

pub use choose::{Choice, choose};
pub use denoise::{Sampler, Step, denoise};
pub use prompt::{Canvas, PromptError};
pub use reveal::{Algorithm, quota, reveal_confident, reveal_origin};
