//! The callbacks by which a plugin reaches a [`KeyValueStore`].

use super::layout::{
    CallbackError, ErrorObject, Given, KeyValueGet, KeyValuePut, KeyValueTryGet, Text,
};
use super::read;
use crate::{ErrorCode, KeyValueStore, StoreError};
use std::{
    ffi::{c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::Arc,
    time::Duration,
};

/// What the callbacks find behind their `user_arg`: it has to stay where it is, and to outlive the
/// client.
pub(super) struct Callbacks(Arc<dyn KeyValueStore>);

impl Callbacks {
    pub(super) fn new(store: Arc<dyn KeyValueStore>) -> Self {
        Self(store)
    }

    pub(super) fn user(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// Gives a value away in memory that [`free`] can find the size of: it stands before the value.
fn give(value: &[u8]) -> Given {
    let mut block = Vec::with_capacity(size_of::<usize>() + value.len());
    block.extend_from_slice(&value.len().to_ne_bytes());
    block.extend_from_slice(value);
    let start = Box::into_raw(block.into_boxed_slice()).cast::<c_char>();
    Given {
        // SAFETY: the block has at least the bytes of the size.
        value: unsafe { start.add(size_of::<usize>()) },
        len: value.len(),
        deleter: Some(free),
    }
}

/// Frees what [`give`] gave.
///
/// # Safety
/// `value` came from [`give`] and was not freed before.
unsafe extern "C" fn free(value: *mut c_char) {
    if value.is_null() {
        return;
    }
    // SAFETY: `give` put the size before the value, in one block of that size that was a box.
    unsafe {
        let start = value.cast::<u8>().sub(size_of::<usize>());
        let len = start.cast::<usize>().read_unaligned();
        let block = ptr::slice_from_raw_parts_mut(start, size_of::<usize>() + len);
        drop(Box::from_raw(block));
    }
}

/// Runs what a callback does; a failure or a panic becomes an error object of the plugin.
///
/// # Safety
/// `error` points to the plugin's function for making errors, or is null.
unsafe fn answer(
    error: *mut CallbackError,
    work: impl FnOnce() -> Result<(), StoreError>,
) -> *mut ErrorObject {
    // A panic must not pass through the plugin's frames. Whatever it left behind is behind the
    // store's own locks, which are poisoned then.
    let done = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::new(ErrorCode::Internal, "the store panicked")));
    let Err(failure) = done else { return ptr::null_mut() };
    let message = failure.to_string();
    if error.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise; the function copies the message.
    unsafe { (*error)(failure.code.number(), message.as_ptr().cast(), message.len()) }
}

/// The store behind `user`, and the key.
///
/// # Safety
/// `user` came from [`Callbacks::user`] of a box that is alive; the key is alive.
unsafe fn opened<'a>(user: *mut c_void, key: Text) -> (&'a dyn KeyValueStore, Vec<u8>) {
    // SAFETY: the caller's promise.
    unsafe { (&*(*user.cast::<Callbacks>()).0, read::bytes(key)) }
}

/// `PJRT_KeyValueGetCallback`.
pub(super) unsafe extern "C" fn get(args: *mut KeyValueGet) -> *mut ErrorObject {
    // SAFETY: the plugin calls this with arguments of this layout, and with the `user_arg` that it
    // got at the creation of the client, which is alive.
    unsafe {
        let args = &mut *args;
        let error = args.error;
        answer(error, || {
            let (store, key) = opened(args.user, args.key);
            // A negative time means to wait for ever.
            let timeout =
                u64::try_from(args.timeout_ms.value).map_or(Duration::MAX, Duration::from_millis);
            args.given = give(&store.get(&key, timeout)?);
            Ok(())
        })
    }
}

/// `PJRT_KeyValueTryGetCallback`.
pub(super) unsafe extern "C" fn try_get(args: *mut KeyValueTryGet) -> *mut ErrorObject {
    // SAFETY: as in `get`.
    unsafe {
        let args = &mut *args;
        let error = args.error;
        answer(error, || {
            let (store, key) = opened(args.user, args.key);
            let value = store.try_get(&key)?.ok_or_else(|| {
                let key = String::from_utf8_lossy(&key);
                StoreError::new(ErrorCode::NotFound, format!("there is no key {key}"))
            })?;
            args.given = give(&value);
            Ok(())
        })
    }
}

/// `PJRT_KeyValuePutCallback`.
pub(super) unsafe extern "C" fn put(args: *mut KeyValuePut) -> *mut ErrorObject {
    // SAFETY: as in `get`.
    unsafe {
        let args = &mut *args;
        let error = args.error;
        answer(error, || {
            let (store, key) = opened(args.user, args.key);
            store.put(&key, &read::bytes(args.value))
        })
    }
}
