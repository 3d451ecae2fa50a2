//! Compiled programs.

use crate::{
    Buffer, Client, Device, OptionValue, PjrtError,
    api::{OwnedBuffer, OwnedExecutable, OwnedLoaded},
};
use std::{fmt, sync::Arc};

/// What a program needs on each of its devices, in bytes, as XLA tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStatistics {
    /// The program itself.
    pub code: u64,
    /// All arguments.
    pub arguments: u64,
    /// All outputs, those that take over an argument's memory too.
    pub outputs: u64,
    /// What outputs take over from arguments.
    pub aliased: u64,
    /// What it needs while it runs.
    pub temporaries: u64,
    /// Temporary memory on the host.
    pub host_temporaries: u64,
    /// The most at any time, if the plugin tells.
    pub peak: Option<u64>,
}

impl MemoryStatistics {
    /// The peak, or what it can be at most: everything at once, aliased memory counted once.
    #[must_use]
    pub fn total(&self) -> u64 {
        let all = self.arguments + self.outputs + self.temporaries + self.code;
        self.peak.unwrap_or(all.saturating_sub(self.aliased))
    }
}

/// A compiled program that is not loaded onto devices.
pub struct CompiledProgram {
    raw: OwnedExecutable,
    // Whatever it was compiled for.
    _owner: Option<Arc<dyn Send + Sync>>,
}

impl CompiledProgram {
    pub(crate) fn new(raw: OwnedExecutable, owner: Option<Arc<dyn Send + Sync>>) -> Self {
        Self { raw, _owner: owner }
    }

    /// What it needs on each device.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn memory(&self) -> Result<MemoryStatistics, PjrtError> {
        let (sizes, peak) = self.raw.memory()?;
        // Negative sizes mean that it is not known.
        let size = |index: usize| u64::try_from(sizes[index]).unwrap_or(0);
        Ok(MemoryStatistics {
            code: size(0),
            arguments: size(1),
            outputs: size(2),
            aliased: size(3),
            temporaries: size(4),
            host_temporaries: size(9),
            peak: u64::try_from(peak).ok().filter(|peak| *peak > 0),
        })
    }

    /// XLA's own count of operations and bytes, where it makes one. It counts the bodies of loops
    /// once, however often they run.
    ///
    /// # Errors
    /// If the plugin makes none.
    pub fn cost(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        self.raw.cost()
    }

    /// A fingerprint of the compiled program.
    ///
    /// # Errors
    /// If the plugin makes none.
    pub fn fingerprint(&self) -> Result<Vec<u8>, PjrtError> {
        self.raw.fingerprint()
    }

    /// The compiled program in the plugin's own format.
    ///
    /// # Errors
    /// If the plugin cannot serialize it.
    pub fn serialize(&self) -> Result<Vec<u8>, PjrtError> {
        self.raw.serialize()
    }

    /// How many outputs it has on each device.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn outputs(&self) -> Result<usize, PjrtError> {
        self.raw.outputs()
    }
}

impl fmt::Debug for CompiledProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledProgram").finish_non_exhaustive()
    }
}

/// A program that is loaded onto the devices of a client.
pub struct Executable {
    // Both are dropped before the client.
    loaded: OwnedLoaded,
    program: CompiledProgram,
    client: Client,
    devices: Vec<Device>,
    outputs: usize,
}

impl Executable {
    pub(crate) fn new(client: &Client, loaded: OwnedLoaded) -> Result<Self, PjrtError> {
        let program = CompiledProgram::new(loaded.executable()?, None);
        let devices = loaded
            .devices()?
            .into_iter()
            .map(|device| {
                client.find(device).ok_or_else(|| PjrtError::Arguments {
                    message: "the plugin put a program on a device that it does not list"
                        .to_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        let outputs = program.outputs()?;
        Ok(Self { loaded, program, client: client.clone(), devices, outputs })
    }

    /// The devices of this process that it runs on, in the order in which [`Executable::execute`]
    /// wants arguments and gives outputs.
    #[must_use]
    pub fn addressable_devices(&self) -> &[Device] {
        &self.devices
    }

    /// What is known about the program.
    #[must_use]
    pub fn program(&self) -> &CompiledProgram {
        &self.program
    }

    /// See [`CompiledProgram::memory`].
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn memory(&self) -> Result<MemoryStatistics, PjrtError> {
        self.program.memory()
    }

    /// See [`CompiledProgram::cost`].
    ///
    /// # Errors
    /// If the plugin makes none.
    pub fn cost(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        self.program.cost()
    }

    /// See [`CompiledProgram::fingerprint`].
    ///
    /// # Errors
    /// If the plugin makes none.
    pub fn fingerprint(&self) -> Result<Vec<u8>, PjrtError> {
        self.program.fingerprint()
    }

    /// See [`CompiledProgram::serialize`].
    ///
    /// # Errors
    /// If the plugin cannot serialize it.
    pub fn serialize(&self) -> Result<Vec<u8>, PjrtError> {
        self.program.serialize()
    }

    /// Runs the program on all its devices and waits for it. `arguments` has one list for each
    /// addressable device; so has the result. Arguments that the program takes over are deleted.
    ///
    /// How many arguments of which types a program has is the plugin's to check: the C API does not
    /// tell it.
    ///
    /// # Errors
    /// If there are not as many lists as devices, if an argument is deleted, lies on another device
    /// or belongs to another client, or if the plugin refuses the arguments or fails.
    pub fn execute(&self, arguments: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>, PjrtError> {
        self.check(arguments)?;
        let raw: Vec<Vec<&OwnedBuffer>> =
            arguments.iter().map(|list| list.iter().map(|buffer| &buffer.raw).collect()).collect();
        self.loaded
            .execute(&raw, self.outputs)?
            .into_iter()
            .map(|list| list.into_iter().map(|raw| Buffer::new(&self.client, raw)).collect())
            .collect()
    }

    fn check(&self, arguments: &[Vec<&Buffer>]) -> Result<(), PjrtError> {
        let refuse = |message: String| Err(PjrtError::Arguments { message });
        if arguments.len() != self.devices.len() {
            let (lists, devices) = (arguments.len(), self.devices.len());
            return refuse(format!(
                "{lists} lists of arguments for a program on {devices} devices"
            ));
        }
        let expected = arguments.first().map_or(0, Vec::len);
        for (list, device) in arguments.iter().zip(&self.devices) {
            let id = device.id();
            if list.len() != expected {
                let found = list.len();
                return refuse(format!("device {id} gets {found} arguments, the first {expected}"));
            }
            for (place, buffer) in list.iter().enumerate() {
                if buffer.device() != device {
                    let found = buffer.device();
                    return refuse(format!("argument {place} of device {id} lies on {found:?}"));
                }
                if buffer.is_deleted() {
                    let place = format!("argument {place} of device {id}");
                    return Err(PjrtError::Deleted { place });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("devices", &self.devices)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}
