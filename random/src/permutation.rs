//! A keyed bijection of `0..n`: the order of rows within an epoch, without a shuffle buffer.

use crate::{Purpose, philox4x32};

/// Rounds of the Feistel network. Four make a permutation that no cheap test tells from random
/// (Luby and Rackoff 1988); eight leave room for the tiny domains of tests and small corpora.
const ROUNDS: u32 = 8;

/// A keyed bijection of `0..n`, each way in O(1) time and memory.
///
/// A Feistel network over `2·h` bits, where `h` is the least number with `4^h >= n`; values outside
/// `0..n` are sent through the network again (cycle walking), at most four times on average.
/// The round function of round `r` for the half `x` is the first word of the Philox block with key
/// `[seed low, seed high]` and counter `[x, epoch | purpose << 24, domain, r]`, cut to `h` bits.
/// Each round maps `(left, right)` to `(right, left xor f(right))`; `left` is the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    key: [u32; 2],
    epoch_and_purpose: u32,
    domain: u32,
    half_bits: u32,
    n: u64,
}

impl Permutation {
    /// The permutation of `0..n` for this seed, purpose, domain (say a source's index) and epoch.
    ///
    /// # Panics
    /// If `n` is 0 or `epoch` does not fit in 24 bits.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the seed is cut into halves on purpose")]
    pub const fn new(seed: u64, purpose: Purpose, domain: u32, epoch: u32, n: u64) -> Self {
        assert!(n > 0, "an empty range has no order");
        assert!(epoch < 1 << 24, "an epoch must fit in 24 bits");
        let bits = u64::BITS - (n - 1).leading_zeros();
        let half_bits = bits.div_ceil(2);
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            epoch_and_purpose: epoch | (purpose as u32) << 24,
            domain,
            half_bits: if half_bits == 0 { 1 } else { half_bits },
            n,
        }
    }

    /// Where `i` goes.
    ///
    /// # Panics
    /// If `i` is not below `n`.
    #[must_use]
    pub fn at(&self, i: u64) -> u64 {
        assert!(i < self.n, "{i} is not in 0..{}", self.n);
        let mut value = i;
        loop {
            value = self.forward(value);
            if value < self.n {
                return value;
            }
        }
    }

    /// What goes to `j`: the inverse of [`Permutation::at`].
    ///
    /// # Panics
    /// If `j` is not below `n`.
    #[must_use]
    pub fn inverse(&self, j: u64) -> u64 {
        assert!(j < self.n, "{j} is not in 0..{}", self.n);
        let mut value = j;
        loop {
            value = self.backward(value);
            if value < self.n {
                return value;
            }
        }
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(right, round));
        }
        self.join(left, right)
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(left, round), left);
        }
        self.join(left, right)
    }

    const fn mask(&self) -> u32 {
        u32::MAX >> (32 - self.half_bits)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves are masked to 32 bits or fewer")]
    const fn split(&self, value: u64) -> (u32, u32) {
        ((value >> self.half_bits) as u32 & self.mask(), value as u32 & self.mask())
    }

    const fn join(&self, left: u32, right: u32) -> u64 {
        (left as u64) << self.half_bits | right as u64
    }

    const fn round(&self, half: u32, round: u32) -> u32 {
        let counter = [half, self.epoch_and_purpose, self.domain, round];
        philox4x32(counter, self.key)[0] & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use super::Permutation;
    use crate::Purpose;
    use proptest::prelude::*;

    fn order(seed: u64, domain: u32, epoch: u32, n: u64) -> Permutation {
        Permutation::new(seed, Purpose::RowOrder, domain, epoch, n)
    }

    #[test]
    fn visits_everything_once_for_every_small_n() {
        for n in 1..=130 {
            let permutation = order(9, 1, 2, n);
            let mut seen: Vec<u64> = (0..n).map(|i| permutation.at(i)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>(), "n = {n}");
        }
    }

    proptest! {
        #[test]
        fn inverse_undoes(seed: u64, domain: u32, epoch in 0u32..1 << 24, n in 1u64.., pick: u64) {
            let permutation = order(seed, domain, epoch, n);
            let i = pick % n;
            prop_assert_eq!(permutation.inverse(permutation.at(i)), i);
        }
    }

    #[test]
    fn epochs_domains_and_seeds_give_other_orders() {
        let n = 1000;
        let list = |p: Permutation| (0..n).map(|i| p.at(i)).collect::<Vec<_>>();
        let base = list(order(1, 0, 0, n));
        for other in [order(2, 0, 0, n), order(1, 1, 0, n), order(1, 0, 1, n)] {
            let same = list(other).iter().zip(&base).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of {n} rows kept their place");
        }
    }

    /// Over many seeds each of the 24 orders of four things should come about equally often.
    #[test]
    fn small_orders_are_evenly_likely() {
        let mut counts = std::collections::HashMap::new();
        for seed in 0..24_000 {
            let permutation = order(seed, 0, 0, 4);
            *counts.entry([0, 1, 2, 3].map(|i| permutation.at(i))).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // 1000 expected each; six standard deviations.
        assert!(counts.values().all(|&c| (800..1200).contains(&c)), "{counts:?}");
    }
}
