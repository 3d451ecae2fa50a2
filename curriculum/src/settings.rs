//! A curriculum, and what it says at one step.

use crate::schedule::{Progress, Scheduled, span_ratio, value_at};
use coda_manifests::{
    ConditionedSpan, MaskBlocks, Profile, Schedule, SourceCurriculum, SpanKind, SpanKinds,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schedules of a run: everything that decides masks, apart from the rows themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curriculum {
    /// How S3 chooses its rows and block sizes.
    pub profile: Profile,
    /// The run's seed.
    pub seed: u64,
    /// Probability that S1 (unmaskable prefix) takes a row.
    pub p1: Schedule<f64>,
    /// Probability that S2 (truncated suffix) takes a row that S1 did not take.
    pub p2: Schedule<f64>,
    /// Probability that S3 (block masking) takes a row; `coda-repo` only looks whether it is 0.
    pub p3: Schedule<f64>,
    /// The block sizes, in tokens, from which S3 draws evenly.
    pub block_sizes: Schedule<Vec<u32>>,
    /// What S3's blocks are.
    #[serde(default, skip_serializing_if = "MaskBlocks::is_tokens")]
    pub mask_blocks: MaskBlocks,
    /// The lowest noise level.
    pub sampling_eps: Schedule<f64>,
    /// The protection of prompts.
    pub conditioned_span: ConditionedSpan,
    /// Whether pads may be masked (and then are scored) while `p2` is 0.
    pub score_pads: bool,
    /// What differs for the rows of single sources, by name ([`Curriculum::of_source`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceCurriculum>,
}

/// What a [`Curriculum`] says at one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Probability of S1.
    pub p1: f64,
    /// Probability of S2 among the rows that S1 did not take.
    pub p2: f64,
    /// Probability of S3.
    pub p3: f64,
    /// Block sizes in tokens; of blocks that are spans, the longest.
    pub block_sizes: Vec<u32>,
    /// What S3's blocks are.
    #[serde(skip_serializing_if = "MaskBlocks::is_tokens")]
    pub mask_blocks: MaskBlocks,
    /// The lowest noise level.
    pub sampling_eps: f64,
    /// The share `r` of a prompt that is protected, in `[0, 1]`.
    pub span_ratio: f64,
}

impl Settings {
    /// The noise level of a draw in `[0, 1)`: from [`Settings::sampling_eps`] to 1, evenly.
    #[must_use]
    pub fn level(&self, u: f64) -> f64 {
        self.sampling_eps + (1.0 - self.sampling_eps) * u
    }
}

impl Curriculum {
    /// The curriculum of one source's rows: its own schedules where it has some, the common ones
    /// elsewhere. A source that nothing is said about has the common ones.
    #[must_use]
    pub fn of_source(&self, name: &str) -> Self {
        let mut curriculum = Self { sources: BTreeMap::new(), ..self.clone() };
        let Some(own) = self.sources.get(name) else { return curriculum };
        let take = |schedule: &mut Schedule<f64>, own: Option<&Schedule<f64>>| {
            if let Some(own) = own {
                schedule.clone_from(own);
            }
        };
        take(&mut curriculum.p1, own.p1.as_ref());
        take(&mut curriculum.p2, own.p2.as_ref());
        take(&mut curriculum.p3, own.p3.as_ref());
        take(&mut curriculum.sampling_eps, own.sampling_eps.as_ref());
        if let Some(sizes) = &own.block_sizes {
            curriculum.block_sizes.clone_from(sizes);
        }
        curriculum.mask_blocks = own.mask_blocks.unwrap_or(curriculum.mask_blocks);
        curriculum
    }

    /// A kind of spans that masks of some source follow and rows with spans of the kinds `noted` do
    /// not have.
    #[must_use]
    pub fn lacks(&self, noted: Option<SpanKinds>) -> Option<SpanKind> {
        let own = self.sources.values().filter_map(|own| own.mask_blocks);
        let wanted = std::iter::once(self.mask_blocks).chain(own).filter_map(MaskBlocks::spans);
        wanted.into_iter().find_map(|wanted| wanted.missing_in(noted))
    }

    /// The settings at a point of training, for rows of sources without schedules of their own.
    ///
    /// # Panics
    /// If a schedule is an empty table; [`Curriculum::check`] refuses those.
    #[must_use]
    pub fn settings(&self, progress: Progress) -> Settings {
        Settings {
            p1: value_at(&self.p1, progress),
            p2: value_at(&self.p2, progress),
            p3: value_at(&self.p3, progress),
            block_sizes: value_at(&self.block_sizes, progress),
            mask_blocks: self.mask_blocks,
            sampling_eps: value_at(&self.sampling_eps, progress),
            span_ratio: span_ratio(self.conditioned_span, progress),
        }
    }

    /// What the rows of a step share besides its settings.
    #[must_use]
    pub const fn context(&self, step: u64) -> crate::Context {
        crate::Context { profile: self.profile, seed: self.seed, step, score_pads: self.score_pads }
    }

    /// Refuses schedules that no row could be drawn from.
    ///
    /// # Errors
    /// A [`CurriculumError`] with the key and what is wrong with it: an empty table, a probability
    /// outside `[0, 1]`, a `sampling_eps` outside `(0, 1]`, an empty list of block sizes or a block
    /// of 0 tokens, a ramp of block sizes, steps out of order, a ratio of the conditioned span outside `[0, 1]`.
    pub fn check(&self) -> Result<(), CurriculumError> {
        for name in self.sources.keys() {
            self.of_source(name).check().map_err(|error| CurriculumError::OfSource {
                name: name.clone(),
                error: Box::new(error),
            })?;
        }
        let probability = |p: &f64| (0.0..=1.0).contains(p);
        for (key, schedule) in [("p1", &self.p1), ("p2", &self.p2), ("p3", &self.p3)] {
            check_values(key, schedule, "a probability from 0 to 1", probability)?;
        }
        let noise = |eps: &f64| *eps > 0.0 && *eps <= 1.0;
        check_values("sampling_eps", &self.sampling_eps, "above 0 and at most 1", noise)?;
        let sizes = |sizes: &Vec<u32>| !sizes.is_empty() && sizes.iter().all(|&k| k > 0);
        check_values("block_sizes", &self.block_sizes, "a list of sizes of 1 or more", sizes)?;
        if self.block_sizes.is_ramp() {
            return Err(CurriculumError::RampOfBlockSizes);
        }
        match self.conditioned_span {
            ConditionedSpan::Ratio(ratio) if !probability(&ratio) => Err(CurriculumError::Value {
                key: "conditioned_span.ratio",
                found: ratio.to_string(),
                expected: "from 0 to 1",
            }),
            _ => Ok(()),
        }
    }
}

/// Masks are to follow spans that the rows of a shard set do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "curriculum.mask_blocks: blocks are to follow {}, which the rows of the shard set {set} do not have \
     noted", missing.name()
)]
pub struct SpansNotNoted {
    /// The shard set, as messages name it.
    pub set: String,
    /// The kind that is missing.
    pub missing: SpanKind,
}

impl SpansNotNoted {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let name = self.missing.name();
        format!(
            "set `data.spans: {name}` and ingest again, or leave curriculum.mask_blocks at tokens"
        )
    }
}

/// A schedule that no row could be drawn from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurriculumError {
    /// A table without entries.
    #[error("curriculum.{key}: the table has no entries")]
    EmptyTable {
        /// The manifest key below `curriculum`.
        key: &'static str,
    },
    /// A value outside its range.
    #[error("curriculum.{key}: {found} is not {expected}")]
    Value {
        /// The manifest key below `curriculum`.
        key: &'static str,
        /// The value found.
        found: String,
        /// What the value should be.
        expected: &'static str,
    },
    /// A source's own schedules, or the common ones it goes by.
    #[error("curriculum.sources.{name}: {error}")]
    OfSource {
        /// The source.
        name: String,
        /// What is wrong with its schedules.
        error: Box<CurriculumError>,
    },
    /// The steps of a piecewise schedule do not ascend.
    #[error("curriculum.{key}: step {step} does not come after the one before it")]
    StepOutOfOrder {
        /// The manifest key below `curriculum`.
        key: &'static str,
        /// The step.
        step: u64,
    },
    /// Block sizes have no values in between.
    #[error("curriculum.block_sizes: a list of sizes cannot ramp")]
    RampOfBlockSizes,
}

impl CurriculumError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::EmptyTable { key } => format!("give {key} at least one value, or leave it out"),
            Self::Value { key, expected, .. } => format!("{key} is {expected}"),
            Self::OfSource { error, .. } => return error.hint(),
            Self::StepOutOfOrder { .. } => "the steps of a piecewise schedule ascend".to_owned(),
            Self::RampOfBlockSizes => {
                "use `phases: [[2, 4], [8, 16]]` or `epochs: [[4], [8]]`".to_owned()
            }
        })
    }
}

fn check_values<T: Scheduled + std::fmt::Debug>(
    key: &'static str,
    schedule: &Schedule<T>,
    expected: &'static str,
    holds: impl Fn(&T) -> bool,
) -> Result<(), CurriculumError> {
    let values = schedule.values();
    if values.is_empty() {
        return Err(CurriculumError::EmptyTable { key });
    }
    if let Some(step) = schedule.step_out_of_order() {
        return Err(CurriculumError::StepOutOfOrder { key, step });
    }
    match values.into_iter().find(|value| !holds(value)) {
        Some(value) => Err(CurriculumError::Value { key, found: format!("{value:?}"), expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "schedules give exact values")]
mod tests {
    use super::{Curriculum, CurriculumError};
    use crate::Progress;
    use coda_manifests::{
        ConditionedSpan, MaskBlocks, Profile, Schedule, SourceCurriculum, SpanKind, SpanKinds,
    };
    use std::collections::BTreeMap;

    fn curriculum() -> Curriculum {
        Curriculum {
            profile: Profile::CodaPaper,
            seed: 17,
            p1: Schedule::Epochs(vec![0.01, 0.05]),
            p2: Schedule::Constant(0.01),
            p3: Schedule::Linear { from: 0.0, to: 0.5, steps: 10 },
            block_sizes: Schedule::Constant(vec![2, 4]),
            mask_blocks: MaskBlocks::Tokens,
            sampling_eps: Schedule::Constant(1e-3),
            conditioned_span: ConditionedSpan::Off,
            score_pads: true,
            sources: BTreeMap::new(),
        }
    }

    #[test]
    fn a_source_has_its_own_schedules_and_the_common_ones() {
        let mut curriculum = curriculum();
        let own = SourceCurriculum {
            p1: Some(Schedule::Constant(0.5)),
            block_sizes: Some(Schedule::Constant(vec![64])),
            ..SourceCurriculum::default()
        };
        curriculum.sources.insert("code".to_owned(), own);
        let progress = Progress { step: 5, total_steps: 20, epoch: 1 };
        let code = curriculum.of_source("code").settings(progress);
        assert_eq!((code.p1, code.p2, code.p3), (0.5, 0.01, 0.25));
        assert_eq!(code.block_sizes, [64]);
        assert_eq!(curriculum.of_source("text").settings(progress), curriculum.settings(progress));
        curriculum.sources.get_mut("code").unwrap().p2 = Some(Schedule::Constant(2.0));
        let error = curriculum.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "curriculum.sources.code: curriculum.p2: 2.0 is not a probability from 0 to 1"
        );
    }

    #[test]
    fn each_schedule_is_read_at_its_own_clock() {
        let settings = curriculum().settings(Progress { step: 5, total_steps: 20, epoch: 1 });
        assert_eq!((settings.p1, settings.p2, settings.p3), (0.05, 0.01, 0.25));
        assert_eq!(settings.block_sizes, [2, 4]);
        assert_eq!(settings.span_ratio, 1.0);
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        let refused = |change: fn(&mut Curriculum)| {
            let mut curriculum = curriculum();
            change(&mut curriculum);
            let error = curriculum.check().unwrap_err();
            assert!(error.hint().is_some());
            error.to_string()
        };
        assert_eq!(curriculum().check(), Ok(()));
        let messages = [
            refused(|c| c.p1 = Schedule::Phases(vec![0.1, 1.5])),
            refused(|c| c.p2 = Schedule::Constant(f64::NAN)),
            refused(|c| c.p3 = Schedule::EpochCycle(vec![])),
            refused(|c| c.sampling_eps = Schedule::Constant(0.0)),
            refused(|c| c.block_sizes = Schedule::Constant(vec![4, 0])),
            refused(|c| c.conditioned_span = ConditionedSpan::Ratio(-0.5)),
            refused(|c| c.p1 = Schedule::Piecewise(vec![(0, 0.1), (9, 0.2), (9, 0.3)])),
            refused(|c| c.p1 = Schedule::Piecewise(vec![])),
        ];
        assert_eq!(
            messages,
            [
                "curriculum.p1: 1.5 is not a probability from 0 to 1",
                "curriculum.p2: NaN is not a probability from 0 to 1",
                "curriculum.p3: the table has no entries",
                "curriculum.sampling_eps: 0.0 is not above 0 and at most 1",
                "curriculum.block_sizes: [4, 0] is not a list of sizes of 1 or more",
                "curriculum.conditioned_span.ratio: -0.5 is not from 0 to 1",
                "curriculum.p1: step 9 does not come after the one before it",
                "curriculum.p1: the table has no entries",
            ]
        );
        let mut ramp = curriculum();
        ramp.block_sizes = Schedule::Linear { from: vec![2], to: vec![4], steps: 9 };
        assert_eq!(ramp.check(), Err(CurriculumError::RampOfBlockSizes));
        ramp.block_sizes = Schedule::Cosine { from: vec![2], to: vec![4], steps: 9 };
        assert_eq!(ramp.check(), Err(CurriculumError::RampOfBlockSizes));
        ramp.block_sizes = Schedule::Piecewise(vec![(0, vec![2]), (9, vec![4])]);
        assert_eq!(ramp.check(), Ok(()));
    }

    #[test]
    fn spans_that_rows_do_not_have_are_named() {
        let of = |kinds: &[SpanKind]| SpanKinds::new(kinds.iter().copied());
        let blocks = |kinds| MaskBlocks::Spans(of(kinds).expect("some"));
        let mut curriculum = curriculum();
        assert_eq!(curriculum.lacks(None), None);
        let own = SourceCurriculum {
            mask_blocks: Some(blocks(&[SpanKind::Brackets])),
            ..SourceCurriculum::default()
        };
        curriculum.sources.insert("code".to_owned(), own);
        assert_eq!(curriculum.lacks(of(&[SpanKind::Lines])), Some(SpanKind::Brackets));
        assert_eq!(curriculum.lacks(of(&SpanKind::ALL)), None);
        let progress = Progress { step: 0, total_steps: 1, epoch: 0 };
        assert_eq!(curriculum.settings(progress).mask_blocks, MaskBlocks::Tokens);
        let code = curriculum.of_source("code");
        assert_eq!(code.settings(progress).mask_blocks, blocks(&[SpanKind::Brackets]));
        curriculum.mask_blocks = blocks(&[SpanKind::Lines]);
        assert_eq!(curriculum.lacks(None), Some(SpanKind::Lines));
    }
}
