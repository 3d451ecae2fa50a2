//! Devices that are not here, and programs that are compiled for them.

use crate::{
    CompileOptions, CompiledProgram, OptionValue, PjrtError, Plugin,
    api::{Described, OwnedTopology},
};
use std::{fmt, sync::Arc};

/// A set of devices, such as a slice of a TPU pod, that programs can be compiled for without it.
pub struct Topology {
    raw: Arc<OwnedTopology>,
    name: String,
    devices: Vec<TopologyDevice>,
}

/// A device of a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyDevice {
    described: Described,
}

impl TopologyDevice {
    /// Its id, which [`CompileOptions::device_ids`] names.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.described.id
    }

    /// The plugin's name for this sort of device.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.described.kind
    }

    /// The process that it would belong to.
    #[must_use]
    pub fn process_index(&self) -> i64 {
        self.described.process_index
    }
}

impl Topology {
    /// The topology of that name, for instance `v5e:2x2` for libtpu.
    ///
    /// # Errors
    /// If the plugin does not know the name or cannot compile ahead of time.
    pub fn new(
        plugin: &Plugin,
        name: &str,
        options: &[(String, OptionValue)],
    ) -> Result<Self, PjrtError> {
        let raw = OwnedTopology::create(&plugin.api, name, options)?;
        let devices =
            raw.devices()?.into_iter().map(|described| TopologyDevice { described }).collect();
        Ok(Self { raw: Arc::new(raw), name: name.to_owned(), devices })
    }

    /// Its devices.
    #[must_use]
    pub fn devices(&self) -> &[TopologyDevice] {
        &self.devices
    }

    /// What the plugin tells about it, such as the memory of a device.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        self.raw.attributes()
    }

    /// Compiles a program from StableHLO text for these devices.
    ///
    /// # Errors
    /// If the text is no valid program, or does not fit into the memory of the devices.
    pub fn compile(
        &self,
        mlir_text: &str,
        options: &CompileOptions,
    ) -> Result<CompiledProgram, PjrtError> {
        let raw = self.raw.compile(mlir_text, &options.encode()?)?;
        let owner: Arc<dyn Send + Sync> = Arc::<OwnedTopology>::clone(&self.raw);
        Ok(CompiledProgram::new(raw, Some(owner)))
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topology({} with {} devices)", self.name, self.devices.len())
    }
}
