//! An NVIDIA card: memory, kernels, matrix products. It knows nothing of models.
//!
//! Nothing of CUDA is needed to build this, and nothing is loaded before it is used: NVIDIA's
//! libraries are opened when they are first needed ([`Library`]), and what is missing is a
//! [`CudaError`] with a hint.
//!
//! A [`Card`] has the operations of a transformer, forward and backward, as methods. They take
//! [`Span`]s of [`Block`]s, check what fits together, and are queued on one stream.
//!
//! ```no_run
//! use coda_cuda::{Card, Element, Span};
//!
//! # fn main() -> Result<(), coda_cuda::CudaError> {
//! let card = Card::open(0)?;
//! let values = card.upload(&[3.0_f32, 4.0])?;
//! let out = card.room(Element::F64, 1)?;
//! card.sum_of_squares(
//!     Span::of(&values, Element::F32, 0, 2)?,
//!     Span::of(&out, Element::F64, 0, 1)?,
//! )?;
//! assert_eq!(card.read::<f64>(Span::of(&out, Element::F64, 0, 1)?)?, [25.0]);
//! # Ok(())
//! # }
//! ```

mod arena;
mod card;
mod communicator;
mod compile;
mod cudnn;
mod device;
mod error;
mod gemm;
mod launch;
mod libraries;
mod ops;
mod span;
mod timeline;

pub use arena::{Arena, ArenaUse, Block, CardMemory, Source};
pub use card::{Card, PinnedBytes, Sent, Value};
pub use communicator::{Communicator, CommunicatorId};
pub use compile::{KERNEL_FILES, KernelFile, cache_folder};
pub use cudnn::{AttentionPlan, Pass, SumOrder, open as open_cudnn, plan_attention};
pub use device::{Device, DeviceInfo, Event, Stream, device_count};
pub use error::CudaError;
pub use gemm::{Order, Product};
pub use libraries::{Library, look_in};
pub use ops::{
    AdafactorStep, AdamwStep, AttentionSizes, Columns, FactoredMoments, Parameter, RopeTables,
    Statistics,
};
pub use span::{Element, Span};
pub use timeline::Timed;
