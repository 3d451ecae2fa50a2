//! Remote files: listed, fetched ahead of the reader, kept in a cache.
//!
//! A file of a bucket, of the web or of the hub becomes an ordinary local file before a decoder opens
//! it. It is written under another name, taken up again where an earlier run or a broken connection
//! left it, checked against the size (and, from the hub, the hash) that the listing gave, forced to
//! disk and renamed. [`Ahead`] fetches a few files before the reader wants them, in its order.
//!
//! Everything asynchronous stays in this module.

mod address;
mod ahead;
mod cache;
mod download;
mod error;
mod hub;
mod list;
mod object;
mod web;

pub use address::{Address, AddressError, Service};
pub use ahead::{Ahead, Came};
pub use cache::Sum;
pub use error::{FetchError, Problem};
pub use list::Found;

use address::Service as Of;
use cache::Place;
use futures_util::StreamExt as _;
use hub::Hub;
use object::Bucket;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Runtime;
use web::{Opened, Web};

/// Where a remote file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Its address; of the hub, with the commit.
    pub address: Address,
    /// What distinguishes its content from others at the same address: an `ETag`, a time.
    pub version: Option<String>,
    /// What the hub says of its content.
    pub sum: Option<Sum>,
}

impl Origin {
    /// What identifies the content without reading it: the sum, the version, or nothing.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.sum.as_ref().map(Sum::hex).or(self.version.as_deref()).unwrap_or_default()
    }
}

/// Whether servers are asked, and what is remembered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// They are, and listings are noted for runs without a network.
    Noted,
    /// They are, and nothing is noted.
    Unnoted,
    /// They are not: only what was listed and fetched before is there.
    Offline,
}

/// How patiently files are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Files on their way at the same time.
    pub parallel: usize,
    /// A connection on which nothing comes for so long is given up.
    pub stall: Duration,
    /// Faults in a row after which a file is given up.
    pub attempts: u32,
    /// Pause after the first fault; it doubles with each further one.
    pub pause: Duration,
    /// Whether other machines may be asked without encryption.
    pub allow_http: bool,
    /// Whether files stay in the cache after they were read.
    pub keep: bool,
    /// Whether servers are asked, and what is remembered of it.
    pub asking: Asking,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            parallel: 4,
            stall: Duration::from_mins(1),
            attempts: 8,
            pause: Duration::from_millis(500),
            allow_http: false,
            keep: true,
            asking: Asking::Noted,
        }
    }
}

/// Lists and fetches remote files.
pub struct Fetcher {
    inner: Arc<Inner>,
    runtime: Background,
}

/// The threads of a fetcher. They are not waited for at the end: one of them may stand before a lock
/// that another process holds for hours.
struct Background(Option<Runtime>);

impl std::ops::Deref for Background {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken only when it is dropped")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Inner {
    options: FetchOptions,
    cache: PathBuf,
    web: Web,
    hub: Hub,
    buckets: Mutex<HashMap<(Of, String), Bucket>>,
}

impl Fetcher {
    /// A fetcher with a cache in this folder and the credentials of the environment.
    ///
    /// # Errors
    /// If the system gives no threads or no certificates.
    pub fn new(cache: &Path, options: FetchOptions) -> Result<Self, FetchError> {
        Self::with_env(cache, options, &|name| std::env::var(name).ok())
    }

    /// Like [`Fetcher::new`], with other variables for the hub.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub fn with_env(
        cache: &Path,
        options: FetchOptions,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, FetchError> {
        // An error means that it was chosen before, by this same line.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("coda-fetch")
            .enable_all()
            .build()
            .map_err(|e| FetchError::Setup(format!("cannot start threads for fetching: {e}")))?;
        let inner = Inner {
            options,
            cache: cache.to_owned(),
            web: Web::new(&options)?,
            hub: Hub::from_env(options.asking == Asking::Offline, env),
            buckets: Mutex::new(HashMap::new()),
        };
        Ok(Self { inner: Arc::new(inner), runtime: Background(Some(runtime)) })
    }

    /// Whether the file of this origin is in the cache.
    #[must_use]
    pub fn has(&self, origin: &Origin, bytes: u64) -> bool {
        cache::is_whole(&self.inner.place(origin, bytes).whole, bytes)
    }

    /// The files that an address names: itself, the files below a folder, or those that a pattern
    /// matches, sorted by path.
    ///
    /// # Errors
    /// If there is nothing, or the server cannot be asked.
    pub fn list(&self, address: &Address) -> Result<Vec<Found>, FetchError> {
        self.runtime.block_on(list::list(&self.inner, address))
    }

    /// The contents of many small files, `parallel` of them on their way at a time. `done` hears of
    /// each as it comes, in no order, and ends the whole with an error of its own.
    ///
    /// # Errors
    /// That of `done`.
    pub fn each<K, E>(
        &self,
        wanted: Vec<(K, Address)>,
        parallel: usize,
        most: usize,
        mut done: impl FnMut(K, Result<Vec<u8>, Problem>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.runtime.block_on(async {
            let mut coming = futures_util::stream::iter(wanted)
                .map(|(key, address)| async move {
                    (key, download::small(&self.inner, &address, most).await)
                })
                .buffer_unordered(parallel);
            while let Some((key, content)) = coming.next().await {
                done(key, content)?;
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the environment: tokens are in it.
        f.debug_struct("Fetcher").field("cache", &self.inner.cache).finish_non_exhaustive()
    }
}

impl Inner {
    fn place(&self, origin: &Origin, bytes: u64) -> Place {
        match &origin.address {
            Address::Hub { repository, revision, path } => {
                self.hub.place(repository, revision, path, origin)
            }
            address => cache::own_place(&self.cache, address, origin, bytes),
        }
    }

    /// Whether the server of an address must not be asked, and what says so.
    fn offline(&self, address: &Address) -> Option<&'static str> {
        if self.options.asking == Asking::Offline {
            return Some("data.offline");
        }
        let hub = matches!(address, Address::Hub { .. }) && self.hub.is_offline();
        hub.then_some("HF_HUB_OFFLINE")
    }

    async fn open(&self, address: &Address, offset: u64) -> Result<Opened, Problem> {
        if let Some(switch) = self.offline(address) {
            let message = format!("{switch} is set, and the file is not in the cache");
            return Err(Problem::Offline(message));
        }
        match address {
            Address::Object { service, bucket, key } => {
                self.bucket(*service, bucket)?.open_at(key, offset).await
            }
            Address::Web { url } => self.web.open(url, offset, None).await,
            Address::Hub { repository, revision, path } => {
                let url = self.hub.url(repository, revision, path);
                self.web.open(&url, offset, self.hub.token()).await
            }
        }
    }

    fn bucket(&self, service: Of, name: &str) -> Result<Bucket, Problem> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(&(service, name.to_owned())) {
            return Ok(bucket.clone());
        }
        let bucket = Bucket::open(service, name, &self.options)?;
        buckets.insert((service, name.to_owned()), bucket.clone());
        Ok(bucket)
    }
}
