//! The head and the cross entropy in one, over scored positions only.

use super::{
    Cpu, Tape, Var, View, ViewMut, Weight,
    elementwise::{self, softmax},
    matmul,
};
use dfdx::prelude::{PutTape, Rank0, Tensor, TensorFrom};
use rayon::{current_num_threads, prelude::*};

/// Scored tokens whose logits are held at a time: memory is `CHUNK · V`, never `B · L · V`.
const CHUNK: usize = 512;

/// A token that counts in the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Which output predicts it: an index into `[B·L]`, one before the token (method §2, shift).
    pub output: usize,
    /// The batch row it belongs to.
    pub row: usize,
    /// The clean id.
    pub target: u32,
    /// Its weight, `1 / sigma`.
    pub weight: f32,
}

/// `Σ weight · CE(x[output] · headᵀ, target) / denominator` as a scalar on the tape, and the sums of
/// each row `[rows]` before the division, in f64.
///
/// `x` is `[B·L, D]`, `head` `[V, D]`. Logits of `CHUNK` tokens exist at a time; when the tape
/// records, the gradient is computed from them at once, for this scalar is the end of the tape.
///
/// # Panics
/// In the backward pass, if something was computed from the scalar: its gradient must be one.
pub fn linear_cross_entropy<T: Tape>(
    mut tape: T,
    x: &Var,
    head: &Weight,
    scored: &[Scored],
    rows: usize,
    denominator: f64,
) -> (Tensor<Rank0, f32, Cpu, T>, Vec<f64>) {
    let (d, v) = (head.width, head.rows);
    assert_eq!(x.width, d, "width of the head");
    let threads = current_num_threads();
    let mut row_sums = vec![0.0f64; rows];
    let mut gx = if T::OWNS_TAPE { vec![0.0; x.data.len()] } else { Vec::new() };
    let chunk = CHUNK.min(scored.len());
    let (mut inputs, mut logits) = (vec![0.0; chunk * d], vec![0.0; chunk * v]);
    let mut g_inputs = vec![0.0; if T::OWNS_TAPE { chunk * d } else { 0 }];
    for part in scored.chunks(CHUNK) {
        let n = part.len();
        for (input, token) in inputs.chunks_exact_mut(d).zip(part) {
            input.copy_from_slice(&x.data[token.output * d..][..d]);
        }
        let head_view = View::new(&head.data, v, d);
        let logits = &mut logits[..n * v];
        let inputs_view = View::new(&inputs[..n * d], n, d);
        matmul(ViewMut::new(logits, n, v), false, inputs_view, head_view.t(), 1.0, threads);
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(v)
            .zip(part.par_iter())
            .map(|(logits, token)| {
                #[allow(clippy::cast_possible_truncation, reason = "gradients are f32")]
                let scale = (f64::from(token.weight) / denominator) as f32;
                one_token(logits, token, scale)
            })
            .collect();
        for (token, loss) in part.iter().zip(&losses) {
            row_sums[token.row] += loss;
        }
        if T::OWNS_TAPE {
            let g = View::new(logits, n, v);
            let g_inputs = &mut g_inputs[..n * d];
            matmul(ViewMut::new(g_inputs, n, d), false, g, head_view, 1.0, threads);
            let mut g_head = head.grad_buffer();
            matmul(ViewMut::new(&mut g_head, v, d), true, g.t(), inputs_view, 1.0, threads);
            // Each output predicts one token, so nothing is written twice.
            for (token, g) in part.iter().zip(g_inputs.chunks_exact(d)) {
                gx[token.output * d..][..d].copy_from_slice(g);
            }
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "the tape's scalar is f32")]
    let loss = (row_sums.iter().sum::<f64>() / denominator) as f32;
    let out = Cpu::default().tensor(loss);
    let (x, upstream) = (x.clone(), out.clone());
    tape.add_backward_op(move |grads| {
        let upstream = grads.get_or_alloc_mut(&upstream)?[0];
        assert!((upstream - 1.0).abs() < f32::EPSILON, "the loss must be the end of the tape");
        x.add_grad(gx);
        Ok(())
    });
    (out.put_tape(tape), row_sums)
}

/// The weighted cross entropy of one token; its logits become `(softmax - onehot) · scale`.
fn one_token(logits: &mut [f32], token: &Scored, scale: f32) -> f64 {
    let target = token.target as usize;
    let at_target = logits[target];
    let log_sum = softmax(logits);
    elementwise::scale(logits, scale);
    logits[target] -= scale;
    f64::from(token.weight) * f64::from(log_sum - at_target)
}
