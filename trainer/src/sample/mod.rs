//! Sampling from a masked diffusion model (method §6): mask ids, wherever they stand, become tokens
//! over a number of steps.
//!
//! [`denoise`] is the plain way, one row and whole forwards, and what the others are held to.
//! [`Denoiser`] is one row on its way, in blocks and with kept keys and values if that is asked for;
//! [`round`] and [`denoise_rows`] take any number of them through a
//! [`Decoder`](crate::engine::Decoder) together.

mod accept;
mod chat;
mod choose;
mod decoding;
mod denoise;
mod denoiser;
mod lengths;
mod model;
mod prompt;
mod reveal;
mod rounds;

pub use accept::accept;
pub use chat::{Turn, chat_prompt};
pub use choose::{Choice, choose};
pub use decoding::{Accept, Cache, Decoding, DecodingError, FITTED};
pub use denoise::{Sampler, Step, denoise};
pub use denoiser::{Denoiser, Tally};
pub use lengths::{Length, most_confident};
pub(crate) use model::end_ids;
pub use model::{Controls, SamplingModel};
pub use prompt::{Canvas, PromptError};
pub use reveal::{Algorithm, quota, reveal_confident, reveal_origin};
pub use rounds::{denoise_rows, round};
