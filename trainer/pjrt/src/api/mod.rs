//! The one place that calls foreign code: the table of a plugin, and objects that free themselves.
//!
//! Above this module everything is safe Rust. What makes it so: an [`Owned`] is valid as long as it
//! lives, objects that depend on others hold them, and every pointer that a plugin gives is read
//! before the object that owns its memory can go.

mod buffer;
mod client;
mod functions;
mod given;
mod layout;
mod owned;
mod program;
mod read;
mod store;

use crate::error::{ErrorCode, PjrtError, PluginName, name};
pub(crate) use buffer::{OwnedBuffer, Plain};
pub(crate) use client::{Described, DevicePointer, OwnedClient};
use functions::{ERROR_CODE, ERROR_DESTROY, ERROR_MESSAGE, EVENT_AWAIT, EVENT_DESTROY};
use functions::{PLUGIN_ATTRIBUTES, PLUGIN_INITIALIZE};
use layout::{
    Args, Attributes, ErrorObject, EventObject, Function, Head, Int, Nothing, Padded, Query, Span,
    Subject,
};
pub(crate) use program::{OwnedExecutable, OwnedLoaded, OwnedTopology};
use std::{
    ffi::{c_int, c_void},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
};

/// Where the functions begin in the table: after its size, the extensions and the version.
const FIRST_FUNCTION: usize = 40;

/// What stands before the functions in a plugin's table.
#[repr(C)]
struct TableHead {
    struct_size: usize,
    extension: *mut c_void,
    version_head: Head,
    major: c_int,
    minor: c_int,
}

/// The table of functions of a loaded plugin.
pub(crate) struct Api {
    table: NonNull<TableHead>,
    version: (i32, i32),
    path: PathBuf,
}

// SAFETY: the table is constant memory of a library that is never unloaded, and the API asks
// plugins to allow calls from any thread.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// Loads the library for good: plugins start threads and cannot be unloaded.
    pub(crate) fn load(path: &Path) -> Result<Self, PjrtError> {
        let no_plugin = |message: &str| PjrtError::NoPlugin {
            path: path.to_owned(),
            message: message.to_owned(),
        };
        // SAFETY: loading runs the library's initializers. That is what using a plugin means; the
        // user names the file or has installed it.
        let library = unsafe { libloading::Library::new(path) }
            .map_err(|e| PjrtError::Load { path: path.to_owned(), message: e.to_string() })?;
        // SAFETY: the symbol has this type in every version of the API.
        let table = unsafe {
            let get: libloading::Symbol<'_, unsafe extern "C" fn() -> *mut TableHead> = library
                .get(b"GetPjrtApi")
                .map_err(|_| no_plugin("it does not export GetPjrtApi"))?;
            get()
        };
        std::mem::forget(library);
        let table = NonNull::new(table).ok_or_else(|| no_plugin("GetPjrtApi gives nothing"))?;
        // SAFETY: the plugin gives a table; its head is the same in every version.
        let head = unsafe { table.as_ref() };
        if head.struct_size < FIRST_FUNCTION {
            return Err(no_plugin("its table of functions is too short"));
        }
        let api = Self { table, version: (head.major, head.minor), path: path.to_owned() };
        if api.version.0 != 0 {
            return Err(PjrtError::Version { plugin: api.name() });
        }
        // SAFETY: the argument has no pointers.
        unsafe { api.call(PLUGIN_INITIALIZE, &mut Nothing { head: Head::EMPTY })? };
        Ok(api)
    }

    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn name(&self) -> PluginName {
        name(&self.path, self.version)
    }

    /// The plugin's own attributes, which live as long as the process.
    pub(crate) fn attributes(&self) -> Result<Vec<(String, crate::OptionValue)>, PjrtError> {
        let out = Span { start: ptr::null(), len: 0 };
        let mut args = Attributes { head: Head::EMPTY, out };
        // SAFETY: nothing goes in, and what comes out lives as long as the process.
        unsafe {
            self.call(PLUGIN_ATTRIBUTES, &mut args)?;
            Ok(read::named_values(args.out))
        }
    }

    /// The function's address.
    fn address<A>(&self, function: Function<A>) -> Result<NonNull<c_void>, PjrtError> {
        let missing =
            || PjrtError::MissingFunction { plugin: self.name(), function: function.name };
        let offset = FIRST_FUNCTION + function.index * size_of::<usize>();
        // SAFETY: `load` has seen that there is a table with this head.
        if offset + size_of::<usize>() > unsafe { self.table.as_ref() }.struct_size {
            return Err(missing());
        }
        // SAFETY: the table has that many bytes, as it says itself, and is made of pointers.
        let address = unsafe { self.table.cast::<u8>().add(offset).cast::<*mut c_void>().read() };
        NonNull::new(address).ok_or_else(missing)
    }

    /// Calls a function, and turns the plugin's error into ours.
    ///
    /// # Safety
    /// Every pointer in the arguments is what the function wants.
    pub(crate) unsafe fn call<A: Args>(
        &self,
        function: Function<A>,
        args: &mut A,
    ) -> Result<(), PjrtError> {
        // SAFETY: the caller answers for the arguments; the return type is that of all functions
        // but two, which `raw` is called with directly.
        let error: *mut ErrorObject = unsafe { self.raw(function, args)? };
        NonNull::new(error).map_or(Ok(()), |error| Err(self.take(function.name, error)))
    }

    /// Calls a function whose C type returns `R`.
    ///
    /// # Safety
    /// As for [`Api::call`], and the function returns an `R`.
    unsafe fn raw<A: Args, R>(&self, function: Function<A>, args: &mut A) -> Result<R, PjrtError> {
        let address = self.address(function)?;
        // SAFETY: the table of functions says that this is the function's type.
        let call: unsafe extern "C" fn(*mut Padded<A>) -> R =
            unsafe { std::mem::transmute(address.as_ptr()) };
        let mut padded = Padded::new(*args);
        // SAFETY: `Args` promises that the structure begins with a head.
        unsafe {
            (&raw mut padded).cast::<Head>().write(Head::sized(size_of::<Padded<A>>()));
        }
        // SAFETY: the caller answers for what the arguments hold; their layout and size are the
        // function's own.
        let returned = unsafe { call(&raw mut padded) };
        *args = padded.args;
        Ok(returned)
    }

    /// Reads and frees an error of the plugin.
    fn take(&self, function: &'static str, error: NonNull<ErrorObject>) -> PjrtError {
        let subject = error.as_ptr();
        let nothing = Span { start: ptr::null(), len: 0 };
        let mut message = Query { head: Head::EMPTY, subject, out: nothing };
        let mut code = Query { head: Head::EMPTY, subject, out: Int { value: 2, spare: 0 } };
        // SAFETY: the error is alive until it is destroyed in the last line. The two functions that
        // give nothing back are those of the API that are declared so. Should a plugin lack one of
        // them, then the message stays empty or the error stays allocated.
        unsafe {
            let _ = self.raw::<_, ()>(ERROR_MESSAGE, &mut message);
            let _ = self.raw::<_, *mut ErrorObject>(ERROR_CODE, &mut code);
            let message = read::text(message.out);
            let _ = self.raw::<_, ()>(ERROR_DESTROY, &mut Subject { head: Head::EMPTY, subject });
            PjrtError::Plugin {
                plugin: self.name(),
                function,
                code: ErrorCode::from_number(code.out.value),
                message,
            }
        }
    }

    /// Waits for an event and frees it. None at all means that there is nothing to wait for.
    ///
    /// # Safety
    /// The event is one of this plugin's, and nobody else frees it.
    unsafe fn finish(&self, event: *mut EventObject) -> Result<(), PjrtError> {
        if event.is_null() {
            return Ok(());
        }
        let mut args = Subject { head: Head::EMPTY, subject: event };
        // SAFETY: the event is alive until it is destroyed.
        unsafe {
            let done = self.call(EVENT_AWAIT, &mut args);
            let destroyed = self.call(EVENT_DESTROY, &mut args);
            done.and(destroyed)
        }
    }

    /// For a plugin that broke the rules of its own API.
    fn broken(&self, function: &'static str, message: impl Into<String>) -> PjrtError {
        PjrtError::Broken { plugin: self.name(), function, message: message.into() }
    }
}

#[cfg(test)]
mod tests;
