//! One row, masked and ready for a batch.

use crate::metrics::Shares;
use coda_curriculum::{
    Context, MaskPlan, RowView, Settings, SpecialIds, apply, expected, plan_row,
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

pub(super) fn prepare(
    position: Position,
    row: &Row<'_>,
    settings: &Settings,
    context: &Context,
    ids: SpecialIds,
    documents: Option<u32>,
) -> Prepared {
    let view = RowView {
        length: u32::try_from(row.tokens.len()).expect("a row length is u32"),
        row_key: row.row_key,
        epoch: position.epoch,
        prefix_len: row.prefix_len,
        valid_len: row.valid_len,
        maskable_starts: row.maskable_starts,
        maskable_lens: row.maskable_lens,
    };
    let plan = plan_row(settings, context, &view);
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
    masked: u64,
    scored: u64,
    strategies: [u64; 3],
    expected: [f64; 4],
}

impl StepTally {
    /// Counts a row.
    pub fn add(&mut self, row: &Prepared) {
        let plan = &row.plan;
        self.rows += 1;
        self.tokens += row.clean.len() as u64;
        self.masked += plan.masked.len() as u64;
        self.scored += plan.masked.iter().filter(|&&j| j > 0).count() as u64;
        for (count, taken) in self.strategies.iter_mut().zip([plan.s1, plan.s2, plan.s3]) {
            *count += u64::from(taken);
        }
        let Shares { s1, s2, s3, masked } = row.expected;
        for (sum, value) in self.expected.iter_mut().zip([s1, s2, s3, masked]) {
            *sum += value;
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
        let share = |count: u64| count as f64 / self.rows.max(1) as f64;
        let [s1, s2, s3] = self.strategies.map(share);
        Shares { s1, s2, s3, masked: self.masked as f64 / self.tokens.max(1) as f64 }
    }

    /// What the curriculum expects of rows of these shapes.
    #[must_use]
    pub fn expected(&self) -> Shares {
        let [s1, s2, s3, masked] = self.expected.map(|sum| sum / self.rows.max(1) as f64);
        Shares { s1, s2, s3, masked }
    }
}

#[cfg(test)]
mod tests {
    use super::segment_ids;

    #[test]
    fn an_end_token_belongs_to_the_document_it_ends() {
        assert_eq!(segment_ids(&[5, 6, 0, 7, 0, 0, 8], 0), [0, 0, 0, 1, 1, 2, 3]);
        assert_eq!(segment_ids(&[], 0), [0_u32; 0]);
    }
}
