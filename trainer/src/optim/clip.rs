//! Clipping by the global norm.

use super::CHUNK;
use rayon::prelude::*;

/// The Euclidean norm of all gradients together: squares in `f64`, chunk sums added in order.
#[must_use]
pub fn global_norm(grads: &[&[f32]]) -> f64 {
    grads.iter().map(|tensor| squares(tensor)).sum::<f64>().sqrt()
}

/// The sum of a tensor's squares.
pub(crate) fn squares(tensor: &[f32]) -> f64 {
    let partial: Vec<f64> = tensor.par_chunks(CHUNK).map(sum_of_squares).collect();
    partial.iter().sum()
}

/// The sum of squares of one chunk, in sixteen interleaved lanes so that it vectorizes.
pub(crate) fn sum_of_squares(chunk: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 16];
    let mut pieces = chunk.chunks_exact(16);
    for piece in &mut pieces {
        for (lane, &value) in lanes.iter_mut().zip(piece) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(pieces.remainder()) {
        *lane += f64::from(value) * f64::from(value);
    }
    lanes.iter().sum()
}

/// The factor that brings gradients of norm `norm` down to `limit`, or none if they are within it:
/// `limit / (norm + 1e-6)`, as `PyTorch` has it.
#[must_use]
pub fn clip_scale(norm: f64, limit: f64) -> Option<f64> {
    let factor = limit / (norm + 1e-6);
    (factor < 1.0).then_some(factor)
}

/// Multiplies all gradients by `factor`.
pub fn scale(grads: &mut [&mut [f32]], factor: f64) {
    #[allow(clippy::cast_possible_truncation, reason = "gradients are f32")]
    let factor = factor as f32;
    for tensor in grads {
        tensor.par_chunks_mut(CHUNK).for_each(|chunk| {
            for value in chunk {
                *value *= factor;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{clip_scale, global_norm, scale};
    use proptest::prelude::*;

    #[test]
    fn a_3_4_5_triangle() {
        let (mut a, mut b) = (vec![3.0; 1], vec![0.0, 4.0]);
        assert!((global_norm(&[&a, &b]) - 5.0).abs() < 1e-15);
        assert_eq!(clip_scale(5.0, 6.0), None);
        let factor = clip_scale(5.0, 1.0).expect("5 is over 1");
        assert!((factor - 1.0 / 5.000_001).abs() < 1e-15);
        scale(&mut [&mut a, &mut b], factor);
        assert!((global_norm(&[&a, &b]) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn not_a_number_is_not_clipped_away() {
        assert!(global_norm(&[&[1.0, f32::NAN]]).is_nan());
        assert_eq!(clip_scale(f64::NAN, 1.0), None);
    }

    proptest! {
        #[test]
        fn the_norm_agrees_with_a_plain_sum(
            values in proptest::collection::vec(-1e3_f32..1e3, 0..70_000),
        ) {
            let plain = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let ours = global_norm(&[&values]);
            prop_assert!((ours - plain).abs() <= 1e-12 * plain);
            let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("pool");
            for threads in [1, 3] {
                let again = pool(threads).install(|| global_norm(&[&values]));
                prop_assert_eq!(again.to_bits(), ours.to_bits());
            }
        }
    }
}
