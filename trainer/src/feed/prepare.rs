//! One row, masked and ready for a batch.

use crate::metrics::{Count, Parting, Shares, Watch};
use coda_curriculum::{
    Context, MaskPlan, RowView, Settings, SpecialIds, SyntaxSpans, apply, expected, plan_row_at,
};
use coda_shards::{Position, Row};

/// One row of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Which row it is, and at which visit.
    pub position: Position,
    /// What was masked.
    pub plan: MaskPlan,
    /// The targets.
    pub clean: Vec<u32>,
    /// What the model sees.
    pub noised: Vec<u32>,
    /// The document that each position belongs to; empty without document attention.
    pub segment_ids: Vec<u32>,
    /// What the curriculum expects of a row of this shape.
    expected: Shares,
}

/// `level` gives the noise level from the row's own draw of it.
pub(super) fn prepare(
    position: Position,
    row: &Row<'_>,
    settings: &Settings,
    context: &Context,
    ids: SpecialIds,
    documents: Option<u32>,
    level: impl FnOnce(f64) -> f64,
) -> Prepared {
    let view = RowView {
        length: u32::try_from(row.tokens.len()).expect("a row length is u32"),
        row_key: row.row_key,
        epoch: position.epoch,
        prefix_len: row.prefix_len,
        valid_len: row.valid_len,
        maskable_starts: row.maskable_starts,
        maskable_lens: row.maskable_lens,
        spans: SyntaxSpans {
            starts: row.spans.starts,
            lens: row.spans.lens,
            kinds: row.spans.kinds,
        },
    };
    let plan = plan_row_at(settings, context, &view, level);
    let (clean, noised) = apply(&plan, row.tokens, ids);
    let segment_ids = documents.map(|eos| segment_ids(&clean, eos)).unwrap_or_default();
    let average = expected::row_like(settings, context, &view);
    let expected = Shares {
        s1: average.s1_share,
        s2: average.s2_share,
        s3: average.s3_share,
        masked: average.masked_fraction,
    };
    Prepared { position, plan, clean, noised, segment_ids, expected }
}

/// The exclusive running count of the end token on the clean ids (method §5): an end token belongs
/// to the document that it ends.
fn segment_ids(clean: &[u32], eos: u32) -> Vec<u32> {
    let mut ended = 0;
    clean
        .iter()
        .map(|&id| {
            let segment = ended;
            ended += u32::from(id == eos);
            segment
        })
        .collect()
}

/// Sums over the rows of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTally {
    rows: u64,
    tokens: u64,
    scored: u64,
    strategies: [Count; 3],
    masked: Count,
}

impl StepTally {
    /// Counts a row.
    pub fn add(&mut self, row: &Prepared) {
        let plan = &row.plan;
        let Shares { s1, s2, s3, masked } = row.expected;
        self.rows += 1;
        self.tokens += row.clean.len() as u64;
        self.scored += plan.masked.iter().filter(|&&j| j > 0).count() as u64;
        let taken = [(plan.s1, s1), (plan.s2, s2), (plan.s3, s3)];
        for (count, (taken, share)) in self.strategies.iter_mut().zip(taken) {
            count.draw(taken, share);
        }
        self.masked.observed += plan.masked.len() as f64;
        self.masked.expected += masked * row.clean.len() as f64;
    }

    /// Its sums as numbers, for other processes.
    #[must_use]
    pub fn numbers(&self) -> [f64; 15] {
        let [s1, s2, s3] = self.strategies;
        let counts = [s1, s2, s3, self.masked].map(|c| [c.observed, c.expected, c.variance]);
        let mut numbers = [0.0; 15];
        numbers[..3].copy_from_slice(&[self.rows as f64, self.tokens as f64, self.scored as f64]);
        numbers[3..].copy_from_slice(counts.as_flattened());
        numbers
    }

    /// Adds the sums of another process.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    pub fn add_numbers(&mut self, numbers: &[f64; 15]) {
        let [rows, tokens, scored, ref counts @ ..] = *numbers;
        self.rows += rows as u64;
        self.tokens += tokens as u64;
        self.scored += scored as u64;
        let own = self.strategies.iter_mut().chain([&mut self.masked]);
        for (count, [observed, expected, variance]) in own.zip(counts.as_chunks().0) {
            count.observed += observed;
            count.expected += expected;
            count.variance += variance;
        }
    }

    /// Scored positions: masked ones but position 0.
    #[must_use]
    pub const fn scored(&self) -> u64 {
        self.scored
    }

    /// Tokens, pads included.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// What the masks came to.
    #[must_use]
    pub fn observed(&self) -> Shares {
        self.shares(|count| count.observed)
    }

    /// What the curriculum expects of rows of these shapes.
    #[must_use]
    pub fn expected(&self) -> Shares {
        self.shares(|count| count.expected)
    }

    fn shares(&self, of: impl Fn(Count) -> f64) -> Shares {
        let [s1, s2, s3] = self.strategies.map(|count| of(count) / self.rows.max(1) as f64);
        Shares { s1, s2, s3, masked: of(self.masked) / self.tokens.max(1) as f64 }
    }

    /// Shows the step to the watch; gives what has parted from its expectation.
    pub fn watch(&self, watch: &mut Watch) -> Vec<Parting> {
        watch.step(self.rows, self.strategies, self.tokens, self.masked)
    }
}

#[cfg(test)]
mod tests {
    use super::{StepTally, prepare, segment_ids};
    use crate::metrics::Watch;
    use coda_curriculum::{Context, Settings, SpecialIds};
    use coda_manifests::{MaskBlocks, Profile};
    use coda_shards::{Position, Row, SyntaxSpans};

    /// Steps of 8 rows with 40 ids of text, 8 of them a prompt, and 8 pads.
    #[test]
    fn the_masks_of_both_profiles_are_what_is_expected_of_them() {
        let tokens: Vec<u32> = (10..58).collect();
        let settings = Settings {
            p1: 0.25,
            p2: 0.1,
            p3: 0.3,
            block_sizes: vec![2, 5],
            mask_blocks: MaskBlocks::Tokens,
            sampling_eps: 0.01,
            span_ratio: 0.5,
        };
        for (profile, s3) in [(Profile::CodaPaper, 0.3), (Profile::CodaRepo, 1.0)] {
            let (mut watch, mut seen) = (Watch::default(), 0.0);
            for step in 0..2000 {
                let context = Context { profile, seed: 3, step, score_pads: true };
                let mut tally = StepTally::default();
                for row_key in step * 8..step * 8 + 8 {
                    let row = Row {
                        tokens: &tokens,
                        segments: &[0],
                        row_key,
                        source: 0,
                        prefix_len: 8,
                        valid_len: 40,
                        maskable_starts: &[8],
                        maskable_lens: &[32],
                        spans: SyntaxSpans::default(),
                    };
                    let position = Position { row: 0, epoch: 0 };
                    let ids = SpecialIds { mask: 1, pad: 2 };
                    let level = |u| settings.level(u);
                    tally.add(&prepare(position, &row, &settings, &context, ids, None, level));
                }
                assert_eq!(tally.watch(&mut watch), [], "{profile:?} step {step}");
                assert!((tally.expected().s3 - s3).abs() < 1e-12);
                seen += tally.observed().masked / 2000.0;
            }
            assert!((0.2..0.5).contains(&seen), "{seen}");
        }
    }

    #[test]
    fn an_end_token_belongs_to_the_document_it_ends() {
        assert_eq!(segment_ids(&[5, 6, 0, 7, 0, 0, 8], 0), [0, 0, 0, 1, 1, 2, 3]);
        assert_eq!(segment_ids(&[], 0), [0_u32; 0]);
    }
}
