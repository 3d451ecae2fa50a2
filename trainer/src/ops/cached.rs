//! Attention of some positions of a row over keys and values that are kept between forwards.

use super::{
    AttentionShape, Var,
    attention::{Kept, read_kept},
};
use rayon::prelude::*;

/// Multiplications that are not worth a second thread.
const ALONE: usize = 1 << 18;

/// A row's queries with the keys and values that they read.
pub(crate) struct KvRow<'a> {
    /// Number of queries, which follow each other in the matrix of queries.
    pub(crate) queries: usize,
    /// The keys of the whole row `[len, K · head_dim]`.
    pub(crate) keys: &'a [f32],
    /// The values of the whole row, as the keys.
    pub(crate) values: &'a [f32],
}

/// `softmax(q · kᵀ / sqrt(head_dim)) · v` for rows of different lengths, forward only. `q` and the
/// result `[n, H · head_dim]` hold the rows' queries one after the other; what is left of `n` reads
/// nothing and gives zeros. `shape` has the heads; its `rows` and `len` are not looked at.
///
/// # Panics
/// If there are more queries than `n`, or a list of keys is not of whole positions.
pub(crate) fn cached_attention(q: &Var, rows: &[KvRow<'_>], shape: AttentionShape) -> Var {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let (query_width, kv_width, group) = (heads * head_dim, kv_heads * head_dim, heads / kv_heads);
    let starts: Vec<usize> = rows
        .iter()
        .scan(0, |next, row| {
            let start = *next;
            *next += row.queries;
            Some(start)
        })
        .collect();
    let data = q.data();
    let piece = |task: usize| {
        let row = &rows[task / kv_heads];
        let shape = AttentionShape { rows: 1, len: row.keys.len() / kv_width, ..shape };
        let q = &data[starts[task / kv_heads] * query_width..];
        let kept = Kept { q, queries: row.queries, k: row.keys, v: row.values };
        read_kept(shape, task % kv_heads, &kept)
    };
    let tasks = 0..rows.len() * kv_heads;
    let multiplications: usize = rows.iter().map(|row| row.queries * row.keys.len() * group).sum();
    let pieces: Vec<Vec<f32>> = if multiplications <= ALONE {
        tasks.map(piece).collect()
    } else {
        tasks.into_par_iter().map(piece).collect()
    };
    let mut out = vec![0.0; data.len()];
    let width = group * head_dim;
    for (task, piece) in pieces.iter().enumerate() {
        let first = starts[task / kv_heads] * query_width + task % kv_heads * width;
        for (query, values) in piece.chunks_exact(width).enumerate() {
            out[first + query * query_width..][..width].copy_from_slice(values);
        }
    }
    Var::new(out, q.rows(), query_width)
}
