//! What the processes of one program tell each other while their clients are made.

use crate::ErrorCode;
use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};
use thiserror::Error;

/// A store that all processes of a program share. Plugins call it from threads of their own.
pub trait KeyValueStore: Send + Sync {
    /// Sets a value, in place of one that was there.
    ///
    /// # Errors
    /// If the store cannot be reached.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Waits until the key is there, at most for `timeout`.
    ///
    /// # Errors
    /// [`ErrorCode::DeadlineExceeded`] if it does not come, or if the store cannot be reached.
    fn get(&self, key: &[u8], timeout: Duration) -> Result<Vec<u8>, StoreError>;

    /// The value, if it is there now.
    ///
    /// # Errors
    /// If the store cannot be reached.
    fn try_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct StoreError {
    /// The kind, by which the plugin decides what to do.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
}

impl StoreError {
    /// An error of that kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A store within one process: what a process that is alone needs, and what a shared store serves
/// the others from.
#[derive(Debug, Default)]
pub struct MemoryStore {
    values: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    changed: Condvar,
}

impl MemoryStore {
    /// Takes a value out, if it is there.
    pub fn remove(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }
}

impl KeyValueStore for MemoryStore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        // A panic between two calls of a map cannot leave it half changed.
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(key.to_vec(), value.to_vec());
        self.changed.notify_all();
        Ok(())
    }

    fn get(&self, key: &[u8], timeout: Duration) -> Result<Vec<u8>, StoreError> {
        let end = Instant::now().checked_add(timeout);
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = values.get(key) {
                return Ok(value.clone());
            }
            let Some(end) = end else {
                values = self.changed.wait(values).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let key = String::from_utf8_lossy(key);
                let message = format!("no process set {key} within {timeout:?}");
                return Err(StoreError::new(ErrorCode::DeadlineExceeded, message));
            }
            values =
                self.changed.wait_timeout(values, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn try_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(values.get(key).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_value_that_is_set_later_is_waited_for() {
        let store = MemoryStore::default();
        assert_eq!(store.try_get(b"a").expect("reachable"), None);
        let value = thread::scope(|scope| {
            let waiting = scope.spawn(|| store.get(b"a", Duration::from_mins(1)));
            store.put(b"b", b"other").expect("reachable");
            store.put(b"a", b"\0one").expect("reachable");
            waiting.join().expect("no panic")
        });
        assert_eq!(value.expect("set in time"), b"\0one");
        store.put(b"a", b"two").expect("reachable");
        assert_eq!(store.get(b"a", Duration::MAX).expect("there"), b"two");
        assert_eq!(store.remove(b"a").as_deref(), Some(&b"two"[..]));
        assert_eq!(store.remove(b"a"), None);
    }

    #[test]
    fn a_value_that_never_comes_is_an_error_that_names_the_key() {
        let store = MemoryStore::default();
        let error = store.get(b"topology/1", Duration::from_millis(1)).expect_err("not set");
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
        assert!(error.message.contains("topology/1"), "{error}");
    }
}
