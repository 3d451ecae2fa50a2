//! One source from files to rows: a reader, workers, a committer.
//!
//! The reader decodes on its own thread and fills bounded batches. Each batch is extracted and
//! tokenized by the workers in parallel, results keep the order of the records. The committer packs
//! and writes them in that order on a third thread. So the bytes written do not depend on the number
//! of workers, and at most a handful of batches is in memory.

mod commit;
mod work;

use crate::{
    blobs::BlobStore,
    decode::{Batch, BatchSink, DecodeError, DecodeOptions, RawRecord, decode},
    pack::{Overlong, PackedRow},
    record::Extractor,
    reject::Reject,
    source::InputFile,
    tokenize::{ChatEncoder, Encode, Specials},
};
use coda_cli::{Progress, signals::Stop};
use commit::Committer;
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};
use work::{Done, encode};

/// Batches waiting for the workers.
const READ_AHEAD: usize = 2;

/// What one source is made of.
pub struct SourcePlan {
    /// Its name in the manifest.
    pub name: String,
    /// Its files, in order.
    pub files: Vec<InputFile>,
    /// How records become documents.
    pub extractor: Extractor,
    /// Present when records name blobs: where these are.
    pub blobs: Option<Arc<BlobStore>>,
    /// Present for conversations: how they are rendered.
    pub chat: Option<ChatEncoder>,
    /// The source ends with the document that reaches this many tokens.
    pub budget: Option<u64>,
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
    /// Caps for the decoders; the columns are filled in for each source.
    pub decode: DecodeOptions,
    /// The workers.
    pub workers: &'a rayon::ThreadPool,
    /// Bytes of input read.
    pub progress: &'a Progress,
    /// Whether somebody wants the run to end.
    pub stop: &'a Stop,
}

/// Where rows and rejects go, in order.
pub trait Commit: Send {
    /// Takes the next row of the source.
    ///
    /// # Errors
    /// If it cannot be written.
    fn row(&mut self, row: PackedRow) -> Result<(), CommitError>;

    /// Takes a reject.
    ///
    /// # Errors
    /// If it cannot be written.
    fn reject(&mut self, reject: Reject) -> Result<(), CommitError>;
}

/// What stops a committer: any error of the writing side.
pub type CommitError = Box<dyn std::error::Error + Send + Sync>;

/// What came out of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Documents taken in.
    pub documents: u64,
    /// Records not taken in.
    pub rejected: u64,
    /// The same by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Usable records that a rule of the manifest left out.
    pub dropped: u64,
    /// The same by rule.
    pub drops: BTreeMap<&'static str, u64>,
    /// Conversations longer than a row, left out as the manifest says.
    pub overlong_dropped: u64,
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
    /// Writing failed.
    #[error(transparent)]
    Commit(CommitError),
    /// A signal asked for the end.
    #[error("stopped by a signal")]
    Stopped,
}

/// Runs one source to its end or its budget.
///
/// # Errors
/// If an input file cannot be read, a row cannot be written, or a signal came.
pub fn run_source(
    plan: &SourcePlan,
    line: &Line<'_>,
    commit: &mut dyn Commit,
) -> Result<SourceReport, PipelineError> {
    let full = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (to_workers, batches) = sync_channel(READ_AHEAD);
        let (to_committer, done) = sync_channel(1);
        let reader = std::thread::Builder::new()
            .name(READER_THREAD.to_owned())
            .spawn_scoped(scope, move || read(plan, line, &to_workers));
        let full = &full;
        let committer = scope.spawn(move || Committer::new(plan, line, commit).run(done, full));
        work(plan, line, batches, &to_committer, full);
        // The committer ends when nothing can come any more.
        drop(to_committer);
        let report = committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let reader = reader.map_err(|source| PipelineError::Read {
            path: PathBuf::from("(a thread for reading)"),
            source,
        })?;
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let report = report?;
        if line.stop.requested().is_some() {
            return Err(PipelineError::Stopped);
        }
        match read {
            Err(DecodeError::Read { path, source }) if !report.budget_reached => {
                Err(PipelineError::Read { path, source })
            }
            _ => Ok(report),
        }
    })
}

/// Name of the threads on which damaged files may make a decoder panic (and are caught).
pub const READER_THREAD: &str = "coda-reader";

fn read(
    plan: &SourcePlan,
    line: &Line<'_>,
    to_workers: &SyncSender<Batch>,
) -> Result<(), DecodeError> {
    let mut options = line.decode.clone();
    options.columns = plan.extractor.columns().to_vec();
    for (index, file) in (0..).zip(&plan.files) {
        let mut send = |batch| to_workers.send(batch).is_ok();
        let mut sink = BatchSink::new(&mut send);
        decode(file, index, &options, &mut sink)?;
        sink.flush()?;
    }
    Ok(())
}

fn work(
    plan: &SourcePlan,
    line: &Line<'_>,
    batches: Receiver<Batch>,
    to_committer: &SyncSender<Done>,
    full: &AtomicBool,
) {
    for batch in batches {
        if full.load(Ordering::Relaxed) || line.stop.requested().is_some() {
            return;
        }
        if let Some(record) = batch.records.first() {
            line.progress.note(plan.files[record.location.file as usize].name.clone());
        }
        let encode = |record: &RawRecord| (record.location, encode(plan, line, &batch, record));
        let records = line.workers.install(|| batch.records.par_iter().map(encode).collect());
        line.progress.advance(batch.consumed);
        if to_committer.send(Done { records, skipped: batch.skipped_files }).is_err() {
            return;
        }
    }
}
