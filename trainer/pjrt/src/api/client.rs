//! Clients and their devices.

use super::functions as f;
use super::given::{Options, program};
use super::layout::{
    ClientCompile, ClientCreate, ClientObject, DescriptionObject, DeviceObject, Head, Int, Span,
    Upload,
};
use super::owned::{NOTHING, Owned, ask, characters, span};
use super::store::{self, Callbacks};
use super::{Api, OwnedBuffer, OwnedLoaded, Plain, read};
use crate::{KeyValueStore, OptionValue, PjrtError};
use std::{
    ffi::c_int,
    ptr::{self, NonNull},
    sync::Arc,
};

/// A device of a client; usable as long as the client is alive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DevicePointer(pub(super) NonNull<DeviceObject>);

// SAFETY: only an address here; calls with it are allowed from any thread.
unsafe impl Send for DevicePointer {}
// SAFETY: as above.
unsafe impl Sync for DevicePointer {}

/// What is known about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) id: i64,
    pub(crate) process_index: i64,
    pub(crate) kind: String,
}

/// Reads a description. For this module only: its owner has to be alive.
pub(super) fn described(
    api: &Api,
    subject: *mut DescriptionObject,
) -> Result<Described, PjrtError> {
    let zero = Int { value: 0, spare: 0 };
    Ok(Described {
        id: ask(api, f::DESCRIPTION_ID, subject, zero)?.value.into(),
        process_index: ask(api, f::DESCRIPTION_PROCESS, subject, zero)?.value.into(),
        // SAFETY: the text lives as long as the description, which is alive.
        kind: unsafe { read::text(ask(api, f::DESCRIPTION_KIND, subject, NOTHING)?) },
    })
}

/// A client, with the store that its plugin may call as long as it is alive.
pub(crate) struct OwnedClient {
    // Dropped first: the plugin must be done before its callbacks lose their store.
    client: Owned<ClientObject>,
    _callbacks: Option<Box<Callbacks>>,
}

impl OwnedClient {
    pub(crate) fn create(
        api: &Arc<Api>,
        options: &[(String, OptionValue)],
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Self, PjrtError> {
        let options = Options::new(options);
        let callbacks = store.map(|store| Box::new(Callbacks::new(store)));
        let user = callbacks.as_ref().map_or(ptr::null_mut(), |callbacks| callbacks.user());
        let mut args = ClientCreate {
            head: Head::EMPTY,
            options: options.span(),
            get: callbacks.is_some().then_some(store::get),
            get_user: user,
            put: callbacks.is_some().then_some(store::put),
            put_user: user,
            client: ptr::null_mut(),
            try_get: callbacks.is_some().then_some(store::try_get),
            try_get_user: user,
        };
        // SAFETY: the options outlive the call, and the callbacks the client.
        unsafe { api.call(f::CLIENT_CREATE, &mut args)? };
        let client = Owned::new(api, args.client, f::CLIENT_CREATE.name)?;
        Ok(Self { client, _callbacks: callbacks })
    }

    pub(crate) fn platform_name(&self) -> Result<String, PjrtError> {
        self.client.text(f::CLIENT_PLATFORM_NAME)
    }

    pub(crate) fn platform_version(&self) -> Result<String, PjrtError> {
        self.client.text(f::CLIENT_PLATFORM_VERSION)
    }

    pub(crate) fn process_index(&self) -> Result<i64, PjrtError> {
        let zero = Int { value: 0, spare: 0 };
        Ok(self.client.ask(f::CLIENT_PROCESS_INDEX, zero)?.value.into())
    }

    /// All devices, with those among them that this process can use.
    pub(crate) fn devices(&self) -> Result<Vec<(DevicePointer, Described, bool)>, PjrtError> {
        let own = self.client.list(f::CLIENT_ADDRESSABLE)?;
        let all = self.client.list(f::CLIENT_DEVICES)?;
        let api = &self.client.api;
        all.into_iter()
            .map(|device| {
                let description = ask(api, f::DEVICE_DESCRIPTION, device, ptr::null_mut())?;
                let pointer = NonNull::new(device)
                    .ok_or_else(|| api.broken(f::CLIENT_DEVICES.name, "gives a null device"))?;
                Ok((DevicePointer(pointer), described(api, description)?, own.contains(&device)))
            })
            .collect()
    }

    pub(crate) fn compile(&self, text: &str, options: &[u8]) -> Result<OwnedLoaded, PjrtError> {
        let program = program(text);
        let mut args = ClientCompile {
            head: Head::EMPTY,
            client: self.client.pointer.as_ptr(),
            program: &raw const program,
            options: characters(options),
            executable: ptr::null_mut(),
        };
        // SAFETY: the client is alive; program and options outlive the call.
        unsafe { self.client.api.call(f::CLIENT_COMPILE, &mut args)? };
        Owned::new(&self.client.api, args.executable, f::CLIENT_COMPILE.name)
    }

    /// Copies host memory to a device of this client. `data` fills `dims` with elements of that
    /// type, as the caller has seen to.
    pub(crate) fn upload<R: Plain>(
        &self,
        device: DevicePointer,
        element: c_int,
        data: &[R],
        dims: &[i64],
    ) -> Result<OwnedBuffer, PjrtError> {
        let mut args = Upload {
            head: Head::EMPTY,
            client: self.client.pointer.as_ptr(),
            data: data.as_ptr().cast(),
            element: Int { value: element, spare: 0 },
            dims: span(dims),
            byte_strides: Span { start: ptr::null(), len: 0 },
            // Unchanged until the transfer is done, which is waited for below.
            semantics: Int { value: 1, spare: 0 },
            device: device.0.as_ptr(),
            memory: ptr::null_mut(),
            device_layout: ptr::null_mut(),
            done_with_host: ptr::null_mut(),
            buffer: ptr::null_mut(),
        };
        let api = &self.client.api;
        // SAFETY: client and device are alive, and data and dims stay borrowed until the event says
        // that nobody reads them any more.
        unsafe {
            api.call(f::CLIENT_UPLOAD, &mut args)?;
            let buffer = Owned::new(api, args.buffer, f::CLIENT_UPLOAD.name);
            api.finish(args.done_with_host).and(buffer)
        }
    }
}
