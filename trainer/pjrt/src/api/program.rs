//! Compiled programs, and the devices that are not here for which they can be compiled.

use super::client::{Described, DevicePointer, described};
use super::functions as f;
use super::given::{Options, program};
use super::layout::{
    BufferObject, Cost, EventObject, ExecutableObject, Execute, ExecuteOptions, Head, Int,
    LoadedObject, Memory, Padded, Serialize, Span, TopologyCompile, TopologyCreate, TopologyObject,
};
use super::owned::{NOTHING, Owned, characters};
use super::{Api, OwnedBuffer, read};
use crate::{OptionValue, PjrtError};
use std::{
    ptr::{self, NonNull},
    sync::Arc,
};

pub(crate) type OwnedLoaded = Owned<LoadedObject>;

impl OwnedLoaded {
    pub(crate) fn executable(&self) -> Result<OwnedExecutable, PjrtError> {
        let function = f::LOADED_EXECUTABLE;
        Owned::new(&self.api, self.ask(function, ptr::null_mut())?, function.name)
    }

    pub(crate) fn devices(&self) -> Result<Vec<DevicePointer>, PjrtError> {
        let none = || self.api.broken(f::LOADED_ADDRESSABLE.name, "gives a null device");
        self.list(f::LOADED_ADDRESSABLE)?
            .into_iter()
            .map(|device| NonNull::new(device).map(DevicePointer).ok_or_else(none))
            .collect()
    }

    /// Runs the program and waits for it: for each device the arguments, then the outputs. The
    /// lists of arguments are equally long, and there are as many as devices; the caller has seen
    /// to that.
    pub(crate) fn execute(
        &self,
        arguments: &[Vec<&OwnedBuffer>],
        outputs: usize,
    ) -> Result<Vec<Vec<OwnedBuffer>>, PjrtError> {
        let arguments: Vec<Vec<*mut BufferObject>> = arguments
            .iter()
            .map(|list| list.iter().map(|buffer| buffer.pointer.as_ptr()).collect())
            .collect();
        let lists: Vec<*const *mut BufferObject> = arguments.iter().map(Vec::as_ptr).collect();
        let mut produced = vec![vec![ptr::null_mut::<BufferObject>(); outputs]; arguments.len()];
        let produced_lists: Vec<*mut *mut BufferObject> =
            produced.iter_mut().map(Vec::as_mut_ptr).collect();
        let mut events = vec![ptr::null_mut::<EventObject>(); arguments.len()];
        let mut options = Padded::new(ExecuteOptions {
            head: Head::sized(size_of::<Padded<ExecuteOptions>>()),
            send_callbacks: ptr::null_mut(),
            receive_callbacks: ptr::null_mut(),
            sends: 0,
            receives: 0,
            launch: Int { value: 0, spare: 0 },
            not_donated: Span { start: ptr::null(), len: 0 },
            context: ptr::null_mut(),
            call_location: ptr::null(),
            tasks: [0; 3],
        });
        let mut args = Execute {
            head: Head::EMPTY,
            executable: self.pointer.as_ptr(),
            options: &raw mut options,
            arguments: lists.as_ptr(),
            devices: arguments.len(),
            arguments_len: arguments.first().map_or(0, Vec::len),
            outputs: produced_lists.as_ptr(),
            complete: events.as_mut_ptr(),
            device: ptr::null_mut(),
        };
        let function = f::LOADED_EXECUTE;
        // SAFETY: every list has the length that is told, all objects are alive, and the program
        // has `outputs` outputs, as the plugin said itself.
        unsafe { self.api.call(function, &mut args)? };
        // Every output is taken over and every device waited for before any error is returned:
        // nothing may leak, and no program may run on after its inputs are dropped.
        let taken: Vec<Vec<Result<OwnedBuffer, PjrtError>>> = produced
            .into_iter()
            .map(|list| {
                list.into_iter()
                    .map(|buffer| Owned::new(&self.api, buffer, function.name))
                    .collect()
            })
            .collect();
        let waited: Vec<Result<(), PjrtError>> = events
            .into_iter()
            // SAFETY: the events came from this call and are ours.
            .map(|event| unsafe { self.api.finish(event) })
            .collect();
        waited.into_iter().collect::<Result<(), _>>()?;
        taken.into_iter().map(|list| list.into_iter().collect()).collect()
    }
}

pub(crate) type OwnedExecutable = Owned<ExecutableObject>;

impl OwnedExecutable {
    pub(crate) fn outputs(&self) -> Result<usize, PjrtError> {
        self.ask(f::EXECUTABLE_OUTPUTS, 0)
    }

    pub(crate) fn fingerprint(&self) -> Result<Vec<u8>, PjrtError> {
        // SAFETY: the fingerprint lives as long as the executable, which is alive.
        Ok(unsafe { read::bytes(self.ask(f::EXECUTABLE_FINGERPRINT, NOTHING)?) })
    }

    /// Ten sizes and the peak, as [`Memory`] has them.
    pub(crate) fn memory(&self) -> Result<([i64; 10], i64), PjrtError> {
        let executable = self.pointer.as_ptr();
        let mut args = Memory { head: Head::EMPTY, executable, sizes: [0; 10], peak: 0 };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(f::EXECUTABLE_MEMORY, &mut args)? };
        Ok((args.sizes, args.peak))
    }

    pub(crate) fn cost(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        let executable = self.pointer.as_ptr();
        let mut args = Cost { head: Head::EMPTY, executable, len: 0, start: ptr::null() };
        // SAFETY: the executable is alive, and its properties live as long.
        unsafe {
            self.api.call(f::EXECUTABLE_COST, &mut args)?;
            Ok(read::named_values(Span { start: args.start, len: args.len }))
        }
    }

    pub(crate) fn serialize(&self) -> Result<Vec<u8>, PjrtError> {
        let mut args = Serialize {
            head: Head::EMPTY,
            executable: self.pointer.as_ptr(),
            bytes: NOTHING,
            serialized: ptr::null_mut(),
            deleter: None,
        };
        // SAFETY: the executable is alive; the bytes are copied before their owner is freed.
        unsafe {
            self.api.call(f::EXECUTABLE_SERIALIZE, &mut args)?;
            let bytes = read::bytes(args.bytes);
            if let Some(delete) = args.deleter {
                delete(args.serialized);
            }
            Ok(bytes)
        }
    }
}

pub(crate) type OwnedTopology = Owned<TopologyObject>;

impl OwnedTopology {
    pub(crate) fn create(
        api: &Arc<Api>,
        name: &str,
        options: &[(String, OptionValue)],
    ) -> Result<Self, PjrtError> {
        let options = Options::new(options);
        let mut args = TopologyCreate {
            head: Head::EMPTY,
            name: characters(name.as_bytes()),
            options: options.span(),
            topology: ptr::null_mut(),
        };
        // SAFETY: name and options outlive the call.
        unsafe { api.call(f::TOPOLOGY_CREATE, &mut args)? };
        Self::new(api, args.topology, f::TOPOLOGY_CREATE.name)
    }

    pub(crate) fn devices(&self) -> Result<Vec<Described>, PjrtError> {
        let all = self.list(f::TOPOLOGY_DEVICES)?;
        all.into_iter().map(|device| described(&self.api, device)).collect()
    }

    pub(crate) fn attributes(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        let span = self.ask(f::TOPOLOGY_ATTRIBUTES, Span { start: ptr::null(), len: 0 })?;
        // SAFETY: the attributes live as long as the topology, which is alive.
        Ok(unsafe { read::named_values(span) })
    }

    pub(crate) fn compile(&self, text: &str, options: &[u8]) -> Result<OwnedExecutable, PjrtError> {
        let program = program(text);
        let mut args = TopologyCompile {
            head: Head::EMPTY,
            topology: self.pointer.as_ptr(),
            program: &raw const program,
            options: characters(options),
            client: ptr::null_mut(),
            executable: ptr::null_mut(),
        };
        // SAFETY: the topology is alive; program and options outlive the call.
        unsafe { self.api.call(f::TOPOLOGY_COMPILE, &mut args)? };
        Owned::new(&self.api, args.executable, f::TOPOLOGY_COMPILE.name)
    }
}
