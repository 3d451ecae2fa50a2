//! cuDNN's functions, from the library that was found.
//!
//! cudarc would look for `libcudnn.so` by name, and take a system's old copy although a newer one was
//! named or lies in the active Python environment. Its types are used here, its search is not.

use crate::{CudaError, Library};
use cudarc::cudnn::sys::{
    cudaStream_t, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Kind,
    cudnnBackendDescriptor_t as Raw, cudnnBackendDescriptorType_t as What, cudnnHandle_t as Handle,
    cudnnStatus_t as Status,
};
use std::{
    ffi::{c_char, c_void},
    sync::OnceLock,
};

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident: $symbol:ident($($argument:ty),*) -> $result:ty;)+) => {
        /// Pointers to the functions that are used. The library stays loaded.
        #[derive(Debug)]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)+
        }

        impl Functions {
            fn of(library: &libloading::os::unix::Library) -> Result<Self, CudaError> {
                // SAFETY: the types are those of cuDNN 9's headers.
                unsafe {
                    Ok(Self {
                        $($name: *library
                            .get(concat!(stringify!($symbol), "\0").as_bytes())
                            .map_err(|_| missing(stringify!($symbol)))?,)+
                    })
                }
            }
        }
    };
}

functions! {
    version: cudnnGetVersion() -> usize;
    create: cudnnCreate(*mut Handle) -> Status;
    set_stream: cudnnSetStream(Handle, cudaStream_t) -> Status;
    destroy: cudnnDestroy(Handle) -> Status;
    last_error: cudnnGetLastErrorString(*mut c_char, usize) -> ();
    create_descriptor: cudnnBackendCreateDescriptor(What, *mut Raw) -> Status;
    destroy_descriptor: cudnnBackendDestroyDescriptor(Raw) -> Status;
    set_attribute: cudnnBackendSetAttribute(Raw, Name, Kind, i64, *const c_void) -> Status;
    get_attribute: cudnnBackendGetAttribute(Raw, Name, Kind, i64, *mut i64, *mut c_void) -> Status;
    finish: cudnnBackendFinalize(Raw) -> Status;
    execute: cudnnBackendExecute(Handle, Raw, Raw) -> Status;
}

fn missing(symbol: &str) -> CudaError {
    CudaError::Library {
        call: "opening cuDNN",
        status: format!("it has no {symbol}: it is older than 9.0"),
    }
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Finds cuDNN.
pub(super) fn open() -> Result<&'static Functions, CudaError> {
    if let Some(known) = FUNCTIONS.get() {
        return Ok(known);
    }
    let found = Functions::of(Library::Cudnn.load()?)?;
    Ok(FUNCTIONS.get_or_init(|| found))
}

/// The functions, where something of cuDNN's is in hand already.
pub(super) fn cudnn() -> &'static Functions {
    FUNCTIONS.get().expect("cuDNN was opened before")
}
