//! A plugin, its devices, and the programs compiled for them.
//!
//! The mesh may span several processes. Every process then holds the buffers of its own devices only;
//! the places of the mesh are handed out process by process, in the order of the devices' ids, so that
//! a process has neighbouring places.

use super::{
    Processes,
    mesh::{devices, piece, runs},
    rehearsal,
};
use crate::engine::EngineError;
use coda_hlo::{Module, Sharding};
use coda_manifests::MeshShape;
use coda_pjrt::{
    Buffer, Client, ClientOptions, CompileOptions, Device, Element, Executable, OptionValue,
    PjrtError, Plugin, PluginKind,
};
use std::{ops::Range, path::Path};

/// A tensor on the devices of a mesh: one buffer for each that this process has, in the order of the
/// mesh.
pub(super) type Spread = Vec<Buffer>;

/// The devices of a mesh behind a plugin.
pub(super) struct Session {
    client: Client,
    mesh: MeshShape,
    /// The devices of the mesh, those of other processes too.
    devices: Vec<Device>,
    processes: Processes,
}

/// A compiled program.
pub(super) struct Program {
    executable: Executable,
    /// For every device of the executable, in its order, which of the mesh it is.
    order: Vec<usize>,
}

impl Session {
    /// Loads a plugin and takes as many devices as the mesh has, those of all processes together.
    ///
    /// # Errors
    /// If the plugin cannot be loaded, or its devices are not those of the mesh.
    pub(super) fn open(
        plugin: &Path,
        mesh: MeshShape,
        processes: Processes,
    ) -> Result<Self, EngineError> {
        let wanted = devices(mesh);
        let count = processes.count();
        if !wanted.is_multiple_of(count) {
            return Err(EngineError::Mesh(format!(
                "{wanted} devices cannot be shared out over {count} processes"
            )));
        }
        let of_a_process = wanted / count;
        if count > 1 && !of_a_process.is_multiple_of(mesh.tensor as usize) {
            return Err(EngineError::Mesh(format!(
                "tensor={} does not divide the {of_a_process} devices of a process: its devices share \
                 their rows",
                mesh.tensor
            )));
        }
        let plugin = Plugin::load(plugin)?;
        let kind = kind_of(plugin.path());
        let mut options = ClientOptions::default();
        if !processes.rehearse {
            options.options = processes.group.launch().client_options(kind);
            options.store = (count > 1).then(|| processes.group.store());
        }
        // A CPU plugin has as many devices as it is asked for; others do not know the option.
        if kind == PluginKind::Cpu {
            let own = if processes.rehearse { wanted } else { of_a_process };
            let own = OptionValue::Int(i64::try_from(own).expect("a number of devices"));
            options.options.push(("cpu_device_count".to_owned(), own));
        }
        let client = Client::new(&plugin, &options)?;
        let mut found = client.devices();
        found.sort_by_key(|device| (device.process_index(), device.id()));
        if count > 1 && !processes.rehearse {
            check_processes(&found, wanted, of_a_process, count)?;
        } else if wanted > found.len() {
            return Err(EngineError::Mesh(format!(
                "data={} fsdp={} tensor={} are {wanted} devices, the plugin has {}",
                mesh.data,
                mesh.fsdp,
                mesh.tensor,
                found.len()
            )));
        }
        found.truncate(wanted);
        Ok(Self { client, mesh, devices: found, processes })
    }

    /// The mesh.
    pub(super) const fn mesh(&self) -> MeshShape {
        self.mesh
    }

    /// The processes that share it.
    pub(super) const fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Which places of the mesh a process has.
    pub(super) fn places_of(&self, process: usize) -> Range<usize> {
        let each = self.devices.len() / self.processes.count();
        process * each..(process + 1) * each
    }

    /// Which places of the mesh this process has.
    pub(super) fn own_places(&self) -> Range<usize> {
        self.places_of(self.processes.group.launch().process)
    }

    /// The buffers of a tensor with their places in the mesh.
    pub(super) fn placed<'a>(
        &self,
        spread: &'a [Buffer],
    ) -> impl Iterator<Item = (usize, &'a Buffer)> + use<'a> {
        self.own_places().zip(spread)
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
        let ids: Vec<i64> = self.devices.iter().map(Device::id).collect();
        let options = CompileOptions {
            partitions: ids.len(),
            device_ids: ids.clone(),
            overrides: Vec::new(),
        };
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
        self.own_places()
            .map(|place| {
                let (dims, values) = of_device(place);
                self.upload(place, &values, &dims)
            })
            .collect()
    }

    /// Copies elements to the device at a place of the mesh.
    pub(super) fn upload<T: Element>(
        &self,
        place: usize,
        values: &[T],
        dims: &[usize],
    ) -> Result<Buffer, PjrtError> {
        self.client.upload(&self.devices[place], values, dims)
    }

    /// Puts a tensor together again, as far as this process has it; the rest is 0.
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
        for (place, buffer) in self.placed(spread) {
            let values: Vec<T> = buffer.download()?;
            let ranges = piece(self.mesh, place, dims, sharding);
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
    /// If a device fails, or another process does.
    pub(super) fn run(
        &self,
        session: &Session,
        arguments: &[&[Buffer]],
    ) -> Result<Vec<Spread>, EngineError> {
        let own = session.own_places();
        let lent = if session.processes.rehearse {
            rehearsal::lend(session, arguments)?
        } else {
            Vec::new()
        };
        let of_place = |place: usize| -> Vec<&Buffer> {
            match place.checked_sub(own.start).filter(|at| *at < own.len()) {
                Some(at) => arguments.iter().map(|spread| &spread[at]).collect(),
                None => lent[place].iter().collect(),
            }
        };
        let by_device: Vec<Vec<&Buffer>> =
            self.order.iter().map(|&place| of_place(place)).collect();
        let mut by_place: Vec<(usize, Vec<Buffer>)> =
            self.order.iter().copied().zip(self.executable.execute(&by_device)?).collect();
        by_place.retain(|(place, _)| own.contains(place));
        by_place.sort_by_key(|&(place, _)| place);
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

/// What sort of plugin a file is, by its name.
fn kind_of(path: &Path) -> PluginKind {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let has = |word: &str| name.as_ref().is_some_and(|name| name.contains(word));
    match (has("cpu"), has("tpu"), has("cuda") || has("gpu")) {
        (true, ..) => PluginKind::Cpu,
        (_, true, _) => PluginKind::Tpu,
        (_, _, true) => PluginKind::Gpu,
        _ => PluginKind::Any,
    }
}

/// Refuses devices that are not the mesh's, as many of every process.
fn check_processes(
    found: &[Device],
    wanted: usize,
    of_a_process: usize,
    count: usize,
) -> Result<(), EngineError> {
    let mut of: Vec<i64> = found.iter().map(Device::process_index).collect();
    of.dedup();
    if of.len() != count {
        return Err(EngineError::Processes(format!(
            "the plugin shows the devices of {} of {count} processes, so it cannot run one program on \
             all of them",
            of.len()
        )));
    }
    let each = |process: &i64| {
        found.iter().filter(|device| device.process_index() == *process).count() == of_a_process
    };
    if of.iter().all(each) {
        return Ok(());
    }
    Err(EngineError::Mesh(format!(
        "the mesh has {wanted} devices, {of_a_process} of each of {count} processes; the plugin has \
         {}, and every one has to be used",
        found.len()
    )))
}
