//! Sources with schedules of their own, and what all rows together come to.

use crate::{
    table::percent,
    timeline::{Line, Run, Sampler, Timeline, Values},
};
use serde::Serialize;

/// A source whose rows are masked by schedules of its own.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SourceTimeline {
    pub(crate) source: String,
    /// The share of all rows, when it is known.
    pub(crate) share: Option<f64>,
    pub(crate) lines: Vec<Line>,
    /// The whole of it, for pictures.
    #[serde(skip)]
    pub(crate) timeline: Timeline,
}

impl SourceTimeline {
    /// `source code, 75% of the rows`.
    pub(crate) fn heading(&self) -> String {
        match self.share {
            Some(share) => format!("source {}, {} of the rows", self.source, percent(share)),
            None => format!("source {}", self.source),
        }
    }
}

/// Averages over the rows of all sources, at a line's first step and at its last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MixLine {
    pub(crate) first_step: u64,
    pub(crate) steps: u64,
    #[serde(flatten)]
    pub(crate) first: Averages,
    pub(crate) last: Averages,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Averages {
    pub(crate) s1_share: f64,
    pub(crate) s2_share: f64,
    pub(crate) s3_share: f64,
    pub(crate) expected_masked_fraction: f64,
    pub(crate) expected_scored_tokens: f64,
    pub(crate) expected_loss_weight: f64,
}

impl Averages {
    fn add(&mut self, share: f64, values: &Values) {
        self.s1_share += share * values.s1_share;
        self.s2_share += share * values.s2_share;
        self.s3_share += share * values.s3_share;
        self.expected_masked_fraction += share * values.expected_masked_fraction;
        self.expected_scored_tokens += share * values.expected_scored_tokens;
        self.expected_loss_weight += share * values.expected_loss_weight;
    }
}

/// The mix of some runs, each with its share of the rows; a line begins where one begins in any.
pub(crate) fn mix(runs: &[(f64, Run<'_>)]) -> Vec<MixLine> {
    let total = runs.first().map_or(0, |(_, run)| run.total_steps);
    let mut starts: Vec<u64> = runs.iter().flat_map(|(_, run)| run.line_starts()).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut samplers: Vec<(f64, Sampler<'_>)> =
        runs.iter().map(|(share, run)| (*share, Sampler::new(run))).collect();
    let mut at = |step| {
        let mut averages = Averages::default();
        for (share, sampler) in &mut samplers {
            averages.add(*share, &sampler.at(step));
        }
        averages
    };
    let ends = starts.iter().skip(1).copied().chain([total]);
    let lines = starts.iter().zip(ends).map(|(&first_step, end)| MixLine {
        first_step,
        steps: end - first_step,
        first: at(first_step),
        last: at(end.saturating_sub(1).max(first_step)),
    });
    lines.collect()
}
