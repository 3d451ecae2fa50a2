//! One source from files to rows: a reader, workers, a committer.
//!
//! The reader decodes on its own thread and fills bounded batches. Each batch is extracted and
//! tokenized by the workers in parallel, results keep the order of the records. The committer packs
//! and writes them in that order on a third thread. So the bytes written do not depend on the number
//! of workers, and at most a handful of batches is in memory.

use crate::{
    decode::{
        Batch, BatchSink, Body, DecodeError, DecodeOptions, Fault, HEAD_BYTES, Location, RawRecord,
        decode,
    },
    pack::{Overlong, PackedRow, Packer, chat_row},
    record::{Document, Extractor},
    reject::Reject,
    source::InputFile,
    tokenize::{ChatEncoder, ChatError, ChatRow, Encode, Specials},
};
use coda_cli::{Progress, signals::Stop};
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

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

enum Outcome {
    Text { ids: Vec<u32>, bytes: u64 },
    Chat { row: ChatRow, bytes: u64 },
    Rejected { fault: Fault, head: blake3::Hash },
}

struct Done {
    records: Vec<(Location, Outcome)>,
    skipped: u64,
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

/// One record, on a worker.
fn encode(plan: &SourcePlan, line: &Line<'_>, batch: &Batch, record: &RawRecord) -> Outcome {
    if let Body::Rejected { fault, head } = &record.body {
        return Outcome::Rejected { fault: fault.clone(), head: *head };
    }
    let tokenized =
        plan.extractor.document(&batch.bytes, &record.body).and_then(|document| {
            match (document, &plan.chat) {
                (Document::Text(text), _) => {
                    let mut ids = Vec::with_capacity(text.len() / 3 + 1);
                    line.encoder
                        .encode_into(&text, &mut ids)
                        .map_err(|e| Fault::new("tokenizer", e.to_string()))?;
                    ids.push(line.specials.eos);
                    Ok(Outcome::Text { ids, bytes: text.len() as u64 })
                }
                (Document::Chat(messages), Some(chat)) => {
                    let bytes = messages.iter().map(|m| m.content.len() as u64).sum();
                    let row = chat.encode(line.encoder, &messages).map_err(|e| match e {
                        ChatError::NoAnswer => Fault::new("no_answer", e.to_string()),
                        ChatError::Encode(e) => Fault::new("tokenizer", e.to_string()),
                    })?;
                    Ok(Outcome::Chat { row, bytes })
                }
                (Document::Chat(_), None) => {
                    Err(Fault::new("wrong_type", "a conversation in a source of kind text"))
                }
            }
        });
    tokenized.unwrap_or_else(|fault| {
        let head = match &record.body {
            Body::Json(range) | Body::Text(range) => range.clone(),
            Body::Columns(ranges) => ranges.iter().flatten().next().cloned().unwrap_or(0..0),
            Body::Rejected { .. } => 0..0,
        };
        let bytes = &batch.bytes[head];
        Outcome::Rejected { fault, head: blake3::hash(&bytes[..bytes.len().min(HEAD_BYTES)]) }
    })
}

struct Committer<'a> {
    plan: &'a SourcePlan,
    line: &'a Line<'a>,
    commit: &'a mut dyn Commit,
    packer: Packer,
    report: SourceReport,
}

impl<'a> Committer<'a> {
    fn new(plan: &'a SourcePlan, line: &'a Line<'a>, commit: &'a mut dyn Commit) -> Self {
        let packer = Packer::new(line.row_length, line.specials.pad);
        Self { plan, line, commit, packer, report: SourceReport::default() }
    }

    fn run(
        mut self,
        done: Receiver<Done>,
        full: &AtomicBool,
    ) -> Result<SourceReport, PipelineError> {
        'source: for done in done {
            self.report.skipped_files += done.skipped;
            for (location, outcome) in done.records {
                self.record(location, outcome).map_err(PipelineError::Commit)?;
                if self.plan.budget.is_some_and(|budget| self.report.tokens >= budget) {
                    self.report.budget_reached = true;
                    full.store(true, Ordering::Relaxed);
                    break 'source;
                }
            }
        }
        let packer = std::mem::replace(&mut self.packer, Packer::new(1, 0));
        if let Some(row) = packer.finish() {
            write_row(self.commit, &mut self.report, row).map_err(PipelineError::Commit)?;
        }
        Ok(self.report)
    }

    fn record(&mut self, location: Location, outcome: Outcome) -> Result<(), CommitError> {
        let Self { plan, line, commit, packer, report } = self;
        match outcome {
            Outcome::Text { ids, bytes } => {
                report.documents += 1;
                report.text_bytes += bytes;
                report.tokens += ids.len() as u64;
                packer.push(&ids, |row| write_row(&mut **commit, report, row))?;
            }
            Outcome::Chat { row, bytes } => {
                let is_long = row.ids.len() > line.row_length as usize;
                match chat_row(row, line.row_length, line.specials.pad, line.overlong) {
                    Some(row) => {
                        report.documents += 1;
                        report.text_bytes += bytes;
                        report.tokens += u64::from(row.valid_len);
                        report.overlong_truncated += u64::from(is_long);
                        write_row(&mut **commit, report, row)?;
                    }
                    None => report.overlong_dropped += 1,
                }
            }
            Outcome::Rejected { fault, head } => {
                report.rejected += 1;
                *report.reasons.entry(fault.reason).or_default() += 1;
                let file = &plan.files[location.file as usize];
                commit.reject(Reject::new(&plan.name, file, location, fault, &head))?;
            }
        }
        Ok(())
    }
}

fn write_row(
    commit: &mut dyn Commit,
    report: &mut SourceReport,
    row: PackedRow,
) -> Result<(), CommitError> {
    report.rows += 1;
    report.padding_tokens += row.tokens.len() as u64 - u64::from(row.valid_len);
    commit.row(row)
}
