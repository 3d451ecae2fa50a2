//! Keys of the XLA engine.

use serde::{Deserialize, Serialize};

/// How the XLA engine lays a run over devices, and in which pieces it computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xla {
    /// The device mesh.
    pub mesh: MeshShape,
    /// The type of activations and matrix products.
    pub compute: Compute,
    /// Queries of a row whose attention scores exist at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_chunk: Option<u32>,
    /// Scored tokens, in every part of the batch, whose logits exist at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_chunk: Option<u32>,
}

/// Devices along each axis of the mesh; their product is the number of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshShape {
    /// Parts of the batch, each with all parameters.
    pub data: u32,
    /// Parts of the batch that also share out parameters and optimizer state.
    pub fsdp: u32,
    /// Parts of every layer: heads and inner width.
    pub tensor: u32,
}

impl Default for MeshShape {
    fn default() -> Self {
        Self { data: 1, fsdp: 1, tensor: 1 }
    }
}

/// The type of activations and matrix products; weights, gradients and optimizer state are 32-bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// `f32` on a CPU, `bf16` elsewhere.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16, with sums in 32 bits.
    Bf16,
}
