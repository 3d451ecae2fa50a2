//! RMSNorm.

use super::{
    Tape, Var, Weight,
    elementwise::{add_chunk, dot},
};
use multiversion::multiversion;
use rayon::prelude::*;

/// Rows per piece of parallel work. Part of the result: the gradient of the weight is a sum of such
/// pieces.
const ROWS: usize = 64;

/// `y = x / sqrt(mean(x²) + eps) · weight`, row by row: `x` and `y` `[n, d]`, `weight` `[d]`.
/// The mean is taken in f32 (method §1).
///
/// # Panics
/// If the widths differ.
pub fn rms_norm<T: Tape>(tape: &mut T, x: &Var, weight: &Weight, eps: f32) -> Var {
    let (y, scales) = forward(&x.data, &weight.data, eps);
    let out = Var::new(y, x.rows, x.width);
    let (x, weight, y) = (x.clone(), weight.clone(), out.clone());
    tape.add_backward_op(move |_| {
        let gy = y.take_grad();
        let (mut gx, _) = x.grad_buffer();
        backward(&mut gx, &mut weight.grad_buffer(), &gy, &x.data, &weight.data, &scales);
        Ok(())
    });
    out
}

/// Normalises rows of `weight.len()` values; returns them and each row's `1 / sqrt(mean(x²) + eps)`.
pub(super) fn forward(x: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let d = weight.len();
    assert!(x.len().is_multiple_of(d), "rows of {d} values");
    let mut y = vec![0.0; x.len()];
    let mut scales = vec![0.0; x.len() / d];
    if x.len() <= ROWS * d {
        forward_rows(&mut y, &mut scales, x, weight, eps);
        return (y, scales);
    }
    y.par_chunks_mut(ROWS * d)
        .zip(scales.par_chunks_mut(ROWS))
        .zip(x.par_chunks(ROWS * d))
        .for_each(|((y, scales), x)| forward_rows(y, scales, x, weight, eps));
    (y, scales)
}

/// Adds to `gx` and `gw` what `gy` sends back through [`forward`].
pub(super) fn backward(
    gx: &mut [f32],
    gw: &mut [f32],
    gy: &[f32],
    x: &[f32],
    weight: &[f32],
    scales: &[f32],
) {
    let d = weight.len();
    let parts: Vec<Vec<f32>> = gx
        .par_chunks_mut(ROWS * d)
        .zip(gy.par_chunks(ROWS * d))
        .zip(x.par_chunks(ROWS * d))
        .zip(scales.par_chunks(ROWS))
        .map(|(((gx, gy), x), scales)| {
            let mut part = vec![0.0; d];
            backward_rows(gx, &mut part, gy, x, weight, scales);
            part
        })
        .collect();
    for part in parts {
        add_chunk(gw, &part);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward_rows(y: &mut [f32], scales: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let d = weight.len();
    for ((y, x), scale) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(scales) {
        *scale = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *scale * w;
        }
    }
}

/// With `s` the row's scale and `m = Σ gy·w·x / d`: `gx += s · (gy·w - x · m · s²)`,
/// `gw += gy · x · s`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward_rows(
    gx: &mut [f32],
    gw: &mut [f32],
    gy: &[f32],
    x: &[f32],
    weight: &[f32],
    scales: &[f32],
) {
    let d = weight.len();
    let mut weighted = vec![0.0; d];
    let rows = gx.chunks_exact_mut(d).zip(gy.chunks_exact(d)).zip(x.chunks_exact(d));
    for (((gx, gy), x), &s) in rows.zip(scales) {
        for i in 0..d {
            weighted[i] = gy[i] * weight[i];
            gw[i] += gy[i] * x[i] * s;
        }
        let pull = dot(&weighted, x) / d as f32 * s * s;
        for i in 0..d {
            gx[i] += s * (weighted[i] - x[i] * pull);
        }
    }
}
