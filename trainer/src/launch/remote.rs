//! The store of process 0, from another process.

use super::wire::{self, Answer, Greeting, Request};
use coda_pjrt::{ErrorCode, KeyValueStore, StoreError};
use std::{
    io::{self, BufReader},
    net::{TcpStream, ToSocketAddrs},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How much later than asked for the store may answer before it counts as gone.
const GRACE: Duration = Duration::from_secs(30);
/// How long a single attempt to connect, or to be greeted, may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A store that process 0 serves. Each request that runs at the same time has a connection of its
/// own, so that one that waits holds up no other.
pub struct RemoteStore {
    address: String,
    greeting: Greeting,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

impl RemoteStore {
    /// Connects as process `process` of `count`, and tries again until `timeout` if nobody listens
    /// yet.
    ///
    /// # Errors
    /// If process 0 does not come in time, or does not want this process.
    pub fn connect(
        address: &str,
        process: usize,
        count: usize,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let number = |value: usize| {
            u32::try_from(value).map_err(|_| {
                StoreError::new(ErrorCode::InvalidArgument, format!("{value} processes"))
            })
        };
        // Two processes differ in it as two hash maps do.
        let life = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), address);
        let greeting = Greeting { count: number(count)?, process: number(process)?, life };
        let store = Self { address: address.to_owned(), greeting, idle: Mutex::default() };
        let end = Instant::now() + timeout;
        let mut pause = Duration::from_millis(20);
        loop {
            let failure = match store.open() {
                Ok(Ok(connection)) => {
                    store.idle().push(connection);
                    return Ok(store);
                }
                Ok(Err(refused)) => return Err(refused),
                Err(failure) => failure,
            };
            if Instant::now() + pause >= end {
                let message = format!("cannot reach process 0 within {timeout:?}: {failure}");
                return Err(StoreError::new(ErrorCode::DeadlineExceeded, message));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<BufReader<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection, or the words with which this process is refused.
    fn open(&self) -> io::Result<Result<BufReader<TcpStream>, StoreError>> {
        let mut last = io::Error::other("the name has no address");
        for address in self.address.to_socket_addrs()? {
            let mut connection = match TcpStream::connect_timeout(&address, ATTEMPT) {
                Ok(connection) => connection,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(ATTEMPT))?;
            connection.set_write_timeout(Some(GRACE))?;
            self.greeting.write(&mut connection)?;
            let mut connection = BufReader::new(connection);
            return Ok(wire::read_answer(&mut connection)?.map(|_| connection));
        }
        Err(last)
    }

    /// Asks over a connection that is idle or new.
    fn ask(&self, request: &Request, wait: Duration) -> Answer {
        let gone = |failure: io::Error| {
            let message = format!("process 0 at {} is gone: {failure}", self.address);
            StoreError::new(ErrorCode::Unavailable, message)
        };
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.open().map_err(gone)??,
        };
        let exchange = |connection: &mut BufReader<TcpStream>| {
            connection.get_ref().set_read_timeout(wait.checked_add(GRACE))?;
            request.write(connection.get_mut())?;
            wire::read_answer(connection)
        };
        // A connection that failed is dropped: nobody knows where in an answer it is.
        let answer = exchange(&mut connection).map_err(gone)?;
        self.idle().push(connection);
        answer
    }
}

impl KeyValueStore for RemoteStore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let request = Request::Put { key: key.to_vec(), value: value.to_vec() };
        self.ask(&request, Duration::ZERO).map(|_| ())
    }

    fn get(&self, key: &[u8], timeout: Duration) -> Result<Vec<u8>, StoreError> {
        let request = Request::Get { key: key.to_vec(), timeout };
        self.ask(&request, timeout)?
            .ok_or_else(|| StoreError::new(ErrorCode::Internal, "an answer without a value"))
    }

    fn try_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(&Request::TryGet { key: key.to_vec() }, Duration::ZERO)
    }
}
