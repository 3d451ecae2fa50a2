//! Attention in both directions over query chunks: scores of one chunk exist at a time.
//!
//! The chunks are a scan, and the gradient of a scan computes its body again, so that memory is
//! `rows · heads · query_chunk · len` in both passes, never `len²`.

use coda_hlo::{Body, Direction, DotAxes, ElementType, Graph, Shape, Value};

/// What a masked score is set to: its exponential is 0 beside any other, and a query of the padding,
/// which sees nothing, still has a finite softmax.
const MASKED: f64 = -1e30;

/// The operands of an attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    /// Queries `[rows, len, kv_heads, group, width]`.
    pub q: Value,
    /// Keys `[rows, len, kv_heads, width]`.
    pub k: Value,
    /// Values, as the keys.
    pub v: Value,
    /// The document of every token `[rows, len]`; tokens see only their own.
    pub segments: Option<Value>,
    /// Queries whose scores exist at a time.
    pub query_chunk: usize,
}

/// `softmax(q · kᵀ / sqrt(width)) · v`, shaped as `q`.
pub(super) fn attention(graph: &mut Graph, operands: &Attention) -> Value {
    let Attention { q, k, v, segments, query_chunk } = *operands;
    let dims = graph.dims(q).to_vec();
    let [rows, len, kv_heads, group, width] = dims[..] else { unreachable!("five dimensions") };
    if query_chunk >= len {
        return chunk(graph, q, k, v, segments.map(|s| (s, s)));
    }
    let chunks = len.div_ceil(query_chunk);
    let padded = chunks * query_chunk;
    let element = graph.shape(q).element;

    let mut body = Graph::default();
    let part = Shape::new(element, &[rows, query_chunk, kv_heads, group, width]);
    let q_part = body.parameter(part);
    let s_part =
        segments.map(|_| body.parameter(Shape::new(ElementType::I32, &[rows, query_chunk])));
    let keys = Shape::new(element, &[rows, len, kv_heads, width]);
    let (k_all, v_all) = (body.parameter(keys.clone()), body.parameter(keys));
    let s_all = segments.map(|_| body.parameter(Shape::new(ElementType::I32, &[rows, len])));
    let output = chunk(&mut body, q_part, k_all, v_all, s_part.zip(s_all));

    let tail = padded - len;
    let q = graph.pad(q, &[(0, 0), (0, tail), (0, 0), (0, 0), (0, 0)]);
    let q = graph.reshape(q, &[rows, chunks, query_chunk, kv_heads, group, width]);
    let mut xs = vec![graph.transpose(q, &[1, 0, 2, 3, 4, 5])];
    if let Some(segments) = segments {
        let s = graph.pad(segments, &[(0, 0), (0, tail)]);
        let s = graph.reshape(s, &[rows, chunks, query_chunk]);
        xs.push(graph.transpose(s, &[1, 0, 2]));
    }
    let consts: Vec<Value> = [k, v].into_iter().chain(segments).collect();
    let body = Body { graph: body, outputs: vec![output] };
    let outputs = graph.scan(&[], &xs, &consts, body, Direction::Forward, None);
    let y = graph.transpose(outputs[0], &[1, 0, 2, 3, 4, 5]);
    let y = graph.reshape(y, &[rows, padded, kv_heads, group, width]);
    graph.slice(y, &[0..rows, 0..len, 0..kv_heads, 0..group, 0..width])
}

/// The attention of some queries `[rows, n, kv_heads, group, width]` to all keys. `segments`: those
/// of the queries `[rows, n]` and of the keys `[rows, len]`.
fn chunk(
    graph: &mut Graph,
    q: Value,
    k: Value,
    v: Value,
    segments: Option<(Value, Value)>,
) -> Value {
    let element = graph.shape(q).element;
    let width = graph.dims(q)[4];
    let axes = |lhs_batch, rhs_batch, lhs, rhs| DotAxes {
        lhs_batch,
        rhs_batch,
        lhs_contract: lhs,
        rhs_contract: rhs,
    };
    // [rows, kv_heads, n, group, len]
    let by_key = axes(vec![0, 2], vec![0, 2], vec![4], vec![3]);
    let scores = graph.dot(q, k, &by_key, ElementType::F32);
    let mut scores = graph.scale(scores, 1.0 / (width as f64).sqrt());
    if let Some((own, all)) = segments {
        let dims = graph.dims(scores).to_vec();
        let own = graph.broadcast(own, &[0, 2], &dims);
        let all = graph.broadcast(all, &[0, 4], &dims);
        let same = graph.compare(coda_hlo::Comparison::Eq, own, all);
        let masked = graph.constant_like(MASKED, scores);
        scores = graph.select(same, scores, masked);
    }
    let fixed = graph.stop_gradient(scores);
    let highest = graph.max_over(fixed, &[4]);
    let highest = graph.broadcast_like(highest, scores, &[4]);
    let shifted = graph.sub(scores, highest);
    let weights = graph.exp(shifted);
    let total = graph.sum(weights, &[4]);
    let total = graph.broadcast_like(total, weights, &[4]);
    let weights = graph.div(weights, total);
    let weights = graph.convert(weights, element);
    // [rows, kv_heads, n, group, width]
    let by_place = axes(vec![0, 1], vec![0, 2], vec![4], vec![1]);
    let y = graph.dot(weights, v, &by_place, element);
    graph.transpose(y, &[0, 2, 1, 3, 4])
}
