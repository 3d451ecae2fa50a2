//! What can go wrong between this process and a card.

use thiserror::Error;

/// Why something could not be done on a card.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library is not on this machine.
    #[error("{library} is not on this machine, which is needed for {purpose}")]
    NoLibrary {
        /// The file that was looked for, such as `libcuda.so.1`.
        library: &'static str,
        /// What it does for us.
        purpose: &'static str,
        /// Where to get it.
        hint: &'static str,
    },
    /// The driver is there and no card.
    #[error("the NVIDIA driver sees no card")]
    NoDevice,
    /// A card that the kernels cannot run on.
    #[error("{name} has compute capability {major}.{minor}; 8.0 or later is needed for bf16")]
    OldDevice {
        /// The card's name.
        name: String,
        /// Major number of its compute capability.
        major: i32,
        /// Minor number of its compute capability.
        minor: i32,
    },
    /// The driver refused a call.
    #[error("{call} failed: {reason}")]
    Driver {
        /// The call.
        call: &'static str,
        /// What the driver says.
        reason: String,
    },
    /// The card has no room.
    #[error("the card has no room for {wanted} bytes: {free} of {total} are free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes free on the card.
        free: u64,
        /// Bytes of the card.
        total: u64,
    },
    /// NVRTC refused a kernel.
    #[error("{file} does not compile for {arch}: {log}")]
    Compile {
        /// The source, by its name in `trainer/cuda/kernels`.
        file: &'static str,
        /// The architecture.
        arch: String,
        /// What the compiler says.
        log: String,
    },
    /// cuBLASLt, cuDNN or NCCL refused a call.
    #[error("{call} failed: {status}")]
    Library {
        /// The call.
        call: &'static str,
        /// Its status.
        status: String,
    },
    /// Another rank takes no part any more, so that there is nothing to wait for.
    #[error("another rank has left what the cards do together")]
    Left,
    /// Sizes that do not fit together, or that a kernel is not made for.
    #[error("{0}")]
    Shape(String),
}

impl CudaError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoLibrary { hint, .. } => Some((*hint).to_owned()),
            Self::NoDevice => Some(
                "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, or use --engine cpu".to_owned(),
            ),
            Self::OldDevice { .. } => Some("use another card, or --engine cpu".to_owned()),
            Self::OutOfMemory { .. } => Some(
                "lower train.micro_batch, set train.recompute=layer, or free the card of other \
                 programs"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
