//! How long the masked runs of a row are.
//!
//! A *masked run* is a longest stretch of masked positions. Single tokens have a closed form: at a
//! noise level `sigma`, `n` maskable positions hold on average `(n - r - 1) sigma^r (1 - sigma)^2 + 2
//! sigma^r (1 - sigma)` runs of `r < n`, and `sigma^n` of `n`; the integrals over sigma are elementary.
//!
//! Blocks of `k` have none over sigma, so the sum is exact at each sigma and the integral is a sum over
//! [`NODES`] of them. With `a` the probability that a window starts a block and `b = 1 - a`: starts
//! belong to one run as long as no two neighbours are more than `k` apart, so a run of `r = k + g`
//! begins at a start with no start in the `k` windows before, goes on through starts to one at the
//! distance `g`, and ends with no start in the `k` windows after. `u(g)` sums over the ways between:
//! `u(0) = 1`, `u(g) = a (u(g-1) + b u(g-2) + … + b^(k-1) u(g-k))`.

/// Noise levels over which the integral for blocks is summed.
const NODES: u32 = 256;

/// Expected numbers of masked runs of one row, by length: entry `r` for runs of `r`.
pub(super) struct RunCounts {
    /// All `L` positions are maskable.
    pub(super) whole: Vec<f64>,
    /// The sum over `1..L` maskable positions.
    pub(super) cut: Vec<f64>,
}

/// For blocks of `k` (1: single tokens) in a row of `length`.
pub(super) fn runs(k: u32, eps: f64, length: u32) -> RunCounts {
    if k == 1 { single_tokens(eps, length) } else { blocks(k, eps, length) }
}

fn single_tokens(eps: f64, length: u32) -> RunCounts {
    let l = f64::from(length);
    let mut counts = nothing(length);
    for (r, (whole, cut)) in counts.whole.iter_mut().zip(&mut counts.cut).enumerate().skip(1) {
        let (alone, edge, inside) = moments(r, eps);
        let r = r as f64;
        if r < l {
            *whole = (l - r - 1.0) * inside + 2.0 * edge;
            let longer = l - 1.0 - r;
            *cut = alone + 2.0 * edge * longer + inside * longer * (longer - 1.0) / 2.0;
        } else {
            *whole = alone;
        }
    }
    counts
}

/// The means over sigma of `sigma^r`, `sigma^r (1 - sigma)` and `sigma^r (1 - sigma)^2`.
fn moments(r: usize, eps: f64) -> (f64, f64, f64) {
    if eps >= 1.0 {
        return (1.0, 0.0, 0.0);
    }
    let (x, y, z) = (r as f64 + 1.0, r as f64 + 2.0, r as f64 + 3.0);
    // What the integral from 0 has too much.
    let below = eps.powf(x);
    let alone = (1.0 - below) / x;
    let edge = 1.0 / (x * y) - below * (1.0 / x - eps / y);
    let inside = 2.0 / (x * y * z) - below * (1.0 / x - 2.0 * eps / y + eps * eps / z);
    let width = 1.0 - eps;
    (alone / width, edge / width, inside / width)
}

fn blocks(k: u32, eps: f64, length: u32) -> RunCounts {
    let mut counts = nothing(length);
    if length < k {
        return counts;
    }
    let windows = (length - k + 1) as usize;
    for (clean, weight) in clean_shares(eps) {
        let b = clean.powf(1.0 / f64::from(k));
        let links = links(b, k as usize, windows);
        let places = places(b, k as usize, windows);
        // `fewer[m]`: the sum of `places[..=m]`, for cuts.
        let fewer: Vec<f64> = places
            .iter()
            .scan(0.0, |sum, places| {
                *sum += places;
                Some(*sum)
            })
            .collect();
        for (g, link) in links.iter().enumerate() {
            let begun = weight * (1.0 - b) * link;
            counts.whole[k as usize + g] += begun * places[windows - g];
            // The longest cut leaves one window less than the whole row has.
            counts.cut[k as usize + g] += begun * fewer[windows - g - 1];
        }
    }
    counts
}

/// Values of `1 - sigma` with their weights, dense towards 0: there the longest runs are.
fn clean_shares(eps: f64) -> impl Iterator<Item = (f64, f64)> {
    (0..NODES).map(move |i| {
        let w = (f64::from(i) + 0.5) / f64::from(NODES);
        ((1.0 - eps) * w.powi(3), 3.0 * w * w / f64::from(NODES))
    })
}

/// `u(g)` for `g` below `count`.
fn links(b: f64, k: usize, count: usize) -> Vec<f64> {
    let a = 1.0 - b;
    let out_of_reach = b.powf(k as f64);
    let mut links = vec![1.0];
    let mut sum = 0.0;
    for g in 1..count {
        let lost = if g > k { out_of_reach * links[g - 1 - k] } else { 0.0 };
        sum = (links[g - 1] + b * sum - lost).max(0.0);
        links.push(a * sum);
    }
    links
}

/// For `m` up to `most`: the sum, over the `m` windows at which a run's first start may lie so that
/// its last is still a window, of the probability that the `k` windows before and after, as far as
/// there are any, start nothing: `b^(min(s, k) + min(k, m - 1 - s))`.
fn places(b: f64, k: usize, most: usize) -> Vec<f64> {
    let powers: Vec<f64> =
        std::iter::successors(Some(1.0), |p| Some(p * b)).take(2 * k + 1).collect();
    // `from_k[i]`: the sum of `b^k … b^(k + i - 1)`.
    let from_k: Vec<f64> = std::iter::once(0.0)
        .chain(powers[k..].iter().scan(0.0, |sum, power| {
            *sum += power;
            Some(*sum)
        }))
        .collect();
    let of = |e: usize| {
        if e < k {
            (e + 1) as f64 * powers[e]
        } else if e < 2 * k {
            2.0 * from_k[e - k + 1] + (2 * k - 1 - e) as f64 * powers[e]
        } else {
            2.0 * from_k[k] + (e - 2 * k + 1) as f64 * powers[2 * k]
        }
    };
    std::iter::once(0.0).chain((0..most).map(of)).collect()
}

fn nothing(length: u32) -> RunCounts {
    let zeros = vec![0.0; length as usize + 1];
    RunCounts { whole: zeros.clone(), cut: zeros }
}

#[cfg(test)]
mod tests {
    use super::{links, places, runs};
    use crate::expected::Coverage;
    use proptest::prelude::*;

    /// Every subset of the windows as starts, with its probability.
    fn enumerated(b: f64, k: usize, windows: usize) -> Vec<f64> {
        let length = windows + k - 1;
        let mut counts = vec![0.0; length + 1];
        for starts in 0_u32..1 << windows {
            let ones = f64::from(starts.count_ones());
            let probability = (1.0 - b).powf(ones) * b.powf(windows as f64 - ones);
            let masked =
                |p: usize| (0..windows).any(|s| starts >> s & 1 == 1 && (s..s + k).contains(&p));
            let mut run = 0;
            for position in 0..=length {
                if position < length && masked(position) {
                    run += 1;
                } else {
                    counts[run] += if run > 0 { probability } else { 0.0 };
                    run = 0;
                }
            }
        }
        counts
    }

    #[test]
    fn at_a_noise_level_the_sum_is_that_over_all_choices_of_starts() {
        for (b, k, windows) in [(0.5, 2, 9), (0.9, 3, 10), (0.2, 5, 8), (0.7, 1, 9), (0.6, 9, 4)] {
            let (links, places) = (links(b, k, windows), places(b, k, windows));
            let expected = enumerated(b, k, windows);
            for (g, link) in links.iter().enumerate() {
                let found = (1.0 - b) * link * places[windows - g];
                assert!((found - expected[k + g]).abs() < 1e-12, "{b} {k} {windows} {g}");
            }
        }
    }

    proptest! {
        /// The runs hold as many positions as `Coverage` says are masked.
        #[test]
        fn runs_add_up_to_the_masked_positions(k in 1u32..40, eps in 1e-3f64..1.0, length in 2u32..400) {
            let (counts, coverage) = (runs(k, eps, length), Coverage::new(k, eps));
            let positions = |counts: &[f64]| -> f64 {
                counts.iter().enumerate().map(|(r, count)| r as f64 * count).sum()
            };
            let (whole, cut) = (coverage.run(length), coverage.runs_up_to(length - 1));
            prop_assert!((positions(&counts.whole) - whole).abs() <= 1e-3 * whole + 1e-9);
            prop_assert!((positions(&counts.cut) - cut).abs() <= 1e-3 * cut + 1e-9);
        }
    }
}
