//! The store of process 0, as the others reach it.

use super::wire::{self, Answer, Greeting, Request};
use coda_pjrt::{ErrorCode, KeyValueStore, MemoryStore, StoreError};
use std::{
    collections::HashMap,
    io::{self, BufReader},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Who connects has to say who it is within this time.
const GREETING: Duration = Duration::from_secs(10);
/// Connections a process may hold; each of its threads that waits for a value has one.
const CONNECTIONS: usize = 64;
/// A process without any connection for this long is gone: one that lives keeps at least one, and makes
/// another at once when that breaks.
const GONE: Duration = Duration::from_secs(3);

/// Serves a [`MemoryStore`] until it is dropped.
pub struct StoreServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<MemoryStore>,
    count: u32,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For each process that came, the life that it told.
    lives: HashMap<u32, u64>,
    /// Open connections by their number, to be closed at the end.
    open: HashMap<u64, TcpStream>,
    next: u64,
    /// For each process that came, how many connections it has, and when it lost the last.
    present: HashMap<u32, (usize, Option<Instant>)>,
}

impl StoreServer {
    /// Serves that store to `count` processes on a listening socket.
    ///
    /// # Errors
    /// If the socket is not usable.
    pub fn start(listener: TcpListener, store: Arc<MemoryStore>, count: usize) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let count = u32::try_from(count).map_err(io::Error::other)?;
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { store, count, stop: AtomicBool::new(false), state });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("store".to_owned())
                .spawn(move || shared.accept(&listener))?
        };
        Ok(Self { shared, address, accepting: Some(accepting) })
    }

    /// Whether a process that was here has been without a connection for some seconds: it has ended, or
    /// the network between has.
    #[must_use]
    pub fn is_gone(&self, process: usize) -> bool {
        let left = u32::try_from(process).ok().and_then(|process| {
            self.shared.state().present.get(&process).and_then(|(_, left)| *left)
        });
        left.is_some_and(|left| left.elapsed() > GONE)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts. Should this fail, then the thread stays until the end of
        // the process, and is not waited for.
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(match own {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let woken = TcpStream::connect_timeout(&own, Duration::from_secs(1)).is_ok();
        let open = std::mem::take(&mut self.shared.state().open);
        for connection in open.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take().filter(|_| woken) {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in it can be half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(connection) = connection else { continue };
            let shared = Arc::clone(self);
            // Without a thread the connection is closed, and the other side tries again.
            let _ = thread::Builder::new()
                .name("store".to_owned())
                .spawn(move || shared.connected(connection));
        }
    }

    /// Serves one connection to its end. Whatever goes wrong on it ends it, and nothing else.
    fn connected(&self, connection: TcpStream) {
        let Ok(copy) = connection.try_clone() else { return };
        let number = {
            let mut state = self.state();
            if state.open.len() >= CONNECTIONS * self.count as usize {
                return;
            }
            let number = state.next;
            state.next += 1;
            state.open.insert(number, copy);
            number
        };
        let _ = self.serve(connection);
        self.state().open.remove(&number);
    }

    fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(GREETING))?;
        let greeting = Greeting::read(&mut connection)?;
        let admitted = self.admit(greeting);
        wire::write_answer(&admitted, &mut connection)?;
        if admitted.is_err() {
            return Ok(());
        }
        // From here on a process may be silent for as long as it likes.
        connection.set_read_timeout(None)?;
        self.state()
            .present
            .entry(greeting.process)
            .and_modify(|(count, left)| {
                (*count, *left) = (*count + 1, None);
            })
            .or_insert((1, None));
        let ended = self.requests(&mut connection);
        if let Some((count, left)) = self.state().present.get_mut(&greeting.process) {
            *count -= 1;
            *left = (*count == 0).then(Instant::now);
        }
        ended
    }

    fn requests(&self, connection: &mut TcpStream) -> io::Result<()> {
        let mut requests = BufReader::new(connection.try_clone()?);
        while let Some(request) = Request::read(&mut requests)? {
            wire::write_answer(&self.answer(request), connection)?;
        }
        Ok(())
    }

    fn admit(&self, greeting: Greeting) -> Answer {
        let refuse = |code, message| Err(StoreError::new(code, message));
        let Greeting { count, process, life } = greeting;
        if count != self.count {
            let message = format!("process 0 waits for {} processes, not for {count}", self.count);
            return refuse(ErrorCode::FailedPrecondition, message);
        }
        if process == 0 || process >= count {
            let message = format!("process {process} of {count} cannot be one of the others");
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if *self.state().lives.entry(process).or_insert(life) != life {
            let message = format!("there are two processes {process}");
            return refuse(ErrorCode::AlreadyExists, message);
        }
        Ok(None)
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Put { key, value } => self.store.put(&key, &value).map(|()| None),
            Request::Get { key, timeout } => self.store.get(&key, timeout).map(Some),
            Request::TryGet { key } => self.store.try_get(&key),
        }
    }
}
