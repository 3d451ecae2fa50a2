//! What the report is made from, read from the files that the steps have left.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Everything on the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// One sentence on where the corpora come from.
    pub(crate) corpora: String,
    /// The stages in their order.
    pub(crate) stages: Vec<StageReport>,
    /// What the models are worth on what they have never seen.
    pub(crate) evaluation: Option<Evaluation>,
    /// The infill, if it was sampled.
    pub(crate) infill: Option<Infill>,
    /// Seconds of every step of the quickstart by name, as far as known.
    pub(crate) seconds: Vec<(String, f64)>,
}

/// One stage: its data, its curriculum, its run.
#[derive(Clone, Debug)]
pub(crate) struct StageReport {
    /// `pre-training` and so on.
    pub(crate) title: String,
    /// The shard set's index.
    pub(crate) index: Index,
    /// What `coda-curriculum show --json` printed.
    pub(crate) timeline: Timeline,
    /// The lines of `metrics.jsonl`.
    pub(crate) metrics: Vec<Step>,
}

/// What the report uses of a shard set's `index.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) row_length: u32,
    pub(crate) rows: u64,
    pub(crate) totals: Totals,
    pub(crate) sources: Vec<Source>,
}

/// Sums over the sources.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Totals {
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
    pub(crate) padding_tokens: u64,
    pub(crate) rejected: u64,
    pub(crate) input_bytes: u64,
}

/// One source of a shard set.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
    pub(crate) rows: u64,
    pub(crate) input_bytes: u64,
    pub(crate) rejects: BTreeMap<String, u64>,
}

/// What the report uses of a curriculum laid out over its steps.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) profile: String,
    pub(crate) total_steps: u64,
    pub(crate) global_batch: u64,
    pub(crate) lines: Vec<Line>,
}

/// One epoch or phase.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) first_step: u64,
    pub(crate) steps: u64,
    #[serde(flatten)]
    pub(crate) first: Values,
    pub(crate) last: Values,
}

/// The curriculum at one step.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Values {
    pub(crate) p1: f64,
    pub(crate) p2: f64,
    pub(crate) p3: f64,
    pub(crate) block_sizes: Vec<u32>,
    pub(crate) learning_rate: f64,
    pub(crate) expected_masked_fraction: f64,
}

/// What the report uses of a line of `metrics.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the key of the file")]
pub(crate) struct Step {
    pub(crate) step: u64,
    pub(crate) loss: Option<f64>,
    pub(crate) nats_per_token: Option<f64>,
    pub(crate) held_out: Option<HeldOut>,
    #[serde(default)]
    pub(crate) seconds: f64,
    #[serde(default)]
    pub(crate) tokens_per_second: f64,
}

/// A loss on rows that are never trained on.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HeldOut {
    pub(crate) loss: f64,
    pub(crate) nats_per_token: f64,
    pub(crate) rows: u64,
}

/// Measured after training.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evaluation {
    /// For every stage, the likelihood of its held-out rows by strategy.
    pub(crate) likelihoods: Vec<(String, BTreeMap<String, Nll>)>,
    /// Bodies of functions that were filled in.
    pub(crate) filled: Vec<Filled>,
}

/// What the report uses of a likelihood.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Nll {
    pub(crate) nats_per_token: f64,
    pub(crate) bits_per_byte: f64,
    pub(crate) rows: u64,
}

/// A hole as it was, and as it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) original: String,
    pub(crate) answer: String,
}

/// A function whose body was masked and filled in.
#[derive(Clone, Debug)]
pub(crate) struct Infill {
    /// Where the function is from.
    pub(crate) from: String,
    /// The body as people wrote it.
    pub(crate) original: String,
    /// The text before the masks, the same in every frame.
    pub(crate) prefix: String,
    /// The text after the masks.
    pub(crate) suffix: String,
    /// The masked tokens as they are filled: per step the texts, none where still masked.
    pub(crate) frames: Vec<Frame>,
}

/// The canvas after one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Steps done.
    pub(crate) step: u64,
    /// The span's tokens; none where still masked.
    pub(crate) tokens: Vec<Option<String>>,
}

impl StageReport {
    /// Held-out loss before the first and after the last step, if both were measured.
    pub(crate) fn held_out(&self) -> Option<(&HeldOut, &HeldOut)> {
        let mut measured = self.metrics.iter().filter_map(|m| m.held_out.as_ref());
        let first = measured.next()?;
        Some((first, measured.next_back()?))
    }

    /// Seconds of all steps.
    pub(crate) fn seconds(&self) -> f64 {
        self.metrics.iter().map(|m| m.seconds).sum()
    }

    /// The median of the steps' tokens per second.
    pub(crate) fn throughput(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self
            .metrics
            .iter()
            .filter(|m| m.loss.is_some() && m.tokens_per_second > 0.0)
            .map(|m| m.tokens_per_second)
            .collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }
}

/// The lines of `metrics.jsonl`; a half-written last line is left out.
pub(crate) fn metrics(text: &str) -> Result<Vec<Step>, serde_json::Error> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect()
}
