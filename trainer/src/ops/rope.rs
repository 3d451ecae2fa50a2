//! Per-head RMSNorm and rotary positions, fused: what Qwen3 does to queries and keys.

use super::{Tape, Var, Weight, elementwise::CHUNK, norm};
use rayon::prelude::*;
use std::rc::Rc;

/// Cosines and sines of the rotary angles for positions `0..len`.
#[derive(Clone, Debug)]
pub struct Rotary {
    len: usize,
    half: usize,
    cos: Rc<Vec<f32>>,
    sin: Rc<Vec<f32>>,
}

impl Rotary {
    /// Tables for `len` positions and heads of `head_dim` values.
    ///
    /// Frequency `i` is `theta^(-2i / head_dim)`; angles, like HF's `Qwen3RotaryEmbedding`, are
    /// products of f32 values, cosines and sines are rounded to f32.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the reference computes in f32")]
    pub fn new(len: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / theta.powf((2 * i) as f64 / head_dim as f64) as f32).collect();
        let angles: Vec<f32> = (0..len)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let table = |f: fn(f64) -> f64| {
            Rc::new(angles.iter().map(|&a| f(f64::from(a)) as f32).collect::<Vec<_>>())
        };
        Self { len, half, cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Tables for a list of positions instead of `0..len`, taken from this one's.
    ///
    /// # Panics
    /// If a position is not below `len`.
    pub(crate) fn at(&self, positions: impl Iterator<Item = usize>) -> Self {
        let (mut cos, mut sin, mut len) = (Vec::new(), Vec::new(), 0);
        for position in positions {
            let from = position * self.half..(position + 1) * self.half;
            cos.extend_from_slice(&self.cos[from.clone()]);
            sin.extend_from_slice(&self.sin[from]);
            len += 1;
        }
        Self { len, half: self.half, cos: Rc::new(cos), sin: Rc::new(sin) }
    }

    /// The number of positions.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Cosines and sines `[len, head_dim / 2]`.
    #[must_use]
    pub fn tables(&self) -> [&[f32]; 2] {
        [&self.cos, &self.sin]
    }

    /// Rotates every head of every row of `x` `[n, heads · head_dim]` by its position (`n mod len`):
    /// `(a, b) → (a·cos - b·sin, b·cos + a·sin)` for the two halves of a head. `back` rotates the
    /// other way, which is also the gradient.
    fn rotate(&self, x: &mut [f32], width: usize, back: bool) {
        let (half, sign) = (self.half, if back { -1.0 } else { 1.0 });
        let (cos, sin, len) = (self.cos.as_slice(), self.sin.as_slice(), self.len);
        let rotate = |(row, x): (usize, &mut [f32])| {
            let at = row % len * half;
            let (cos, sin) = (&cos[at..][..half], &sin[at..][..half]);
            for head in x.chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    let (x, y, s) = (a[i], b[i], sign * sin[i]);
                    a[i] = x * cos[i] - y * s;
                    b[i] = y * cos[i] + x * s;
                }
            }
        };
        if x.len() <= CHUNK {
            x.chunks_mut(width).enumerate().for_each(rotate);
        } else {
            x.par_chunks_mut(width).enumerate().for_each(rotate);
        }
    }
}

/// RMSNorm over each head, then the rotation: `x` and `y` `[n, heads · head_dim]`, `weight`
/// `[head_dim]`.
///
/// # Panics
/// If the widths do not fit.
pub fn head_norm_rope<T: Tape>(
    tape: &mut T,
    x: &Var,
    weight: &Weight,
    eps: f32,
    rotary: &Rotary,
) -> Var {
    assert_eq!(weight.width, 2 * rotary.half, "width of a head");
    let (mut y, scales) = norm::forward(&x.data, &weight.data, eps);
    rotary.rotate(&mut y, x.width, false);
    let out = Var::new(y, x.rows, x.width);
    let (x, weight, y, rotary) = (x.clone(), weight.clone(), out.clone(), rotary.clone());
    tape.add_backward_op(move |_| {
        let mut gy = y.take_grad();
        rotary.rotate(&mut gy, x.width, true);
        let (mut gx, _) = x.grad_buffer();
        norm::backward(&mut gx, &mut weight.grad_buffer(), &gy, &x.data, &weight.data, &scales);
        Ok(())
    });
    out
}
