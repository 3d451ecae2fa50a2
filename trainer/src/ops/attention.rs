//! Attention in both directions, with grouped heads and optional documents.

use super::{
    Tape, Var, View, ViewMut,
    elementwise::{dot_product, softmax, softmax_again, softmax_backward},
    matmul,
};
use rayon::prelude::*;
use std::{ops::Range, rc::Rc};

/// Queries whose scores are held at a time: memory is `QUERIES · L`, never `L · L`.
const QUERIES: usize = 256;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows of the batch (B).
    pub rows: usize,
    /// Tokens per row (L).
    pub len: usize,
    /// Query heads (H).
    pub heads: usize,
    /// Key and value heads (K); query head `h` reads key head `h / (H / K)`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// `softmax(q · kᵀ / sqrt(head_dim)) · v` with no causal mask: `q` and the result
/// `[B·L, H · head_dim]`, `k` and `v` `[B·L, K · head_dim]`.
///
/// `segments` `[B·L]` never falls within a row; a token attends to the tokens of its own segment.
/// The backward pass computes the probabilities again from `q`, `k` and one number a query.
///
/// # Panics
/// If the shapes do not fit.
pub fn attention<T: Tape>(
    tape: &mut T,
    q: &Var,
    k: &Var,
    v: &Var,
    shape: AttentionShape,
    segments: Option<&Rc<Vec<Range<usize>>>>,
) -> Var {
    let AttentionShape { rows, len, heads, kv_heads, head_dim } = shape;
    assert_eq!((q.rows, q.width), (rows * len, heads * head_dim), "queries");
    assert_eq!((k.rows, k.width), (rows * len, kv_heads * head_dim), "keys");
    assert_eq!((v.rows, v.width), (rows * len, kv_heads * head_dim), "values");
    let reach = Reach { len, ranges: segments.map(|s| s.as_slice()) };
    let tasks: Vec<(Vec<f32>, Vec<f32>)> = (0..rows * kv_heads)
        .into_par_iter()
        .map({
            let (q, k, v) = (q.data.as_slice(), k.data.as_slice(), v.data.as_slice());
            move |task| Group::new(shape, task, q, k, v, reach).forward()
        })
        .collect();
    let mut y = vec![0.0; rows * len * heads * head_dim];
    scatter(&mut y, shape, heads / kv_heads, tasks.iter().map(|(out, _)| out.as_slice()));
    let log_sums: Vec<Vec<f32>> = tasks.into_iter().map(|(_, log_sums)| log_sums).collect();
    let out = Var::new(y, rows * len, heads * head_dim);
    let (q, k, v, y, segments) = (q.clone(), k.clone(), v.clone(), out.clone(), segments.cloned());
    tape.add_backward_op(move |_| {
        let gy = y.take_grad();
        let reach = Reach { len, ranges: segments.as_ref().map(|s| s.as_slice()) };
        let tasks: Vec<Gradients> = {
            let (q, k, v) = (q.data.as_slice(), k.data.as_slice(), v.data.as_slice());
            let (y, gy) = (y.data.as_slice(), gy.as_slice());
            log_sums
                .par_iter()
                .enumerate()
                .map(|(task, log_sums)| {
                    Group::new(shape, task, q, k, v, reach).backward(y, gy, log_sums)
                })
                .collect()
        };
        let gather = |var: &Var, group: usize, part: fn(&Gradients) -> &[f32]| {
            let mut grad = vec![0.0; var.data.len()];
            scatter(&mut grad, shape, group, tasks.iter().map(part));
            var.add_grad(grad);
        };
        gather(&q, heads / kv_heads, |g| &g.q);
        gather(&k, 1, |g| &g.k);
        gather(&v, 1, |g| &g.v);
        Ok(())
    });
    out
}

/// For every token of a batch `[B·L]` the positions, within its row, of its segment.
#[must_use]
pub(crate) fn segment_ranges(segment_ids: &[u32], len: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::with_capacity(segment_ids.len());
    for row in segment_ids.chunks(len) {
        let mut start = 0;
        for document in row.chunk_by(|a, b| a == b) {
            let range = start..start + document.len();
            ranges.extend(std::iter::repeat_n(range.clone(), document.len()));
            start = range.end;
        }
    }
    ranges
}

/// Queries of one row over keys and values that are kept elsewhere.
pub(super) struct Kept<'a> {
    /// The queries' first value: rows of `heads · head_dim`.
    pub(super) q: &'a [f32],
    /// Number of queries.
    pub(super) queries: usize,
    /// The keys of the whole row, `[len, kv_heads · head_dim]`.
    pub(super) k: &'a [f32],
    /// The values of the whole row, as the keys.
    pub(super) v: &'a [f32],
}

/// What the queries of one key head read from kept keys and values: `[queries, group · head_dim]`.
/// `shape.len` is the number of keys. With a query for every key this computes what [`attention`] does,
/// bit for bit.
pub(super) fn read_kept(shape: AttentionShape, kv_head: usize, kept: &Kept<'_>) -> Vec<f32> {
    let reach = Reach { len: shape.len, ranges: None };
    let group = Group::new(shape, kv_head, kept.q, kept.k, kept.v, reach);
    Group { queries: kept.queries, ..group }.forward().0
}

/// Which keys a query may read.
#[derive(Clone, Copy)]
struct Reach<'a> {
    len: usize,
    ranges: Option<&'a [Range<usize>]>,
}

impl Reach<'_> {
    /// The keys of query `at` of batch row `row`.
    fn of(&self, row: usize, at: usize) -> Range<usize> {
        self.ranges.map_or(0..self.len, |r| r[row * self.len + at].clone())
    }

    /// The keys of a run of queries. Segments follow each other, so the first and the last tell.
    fn of_all(&self, row: usize, queries: &Range<usize>) -> Range<usize> {
        self.of(row, queries.start).start..self.of(row, queries.end - 1).end
    }
}

/// Gradients of one key head: `q` `[L, group · head_dim]`, `k` and `v` `[L, head_dim]`.
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// One key head of one row with the query heads that read it: a piece of parallel work.
struct Group<'a> {
    row: usize,
    /// Number of keys.
    len: usize,
    /// Number of queries.
    queries: usize,
    /// Query heads of the group.
    queries_per_key: usize,
    head_dim: usize,
    query_width: usize,
    kv_width: usize,
    /// The slices start at this group's first value.
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    query_start: usize,
    reach: Reach<'a>,
    scale: f32,
}

impl<'a> Group<'a> {
    fn new(
        shape: AttentionShape,
        task: usize,
        q: &'a [f32],
        k: &'a [f32],
        v: &'a [f32],
        reach: Reach<'a>,
    ) -> Self {
        let AttentionShape { len, heads, kv_heads, head_dim, .. } = shape;
        let (row, kv_head) = (task / kv_heads, task % kv_heads);
        let queries_per_key = heads / kv_heads;
        let (query_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let query_start = row * len * query_width + kv_head * queries_per_key * head_dim;
        let kv_start = row * len * kv_width + kv_head * head_dim;
        Self {
            row,
            len,
            queries: len,
            queries_per_key,
            head_dim,
            query_width,
            kv_width,
            q: &q[query_start..],
            k: &k[kv_start..],
            v: &v[kv_start..],
            query_start,
            reach,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }

    /// Runs of queries with the keys they reach.
    fn runs(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        (0..self.queries).step_by(QUERIES).map(|start| {
            let queries = start..self.queries.min(start + QUERIES);
            let keys = self.reach.of_all(self.row, &queries);
            (queries, keys)
        })
    }

    /// Rows `range` of head `head` in a matrix of queries (or of their results).
    fn queries<'b>(&self, data: &'b [f32], head: usize, range: &Range<usize>) -> View<'b> {
        let start = range.start * self.query_width + head * self.head_dim;
        View::strided(&data[start..], range.len(), self.head_dim, self.query_width)
    }

    fn keys<'b>(&self, data: &'b [f32], range: &Range<usize>) -> View<'b> {
        let start = range.start * self.kv_width;
        View::strided(&data[start..], range.len(), self.head_dim, self.kv_width)
    }

    /// Scores of a run, then `each(query, scores of the keys it reaches)`; other scores become 0.
    fn scores(
        &self,
        scores: &mut [f32],
        head: usize,
        queries: &Range<usize>,
        keys: &Range<usize>,
        mut each: impl FnMut(usize, &mut [f32]),
    ) {
        let (q, k) = (self.queries(self.q, head, queries), self.keys(self.k, keys).t());
        let out = ViewMut::new(scores, queries.len(), keys.len());
        matmul(out, false, q, k, self.scale, 1);
        for (row, query) in scores.chunks_exact_mut(keys.len()).zip(queries.clone()) {
            let reach = self.reach.of(self.row, query);
            let (from, to) = (reach.start - keys.start, reach.end - keys.start);
            row[..from].fill(0.0);
            row[to..].fill(0.0);
            each(query, &mut row[from..to]);
        }
    }

    /// The results `[queries, group · head_dim]` and, for each head and query, the logarithm of the sum
    /// of exponentials `[group, queries]`.
    fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let width = self.queries_per_key * self.head_dim;
        let mut out = vec![0.0; self.queries * width];
        let mut log_sums = vec![0.0; self.queries_per_key * self.queries];
        let mut buffer = vec![0.0; QUERIES.min(self.queries) * self.len];
        for (queries, keys) in self.runs() {
            let scores = &mut buffer[..queries.len() * keys.len()];
            for head in 0..self.queries_per_key {
                self.scores(scores, head, &queries, &keys, |query, row| {
                    log_sums[head * self.queries + query] = softmax(row);
                });
                let start = queries.start * width + head * self.head_dim;
                matmul(
                    ViewMut::strided(&mut out[start..], queries.len(), self.head_dim, width),
                    false,
                    View::new(scores, queries.len(), keys.len()),
                    self.keys(self.v, &keys),
                    1.0,
                    1,
                );
            }
        }
        (out, log_sums)
    }

    /// With `P` the probabilities and `D = Σ gy · y` of a query: `gv = Pᵀ·gy`,
    /// `gs = P · (gy·vᵀ - D) · scale`, `gq = gs · k`, `gk = gsᵀ · q`.
    fn backward(&self, y: &[f32], gy: &[f32], log_sums: &[f32]) -> Gradients {
        let (y, gy) = (&y[self.query_start..], &gy[self.query_start..]);
        let (d, width) = (self.head_dim, self.queries_per_key * self.head_dim);
        let mut gq = vec![0.0; self.len * width];
        let (mut gk, mut gv) = (vec![0.0; self.len * d], vec![0.0; self.len * d]);
        let size = QUERIES.min(self.len) * self.len;
        let (mut p_buffer, mut gs_buffer) = (vec![0.0; size], vec![0.0; size]);
        for (queries, keys) in self.runs() {
            let (m, n) = (queries.len(), keys.len());
            let (p, gs) = (&mut p_buffer[..m * n], &mut gs_buffer[..m * n]);
            for head in 0..self.queries_per_key {
                self.scores(p, head, &queries, &keys, |query, row| {
                    softmax_again(row, log_sums[head * self.len + query]);
                });
                let go = self.queries(gy, head, &queries);
                let gv = ViewMut::new(&mut gv[keys.start * d..keys.end * d], n, d);
                matmul(gv, true, View::new(p, m, n).t(), go, 1.0, 1);
                let values = self.keys(self.v, &keys).t();
                matmul(ViewMut::new(gs, m, n), false, go, values, 1.0, 1);
                for ((gs, p), query) in
                    gs.chunks_exact_mut(n).zip(p.chunks_exact(n)).zip(queries.clone())
                {
                    let at = query * self.query_width + head * d;
                    let mean = dot_product(&y[at..at + d], &gy[at..at + d]);
                    softmax_backward(gs, p, mean, self.scale);
                }
                let start = queries.start * width + head * d;
                let gq = ViewMut::strided(&mut gq[start..], m, d, width);
                matmul(gq, false, View::new(gs, m, n), self.keys(self.k, &keys), 1.0, 1);
                let q = self.queries(self.q, head, &queries);
                let gk = ViewMut::new(&mut gk[keys.start * d..keys.end * d], n, d);
                matmul(gk, true, View::new(gs, m, n).t(), q, 1.0, 1);
            }
        }
        Gradients { q: gq, k: gk, v: gv }
    }
}

/// Puts the blocks of all groups `[L, group · head_dim]` side by side into `[B·L, width]`.
fn scatter<'a>(
    into: &mut [f32],
    shape: AttentionShape,
    group: usize,
    blocks: impl Iterator<Item = &'a [f32]>,
) {
    let blocks: Vec<&[f32]> = blocks.collect();
    let block_width = group * shape.head_dim;
    let width = shape.kv_heads * block_width;
    into.par_chunks_mut(width).enumerate().for_each(|(token, out)| {
        let (row, at) = (token / shape.len, token % shape.len);
        for (kv_head, out) in out.chunks_exact_mut(block_width).enumerate() {
            let block = blocks[row * shape.kv_heads + kv_head];
            out.copy_from_slice(&block[at * block_width..][..block_width]);
        }
    });
}
