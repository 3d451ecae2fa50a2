//! How the masked positions of a row are spread: histograms of their share.
//!
//! **Single tokens** have a closed form. Of `m` maskable positions `j` are masked with probability
//! `P(N <= j) / ((m + 1)(1 - eps))`, `N` binomial with `m + 1` trials of probability `eps`.
//!
//! **Blocks** of `k` are counted exactly at each noise level in rows of up to [`EXACT`] tokens, by the
//! last start and the positions covered so far, and integrated over the noise levels. That costs the
//! square of the row length for every noise level. In longer rows the count at a noise level is taken to
//! be normal, with the mean and the variance that it has: it varies far less than it does over sigma, so
//! what its shape leaves out is below the size of a block against a bin.

use super::Coverage;
use std::collections::VecDeque;

/// Rows up to this long are counted exactly.
const EXACT: u32 = 1024;
/// Noise levels at which rows are counted: Gauss's, good to 1e-4 of the rows where 32 are.
const COUNTED: u32 = 64;
/// Noise levels over which the integral for longer rows is summed.
const NODES: u32 = 256;
/// In longer rows, so many cuts stand for all.
const CUTS: u64 = 256;

/// Shares of rows by their masked positions.
pub(super) struct Fractions {
    /// All `L` positions are maskable.
    pub(super) whole: Vec<f64>,
    /// The mean over `1..L` maskable positions.
    pub(super) cut: Vec<f64>,
}

/// For blocks of `k` (1: single tokens) in a row of `length`: a bin for every `1 / bins` of the row.
pub(super) fn fractions(k: u32, eps: f64, length: u32, bins: usize) -> Fractions {
    let bins = Bins { count: bins, length: length as usize };
    if k > length {
        let unmasked: Vec<f64> =
            (0..bins.count).map(|bin| if bin == 0 { 1.0 } else { 0.0 }).collect();
        return Fractions { whole: unmasked.clone(), cut: unmasked };
    }
    if k > 1 && length <= EXACT {
        return counted(k, eps, length, &bins);
    }
    let mut fractions = Fractions { whole: bins.empty(), cut: bins.empty() };
    let of = if k == 1 { single_tokens } else { normal };
    of(k, eps, &[length], &bins, &mut fractions.whole);
    of(k, eps, &cuts(length), &bins, &mut fractions.cut);
    fractions
}

/// `1..length`, or so many of them that stand evenly among all.
fn cuts(length: u32) -> Vec<u32> {
    let all = u64::from(length.saturating_sub(1));
    let taken = all.min(CUTS);
    let middle = |i: u64| 1 + (2 * i + 1) * all / (2 * taken);
    (0..taken).filter_map(|i| u32::try_from(middle(i)).ok()).collect()
}

/// The middles of equal parts of the noise levels.
fn noise_levels(eps: f64) -> impl Iterator<Item = f64> {
    (0..NODES).map(move |i| eps + (1.0 - eps) * (f64::from(i) + 0.5) / f64::from(NODES))
}

struct Bins {
    count: usize,
    length: usize,
}

impl Bins {
    fn empty(&self) -> Vec<f64> {
        vec![0.0; self.count]
    }

    /// Where a row with so many masked positions goes; a row that is masked all over: into the last.
    fn of(&self, masked: usize) -> usize {
        (masked * self.count / self.length.max(1)).min(self.count - 1)
    }
}

/// The mean over rows of `maskable` positions each.
fn single_tokens(_k: u32, eps: f64, maskable: &[u32], bins: &Bins, into: &mut [f64]) {
    let share = 1.0 / maskable.len().max(1) as f64;
    for &maskable in maskable {
        if eps >= 1.0 {
            into[bins.of(maskable as usize)] += share;
            continue;
        }
        let trials = f64::from(maskable) + 1.0;
        let each = share / (trials * (1.0 - eps));
        let odds = (eps / (1.0 - eps)).ln();
        // Logarithms, since the first probability may be too small for a number.
        let mut log = trials * (-eps).ln_1p();
        let mut at_most = 0.0;
        for masked in 0..=maskable {
            at_most += log.exp();
            into[bins.of(masked as usize)] += each * f64::min(at_most, 1.0);
            let done = f64::from(masked);
            log += ((trials - done) / (done + 1.0)).ln() + odds;
        }
    }
}

/// Long rows of blocks, the mean over rows of `maskable` positions each.
fn normal(k: u32, eps: f64, maskable: &[u32], bins: &Bins, into: &mut [f64]) {
    let weight = 1.0 / (f64::from(NODES) * maskable.len().max(1) as f64);
    // Below which count a bin ends, halfway between two counts.
    let end = |bin: usize| ((bin + 1) * bins.length).div_ceil(bins.count) as f64 - 0.5;
    let last = bins.count - 1;
    for sigma in noise_levels(eps) {
        let (coverage, variance) = (Coverage::at(k, sigma), variance(k, sigma));
        for &maskable in maskable {
            let mean = coverage.run(maskable);
            let deviation = (variance * f64::from(maskable)).sqrt().max(1e-6);
            let mut below = 0.0;
            for (bin, value) in into.iter_mut().enumerate() {
                let up_to =
                    if bin == last { 1.0 } else { normal_below((end(bin) - mean) / deviation) };
                *value += weight * (up_to - below);
                below = up_to;
            }
        }
    }
}

/// The share of a standard normal below `x`, within 1e-7 (Abramowitz and Stegun, 26.2.17).
fn normal_below(x: f64) -> f64 {
    const TERMS: [f64; 5] =
        [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / 0.231_641_9f64.mul_add(x.abs(), 1.0);
    let series = TERMS.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    let above = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * series;
    if x < 0.0 { above } else { 1.0 - above }
}

/// Gauss's `n` points in `eps..1` with their weights, which sum to 1: Newton's steps towards the zeros
/// of Legendre's polynomial.
fn gauss(n: u32, eps: f64) -> Vec<(f64, f64)> {
    let point = |i: u32| {
        let mut x = (std::f64::consts::PI * (f64::from(i) + 0.75) / (f64::from(n) + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..60 {
            let (mut before, mut here) = (1.0, x);
            for degree in 2..=n {
                let d = f64::from(degree);
                (before, here) = (here, ((2.0 * d - 1.0) * x * here - (d - 1.0) * before) / d);
            }
            slope = f64::from(n) * (x * here - before) / (x * x - 1.0);
            let step = here / slope;
            x -= step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        (eps + (1.0 - eps) * x.midpoint(1.0), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..n).map(point).collect()
}

/// Of the number of masked positions, per position, away from the ends of a run: positions `d < k`
/// apart are both clean with probability `(1 - sigma)^((k + d)/k)`, farther ones know nothing of each
/// other.
fn variance(k: u32, sigma: f64) -> f64 {
    let clean = 1.0 - sigma;
    let together = |d: u32| clean.powf(1.0 + f64::from(d) / f64::from(k)) - clean * clean;
    together(0) + 2.0 * (1..k).map(together).sum::<f64>()
}

/// Short rows of blocks: `newest[c]` is the probability that the window at hand starts a block and that
/// `c` positions are covered up to that block's end. The start before lies `g` windows back: up to `k`
/// it adds `g` positions, beyond it adds `k`.
fn counted(k: u32, eps: f64, length: u32, bins: &Bins) -> Fractions {
    let (size, len) = (k as usize, length as usize);
    let (mut whole, mut cut) = (bins.empty(), bins.empty());
    let cuts = f64::from(length.saturating_sub(1).max(1));
    // Rows with no room for a block.
    let roomless = (1..len).filter(|&n| n < size).count();
    cut[0] += roomless as f64 / cuts;
    if len < size {
        whole[0] += 1.0;
        return Fractions { whole, cut };
    }
    for (sigma, weight) in gauss(COUNTED, eps) {
        let b = (1.0 - sigma).powf(1.0 / f64::from(k));
        let beyond = 1.0 - sigma;
        // Those of the `k + 1` windows before the one at hand, the last one first.
        let mut before: VecDeque<Vec<f64>> = vec![Vec::new(); size + 1].into();
        let (mut near, mut far) = (vec![0.0; len + 1], vec![0.0; len + 1]);
        let mut ended = vec![0.0; len + 1];
        let mut none = 1.0;
        for window in 0..=len - size {
            let oldest = before.pop_back().unwrap_or_default();
            let last = &before[0];
            let shifted = |values: &[f64], c: usize, by: usize| {
                c.checked_sub(by).and_then(|c| values.get(c)).copied().unwrap_or(0.0)
            };
            // No more is covered than lies before the end of the window.
            let reach = window + size;
            for c in (0..=reach).rev() {
                let lost = beyond * shifted(&oldest, c, size + 1);
                near[c] = (shifted(last, c, 1) + b * shifted(&near, c, 1) - lost).max(0.0);
                far[c] = b * far[c] + beyond * shifted(&oldest, c, size);
            }
            let pairs = near.iter().zip(&far).take(reach + 1);
            let mut newest: Vec<f64> = pairs.map(|(near, far)| (1.0 - b) * (near + far)).collect();
            newest[size] += (1.0 - b) * none;
            none *= b;
            for (ended, newest) in ended.iter_mut().zip(&newest) {
                *ended = b * *ended + newest;
            }
            let whole_row = window == len - size;
            let (into, share) =
                if whole_row { (&mut whole, weight) } else { (&mut cut, weight / cuts) };
            into[0] += share * none;
            for (masked, probability) in ended.iter().enumerate().take(reach + 1) {
                into[bins.of(masked)] += share * probability;
            }
            before.push_front(newest);
        }
    }
    Fractions { whole, cut }
}

#[cfg(test)]
mod tests {
    use super::{Bins, EXACT, counted, fractions, gauss, normal, normal_below, single_tokens};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_row_lies_in_one_bin(
            k in prop::sample::select(vec![1u32, 2, 7, 32]),
            eps in 1e-4f64..=1.0,
            length in 2u32..700,
            bins in 1usize..30,
        ) {
            let found = fractions(k, eps, length, bins);
            for shares in [found.whole, found.cut] {
                prop_assert!(shares.iter().all(|share| *share >= 0.0));
                prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
            }
        }
    }

    /// Blocks of one token are single tokens: counting must find the closed form again.
    #[test]
    fn counting_blocks_of_one_token_is_the_closed_form() {
        for eps in [1e-3, 0.3] {
            let bins = Bins { count: 8, length: 60 };
            let found = counted(1, eps, 60, &bins);
            let (mut whole, mut cut) = (bins.empty(), bins.empty());
            single_tokens(1, eps, &[60], &bins, &mut whole);
            single_tokens(1, eps, &(1..60).collect::<Vec<_>>(), &bins, &mut cut);
            for (found, expected) in
                found.whole.iter().zip(&whole).chain(found.cut.iter().zip(&cut))
            {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    /// Where both ways can go they agree: the tolerance that the page promises for longer rows.
    #[test]
    fn counting_and_the_normal_meet() {
        for (k, tolerance) in [(2, 0.002), (8, 0.005), (16, 0.01), (32, 0.02)] {
            let bins = Bins { count: 20, length: EXACT as usize };
            let exact = counted(k, 1e-3, EXACT, &bins).whole;
            let mut near = bins.empty();
            normal(k, 1e-3, &[EXACT], &bins, &mut near);
            let apart: f64 = exact.iter().zip(&near).map(|(a, b)| (a - b).abs()).sum();
            assert!(apart / 2.0 < tolerance, "k = {k}: {apart}");
        }
    }

    /// Gauss's points integrate polynomials of twice their degree exactly.
    #[test]
    fn integrals_and_the_normal_have_known_values() {
        let moment = |power: i32| -> f64 {
            gauss(6, 0.2).iter().map(|(x, weight)| weight * x.powi(power)).sum()
        };
        for power in 0..12 {
            let known = (1.0 - 0.2f64.powi(power + 1)) / (f64::from(power + 1) * 0.8);
            assert!((moment(power) - known).abs() < 1e-13, "{power}");
        }
        for (x, below) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.96, 0.024_997_895), (9.0, 1.0)] {
            assert!((normal_below(x) - below).abs() < 1e-7, "{x}");
        }
    }
}
