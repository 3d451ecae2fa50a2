//! A run's curriculum laid out over its steps: the lines of the table and the points of the picture.

use crate::{
    clocks::{HoldShown, Waits},
    mix::{MixLine, RealRows, SourceTimeline},
};
use coda_curriculum::{
    Curriculum, HoldPath, Progress, Settings,
    expected::{self, Distribution, Distributions, Expected},
    schedule::{first_step, phase_start, span_ratio},
};
use coda_manifests::{MaskBlocks, Schedule, SpanKind, SpanKinds};
use serde::Serialize;

/// More epochs than this are not listed one by one: only those at which something changes.
const MOST_EPOCHS: u32 = 100;
/// The picture samples this many steps, besides the edges of the lines.
const SAMPLES: u64 = 120;
/// Bins of the masked fraction.
const BINS: usize = 20;
/// At most so many lines have their distributions, evenly chosen.
const MOST_SHAPES: usize = 12;

/// What costs more than the lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// The points of the pictures.
    pub(crate) points: bool,
    /// The distributions of the lines.
    pub(crate) shapes: bool,
}

/// What a timeline is made from: a resolved run.
pub(crate) struct Run<'a> {
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) profile: String,
    pub(crate) curriculum: &'a Curriculum,
    pub(crate) total_steps: u64,
    /// Rows per optimizer step.
    pub(crate) global_batch: u64,
    /// Tokens per row.
    pub(crate) row_length: u32,
    pub(crate) progress: &'a dyn Fn(u64) -> Progress,
    /// What the schedules say at a step: those with a hold at their own clocks.
    pub(crate) settings: &'a dyn Fn(u64) -> Settings,
    /// The way of the clock of a schedule with a hold, by its key.
    pub(crate) path: &'a dyn Fn(&str) -> Option<HoldPath>,
    pub(crate) learning_rate: &'a dyn Fn(u64) -> f64,
    /// Where the number of epochs comes from, in words.
    pub(crate) epochs_from: String,
}

/// The values at one step. The names are those of the JSON output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Values {
    pub(crate) p1: f64,
    pub(crate) p2: f64,
    pub(crate) p3: f64,
    pub(crate) block_sizes: Vec<u32>,
    #[serde(skip_serializing_if = "MaskBlocks::is_tokens")]
    pub(crate) mask_blocks: MaskBlocks,
    pub(crate) sampling_eps: f64,
    pub(crate) conditioned_span_ratio: f64,
    pub(crate) learning_rate: f64,
    pub(crate) expected_masked_fraction: f64,
    pub(crate) expected_scored_tokens: f64,
    pub(crate) expected_loss_weight: f64,
    pub(crate) s1_share: f64,
    pub(crate) s2_share: f64,
    pub(crate) s3_share: f64,
}

/// One epoch or phase: the values at its first step (in the object itself) and at its last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    /// The epoch of the first step, from 0.
    pub(crate) epoch: u32,
    pub(crate) first_step: u64,
    pub(crate) steps: u64,
    #[serde(flatten)]
    pub(crate) first: Values,
    pub(crate) last: Values,
    /// Tokens trained on by the end of the line, pads included.
    pub(crate) tokens_seen: u64,
    /// How masks are distributed at the line's middle step.
    #[serde(flatten)]
    pub(crate) shape: Option<Shape>,
}

impl Line {
    /// The step in the middle of the line.
    pub(crate) const fn middle(&self) -> u64 {
        self.first_step + self.steps / 2
    }
}

/// How masks are distributed in a full row at one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shape {
    /// Shares of rows by their masked fraction, in equal bins.
    pub(crate) masked_fraction: Vec<f64>,
    /// Masked runs by their length.
    pub(crate) masked_runs: Vec<RunBin>,
}

/// Masked runs of `from` to `to` positions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RunBin {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) runs_per_row: f64,
    pub(crate) share_of_masked_tokens: f64,
}

impl Shape {
    /// Lengths 1, 2, 3 to 4, 5 to 8 and so on.
    fn of(distribution: Distribution, length: u32) -> Self {
        let all = distribution.masked_tokens().max(f64::MIN_POSITIVE);
        let mut masked_runs = Vec::new();
        let (mut from, mut to) = (1, 1);
        while from <= length.max(1) {
            let end = to.min(length);
            let runs = distribution.masked_runs.iter().take(end as usize + 1).skip(from as usize);
            masked_runs.push(RunBin {
                from,
                to: end,
                runs_per_row: runs.sum(),
                share_of_masked_tokens: distribution.masked_in_runs(from..=end) / all,
            });
            (from, to) = (to + 1, to.saturating_mul(2));
        }
        Self { masked_fraction: distribution.masked_fraction, masked_runs }
    }
}

/// The values at one step of the picture.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) values: Values,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Timeline {
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) profile: String,
    pub(crate) total_steps: u64,
    pub(crate) global_batch: u64,
    pub(crate) row_length: u32,
    pub(crate) epochs_from: String,
    /// The rows of sources without schedules of their own.
    pub(crate) lines: Vec<Line>,
    /// Sources with schedules of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<SourceTimeline>,
    /// The rows of all sources, when there are such sources and the shares of all are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mix: Option<Vec<MixLine>>,
    /// What the rows of the shard set come to, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shard_set_rows: Option<RealRows>,
    /// How long the schedules with a hold wait here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<Waits>,
    /// The schedules with a hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) holds: Vec<HoldShown>,
    /// The same run if everything waits as long as it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) longest_waits: Option<Box<Self>>,
    #[serde(skip)]
    pub(crate) points: Vec<Point>,
}

impl Timeline {
    /// Lays out a run, with what is wanted besides the lines.
    pub(crate) fn of(run: &Run<'_>, wanted: Wanted) -> Self {
        let mut sampler = Sampler::new(run);
        let starts = line_starts(run);
        let ends = starts.iter().skip(1).copied().chain([run.total_steps]);
        let tokens_per_step = run.global_batch * u64::from(run.row_length);
        let mut lines = Vec::new();
        for (&first_step, end) in starts.iter().zip(ends) {
            lines.push(Line {
                epoch: (run.progress)(first_step).epoch,
                first_step,
                steps: end - first_step,
                first: sampler.at(first_step),
                last: sampler.at(end.saturating_sub(1).max(first_step)),
                tokens_seen: end * tokens_per_step,
                shape: None,
            });
        }
        if wanted.shapes {
            add_shapes(run, &mut lines);
        }
        let mut points = Vec::new();
        if wanted.points {
            let samples = SAMPLES.min(run.total_steps);
            let mut steps: Vec<u64> =
                (0..samples).map(|i| phase_start(i, samples, run.total_steps)).collect();
            // Both sides of every edge, so that jumps stand upright.
            steps.extend(starts.iter().flat_map(|&start| [start.saturating_sub(1), start]));
            steps.push(run.total_steps.saturating_sub(1));
            steps.sort_unstable();
            steps.dedup();
            points =
                steps.into_iter().map(|step| Point { step, values: sampler.at(step) }).collect();
        }
        Self {
            name: run.name.clone(),
            stage: run.stage.clone(),
            profile: run.profile.clone(),
            total_steps: run.total_steps,
            global_batch: run.global_batch,
            row_length: run.row_length,
            epochs_from: run.epochs_from.clone(),
            lines,
            sources: Vec::new(),
            mix: None,
            shard_set_rows: None,
            waits: None,
            holds: Vec::new(),
            longest_waits: None,
            points,
        }
    }

    /// What the timeline is of, in one line.
    pub(crate) fn title(&self) -> String {
        format!(
            "{}: stage {}, profile {}, {} steps of {} rows of {} tokens",
            self.name,
            self.stage,
            self.profile,
            self.total_steps,
            self.global_batch,
            self.row_length
        )
    }

    /// How to read the columns: terms and their meanings.
    pub(crate) fn legend(&self) -> Vec<(&'static str, String)> {
        let meanings = [
            ("p1", "probability of S1, an unmaskable prefix"),
            ("p2", "probability of S2, a truncated suffix, among the rows that S1 left"),
            ("p3", "probability of S3, masked blocks; coda-repo: on for every row once above 0"),
            ("eps", "lowest noise level"),
            ("span", "share of a prompt that is protected from masking"),
            ("lr", "learning rate"),
            ("weight", "expected weight 1/sigma of a row in the loss"),
            ("masked", "expected share of masked positions in a full row without a prompt"),
            ("scored/row", "expected positions of such a row that count in the loss"),
            ("tokens seen", "tokens of all sources by the end of the line, pads included"),
            ("a→b", "values at the first and the last step of the line"),
        ];
        let mut legend: Vec<_> =
            meanings.into_iter().map(|(term, meaning)| (term, meaning.to_owned())).collect();
        let blocks = self.lines.first().map(|line| line.first.mask_blocks).unwrap_or_default();
        if let Some(kinds) = blocks.spans() {
            legend.push(("block sizes", format!("S3: the longest {} in tokens", named(kinds))));
        }
        legend.push(("epoch", format!("counted from 0, as steps are; {}", self.epochs_from)));
        legend
    }
}

/// What blocks are when they are spans: `whole lines`.
pub(crate) fn named(kinds: SpanKinds) -> String {
    let name = |kind| match kind {
        SpanKind::Lines => "lines",
        SpanKind::Brackets => "pairs of brackets",
    };
    let names: Vec<&str> = kinds.iter().map(name).collect();
    format!("whole {}", names.join(" and "))
}

/// Works out the distributions of lines, or of some, evenly chosen, if there are many. Where blocks are
/// spans of the text they are those of the text, and no line has any.
fn add_shapes(run: &Run<'_>, lines: &mut [Line]) {
    let mut distributions = Distributions::new(run.row_length, BINS);
    let (all, most) = (lines.len(), lines.len().min(MOST_SHAPES));
    for i in 0..most {
        let line = &mut lines[if most > 1 { i * (all - 1) / (most - 1) } else { 0 }];
        let step = line.middle();
        let settings = (run.settings)(step);
        if settings.p3 > 0.0 && !settings.mask_blocks.is_tokens() {
            continue;
        }
        let distribution = distributions.of(&settings, &run.curriculum.context(step));
        line.shape = Some(Shape::of(distribution, run.row_length));
    }
}

/// Values at steps; expectations are only computed anew when the settings change.
pub(crate) struct Sampler<'a> {
    run: &'a Run<'a>,
    last: Option<(Settings, Expected)>,
}

impl<'a> Sampler<'a> {
    pub(crate) const fn new(run: &'a Run<'a>) -> Self {
        Self { run, last: None }
    }

    /// What the schedules say at a step, and what that comes to for full rows.
    pub(crate) fn look(&mut self, step: u64) -> (Settings, Expected) {
        let run = self.run;
        let settings = (run.settings)(step);
        let expected = match &self.last {
            Some((known, expected)) if *known == settings => *expected,
            _ => {
                let context = run.curriculum.context(step);
                expected::packed_row(&settings, &context, run.row_length)
            }
        };
        self.last = Some((settings.clone(), expected));
        (settings, expected)
    }

    pub(crate) fn at(&mut self, step: u64) -> Values {
        let (settings, expected) = self.look(step);
        Values {
            p1: settings.p1,
            p2: settings.p2,
            p3: settings.p3,
            block_sizes: settings.block_sizes,
            mask_blocks: settings.mask_blocks,
            sampling_eps: settings.sampling_eps,
            conditioned_span_ratio: settings.span_ratio,
            learning_rate: (self.run.learning_rate)(step),
            expected_masked_fraction: expected.masked_fraction,
            expected_scored_tokens: expected.scored_tokens,
            expected_loss_weight: expected.loss_weight,
            s1_share: expected.s1_share,
            s2_share: expected.s2_share,
            s3_share: expected.s3_share,
        }
    }
}

/// The steps at which a new line begins: epochs, phases, the ends of ramps and of the conditioned span,
/// the peak of the learning rate.
pub(crate) fn line_starts(run: &Run<'_>) -> Vec<u64> {
    let curriculum = run.curriculum;
    let total = run.total_steps;
    let mut starts = vec![0];
    epoch_starts(run, &mut starts);
    edges(run, "p1", &curriculum.p1, &mut starts);
    edges(run, "p2", &curriculum.p2, &mut starts);
    edges(run, "p3", &curriculum.p3, &mut starts);
    edges(run, "block_sizes", &curriculum.block_sizes, &mut starts);
    edges(run, "sampling_eps", &curriculum.sampling_eps, &mut starts);
    starts.extend(first_step(total, |step| {
        span_ratio(curriculum.conditioned_span, (run.progress)(step)) >= 1.0
    }));
    starts.extend(peak(run));
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|&start| start < total.max(1));
    starts
}

fn epoch_starts(run: &Run<'_>, starts: &mut Vec<u64>) {
    let epochs = (run.progress)(run.total_steps.saturating_sub(1)).epoch;
    for epoch in 1..=epochs {
        let begins = first_step(run.total_steps, |step| (run.progress)(step).epoch >= epoch);
        let changes = |&start: &u64| {
            let at = run.settings;
            epochs <= MOST_EPOCHS || at(start) != at(start.saturating_sub(1))
        };
        starts.extend(begins.filter(changes));
    }
}

fn edges<T>(run: &Run<'_>, key: &str, schedule: &Schedule<T>, starts: &mut Vec<u64>) {
    match schedule {
        Schedule::Linear { steps, .. } | Schedule::Cosine { steps, .. } => starts.push(*steps),
        Schedule::Piecewise(points) => starts.extend(points.iter().map(|(step, _)| *step)),
        Schedule::Phases(table) => {
            let phases = table.len() as u64;
            starts.extend((1..phases).map(|index| phase_start(index, phases, run.total_steps)));
        }
        Schedule::Held { schedule, .. } => {
            let Some(path) = (run.path)(key) else { return };
            let mut by_clock = Vec::new();
            edges(run, key, schedule, &mut by_clock);
            starts.extend(by_clock.into_iter().map(|clock| path.step_of(clock)));
            starts.extend(path.turns());
        }
        Schedule::Constant(_) | Schedule::Epochs(_) | Schedule::EpochCycle(_) => {}
    }
}

/// The step of the highest learning rate: the end of the warm-up.
fn peak(run: &Run<'_>) -> Option<u64> {
    let rate = |step: &u64| (run.learning_rate)(*step);
    (0..run.total_steps.min(1 << 20)).rev().max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

#[cfg(test)]
mod tests {
    use super::{Run, Timeline, Wanted};
    use coda_curriculum::{Curriculum, Progress};
    use coda_manifests::{ConditionedSpan, MaskBlocks, Profile, Schedule};
    use std::collections::BTreeMap;

    #[test]
    fn lines_begin_at_epochs_phases_and_the_peak_of_the_learning_rate() {
        let curriculum = Curriculum {
            profile: Profile::CodaPaper,
            seed: 17,
            p1: Schedule::Epochs(vec![0.01, 0.05]),
            p2: Schedule::Linear { from: 0.0, to: 0.2, steps: 30 },
            p3: Schedule::Phases(vec![0.1, 0.2, 0.3]),
            block_sizes: Schedule::Constant(vec![2, 4]),
            sampling_eps: Schedule::Constant(1e-3),
            mask_blocks: MaskBlocks::Tokens,
            conditioned_span: ConditionedSpan::Ratio(0.2),
            score_pads: true,
            sources: BTreeMap::new(),
        };
        let progress =
            |step| Progress { step, total_steps: 100, epoch: u32::try_from(step / 40).unwrap() };
        let run = Run {
            name: "small".to_owned(),
            stage: "mid".to_owned(),
            profile: "coda-paper".to_owned(),
            curriculum: &curriculum,
            total_steps: 100,
            global_batch: 8,
            row_length: 64,
            progress: &progress,
            settings: &|step| curriculum.settings(progress(step)),
            path: &|_| None,
            learning_rate: &|step| (step as f64 / 10.0).min(1.0 - step as f64 / 200.0),
            epochs_from: String::new(),
        };
        let timeline = Timeline::of(&run, Wanted { points: true, shapes: false });
        let starts: Vec<u64> = timeline.lines.iter().map(|line| line.first_step).collect();
        assert_eq!(starts, [0, 10, 20, 30, 34, 40, 67, 80]);
        assert_eq!(timeline.lines.iter().map(|line| line.steps).sum::<u64>(), 100);
        assert_eq!(timeline.lines.last().unwrap().tokens_seen, 100 * 8 * 64);
        assert!(timeline.points.is_sorted_by(|a, b| a.step < b.step));
        let line = &timeline.lines[5];
        assert_eq!((line.epoch, line.first.p1.to_bits()), (1, 0.05f64.to_bits()));
        assert!((timeline.lines[1].last.p2 - 0.2 * 19.0 / 30.0).abs() < 1e-12);
    }
}
