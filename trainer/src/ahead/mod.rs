//! Compiling for accelerators that are not here: does the step fit, and what does it take?
//!
//! libtpu compiles for slices of TPUs on any machine, XLA's plugin for NVIDIA's cards for nodes of them.
//! libtpu is a large library of somebody else's that may end its process, writes to stderr, and by default asks the metadata server of Google's cloud
//! where it runs. So it is loaded in a process of its own ([`compile`] starts this program again,
//! [`serve`] is what runs there), whose environment forbids the questions, whatever the user's says.

mod gpu;
mod process;
mod words;
mod worker;

pub use gpu::node;
pub use process::{AheadError, compile};
pub use words::OutOfMemory;
pub use worker::serve;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is to be compiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The plugin.
    pub plugin: PathBuf,
    /// The devices, as the command line names them: `v5p:2x2x1`, `h200:8`.
    pub topology: String,
    /// What they are.
    pub target: Target,
    /// How many of them the program is for.
    pub devices: usize,
    /// `StableHLO`.
    pub program: String,
}

/// What a program is compiled for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// TPUs, which libtpu knows by name.
    Tpu,
    /// The cards of a node.
    Gpu {
        /// XLA's description of one.
        description: String,
        /// How many.
        cards: u32,
        /// Bytes of memory of one.
        memory: u64,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The program is compiled.
    Compiled(Compiled),
    /// The compiler refuses, in its own words.
    Refused(String),
    /// It did not come to compiling: what is wrong, and what to do.
    Unable {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// A compiled program, in bytes of one device unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// The plugin's version of the PJRT API.
    pub pjrt: String,
    /// The plugin's name for the devices.
    pub device_kind: String,
    /// Devices of the whole slice; the program is for the first of them.
    pub slice_devices: usize,
    /// Memory of a device, if the plugin tells.
    pub limit: Option<u64>,
    /// The most that is used at any time.
    pub peak: u64,
    /// Weights, optimizer state and batch.
    pub arguments: u64,
    /// Results, most of which take the place of arguments.
    pub outputs: u64,
    /// Results that take the place of arguments.
    pub aliased: u64,
    /// Activations, gradients and whatever else lives within a step.
    pub temporaries: u64,
    /// The program in device memory.
    pub code: u64,
    /// The program as a file.
    pub serialized: u64,
    /// Seconds that compiling took.
    pub seconds: f64,
}
