//! Loops over slices, compiled for several instruction sets and chosen at run time.
//!
//! Without fused multiply-add and with sums over a fixed number of lanes, all versions give the
//! same bits: which one runs decides speed alone.

use multiversion::multiversion;
use rayon::prelude::*;

/// Lanes of every sum. Part of the result.
const LANES: usize = 16;

/// Elements per piece of parallel work.
pub(super) const CHUNK: usize = 1 << 14;

/// `ln 2` in two parts: the first has few bits, so that its product with a small integer is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `into += from`.
pub(super) fn add(into: &mut [f32], from: &[f32]) {
    assert_eq!(into.len(), from.len());
    into.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(a, b)| add_chunk(a, b));
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn add_chunk(into: &mut [f32], from: &[f32]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a += b;
    }
}

/// The sum of `a · b`, over [`LANES`] lanes that are added from the first to the last.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum of a slice, as [`dot`] sums.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
pub(super) fn sum(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for chunk in lanes {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// The largest value of a slice.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
pub(super) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in lanes {
        for i in 0..LANES {
            most[i] = larger(chunk[i], most[i]);
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The place of the first of the largest values; 0 when there is none.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn largest(values: &[f32]) -> usize {
    let most = max(values);
    values.iter().position(|&value| value >= most).unwrap_or(0)
}

/// `e^x` to within 2 units in the last place; 0 below -87, the largest power of two above 88.
///
/// `x = n·ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its Taylor polynomial of degree 7 in Horner's
/// form; the factor `2^n` by the exponent bits. No branch and no call, so loops over it vectorise.
#[inline(always)]
#[allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "inlined into the versions for each instruction set; n is a small integer"
)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let kept = x.clamp(-87.0, 88.0);
    let n = (kept * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (kept - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    // `n` is within -126..=127, so the biased exponent is within 1..=254.
    let power = f32::from_bits((n as i32 + 127).cast_unsigned() << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// `ln x` to within 2 units in the last place (but near 1, where it is exact to 1e-7), of a normal positive
/// number.
///
/// `x = 2^n · m` with `m` between the square roots of 1/2 and 2; `ln m = 2 artanh((m - 1) / (m + 1))` by
/// its series.
#[inline(always)]
#[allow(
    clippy::inline_always,
    clippy::cast_possible_wrap,
    reason = "inlined into the versions for each instruction set; the exponent is a small integer"
)]
pub(super) fn ln(x: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits();
    let n = (bits.wrapping_sub(ROOT_HALF) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((n << 23).cast_unsigned()));
    let f = (m - 1.0) / (m + 1.0);
    let z = f * f;
    let mut p = 1.0 / 11.0;
    for c in [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
        p = p * z + c;
    }
    let n = n as f32;
    n * LN_2_HIGH + (n * LN_2_LOW + (2.0 * f + 2.0 * f * z * p))
}

/// The sum of `p · ln(p + 1e-10)` over a distribution: its entropy, negative, in nats.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn negative_entropy(probabilities: &[f32]) -> f32 {
    const TINY: f32 = 1e-10;
    let (lanes, rest) = probabilities.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for chunk in lanes {
        for i in 0..LANES {
            sums[i] += chunk[i] * ln(chunk[i] + TINY);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|p| p * ln(p + TINY)).sum::<f32>()
}

/// Softmax of one row in place; returns the logarithm of the sum of exponentials.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn softmax(row: &mut [f32]) -> f32 {
    let most = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - most);
    }
    let total = sum(row);
    let scale = 1.0 / total;
    for x in row.iter_mut() {
        *x *= scale;
    }
    most + total.ln()
}

/// The probabilities of a row whose [`softmax`] returned `log_sum`, in place.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax_again(row: &mut [f32], log_sum: f32) {
    for x in row {
        *x = exp(*x - log_sum);
    }
}

/// The gradient of a softmax row in place of `grad`: `p · (grad - mean) · scale`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax_backward(grad: &mut [f32], p: &[f32], mean: f32, scale: f32) {
    for (g, p) in grad.iter_mut().zip(p) {
        *g = p * (*g - mean) * scale;
    }
}

/// `values *= factor`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn scale(values: &mut [f32], factor: f32) {
    for x in values {
        *x *= factor;
    }
}

/// [`dot`] for callers that are not themselves compiled per instruction set.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn dot_product(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b)
}

#[cfg(test)]
mod tests {
    use super::{LANES, dot_product, exp, ln, max, negative_entropy, softmax, softmax_again, sum};

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = exact * f64::from(f32::EPSILON) / 2.0;
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit / 2.0);
        }
        assert!(worst < 2.0, "{worst} units in the last place");
    }

    #[test]
    fn exp_at_its_ends() {
        assert!((exp(0.0) - 1.0).abs() < f32::EPSILON);
        assert!(exp(-1e30).abs() < f32::MIN_POSITIVE);
        assert!(exp(f32::NEG_INFINITY).abs() < f32::MIN_POSITIVE);
        assert!(exp(200.0).is_finite());
    }

    #[test]
    fn ln_is_exact_to_rounding() {
        // All of a range in steps of one in a thousand bits, and what lies around 1.
        let far = (0x0080_0000..0x7f80_0000).step_by(997).map(f32::from_bits);
        let near = (-100_000..=100_000).map(|i| 1.0 + i as f32 * 1e-6);
        for x in far.chain(near) {
            let exact = f64::from(x).ln();
            let unit = exact.abs() * f64::from(f32::EPSILON);
            let error = (f64::from(ln(x)) - exact).abs();
            assert!(error <= 2.0 * unit.max(5e-8), "ln {x}: off by {error}");
        }
    }

    #[test]
    fn entropy_is_that_of_the_library() {
        for n in [1, 7, 16, 40, 1000] {
            let mut p: Vec<f32> = (0..n).map(|i| ((i * 31) % 17) as f32 - 9.0).collect();
            softmax(&mut p);
            p[n - 1] = 0.0;
            let exact: f64 = p.iter().map(|&p| f64::from(p) * (f64::from(p) + 1e-10).ln()).sum();
            let found = f64::from(negative_entropy(&p));
            assert!((found - exact).abs() < 1e-6 * exact.abs().max(1.0), "{n}: {found}, {exact}");
        }
    }

    #[test]
    fn sums_over_any_length() {
        for n in 0..3 * LANES {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let total = (n * n.saturating_sub(1) / 2) as f32;
            assert!((sum(&values) - total).abs() < 1e-3);
            assert!((dot_product(&values, &vec![2.0; n]) - 2.0 * total).abs() < 1e-3);
            let most = if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 };
            assert_eq!(max(&values).to_bits(), most.to_bits());
        }
    }

    #[test]
    fn softmax_can_be_had_again() {
        let scores: Vec<f32> = (0..37).map(|i| ((i * 7) % 13) as f32 - 20.0).collect();
        let mut first = scores.clone();
        let log_sum = softmax(&mut first);
        let mut second = scores;
        softmax_again(&mut second, log_sum);
        assert!((first.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        for (a, b) in first.iter().zip(&second) {
            assert!((a - b).abs() <= 1e-6 * a, "{a} {b}");
        }
    }
}
