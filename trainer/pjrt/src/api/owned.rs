//! Objects of a plugin, which are freed when they are dropped.

use super::functions as f;
use super::layout::{
    BufferObject, ClientObject, ExecutableObject, Function, Head, LoadedObject, Query, Span,
    Subject, Text, TopologyObject,
};
use super::{Api, read};
use crate::PjrtError;
use std::{
    ptr::{self, NonNull},
    sync::Arc,
};

/// An object that has to be destroyed by the plugin.
pub(crate) trait Destroy: Sized + 'static {
    const DESTROY: Function<Subject<Self>>;
}

macro_rules! destroy {
    ($($object:ty: $function:ident),*) => { $(
        impl Destroy for $object {
            const DESTROY: Function<Subject<Self>> = f::$function;
        }
    )* };
}
destroy!(ClientObject: CLIENT_DESTROY, BufferObject: BUFFER_DESTROY, LoadedObject: LOADED_DESTROY);
destroy!(ExecutableObject: EXECUTABLE_DESTROY, TopologyObject: TOPOLOGY_DESTROY);

/// An object of a plugin that is ours. It is valid as long as this is alive.
pub(crate) struct Owned<T: Destroy> {
    pub(super) api: Arc<Api>,
    pub(super) pointer: NonNull<T>,
}

// SAFETY: the C API asks plugins to allow calls on any object from any thread.
unsafe impl<T: Destroy> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Destroy> Sync for Owned<T> {}

impl<T: Destroy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object is ours and is not used afterwards. An error changes nothing here.
        let _ = unsafe { self.api.call(T::DESTROY, &mut self.subject()) };
    }
}

impl<T: Destroy> Owned<T> {
    /// Takes over what a function gave.
    pub(super) fn new(
        api: &Arc<Api>,
        pointer: *mut T,
        function: &'static str,
    ) -> Result<Self, PjrtError> {
        let pointer = NonNull::new(pointer).ok_or_else(|| api.broken(function, "gives nothing"))?;
        Ok(Self { api: Arc::clone(api), pointer })
    }

    fn subject(&self) -> Subject<T> {
        Subject { head: Head::EMPTY, subject: self.pointer.as_ptr() }
    }

    pub(super) fn ask<O: Copy>(
        &self,
        function: Function<Query<T, O>>,
        empty: O,
    ) -> Result<O, PjrtError> {
        ask(&self.api, function, self.pointer.as_ptr(), empty)
    }

    pub(super) fn text(&self, function: Function<Query<T, Text>>) -> Result<String, PjrtError> {
        // SAFETY: the text lives as long as the object, which is alive.
        Ok(unsafe { read::text(self.ask(function, NOTHING)?) })
    }

    pub(super) fn list<E: Copy>(
        &self,
        function: Function<Query<T, Span<E>>>,
    ) -> Result<Vec<E>, PjrtError> {
        // SAFETY: the list lives as long as the object, which is alive.
        Ok(unsafe { read::list(self.ask(function, Span { start: ptr::null(), len: 0 })?) })
    }
}

pub(super) const NOTHING: Text = Span { start: ptr::null(), len: 0 };

/// Asks an object one question. For this module only: the subject has to be alive.
pub(super) fn ask<T, O: Copy>(
    api: &Api,
    function: Function<Query<T, O>>,
    subject: *mut T,
    empty: O,
) -> Result<O, PjrtError> {
    let mut query = Query { head: Head::EMPTY, subject, out: empty };
    // SAFETY: every caller in `api` passes an object that is alive.
    unsafe { api.call(function, &mut query)? };
    Ok(query.out)
}

pub(super) fn span<T>(values: &[T]) -> Span<T> {
    Span { start: values.as_ptr(), len: values.len() }
}

pub(super) fn characters(bytes: &[u8]) -> Text {
    Span { start: bytes.as_ptr().cast(), len: bytes.len() }
}
