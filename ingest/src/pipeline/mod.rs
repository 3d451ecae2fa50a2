//! One source from files to rows: a reader, workers, a committer.
//!
//! The reader decodes on its own thread and fills bounded batches. Each worker takes a batch, extracts
//! and tokenizes its records, and goes on to the next. The committer packs and writes the results in
//! the order of the batches on a third thread. So the bytes written do not depend on the number of
//! workers, and two or three batches a worker are in memory.
//!
//! Whenever the writing side says that a file is complete ([`Commit::row`]), the committer notes where it
//! stands ([`SourceProgress`]); a source goes on from there by decoding the file at hand again and passing
//! over the records before that place without tokenizing them.

mod commit;
mod progress;
mod work;
mod workers;

pub use progress::{Place, SourceProgress};

use crate::{
    blobs::BlobStore,
    clean::Cleaner,
    contamination::Benchmarks,
    decode::{Batch, BatchSink, DecodeError, DecodeOptions, Members, decode},
    dedup::{DedupError, Deduper, Marker},
    fetch::{FetchError, Fetcher},
    pack::{Overlong, PackedRow},
    record::Extractor,
    reject::Reject,
    source::InputFile,
    tokenize::{ChatEncoder, Encode, Specials},
};
use coda_cli::{Progress, signals::Stop};
use coda_manifests::Packing;
pub(crate) use commit::{RowPlan, commit_steps};
pub(crate) use work::{Done, Outcome, Prepared, change, encode, prepare};
pub(crate) use workers::{Step, Steps};
use workers::{steps, work};

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
};

/// Batches waiting for the workers.
const READ_AHEAD: usize = 2;

/// What one source is made of.
pub struct SourcePlan {
    /// Its name in the manifest.
    pub name: String,
    /// Its number in the manifest, from 0.
    pub number: u16,
    /// Its files, in order.
    pub files: Vec<InputFile>,
    /// The addresses among its paths, with revisions settled.
    pub origins: Vec<String>,
    /// The addresses that could not be listed, with the reason; only in a plan that allows for it.
    pub unlisted: Vec<(String, String)>,
    /// How records become documents.
    pub extractor: Extractor,
    /// Present when records name blobs: where these are.
    pub blobs: Option<Arc<BlobStore>>,
    /// How texts are changed, and which documents are left out by how they look.
    pub cleaner: Cleaner,
    /// Present for conversations: how they are rendered.
    pub chat: Option<ChatEncoder>,
    /// What is read of archives.
    pub members: Members,
    /// Whether code that a program wrote is dropped.
    pub drop_generated: bool,
    /// The source ends with the document that reaches this many tokens.
    pub budget: Option<u64>,
}

impl SourcePlan {
    /// The decoders' options for this source's files.
    pub(crate) fn fill(&self, options: &mut DecodeOptions) {
        options.layout = self.extractor.layout().clone();
        options.members = self.members.clone();
        options.drop_generated = self.drop_generated;
    }
}

/// What all sources share.
pub struct Line<'a> {
    /// Text to ids.
    pub encoder: &'a dyn Encode,
    /// End, padding and mask ids.
    pub specials: Specials,
    /// Tokens a row.
    pub row_length: u32,
    /// What happens to long conversations.
    pub overlong: Overlong,
    /// How documents become rows.
    pub packing: Packing,
    /// Caps for the decoders; the columns are filled in for each source.
    pub decode: DecodeOptions,
    /// Benchmarks whose text is left out.
    pub benchmarks: Option<&'a Benchmarks>,
    /// Makes what documents are compared by.
    pub marker: Option<&'a Marker>,
    /// Decides which documents an earlier one makes superfluous.
    pub dedup: Option<&'a Deduper>,
    /// The workers.
    pub workers: &'a rayon::ThreadPool,
    /// What brings remote files.
    pub fetch: Option<&'a Fetcher>,
    /// Bytes of input read.
    pub progress: &'a Progress,
    /// Whether somebody wants the run to end.
    pub stop: &'a Stop,
}

/// Where rows and rejects go, in order.
pub trait Commit: Send {
    /// Takes the next row of the source. Says whether this row has completed a file, so that the
    /// progress should be noted.
    ///
    /// # Errors
    /// If it cannot be written.
    fn row(&mut self, row: PackedRow) -> Result<bool, CommitError>;

    /// Notes where the source stands, right after a row that was answered with `true`. The note counts
    /// once everything up to it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    fn note(&mut self, progress: SourceProgress) -> Result<(), CommitError>;

    /// Takes a reject.
    ///
    /// # Errors
    /// If it cannot be written.
    fn reject(&mut self, reject: Reject) -> Result<(), CommitError>;
}

/// What stops a committer: any error of the writing side.
pub type CommitError = Box<dyn std::error::Error + Send + Sync>;

/// What came out of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceReport {
    /// Documents taken in.
    pub documents: u64,
    /// Records not taken in.
    pub rejected: u64,
    /// The same by reason.
    #[serde(deserialize_with = "crate::reason::counts")]
    pub reasons: BTreeMap<&'static str, u64>,
    /// Usable records that a rule of the manifest left out.
    pub dropped: u64,
    /// The same by rule.
    #[serde(deserialize_with = "crate::reason::counts")]
    pub drops: BTreeMap<&'static str, u64>,
    /// Conversations longer than a row, cut.
    pub overlong_truncated: u64,
    /// Code files passed over because they are binary or empty.
    pub skipped_files: u64,
    /// Rows written.
    pub rows: u64,
    /// Ids written, end tokens included, padding not.
    pub tokens: u64,
    /// Padding ids written.
    pub padding_tokens: u64,
    /// UTF-8 bytes of the documents taken in.
    pub text_bytes: u64,
    /// Whether the budget ended the source.
    pub budget_reached: bool,
    /// Documents that deduplication had decided, this one and all sources before included.
    pub decided: u64,
}

/// Why a source could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// An input file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A remote file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Writing failed.
    #[error(transparent)]
    Commit(CommitError),
    /// The build cannot go on where it stood: the file has other records now.
    #[error("{} has changed since this build began", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The state of deduplication cannot be kept.
    #[error(transparent)]
    Dedup(#[from] DedupError),
    /// A signal asked for the end.
    #[error("stopped by a signal")]
    Stopped,
}

/// Runs one source to its end or its budget, from its start or from where it stood.
///
/// # Errors
/// If an input file cannot be read, a row cannot be written, or a signal came.
pub fn run_source(
    plan: &SourcePlan,
    line: &Line<'_>,
    commit: &mut dyn Commit,
    from: Option<SourceProgress>,
) -> Result<SourceReport, PipelineError> {
    let rows = RowPlan {
        name: &plan.name,
        files: &plan.files,
        budget: plan.budget,
        row_length: line.row_length,
        pad: line.specials.pad,
        overlong: line.overlong,
        packing: line.packing,
    };
    let place = from.as_ref().map(|from| from.place).unwrap_or_default();
    let report = drive(plan, &plan.files, line, place, |steps, full| {
        commit_steps(&rows, commit, from, steps, full)
    })?;
    if let Some(dedup) = line.dedup
        && report.budget_reached
    {
        // Batches behind the one that filled the budget may have been decided: how many depends on
        // time.
        dedup.forget_after(report.decided)?;
    }
    Ok(report)
}

/// Runs the reader and the workers of a source over `files` (its first ones, or all), from a place
/// on, and `consume` on a thread of its own with what comes out, in order.
pub(crate) fn drive<T: Send>(
    plan: &SourcePlan,
    files: &[InputFile],
    line: &Line<'_>,
    from: Place,
    consume: impl FnOnce(Steps, &AtomicBool) -> Result<T, PipelineError> + Send,
) -> Result<T, PipelineError> {
    let full = AtomicBool::new(false);
    let full = &full;
    std::thread::scope(|scope| {
        let (to_workers, batches) = sync_channel(READ_AHEAD);
        let (announce, steps) = steps(2 * line.workers.current_num_threads());
        let reader = std::thread::Builder::new()
            .name(READER_THREAD.to_owned())
            .spawn_scoped(scope, move || read(plan, files, line, from, &to_workers, full));
        let consumer = scope.spawn(move || consume(steps, full));
        let worked = work(plan, line, from, batches, &announce, full);
        // A reader that still waits ends with its channel, which `work` has dropped.
        let read = match reader {
            Ok(reader) => reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(source) => {
                Err(PipelineError::Read { path: PathBuf::from("(a thread for reading)"), source })
            }
        };
        if read.is_ok() && matches!(worked, Ok(true)) {
            announce.end();
        }
        drop(announce);
        let consumed = consumer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked?;
        match (consumed, read) {
            (Err(PipelineError::Stopped), Err(error)) => Err(error),
            (consumed, _) => consumed,
        }
    })
}

/// Name of the threads on which damaged files may make a decoder panic (and are caught).
pub const READER_THREAD: &str = "coda-reader";

fn read(
    plan: &SourcePlan,
    files: &[InputFile],
    line: &Line<'_>,
    from: Place,
    to_workers: &SyncSender<Batch>,
    full: &AtomicBool,
) -> Result<(), PipelineError> {
    let over = || full.load(Ordering::Relaxed) || line.stop.requested().is_some();
    let mut ahead = line.fetch.map(|fetch| {
        fetch.ahead(files.get(from.file as usize..).unwrap_or_default(), Arc::new(|_| ()))
    });
    let mut options = line.decode.clone();
    plan.fill(&mut options);
    // Batches reach over small files, so that there is work for all workers in each.
    let mut send = |batch| to_workers.send(batch).is_ok();
    let mut sink = BatchSink::new(&mut send);
    for (index, file) in (0..).zip(files).skip(from.file as usize) {
        if let Some(ahead) = &mut ahead {
            line.progress.note(format!("fetching {}", file.name));
            ahead.next(&over).map_err(|error| match error {
                FetchError::Stopped => PipelineError::Stopped,
                error => PipelineError::Fetch(error),
            })?;
        }
        decode(file, index, &options, &mut sink).map_err(read_error)?;
        if let Some(ahead) = &ahead {
            ahead.has_read(file);
        }
    }
    sink.flush().map_err(read_error)
}

fn read_error(error: DecodeError) -> PipelineError {
    match error {
        DecodeError::Read { path, source } => PipelineError::Read { path, source },
        // Nothing more is wanted. Damage was recorded where it was found.
        DecodeError::Closed | DecodeError::Damaged(_) => PipelineError::Stopped,
    }
}
