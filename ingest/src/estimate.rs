//! What a build would give, from a sample of each source.

use crate::{
    decode::{Batch, BatchSink, DecodeError, RawRecord, decode},
    pipeline::{Line, Outcome, SourcePlan, encode, prepare},
    record::{Document, Extracted},
    source::{Container, InputFile},
};
use std::{collections::BTreeMap, time::Instant};

/// Files sampled of each source, evenly spaced.
const FILES: usize = 8;
/// Text tokenized of each of them.
const TEXT_BYTES: u64 = 64 << 10;
/// Text looked at, to learn how much comes out of a byte of file.
const LOOKED_AT: u64 = 4 << 20;

/// Text in a token of Qwen3's tokenizer, between prose (3.86) and code (3.52).
const BYTES_PER_TOKEN: f64 = 3.7;

/// What was seen in the sample of one source, and what it means for the whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Documents that were tokenized.
    pub sampled_documents: u64,
    /// Records that would be rejected, by reason.
    pub sampled_rejects: BTreeMap<&'static str, u64>,
    /// Usable documents that a rule would leave out, by rule; duplicates are not looked for.
    pub sampled_drops: BTreeMap<&'static str, u64>,
    /// Tokens made to measure the speed, and the seconds that one worker took for them.
    pub timed_tokens: u64,
    /// See [`Estimate::timed_tokens`].
    pub seconds: f64,
    /// One reject's message.
    pub reject_example: Option<String>,
    /// Whether no file was there to sample, and a ratio stands for it.
    pub by_ratio: bool,
    /// Tokens that the whole source would give, its budget applied; nothing when the sample holds
    /// no usable document.
    pub tokens: Option<u64>,
}

#[derive(Default)]
struct Sample {
    documents: u64,
    text_bytes: u64,
    tokenized_bytes: u64,
    tokens: u64,
    seconds: f64,
    consumed: u64,
    rejects: BTreeMap<&'static str, u64>,
    drops: BTreeMap<&'static str, u64>,
    example: Option<String>,
}

/// Samples a source.
///
/// # Errors
/// If a file cannot be read.
pub fn estimate(plan: &SourcePlan, line: &Line<'_>) -> Result<Estimate, DecodeError> {
    let here: Vec<&InputFile> =
        plan.files.iter().filter(|file| is_here(file) && !file.vendored).collect();
    if here.is_empty() && !plan.files.is_empty() {
        return Ok(by_ratio(plan));
    }
    let mut total = Sample::default();
    let mut sampled_file_bytes = 0;
    let mut text = 0.0;
    for file in spread(&here) {
        let sample = sample_file(plan, line, file)?;
        let consumed = sample.consumed.clamp(1, file.bytes.max(1));
        text += sample.text_bytes as f64 * file.bytes as f64 / consumed as f64;
        sampled_file_bytes += file.bytes;
        total.documents += sample.documents;
        total.tokenized_bytes += sample.tokenized_bytes;
        total.tokens += sample.tokens;
        total.seconds += sample.seconds;
        for (reason, count) in sample.rejects {
            *total.rejects.entry(reason).or_default() += count;
        }
        for (reason, count) in sample.drops {
            *total.drops.entry(reason).or_default() += count;
        }
        total.example = total.example.or(sample.example);
    }
    let file_bytes: u64 = plan.files.iter().map(|file| file.bytes).sum();
    let whole_text = text * file_bytes as f64 / (sampled_file_bytes.max(1)) as f64;
    let tokens = (total.tokenized_bytes > 0).then(|| {
        let tokens = whole(whole_text * total.tokens as f64 / total.tokenized_bytes as f64);
        plan.budget.map_or(tokens, |budget| budget.min(tokens))
    });
    Ok(Estimate {
        sampled_documents: total.documents,
        sampled_rejects: total.rejects,
        sampled_drops: total.drops,
        timed_tokens: total.tokens,
        seconds: total.seconds,
        reject_example: total.example,
        by_ratio: false,
        tokens,
    })
}

/// Whether a file can be sampled without fetching it.
fn is_here(file: &InputFile) -> bool {
    file.origin.is_none() || std::fs::metadata(&file.path).is_ok_and(|m| m.len() == file.bytes)
}

/// Text in a byte of file where nothing was sampled: what corpora of web pages and of code came to.
fn text_per_byte(file: &InputFile) -> f64 {
    let name = &file.name;
    let packed = [".gz", ".zst"].iter().any(|end| name.ends_with(end));
    match file.container {
        Container::Jsonl | Container::Json if packed => 2.9,
        Container::Jsonl | Container::Json => 0.9,
        Container::Parquet => 3.9,
        _ if packed => 3.5,
        _ => 1.0,
    }
}

/// An estimate from sizes alone.
fn by_ratio(plan: &SourcePlan) -> Estimate {
    // Records that name blobs have no text to reckon from.
    let text = plan.files.iter().map(|file| file.bytes as f64 * text_per_byte(file)).sum::<f64>();
    let tokens = plan.blobs.is_none().then(|| whole(text / BYTES_PER_TOKEN));
    let within = |tokens: u64| plan.budget.map_or(tokens, |budget| budget.min(tokens));
    Estimate { by_ratio: true, tokens: tokens.map(within), ..Estimate::default() }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, far below 2^63"
)]
fn whole(estimate: f64) -> u64 {
    estimate.round() as u64
}

fn spread<'a>(files: &'a [&InputFile]) -> impl Iterator<Item = &'a InputFile> {
    let step = files.len().div_ceil(FILES).max(1);
    files.iter().step_by(step).copied()
}

fn sample_file(
    plan: &SourcePlan,
    line: &Line<'_>,
    file: &InputFile,
) -> Result<Sample, DecodeError> {
    let mut options = line.decode.clone();
    plan.fill(&mut options);
    let mut sample = Sample::default();
    let mut look = |batch: Batch| {
        sample.consumed += batch.consumed;
        for record in &batch.records {
            sample.record(plan, line, &batch, record);
        }
        // Column containers report what they have read a row group at a time.
        sample.text_bytes < LOOKED_AT || sample.consumed == 0
    };
    let mut sink = BatchSink::new(&mut look);
    match decode(file, 0, &options, &mut sink).and_then(|()| sink.flush()) {
        Ok(()) | Err(DecodeError::Closed) => Ok(sample),
        Err(error) => Err(error),
    }
}

impl Sample {
    fn record(&mut self, plan: &SourcePlan, line: &Line<'_>, batch: &Batch, record: &RawRecord) {
        let document = match plan.extractor.document(&batch.bytes, &record.body) {
            Ok(Extracted::Document(document)) => document,
            Ok(Extracted::Dropped(rule)) => {
                *self.drops.entry(rule).or_default() += 1;
                return;
            }
            Err(fault) => {
                *self.rejects.entry(fault.reason).or_default() += 1;
                self.example.get_or_insert(fault.message);
                return;
            }
        };
        let length = match &document {
            Document::Text(text) => text.len() as u64,
            Document::Chat(messages) => messages.iter().map(|m| m.content.len() as u64).sum(),
        };
        self.text_bytes += length;
        if self.tokenized_bytes >= TEXT_BYTES {
            return;
        }
        let started = Instant::now();
        // The length before cleaning counts: it is what a byte of the file gives.
        let ids = match encode(plan, line, batch, record, prepare(plan, line, batch, record)) {
            Outcome::Text { ids, .. } => ids.len(),
            Outcome::Chat { row, .. } => row.ids.len(),
            Outcome::Dropped { reason } => {
                *self.drops.entry(reason).or_default() += 1;
                self.tokenized_bytes += length;
                return;
            }
            Outcome::Rejected { .. } | Outcome::Recorded(_) => return,
        };
        self.documents += 1;
        self.tokenized_bytes += length;
        self.tokens += ids as u64;
        self.seconds += started.elapsed().as_secs_f64();
    }
}
