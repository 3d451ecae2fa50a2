//! What the masks come to on average, in closed form: what `coda-curriculum show` prints before
//! anyone spends a GPU.
//!
//! The noise level is uniform on `[eps, 1)`. A position that `c` windows of `k` lie around stays
//! clean with probability `(1 - sigma)^(c/k)`; averaged over sigma that is
//! `(1 - eps)^(c/k) / (c/k + 1)`. Single tokens are the case `c = k = 1`. Cuts are uniform on
//! `1..L`, so S1 and S2 are averaged over every cut.

use crate::{
    Context, RowView, Settings,
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
    };
    row_like(settings, context, &row)
}

/// The expectations for a row of the shape of `row` (its key and epoch, and the context's seed and
/// step, play no part). O(L) time for a row of one span.
///
/// # Panics
/// As [`crate::plan_row`].
#[must_use]
pub fn row_like(settings: &Settings, context: &Context, row: &RowView<'_>) -> Expected {
    let has_cut = row.length >= 2;
    let s1_share = if has_cut { settings.p1.clamp(0.0, 1.0) } else { 0.0 };
    let s2_share = if has_cut { (1.0 - s1_share) * settings.p2.clamp(0.0, 1.0) } else { 0.0 };
    let s3_share = match context.profile {
        Profile::CodaPaper => settings.p3.clamp(0.0, 1.0),
        Profile::CodaRepo => f64::from(u8::from(settings.p3 > 0.0)),
    };
    let eps = settings.sampling_eps;
    let token = Coverage::new(1, eps);
    let blocks: Vec<Coverage> = if s3_share > 0.0 {
        settings.block_sizes.iter().map(|&k| Coverage::new(k, eps)).collect()
    } else {
        Vec::new()
    };
    let count = |bounds: &Bounds| {
        let runs = runs(row, bounds);
        let blocked = blocks.iter().map(|block| block.count(&runs)).sum::<Count>();
        token.count(&runs) * (1.0 - s3_share) + blocked * (s3_share / blocks.len().max(1) as f64)
    };

    let plain = Bounds::of(settings, context, row);
    let mut total = count(&plain) * (1.0 - s1_share - s2_share);
    if s1_share + s2_share > 0.0 {
        let cuts = f64::from(row.length - 1);
        for cut in 1..row.length {
            if s1_share > 0.0 {
                let bounds = Bounds { prefix: plain.prefix.max(cut), ..plain };
                total = total + count(&bounds) * (s1_share / cuts);
            }
            if s2_share > 0.0 {
                let bounds = Bounds { valid: plain.valid.min(cut), ..plain };
                total = total + count(&bounds) * (s2_share / cuts);
            }
        }
    }
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

/// How blocks of one size cover a run, averaged over sigma.
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
        let by_windows: Vec<f64> = std::iter::once(0.0).chain((1..=k).map(probability)).collect();
        let sums = by_windows.iter().scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        });
        Self { k, below: std::iter::once(0.0).chain(sums).collect(), by_windows }
    }

    fn count(&self, runs: &[Range<u32>]) -> Count {
        let long = runs.iter().filter(|run| run.end - run.start >= self.k);
        long.map(|run| {
            let n = run.end - run.start;
            // Towards the middle of the run the windows rise from 1 to `most`, stay, and fall again.
            let most = self.k.min(n - self.k + 1);
            let slopes = 2.0 * self.below[most as usize];
            let plateau = f64::from(n - 2 * (most - 1)) * self.by_windows[most as usize];
            let first = if run.start == 0 { self.by_windows[1] } else { 0.0 };
            Count { masked: slopes + plateau, first }
        })
        .sum()
    }
}
