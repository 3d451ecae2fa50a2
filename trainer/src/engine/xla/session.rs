//! A plugin, its devices, and the programs compiled for them.

use super::mesh::{devices, piece, runs};
use coda_hlo::{Module, Sharding};
use coda_manifests::MeshShape;
use coda_pjrt::{
    Buffer, Client, ClientOptions, CompileOptions, Device, Element, Executable, OptionValue,
    PjrtError, Plugin,
};
use std::path::Path;

/// A tensor on the devices of a mesh: one buffer for each, in the order of the mesh.
pub(super) type Spread = Vec<Buffer>;

/// The devices of a mesh behind a plugin.
pub(super) struct Session {
    client: Client,
    mesh: MeshShape,
    devices: Vec<Device>,
}

/// A compiled program.
pub(super) struct Program {
    executable: Executable,
    /// For every device of the executable, in its order, which of the mesh it is.
    order: Vec<usize>,
}

impl Session {
    /// Loads a plugin and takes as many of its devices as the mesh has.
    ///
    /// # Errors
    /// If the plugin cannot be loaded or has too few devices.
    pub(super) fn open(plugin: &Path, mesh: MeshShape) -> Result<Self, PjrtError> {
        let plugin = Plugin::load(plugin)?;
        // A CPU plugin has as many devices as it is asked for; others do not know the option.
        let is_cpu =
            plugin.path().file_name().is_some_and(|name| name.to_string_lossy().contains("cpu"));
        let count = i64::try_from(devices(mesh)).expect("a number of devices");
        let options = if is_cpu {
            vec![("cpu_device_count".to_owned(), OptionValue::Int(count))]
        } else {
            Vec::new()
        };
        let client = Client::new(&plugin, &ClientOptions { options, store: None })?;
        let devices = client.addressable_devices();
        Ok(Self { client, mesh, devices })
    }

    /// The mesh.
    pub(super) const fn mesh(&self) -> MeshShape {
        self.mesh
    }

    /// Devices that the plugin has.
    pub(super) fn available(&self) -> usize {
        self.devices.len()
    }

    /// Name and version of the platform.
    pub(super) fn platform(&self) -> (&str, &str) {
        (self.client.platform_name(), self.client.platform_version())
    }

    /// Compiles a program for the mesh.
    ///
    /// # Errors
    /// If XLA refuses it.
    pub(super) fn compile(&self, module: &Module) -> Result<Program, PjrtError> {
        let partitions = devices(self.mesh);
        let ids: Vec<i64> = self.devices[..partitions].iter().map(Device::id).collect();
        let options = CompileOptions { partitions, device_ids: ids.clone(), overrides: Vec::new() };
        let executable = self.client.compile(&module.text(), &options)?;
        let place = |device: &Device| ids.iter().position(|&id| id == device.id());
        let order = executable.addressable_devices().iter().filter_map(place).collect();
        Ok(Program { executable, order })
    }

    /// Lays a tensor over the mesh; every device gets its piece.
    ///
    /// # Errors
    /// If a device has no room for it.
    pub(super) fn place<T: Element>(
        &self,
        values: &[T],
        dims: &[usize],
        sharding: &Sharding,
    ) -> Result<Spread, PjrtError> {
        if sharding.is_replicated() {
            return self.place_pieces(|_| (dims.to_vec(), values.to_vec()));
        }
        self.place_pieces(|device| {
            let ranges = piece(self.mesh, device, dims, sharding);
            let mut own = Vec::with_capacity(ranges.iter().map(ExactSizeIterator::len).product());
            runs(dims, &ranges, |from, _, n| own.extend_from_slice(&values[from..from + n]));
            (ranges.iter().map(ExactSizeIterator::len).collect(), own)
        })
    }

    /// As [`Session::place`], of pieces that are made one at a time.
    pub(super) fn place_pieces<T: Element>(
        &self,
        mut of_device: impl FnMut(usize) -> (Vec<usize>, Vec<T>),
    ) -> Result<Spread, PjrtError> {
        (0..devices(self.mesh))
            .map(|device| {
                let (dims, values) = of_device(device);
                self.client.upload(&self.devices[device], &values, &dims)
            })
            .collect()
    }

    /// Puts a tensor together again.
    ///
    /// # Errors
    /// If a piece cannot be fetched.
    pub(super) fn fetch<T: Element + Default>(
        &self,
        spread: &[Buffer],
        dims: &[usize],
        sharding: &Sharding,
    ) -> Result<Vec<T>, PjrtError> {
        if sharding.is_replicated() {
            return spread[0].download();
        }
        let mut whole = vec![T::default(); dims.iter().product()];
        for (device, buffer) in spread.iter().enumerate() {
            let values: Vec<T> = buffer.download()?;
            let ranges = piece(self.mesh, device, dims, sharding);
            runs(dims, &ranges, |to, from, n| {
                whole[to..to + n].copy_from_slice(&values[from..from + n]);
            });
        }
        Ok(whole)
    }
}

impl Program {
    /// Runs the program; arguments and results are in the order of its text.
    ///
    /// # Errors
    /// If a device fails.
    pub(super) fn run(&self, arguments: &[&[Buffer]]) -> Result<Vec<Spread>, PjrtError> {
        let by_device: Vec<Vec<&Buffer>> = self
            .order
            .iter()
            .map(|&device| arguments.iter().map(|spread| &spread[device]).collect())
            .collect();
        let mut by_place: Vec<(usize, Vec<Buffer>)> =
            self.order.iter().copied().zip(self.executable.execute(&by_device)?).collect();
        by_place.sort_by_key(|&(device, _)| device);
        let mut results: Vec<Spread> = Vec::new();
        for (_, of_device) in by_place {
            results.resize_with(of_device.len().max(results.len()), Vec::new);
            for (spread, buffer) in results.iter_mut().zip(of_device) {
                spread.push(buffer);
            }
        }
        Ok(results)
    }
}
