//! Probabilities as integers, so that a comparison decides alike everywhere.

/// 2^32: one more than the largest draw.
const RANGE: f64 = 4_294_967_296.0;

/// The integer `floor(p · 2^32)`: a draw below it happens with probability `p` (to within 2^-32).
///
/// The product is exact in f64, so every implementation gets the same integer. `p` is clamped to
/// `[0, 1]`; 1 gives 2^32, above every draw.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is within 0..=2^32 after the clamp"
)]
pub fn bernoulli_threshold(p: f64) -> u64 {
    (p.clamp(0.0, 1.0) * RANGE).floor() as u64
}

/// The largest integer `s` in `0..=2^32` with `(s / 2^32)^k <= keep`: the k-th root of `keep`.
///
/// A draw at or above `s` happens with probability `1 - keep^(1/k)`. The root is found by bisection
/// over integers with a power made of multiplications alone (binary, from the lowest bit), since
/// IEEE 754 fixes the result of a multiplication and no library agrees on `pow` to the last bit.
///
/// # Panics
/// If `k` is 0.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "integers up to 2^32 are exact in f64")]
pub fn survival_threshold(keep: f64, k: u32) -> u64 {
    assert!(k > 0, "a block has at least one token");
    let fits = |s: u64| power(s as f64 / RANGE, k) <= keep;
    if fits(1 << 32) {
        return 1 << 32;
    }
    // `low` always fits (0^k = 0), `high` never does; rounding is monotone, so the power is too.
    let (mut low, mut high) = (0u64, 1u64 << 32);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// `base^exponent` by repeated squaring from the lowest bit of the exponent.
fn power(base: f64, exponent: u32) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square *= square;
        rest >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{bernoulli_threshold, survival_threshold};
    use proptest::prelude::*;

    #[test]
    fn ends_of_the_range() {
        assert_eq!(bernoulli_threshold(0.0), 0);
        assert_eq!(bernoulli_threshold(0.5), 1 << 31);
        assert_eq!(bernoulli_threshold(1.0), 1 << 32);
        assert_eq!(bernoulli_threshold(7.0), 1 << 32);
        assert_eq!(survival_threshold(1.0, 4), 1 << 32);
        assert_eq!(survival_threshold(0.0, 1), 0);
        assert_eq!(survival_threshold(0.25, 2), 1 << 31);
        assert_eq!(survival_threshold(0.0625, 4), 1 << 31);
        assert_eq!(survival_threshold(0.5, 1), 1 << 31);
    }

    proptest! {
        #[test]
        fn survival_is_the_kth_root(keep in 0.0f64..1.0, k in 1u32..600) {
            let root = survival_threshold(keep, k) as f64 / 4_294_967_296.0;
            let expected = keep.powf(1.0 / f64::from(k));
            // 2^-32 from the integer grid, the rest from rounding over k multiplications.
            prop_assert!((root - expected).abs() < 3e-10 + 1e-13 * f64::from(k), "{root} {expected}");
        }
    }
}
