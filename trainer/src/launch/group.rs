//! The processes of a run, once they have met.

use super::{Launch, LaunchError, RemoteStore, StoreServer};
use coda_pjrt::{KeyValueStore, MemoryStore};
use std::{
    net::{TcpListener, ToSocketAddrs},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// All processes of a run: which one this is, and the store that they share.
pub struct Group {
    launch: Launch,
    store: Arc<dyn KeyValueStore>,
    /// What process 0 serves. Dropped when it leaves the group; the others have passed the last barrier
    /// then.
    pub(super) served: Option<Served>,
    /// Rounds of [`Group::exchange`] and [`Group::gather`] so far.
    pub(super) rounds: AtomicU64,
}

/// The store where it lies, in process 0.
pub(super) struct Served {
    pub(super) store: Arc<MemoryStore>,
    pub(super) server: Option<StoreServer>,
}

impl Group {
    /// Serves the store as process 0, or connects to it, and waits until all have come.
    ///
    /// # Errors
    /// If process 0 cannot listen, or if not everybody comes within `timeout`.
    pub fn join(launch: Launch, timeout: Duration) -> Result<Self, LaunchError> {
        let Some(address) = launch.coordinator.clone() else {
            return Ok(Self::serving(launch, Arc::default(), None));
        };
        if launch.process == 0 {
            let listener = listen(&address)
                .map_err(|failure| launch.failed(format!("cannot listen: {failure}")))?;
            return Self::host(launch, listener, timeout);
        }
        let store = RemoteStore::connect(&address, launch.process, launch.count, timeout)
            .map_err(|failure| launch.failed(failure.message))?;
        let (store, rounds) = (Arc::new(store), AtomicU64::default());
        let group = Self { launch, store, served: None, rounds };
        group.barrier("join", timeout)?;
        Ok(group)
    }

    /// A process that is alone.
    #[must_use]
    pub fn alone() -> Self {
        Self::serving(Launch::alone(), Arc::default(), None)
    }

    fn serving(launch: Launch, store: Arc<MemoryStore>, server: Option<StoreServer>) -> Self {
        let shared: Arc<dyn KeyValueStore> = Arc::clone(&store) as _;
        let served = Some(Served { store, server });
        Self { launch, store: shared, served, rounds: AtomicU64::default() }
    }

    /// Serves the store as process 0 on a socket that listens already.
    ///
    /// # Errors
    /// If not everybody comes within `timeout`.
    pub fn host(
        launch: Launch,
        listener: TcpListener,
        timeout: Duration,
    ) -> Result<Self, LaunchError> {
        let store = Arc::new(MemoryStore::default());
        let server = StoreServer::start(listener, Arc::clone(&store), launch.count)
            .map_err(|failure| launch.failed(format!("cannot listen: {failure}")))?;
        let group = Self::serving(launch, store, Some(server));
        group.barrier("join", timeout)?;
        Ok(group)
    }

    /// Which process this is.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Whether this is process 0, which writes what the run leaves behind.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.launch.process == 0
    }

    /// Whether there is no other process.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.launch.count == 1
    }

    /// The store that all share.
    #[must_use]
    pub fn store(&self) -> Arc<dyn KeyValueStore> {
        Arc::clone(&self.store)
    }

    /// Waits until all processes have called this with that name. A name serves once.
    ///
    /// # Errors
    /// If not everybody comes within `timeout`; the error names the first that did not.
    pub fn barrier(&self, name: &str, timeout: Duration) -> Result<(), LaunchError> {
        let key =
            |process: usize, stage: &str| format!("coda/{stage}/{name}/{process}").into_bytes();
        let Launch { process: own, count, .. } = self.launch;
        let failed =
            |problem: String| self.launch.failed(format!("waiting at `{name}`: {problem}"));
        let stage = |stage: &str| {
            self.store.put(&key(own, stage), &[]).map_err(|failure| failed(failure.message))?;
            for process in (0..count).filter(|process| *process != own) {
                self.store.get(&key(process, stage), timeout).map_err(|failure| {
                    failed(format!("process {process} did not come: {}", failure.message))
                })?;
            }
            Ok(())
        };
        stage("came")?;
        // Process 0 must not take the store away before the others have seen everybody.
        if own == 0 {
            (1..count)
                .try_for_each(|process| self.store.get(&key(process, "seen"), timeout).map(|_| ()))
                .map_err(|failure| failed(failure.message))
        } else {
            self.store.put(&key(own, "seen"), &[]).map_err(|failure| failed(failure.message))
        }
    }
}

/// Listens where the others look: on the addresses that the name has.
fn listen(address: &str) -> std::io::Result<TcpListener> {
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    TcpListener::bind(addresses.as_slice())
}
