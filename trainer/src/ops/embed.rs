//! Looking up embeddings.

use super::{Tape, Var, Weight};

/// Row `ids[i]` of the embedding for every `i`: `[n]` ids give `[n, D]`.
///
/// Backward adds each row's gradient to its embedding, in the order of the tokens.
///
/// # Panics
/// If an id is not below the number of embeddings: the engine checks ids first.
pub fn embed<T: Tape>(tape: &mut T, embedding: &Weight, ids: &[u32]) -> Var {
    let d = embedding.width;
    let mut data = Vec::with_capacity(ids.len() * d);
    for &id in ids {
        data.extend_from_slice(&embedding.data[id as usize * d..][..d]);
    }
    let out = Var::new(data, ids.len(), d);
    let (y, embedding, ids) = (out.clone(), embedding.clone(), ids.to_vec());
    tape.add_backward_op(move |_| {
        let gy = y.take_grad();
        let mut grad = embedding.grad_buffer();
        for (&id, gy) in ids.iter().zip(gy.chunks_exact(d)) {
            super::elementwise::add_chunk(&mut grad[id as usize * d..][..d], gy);
        }
        Ok(())
    });
    out
}
