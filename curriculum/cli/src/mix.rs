//! Sources with schedules of their own, and what all rows together come to.

use crate::{
    show::Course,
    table::percent,
    timeline::{Line, Sampler, Timeline, line_starts},
    words::grouped,
};
use coda_curriculum::expected::Expected;
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

/// What the rows that are there come to: with their prompts and pads, and from all sources.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RealRows {
    /// So many visits stand for all.
    pub(crate) rows: u64,
    /// By the settings of the first step.
    pub(crate) first: Averages,
    /// By those of the last.
    pub(crate) last: Averages,
}

impl RealRows {
    /// In one sentence.
    pub(crate) fn words(&self) -> String {
        let both = |show: fn(&Averages) -> String| match (show(&self.first), show(&self.last)) {
            (a, b) if a == b => a,
            (a, b) => format!("{a} at first, {b} in the end"),
        };
        format!(
            "In the rows of the shard set, with their prompts and pads (the mean of {} visits): \
             masked {}; scored tokens a row {}.",
            grouped(self.rows),
            both(|v| percent(v.expected_masked_fraction)),
            both(|v| format!("{:.0}", v.expected_scored_tokens))
        )
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
    pub(crate) fn add(&mut self, share: f64, expected: &Expected) {
        self.s1_share += share * expected.s1_share;
        self.s2_share += share * expected.s2_share;
        self.s3_share += share * expected.s3_share;
        self.expected_masked_fraction += share * expected.masked_fraction;
        self.expected_scored_tokens += share * expected.scored_tokens;
        self.expected_loss_weight += share * expected.loss_weight;
    }
}

/// The mix of some sources' rows, each with its share; a line begins where one begins in any.
pub(crate) fn mix(shares: &[f64], courses: &[Course<'_>]) -> Vec<MixLine> {
    let total = courses.first().map_or(0, |course| course.look(|run| run.total_steps));
    let mut starts: Vec<u64> = courses.iter().flat_map(|course| course.look(line_starts)).collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([total]);
    let mut lines: Vec<MixLine> = starts
        .iter()
        .zip(ends)
        .map(|(&first_step, end)| MixLine {
            first_step,
            steps: end - first_step,
            first: Averages::default(),
            last: Averages::default(),
        })
        .collect();
    for (&share, course) in shares.iter().zip(courses) {
        course.look(|run| {
            let mut sampler = Sampler::new(run);
            for line in &mut lines {
                let last = line.first_step + line.steps.saturating_sub(1);
                line.first.add(share, &sampler.look(line.first_step).1);
                line.last.add(share, &sampler.look(last).1);
            }
        });
    }
    lines
}
