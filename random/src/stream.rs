//! The draws of one purpose for one row.

use crate::philox4x32;

/// What a draw decides. The number is part of the shard-format document and never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// The order of rows within an epoch.
    RowOrder = 1,
    /// Which source the next row comes from, when sources carry weights.
    Mixing = 2,
    /// The noise level sigma of a row.
    Sigma = 3,
    /// Whether S1 (unmaskable prefix) takes a row.
    PrefixGate = 4,
    /// Where the prefix of S1 ends.
    PrefixCut = 5,
    /// Whether S2 (truncated suffix) takes a row.
    SuffixGate = 6,
    /// Where the suffix of S2 begins.
    SuffixCut = 7,
    /// Whether S3 (block masking) takes a row.
    BlockGate = 8,
    /// The block size of a row.
    BlockSize = 9,
    /// Whether a masked block starts at a position.
    BlockStart = 10,
    /// Whether a single token is masked.
    TokenMask = 11,
    /// The block size of a whole batch (profile `coda-repo`).
    BatchBlockSize = 12,
    /// The starting value of a parameter.
    ParameterInit = 13,
    /// The token that a sampler draws.
    SampleToken = 14,
    /// The order in which a sampler reveals positions.
    SampleOrder = 15,
    /// Reserved for choosing held-out documents.
    HeldOut = 16,
}

/// The draws named by *(seed, row key, epoch, purpose)*, indexed from 0.
///
/// Draw `i` is lane `i mod 4` of the Philox block with
/// key `[seed low, seed high]` and
/// counter `[i / 4, epoch | purpose << 24, row key low, row key high]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    epoch_and_purpose: u32,
    row_key: [u32; 2],
}

impl Stream {
    /// The stream of one purpose for one row in one epoch.
    ///
    /// # Panics
    /// If `epoch` does not fit in 24 bits.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "words are cut into halves on purpose")]
    pub const fn new(seed: u64, row_key: u64, epoch: u32, purpose: Purpose) -> Self {
        assert!(epoch < 1 << 24, "an epoch must fit in 24 bits");
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            epoch_and_purpose: epoch | (purpose as u32) << 24,
            row_key: [row_key as u32, (row_key >> 32) as u32],
        }
    }

    /// The four draws `4·block .. 4·block + 4`.
    #[must_use]
    pub const fn block(&self, block: u32) -> [u32; 4] {
        philox4x32([block, self.epoch_and_purpose, self.row_key[0], self.row_key[1]], self.key)
    }

    /// Draw `i`, uniform over all 32-bit integers.
    ///
    /// # Panics
    /// If `i` is 2^34 or more: a row has no so many draws of one purpose.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "checked just above")]
    pub const fn u32_at(&self, i: u64) -> u32 {
        assert!(i < 1 << 34, "a stream holds 2^34 draws");
        self.block((i / 4) as u32)[(i % 4) as usize]
    }

    /// Draw `i` as a number in `[0, 1)`: `u32_at(i) / 2^32`, exact in f64.
    #[must_use]
    pub fn unit_at(&self, i: u64) -> f64 {
        f64::from(self.u32_at(i)) / 4_294_967_296.0
    }

    /// Draw `i` as an integer in `0..n`: `(u32_at(i) · n) >> 32`.
    ///
    /// No rejection, so every draw costs one index; the bias is below `n / 2^32`.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the product of a u32 and n is below n << 32"
    )]
    pub const fn below_at(&self, i: u64, n: u32) -> u32 {
        assert!(n > 0, "nothing can be drawn from an empty range");
        ((self.u32_at(i) as u64 * n as u64) >> 32) as u32
    }

    /// Writes the draws `from .. from + out.len()`; four times as fast as one by one.
    ///
    /// # Panics
    /// If the range reaches 2^34.
    pub fn fill(&self, from: u64, out: &mut [u32]) {
        let mut next = from;
        let mut rest = out;
        while !rest.is_empty() {
            if next.is_multiple_of(4) && rest.len() >= 4 {
                let (head, tail) = rest.split_at_mut(4);
                let block = u32::try_from(next / 4).expect("a stream holds 2^34 draws");
                head.copy_from_slice(&self.block(block));
                (rest, next) = (tail, next + 4);
            } else {
                let (head, tail) = rest.split_at_mut(1);
                head[0] = self.u32_at(next);
                (rest, next) = (tail, next + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Stream};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fill_equals_one_by_one(seed: u64, key: u64, from in 0u64..100_000, n in 0usize..70) {
            let stream = Stream::new(seed, key, 3, Purpose::TokenMask);
            let mut filled = vec![0; n];
            stream.fill(from, &mut filled);
            let single: Vec<u32> = (from..from + n as u64).map(|i| stream.u32_at(i)).collect();
            prop_assert_eq!(filled, single);
        }

        #[test]
        fn below_stays_below(seed: u64, key: u64, i in 0u64..1 << 34, n in 1u32..) {
            prop_assert!(Stream::new(seed, key, 0, Purpose::Sigma).below_at(i, n) < n);
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Stream::new(1, 2, 3, Purpose::Sigma);
        let others = [
            Stream::new(1 | 1 << 40, 2, 3, Purpose::Sigma),
            Stream::new(1, 2 | 1 << 40, 3, Purpose::Sigma),
            Stream::new(1, 2, 4, Purpose::Sigma),
            Stream::new(1, 2, 3, Purpose::TokenMask),
        ];
        for other in others {
            assert_ne!(base.block(0), other.block(0));
        }
    }

    #[test]
    fn units_have_the_mean_and_variance_of_the_uniform_law() {
        let stream = Stream::new(5, 6, 7, Purpose::TokenMask);
        let n = 1 << 16;
        let units: Vec<f64> = (0..n).map(|i| stream.unit_at(i)).collect();
        let mean = units.iter().sum::<f64>() / f64::from(1 << 16);
        let variance = units.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / f64::from(1 << 16);
        // Five standard errors of 65,536 uniform draws.
        assert!((mean - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / 65_536.0).sqrt(), "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 2e-3, "{variance}");
    }
}
