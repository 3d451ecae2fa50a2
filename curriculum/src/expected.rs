//! What the masks come to on average, in closed form: what `coda-curriculum show` prints before
//! anyone spends a GPU.
//!
//! The noise level is uniform on `[eps, 1)`. A position that `c` windows of `k` lie around stays
//! clean with probability `(1 - sigma)^(c/k)`; averaged over sigma that is
//! `(1 - eps)^(c/k) / (c/k + 1)`. Single tokens are the case `c = k = 1`. Cuts are uniform on
//! `1..L`, so S1 and S2 are averaged over every cut.

mod distribution;
mod fraction;
mod run_lengths;

pub use distribution::{Distribution, Distributions};

use crate::{
    Context, RowView, Settings, SyntaxSpans,
    maskable::{Bounds, runs},
};
use coda_manifests::Profile;
use serde::Serialize;
use std::ops::Range;

/// Expectations for one row at one step, over all its draws.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Masked positions per position of the row, pads and prefix included.
    pub masked_fraction: f64,
    /// Scored positions per row: masked and not position 0.
    pub scored_tokens: f64,
    /// Share of rows that S1 takes.
    pub s1_share: f64,
    /// Share of rows that S2 takes.
    pub s2_share: f64,
    /// Share of rows that S3 takes (`coda-repo`: of batches).
    pub s3_share: f64,
    /// Mean noise level.
    pub sigma: f64,
    /// Mean loss weight of a row, `E[1/sigma] = ln(1/eps) / (1 - eps)`.
    pub loss_weight: f64,
}

/// The expectations for a packed row: `length` tokens, no prompt, no pads, maskable throughout.
///
/// # Panics
/// As [`crate::plan_row`].
#[must_use]
pub fn packed_row(settings: &Settings, context: &Context, length: u32) -> Expected {
    let row = RowView {
        length,
        row_key: 0,
        epoch: 0,
        prefix_len: 0,
        valid_len: length,
        maskable_starts: &[0],
        maskable_lens: &[length],
        spans: SyntaxSpans::default(),
    };
    row_like(settings, context, &row)
}

/// The expectations for a row of the shape of `row` (its key and epoch, and the context's seed and
/// step, play no part). Cheap enough for every row of a run: O(spans + block sizes).
///
/// # Panics
/// As [`crate::plan_row`].
#[must_use]
pub fn row_like(settings: &Settings, context: &Context, row: &RowView<'_>) -> Expected {
    let [s1_share, s2_share, s3_share] = shares(settings, context, row.length);
    let eps = settings.sampling_eps;
    // Blocks that are spans mask every position as often as single tokens do.
    let blocks_share = if settings.mask_blocks.is_tokens() { s3_share } else { 0.0 };
    let token = Coverage::new(1, eps);
    // A block that no row has room for masks nothing; its table could be as long as any number.
    let fits = |k: &&u32| blocks_share > 0.0 && **k <= row.length;
    let blocks: Vec<Coverage> =
        settings.block_sizes.iter().filter(fits).map(|&k| Coverage::new(k, eps)).collect();
    let runs = runs(row, &Bounds::of(settings, context, row));
    let kinds = std::iter::once((&token, 1.0 - blocks_share));
    let of_each = blocks_share / settings.block_sizes.len().max(1) as f64;
    let kinds = kinds.chain(blocks.iter().map(|block| (block, of_each)));
    let cuts = f64::from(row.length.saturating_sub(1).max(1));
    let total: Count = kinds
        .map(|(coverage, share)| {
            let whole = coverage.whole(&runs) * (1.0 - s1_share - s2_share);
            let prefixed = coverage.prefixed(&runs) * (s1_share / cuts);
            let truncated = coverage.truncated(&runs, row.length) * (s2_share / cuts);
            (whole + prefixed + truncated) * share
        })
        .sum();
    Expected {
        masked_fraction: total.masked / f64::from(row.length.max(1)),
        scored_tokens: total.masked - total.first,
        s1_share,
        s2_share,
        s3_share,
        sigma: f64::midpoint(eps, 1.0),
        loss_weight: if eps < 1.0 { -eps.ln() / (1.0 - eps) } else { 1.0 },
    }
}

/// The shares of rows that S1, S2 and S3 take.
fn shares(settings: &Settings, context: &Context, length: u32) -> [f64; 3] {
    let has_cut = length >= 2;
    let s1 = if has_cut { settings.p1.clamp(0.0, 1.0) } else { 0.0 };
    let s2 = if has_cut { (1.0 - s1) * settings.p2.clamp(0.0, 1.0) } else { 0.0 };
    let s3 = match context.profile {
        Profile::CodaPaper => settings.p3.clamp(0.0, 1.0),
        Profile::CodaRepo => f64::from(u8::from(settings.p3 > 0.0)),
    };
    [s1, s2, s3]
}

/// Expected numbers of masked positions.
#[derive(Clone, Copy, Debug)]
struct Count {
    masked: f64,
    /// Of these, position 0, which is never scored.
    first: f64,
}

impl std::ops::Add for Count {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { masked: self.masked + other.masked, first: self.first + other.first }
    }
}

impl std::ops::Mul<f64> for Count {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { masked: self.masked * factor, first: self.first * factor }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self { masked: 0.0, first: 0.0 }, |a, b| a + b)
    }
}

/// How blocks of one size cover a run, averaged over sigma or at one.
struct Coverage {
    k: u32,
    /// `by_windows[c]`: probability that a position with `c` windows around it is masked.
    by_windows: Vec<f64>,
    /// `below[c]`: sum of `by_windows[..c]`.
    below: Vec<f64>,
}

impl Coverage {
    fn new(k: u32, eps: f64) -> Self {
        let probability = |windows: u32| {
            let exponent = f64::from(windows) / f64::from(k);
            1.0 - (1.0 - eps).powf(exponent) / (exponent + 1.0)
        };
        Self::with(k, probability)
    }

    /// At one noise level.
    fn at(k: u32, sigma: f64) -> Self {
        Self::with(k, |windows| 1.0 - (1.0 - sigma).powf(f64::from(windows) / f64::from(k)))
    }

    fn with(k: u32, probability: impl Fn(u32) -> f64) -> Self {
        let by_windows: Vec<f64> = std::iter::once(0.0).chain((1..=k).map(probability)).collect();
        let sums = by_windows.iter().scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        });
        Self { k, below: std::iter::once(0.0).chain(sums).collect(), by_windows }
    }

    /// Expected masked positions in a run of `n`.
    fn run(&self, n: u32) -> f64 {
        if n < self.k {
            return 0.0;
        }
        // Towards the middle of the run the windows rise from 1 to `most`, stay, and fall again.
        let most = self.k.min(n - self.k + 1);
        let slopes = 2.0 * self.below[most as usize];
        slopes + f64::from(n - 2 * (most - 1)) * self.by_windows[most as usize]
    }

    /// The sum of [`Coverage::run`] over the lengths `1..=m`.
    fn runs_up_to(&self, m: u32) -> f64 {
        // From 2k - 1 on every further position adds the same.
        let short: f64 = (self.k..=m.min(2 * self.k - 2)).map(|n| self.run(n)).sum();
        let long = f64::from((m + 2).saturating_sub(2 * self.k));
        let plateaus = self.by_windows[self.k as usize] * long * (long + 1.0) / 2.0;
        short + 2.0 * self.below[self.k as usize] * long + plateaus
    }

    /// Position 0, in a run of `n` that starts there.
    fn first(&self, n: u32) -> f64 {
        if n >= self.k { self.by_windows[1] } else { 0.0 }
    }

    /// The runs as they are.
    fn whole(&self, runs: &[Range<u32>]) -> Count {
        let masked = runs.iter().map(|run| self.run(run.end - run.start)).sum();
        let first = runs.first().filter(|run| run.start == 0);
        Count { masked, first: first.map_or(0.0, |run| self.first(run.end)) }
    }

    /// The sum over S1's cuts `1..L`: a cut inside a run leaves its end, one before it all of it.
    fn prefixed(&self, runs: &[Range<u32>]) -> Count {
        let of = |run: &Range<u32>| {
            let n = run.end - run.start;
            f64::from(run.start) * self.run(n) + self.runs_up_to(n - 1)
        };
        Count { masked: runs.iter().map(of).sum(), first: 0.0 }
    }

    /// The sum over S2's cuts `1..L`: a cut inside a run leaves its start, one after it all of it.
    fn truncated(&self, runs: &[Range<u32>], length: u32) -> Count {
        let of = |run: &Range<u32>| {
            let n = run.end - run.start;
            f64::from(length - run.end) * self.run(n) + self.runs_up_to(n - 1)
        };
        let first = runs.first().filter(|run| run.start == 0).map_or(0.0, |run| {
            let inside = f64::from(run.end.saturating_sub(self.k)) * self.by_windows[1];
            f64::from(length - run.end) * self.first(run.end) + inside
        });
        Count { masked: runs.iter().map(of).sum(), first }
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Coverage};
    use proptest::prelude::*;
    use std::ops::Range;

    /// Position by position: how many windows of its run lie around it.
    fn counted(coverage: &Coverage, runs: impl Iterator<Item = Range<u32>>) -> Count {
        let mut count = Count { masked: 0.0, first: 0.0 };
        for run in runs {
            for position in run.clone() {
                let starts = run.start..(run.end + 1).saturating_sub(coverage.k);
                let around = |s: &u32| (*s..s + coverage.k).contains(&position);
                let p = coverage.by_windows[starts.filter(around).count()];
                count.masked += p;
                count.first += if position == 0 { p } else { 0.0 };
            }
        }
        count
    }

    proptest! {
        #[test]
        fn sums_equal_counting(
            k in 1u32..20,
            eps in 1e-3f64..1.0,
            gaps in prop::collection::vec((0u32..9, 1u32..40), 0..5),
            tail in 0u32..9,
        ) {
            let mut at = 0;
            let mut runs: Vec<Range<u32>> = Vec::new();
            for (i, (gap, n)) in gaps.into_iter().enumerate() {
                let start = at + gap.max(u32::from(i > 0));
                at = start + n;
                runs.push(start..at);
            }
            let length = at + tail;
            let coverage = Coverage::new(k, eps);
            let clipped = |keep: Range<u32>| {
                let clip = move |run: &Range<u32>| run.start.max(keep.start)..run.end.min(keep.end);
                counted(&coverage, runs.iter().map(clip))
            };
            let same = |a: Count, b: Count| {
                (a.masked - b.masked).abs() < 1e-8 && (a.first - b.first).abs() < 1e-8
            };
            prop_assert!(same(coverage.whole(&runs), clipped(0..length)));
            let prefixed = (1..length).map(|cut| clipped(cut..length)).sum();
            prop_assert!(same(coverage.prefixed(&runs), prefixed));
            let truncated = (1..length).map(|cut| clipped(0..cut)).sum();
            prop_assert!(same(coverage.truncated(&runs, length), truncated));
        }
    }
}
