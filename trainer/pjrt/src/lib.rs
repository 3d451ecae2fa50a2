//! A safe wrapper of the PJRT C API, by which XLA programs run on CPUs, GPUs and TPUs. It knows
//! nothing of models.
//!
//! A [`Plugin`] is a shared library that [`discover`] finds and [`Plugin::load`] loads. A [`Client`]
//! holds its devices, compiles StableHLO text into an [`Executable`], and uploads [`Buffer`]s, which
//! an executable turns into other buffers. A [`Topology`] stands for devices that are not here: it
//! compiles a [`CompiledProgram`], which tells how much memory it would need. Whatever a plugin
//! refuses is a [`PjrtError`] that names the plugin and its version; nothing here panics on it.
//!
//! ```no_run
//! use coda_pjrt::{Client, ClientOptions, CompileOptions, Plugin, PluginKind, discover};
//!
//! # fn main() -> Result<(), coda_pjrt::PjrtError> {
//! let plugin = Plugin::load(&discover(None, PluginKind::Cpu)?)?;
//! let client = Client::new(&plugin, &ClientOptions::default())?;
//! let double = "module { func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
//!     %y = stablehlo.add %x, %x : tensor<2xf32>
//!     return %y : tensor<2xf32> } }";
//! let executable = client.compile(double, &CompileOptions::default())?;
//! let x = client.upload(&executable.addressable_devices()[0], &[1.0_f32, 2.0], &[2])?;
//! let outputs = executable.execute(&[vec![&x]])?;
//! assert_eq!(outputs[0][0].download::<f32>()?, [2.0, 4.0]);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "the C API; everything above it is safe")]
mod api;
mod buffer;
mod client;
mod discover;
mod element;
mod environment;
mod error;
mod executable;
mod options;
mod plugin;
mod store;
mod topology;

pub use buffer::Buffer;
pub use client::{Client, ClientOptions, Device};
pub use discover::{PluginKind, discover};
pub use element::{Element, ElementType};
pub use environment::prepare_environment;
pub use error::{ErrorCode, PjrtError, PluginName};
pub use executable::{CompiledProgram, Executable, MemoryStatistics};
pub use options::{CompileOptions, OptionValue};
pub use plugin::Plugin;
pub use store::{KeyValueStore, MemoryStore, StoreError};
pub use topology::{Topology, TopologyDevice};
