//! S3: masked blocks of `k` tokens (method §3).

use crate::plan::for_each_draw;
use coda_random::{Stream, survival_threshold};
use std::ops::Range;

/// The union of the blocks that start in `runs`, ascending.
///
/// Every window of `k` positions inside a run starts a block with probability
/// `1 - (1 - sigma)^(1/k)`. A position with `c` windows around it stays clean with probability
/// `(1 - sigma)^(c/k)`; away from the ends of a run `c = k`, so it is masked with probability
/// `sigma`. One pass: starts come in ascending order, so each block only adds what lies behind the
/// one before.
pub(crate) fn masked(draws: Stream, sigma: f64, k: u32, runs: &[Range<u32>]) -> Vec<u32> {
    let threshold = survival_threshold(1.0 - sigma, k);
    let mut masked = Vec::new();
    for run in runs.iter().filter(|run| run.end - run.start >= k) {
        let mut covered = run.start;
        for_each_draw(draws, run.start..run.end - k + 1, |start, word| {
            if u64::from(word) >= threshold {
                masked.extend(covered.max(start)..start + k);
                covered = start + k;
            }
        });
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::masked;
    use coda_random::{Purpose, Stream, survival_threshold};
    use proptest::prelude::*;

    /// O(L · k), straight from the definition: a position is masked when any window that holds it
    /// and lies in its run is a start.
    fn oracle(draws: Stream, sigma: f64, k: u32, runs: &[std::ops::Range<u32>]) -> Vec<u32> {
        let threshold = survival_threshold(1.0 - sigma, k);
        let starts = |s: u32| u64::from(draws.u32_at(u64::from(s))) >= threshold;
        let mut masked = Vec::new();
        for run in runs {
            for position in run.clone() {
                let windows = (position + 1).saturating_sub(k)..=position;
                let fits = |s: &u32| *s >= run.start && s + k <= run.end;
                if windows.filter(fits).any(starts) {
                    masked.push(position);
                }
            }
        }
        masked
    }

    proptest! {
        #[test]
        fn dilation_equals_the_definition(
            seed: u64,
            key: u64,
            sigma in 0.0f64..=1.0,
            k in 1u32..40,
            gaps in prop::collection::vec((1u32..30, 1u32..90), 0..6),
        ) {
            let draws = Stream::new(seed, key, 0, Purpose::BlockStart);
            let mut at = 0;
            let runs: Vec<_> = gaps
                .into_iter()
                .map(|(gap, len)| {
                    let run = at + gap..at + gap + len;
                    at = run.end;
                    run
                })
                .collect();
            prop_assert_eq!(masked(draws, sigma, k, &runs), oracle(draws, sigma, k, &runs));
        }
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "one run is meant")]
    fn a_run_shorter_than_a_block_stays_clean() {
        let draws = Stream::new(1, 2, 3, Purpose::BlockStart);
        assert_eq!(masked(draws, 1.0, 8, &[0..7, 10..17]), [] as [u32; 0]);
        assert_eq!(masked(draws, 1.0, 8, &[0..8]), (0..8).collect::<Vec<_>>());
        assert_eq!(masked(draws, 0.0, 8, &[0..80]), [] as [u32; 0]);
    }
}
