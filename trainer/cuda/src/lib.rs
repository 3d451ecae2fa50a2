//! An NVIDIA card: memory, kernels, matrix products. It knows nothing of models.
//!
//! Nothing of CUDA is needed to build this, and nothing is loaded before it is used: NVIDIA's
//! libraries are opened when they are first needed ([`Library`]), and what is missing is a
//! [`CudaError`] with a hint.
//!
//! ```no_run
//! use coda_cuda::{Arena, Device, Stream};
//!
//! # fn main() -> Result<(), coda_cuda::CudaError> {
//! let device = Device::open(0)?;
//! let stream = Stream::new(&device)?;
//! let arena = Arena::on(&stream);
//! let block = arena.block(1 << 20)?;
//! assert_eq!(block.pointer() % 256, 0);
//! # Ok(())
//! # }
//! ```

mod arena;
mod device;
mod error;
mod libraries;

pub use arena::{Arena, ArenaUse, Block, CardMemory, Source};
pub use device::{Device, DeviceInfo, Event, Stream, device_count};
pub use error::CudaError;
pub use libraries::Library;
