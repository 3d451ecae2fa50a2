//! Everything remote of a plan, fetched ahead of time: files first, then the blobs that records name.

use crate::{
    blobs::{BlobError, BlobId, BlobWriter, unpack},
    decode::{Batch, BatchSink, DecodeError, DecodeOptions, decode},
    fetch::{Address, AddressError, FetchError, Fetcher, Problem},
    pipeline::SourcePlan,
    source::InputFile,
};
use coda_cli::{Progress, signals::Stop};
use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Blobs of which one is asked for at a time; what comes is forced to disk after each of these.
const CHUNK: usize = 4096;
/// Largest blob, as it is delivered.
const MAX_BLOB: usize = 256 << 20;
/// So many blobs in a row that cannot be had mean that none can.
const GIVE_UP: u64 = 64;

/// Why fetching ended.
#[derive(Debug, thiserror::Error)]
pub enum PrefetchError {
    /// A remote file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file with ids cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The blob store cannot be written.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// What stands before the ids is no address.
    #[error("source {source_name:?}: blobs.url: {error}")]
    Url {
        /// The source.
        source_name: String,
        /// Why.
        error: AddressError,
    },
    /// No blob comes any more.
    #[error("{GIVE_UP} blobs in a row could not be fetched, the last from {address}: {problem}")]
    GaveUp {
        /// Where the last of them should be.
        address: String,
        /// Why it is not there.
        problem: Problem,
    },
}

/// What became of the blobs of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobReport {
    /// Records that name a blob.
    pub named: u64,
    /// Blobs that came now.
    pub fetched: u64,
    /// Bytes of them, as delivered.
    pub bytes: u64,
    /// Blobs that the archive does not have.
    pub gone: u64,
    /// Blobs that could not be had this time.
    pub failed: u64,
    /// Why one of these could not.
    pub example: Option<String>,
}

/// The remote files of sources.
pub fn remote_files(sources: &[SourcePlan]) -> impl Iterator<Item = &InputFile> {
    sources.iter().flat_map(|source| &source.files).filter(|file| file.origin.is_some())
}

/// Fetches all remote files of sources; `progress` counts their bytes.
///
/// # Errors
/// If one cannot be fetched, or a signal comes.
pub fn files(
    sources: &[SourcePlan],
    fetcher: &Fetcher,
    progress: &Arc<Progress>,
    stop: &Stop,
) -> Result<(), PrefetchError> {
    let wanted: Vec<InputFile> = remote_files(sources).cloned().collect();
    let counted = Arc::clone(progress);
    let mut ahead = fetcher.ahead(&wanted, Arc::new(move |bytes| counted.advance(bytes)));
    for file in &wanted {
        progress.note(file.name.clone());
        ahead.next(&|| stop.requested().is_some())?;
    }
    Ok(())
}

/// How the blobs of a source are fetched.
pub struct BlobOptions<'a> {
    /// Folder of the store.
    pub store: &'a Path,
    /// What stands before the ids.
    pub url: &'a str,
    /// Blobs on their way at the same time.
    pub parallel: usize,
    /// How the files with the ids are read.
    pub decode: DecodeOptions,
}

/// How many of the source's records name a blob that the store does not know.
///
/// # Errors
/// If a file or the store cannot be read.
pub fn count_blobs(
    source: &SourcePlan,
    options: &BlobOptions<'_>,
    stop: &Stop,
) -> Result<u64, PrefetchError> {
    let mut writer = BlobWriter::open(options.store)?;
    let mut unknown = 0;
    each_id(source, &options.decode, &mut |id| {
        unknown += u64::from(!writer.knows(&id)?);
        Ok(stop.requested().is_none())
    })?;
    Ok(unknown)
}

/// Fetches the blobs that a source names and its store does not know; `progress` counts them.
///
/// What has come survives a crash, and the next call goes on with the rest.
///
/// # Errors
/// If a file cannot be read, the store cannot be written, no blob comes any more, or a signal comes.
pub fn blobs(
    source: &SourcePlan,
    options: &BlobOptions<'_>,
    fetcher: &Fetcher,
    progress: &Progress,
    stop: &Stop,
) -> Result<BlobReport, PrefetchError> {
    let mut store = Filling {
        writer: BlobWriter::open(options.store)?,
        report: BlobReport::default(),
        source,
        options,
        fetcher,
        progress,
        stop,
        failed_in_a_row: 0,
    };
    let mut wanted = HashSet::new();
    each_id(source, &options.decode, &mut |id| {
        store.report.named += 1;
        if !store.writer.knows(&id)? && !wanted.insert(id) {
            progress.advance(1);
        }
        if wanted.len() == CHUNK {
            store.fetch(wanted.drain())?;
        }
        Ok(stop.requested().is_none())
    })?;
    store.fetch(wanted.drain())?;
    if stop.requested().is_some() {
        return Err(FetchError::Stopped.into());
    }
    store.writer.finish()?;
    Ok(store.report)
}

struct Filling<'a> {
    writer: BlobWriter,
    report: BlobReport,
    source: &'a SourcePlan,
    options: &'a BlobOptions<'a>,
    fetcher: &'a Fetcher,
    progress: &'a Progress,
    stop: &'a Stop,
    failed_in_a_row: u64,
}

impl Filling<'_> {
    fn fetch(&mut self, ids: impl Iterator<Item = BlobId>) -> Result<(), PrefetchError> {
        let place = |id: BlobId| match Address::parse(&format!("{}{id}", self.options.url)) {
            Ok(address) => Ok((id, address)),
            Err(error) => Err(PrefetchError::Url { source_name: self.source.name.clone(), error }),
        };
        let wanted = ids.map(place).collect::<Result<Vec<_>, _>>()?;
        let (fetcher, parallel) = (self.fetcher, self.options.parallel);
        let outcome = fetcher.each(wanted, parallel, MAX_BLOB, |id, content| {
            self.progress.advance(1);
            self.take(id, content)
        });
        // What has come is kept, however it ended.
        self.writer.flush()?;
        outcome
    }

    fn take(&mut self, id: BlobId, content: Result<Vec<u8>, Problem>) -> Result<(), PrefetchError> {
        if self.stop.requested().is_some() {
            return Err(FetchError::Stopped.into());
        }
        let content = content.and_then(|content| {
            match unpack(&content, self.options.decode.max_document_bytes) {
                Err(fault) if fault.reason == "corrupt_blob" => {
                    Err(Problem::Lasting(fault.message))
                }
                // One that is too long for this manifest may not be for another.
                _ => Ok(content),
            }
        });
        match content {
            Ok(content) => {
                self.report.fetched += 1;
                self.report.bytes += content.len() as u64;
                self.writer.put(id, &content)?;
            }
            Err(Problem::Gone) => {
                self.report.gone += 1;
                self.writer.put_gone(id)?;
            }
            Err(problem) => {
                self.report.failed += 1;
                self.failed_in_a_row += 1;
                if self.failed_in_a_row >= GIVE_UP {
                    let address = format!("{}{id}", self.options.url);
                    let shown = Address::parse(&address).map_or(address, |a| a.to_string());
                    return Err(PrefetchError::GaveUp { address: shown, problem });
                }
                self.report.example.get_or_insert_with(|| format!("{id}: {problem}"));
                return Ok(());
            }
        }
        self.failed_in_a_row = 0;
        Ok(())
    }
}

/// Every id of a source, in order, while `take` wants more. Records without a valid one are passed
/// over: the build rejects them.
fn each_id(
    source: &SourcePlan,
    options: &DecodeOptions,
    take: &mut dyn FnMut(BlobId) -> Result<bool, PrefetchError>,
) -> Result<(), PrefetchError> {
    let mut options = options.clone();
    source.fill(&mut options);
    for (index, file) in (0..).zip(&source.files) {
        let mut outcome = Ok(true);
        let mut look = |batch: Batch| {
            for record in &batch.records {
                let ids = source.extractor.blobs(&batch.bytes, &record.body).unwrap_or_default();
                for id in ids {
                    outcome = take(id);
                    if !matches!(outcome, Ok(true)) {
                        return false;
                    }
                }
            }
            true
        };
        let mut sink = BatchSink::new(&mut look);
        let read = decode(file, index, &options, &mut sink).and_then(|()| sink.flush());
        if !outcome? {
            return Ok(());
        }
        if let Err(DecodeError::Read { path, source }) = read {
            return Err(PrefetchError::Read { path, source });
        }
    }
    Ok(())
}
