//! Remote files from servers that fail, stall, cut and lie.

mod builds;
mod hub;
pub(crate) mod server;
mod web;

use coda_ingest::fetch::{Address, Asking, FetchError, FetchOptions, Fetcher, Found};
use coda_ingest::source::{Container, InputFile};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Impatient, so that the tests are fast.
pub(crate) const OPTIONS: FetchOptions = FetchOptions {
    parallel: 3,
    stall: Duration::from_millis(250),
    attempts: 4,
    pause: Duration::from_millis(2),
    allow_http: false,
    keep: true,
    asking: Asking::Noted,
};

pub(crate) fn fetcher(cache: &Path) -> Fetcher {
    Fetcher::with_env(cache, OPTIONS, &|_| None).expect("threads")
}

pub(crate) fn list(fetcher: &Fetcher, text: &str) -> Result<Vec<Found>, FetchError> {
    fetcher.list(&Address::parse(text).expect("an address"))
}

/// Fetches all of them; the bytes that came.
pub(crate) fn fetch(fetcher: &Fetcher, found: &[Found]) -> Result<u64, FetchError> {
    let files: Vec<InputFile> = found
        .iter()
        .map(|found| InputFile {
            path: found.path.clone(),
            name: found.origin.address.to_string(),
            container: Container::Text,
            bytes: found.bytes,
            origin: Some(Arc::new(found.origin.clone())),
            vendored: false,
        })
        .collect();
    let bytes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&bytes);
    let came = move |n| {
        seen.fetch_add(n, Ordering::Relaxed);
    };
    let mut ahead = fetcher.ahead(&files, Arc::new(came));
    for _ in &files {
        ahead.next(&|| false)?;
    }
    Ok(bytes.load(Ordering::Relaxed))
}

/// Bytes that do not repeat.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// The names of all files below a folder, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| entry.path().strip_prefix(folder).expect("below").display().to_string())
        .collect();
    names.sort();
    names
}
