//! How the masked positions of a row are spread: histograms of their share.
//!
//! **Single tokens** have a closed form. Of `m` maskable positions `j` are masked with probability
//! `P(N <= j) / ((m + 1)(1 - eps))`, `N` binomial with `m + 1` trials of probability `eps`.
//!
//! **Blocks** of `k` are counted exactly at each noise level in rows of up to [`EXACT`] tokens, by the
//! last start and the positions covered so far, and summed over [`NODES`] noise levels. In longer rows
//! the count at a noise level is spread evenly, with the mean and the variance that it has: it varies far
//! less than it does over sigma, so its shape plays no part.

use super::Coverage;
use std::collections::VecDeque;

/// Rows up to this long are counted exactly.
const EXACT: u32 = 256;
/// Noise levels over which the integral for blocks is summed.
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
    let of = if k == 1 { single_tokens } else { spread };
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

/// Long rows of blocks, the mean over rows of `maskable` positions each: evenly over
/// `mean ± sqrt(3 variance)`.
fn spread(k: u32, eps: f64, maskable: &[u32], bins: &Bins, into: &mut [f64]) {
    let weight = 1.0 / (f64::from(NODES) * maskable.len().max(1) as f64);
    let width = bins.length as f64 / bins.count as f64;
    for sigma in noise_levels(eps) {
        let (coverage, variance) = (Coverage::at(k, sigma), variance(k, sigma));
        for &maskable in maskable {
            let (mean, most) = (coverage.run(maskable), f64::from(maskable));
            // Half a token at least: a count is a whole number.
            let half = (3.0 * variance * most).sqrt().max(0.5);
            let (low, high) = ((mean - half).max(0.0), (mean + half).min(most));
            let last = bins.count - 1;
            for (bin, value) in into.iter_mut().enumerate() {
                let from = if bin == 0 { low } else { (bin as f64 * width).clamp(low, high) };
                let to =
                    if bin == last { high } else { ((bin + 1) as f64 * width).clamp(low, high) };
                *value += weight * (to - from) / (high - low);
            }
        }
    }
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
    for sigma in noise_levels(eps) {
        let weight = 1.0 / f64::from(NODES);
        let b = (1.0 - sigma).powf(1.0 / f64::from(k));
        let beyond = 1.0 - sigma;
        // Those of the `k + 1` windows before the one at hand, the last one first.
        let mut before: VecDeque<Vec<f64>> = vec![vec![0.0; len + 1]; size + 1].into();
        let (mut near, mut far) = (vec![0.0; len + 1], vec![0.0; len + 1]);
        let mut ended = vec![0.0; len + 1];
        let mut none = 1.0;
        for window in 0..=len - size {
            let oldest = before.pop_back().unwrap_or_default();
            let last = &before[0];
            let shifted =
                |values: &[f64], c: usize, by: usize| c.checked_sub(by).map_or(0.0, |c| values[c]);
            for c in (0..=len).rev() {
                let lost = beyond * shifted(&oldest, c, size + 1);
                near[c] = (shifted(last, c, 1) + b * shifted(&near, c, 1) - lost).max(0.0);
                far[c] = b * far[c] + beyond * shifted(&oldest, c, size);
            }
            let pairs = near.iter().zip(&far);
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
            for (masked, probability) in ended.iter().enumerate() {
                into[bins.of(masked)] += share * probability;
            }
            before.push_front(newest);
        }
    }
    Fractions { whole, cut }
}

#[cfg(test)]
mod tests {
    use super::{Bins, EXACT, counted, fractions, single_tokens, spread};
    use proptest::prelude::*;

    proptest! {
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

    /// Where both ways can go they agree: the tolerance that the page promises for long rows.
    #[test]
    fn counting_and_spreading_meet() {
        for (k, tolerance) in [(2, 0.02), (8, 0.02), (16, 0.03)] {
            let bins = Bins { count: 10, length: EXACT as usize };
            let exact = counted(k, 1e-3, EXACT, &bins).whole;
            let mut even = bins.empty();
            spread(k, 1e-3, &[EXACT], &bins, &mut even);
            let apart: f64 = exact.iter().zip(&even).map(|(a, b)| (a - b).abs()).sum();
            assert!(apart / 2.0 < tolerance, "k = {k}: {apart}");
        }
    }
}
