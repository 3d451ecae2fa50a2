//! Keys of the CUDA engine.

use serde::{Deserialize, Serialize};

/// How the CUDA engine computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cuda {
    /// Whose kernels compute attention.
    pub attention: CudaAttention,
}

/// Whose kernels compute attention. Rows of several segments, and sizes that cuDNN has no kernel for,
/// always take ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CudaAttention {
    /// For training cuDNN's where it is installed, else ours.
    #[default]
    Auto,
    /// Ours.
    Own,
    /// cuDNN's, with sums in a fixed order; an error where it is missing.
    Cudnn,
    /// cuDNN's, faster: the gradient of the queries is summed in whatever order its parts are ready.
    CudnnUnordered,
}
