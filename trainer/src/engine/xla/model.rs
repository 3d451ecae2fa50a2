//! The model as a graph: the transformer of [`crate::model::Network`], one layer as the body of a
//! scan over stacked weights, so that program size does not grow with depth and the backward pass
//! computes each layer again from its input.

use super::{
    attention::{Attention, attention},
    mesh::batch_sharding,
    program::Geometry,
    weights::{LAYER_PARTS, Stacked},
};
use crate::model::ModelConfig;
use coda_hlo::{Body, Direction, DotAxes, ElementType, Graph, Shape, Value};

/// What the model reads beside its weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelInputs {
    /// Ids `[rows, len]`, i32.
    pub ids: Value,
    /// The document of every token `[rows, len]`, i32.
    pub segments: Option<Value>,
    /// Cosines and sines of the rotary angles `[len, head_dim / 2]`, f32.
    pub rotary: [Value; 2],
}

/// The final hidden states `[rows, len, D]`, after the last norm, in the compute type.
///
/// `weights` are in the order of [`super::weights::stack`].
pub(super) fn hidden(
    graph: &mut Graph,
    config: &ModelConfig,
    geometry: &Geometry,
    stacked: &[Stacked],
    weights: &[Value],
    inputs: &ModelInputs,
) -> Value {
    let embedded = graph.take(weights[0], inputs.ids);
    let x = graph.convert(embedded, geometry.compute);
    let x = graph.constrain(x, &batch_sharding(3, 0));
    let layer = layer(config, geometry, &stacked[1..=LAYER_PARTS], inputs.segments.is_some());
    let consts: Vec<Value> = inputs.rotary.into_iter().chain(inputs.segments).collect();
    let scanned =
        graph.scan(&[x], &weights[1..=LAYER_PARTS], &consts, layer, Direction::Forward, None);
    rms_norm(graph, scanned[0], weights[LAYER_PARTS + 1], config.rms_norm_eps)
}

/// One layer: carries the residual stream `[rows, len, D]`.
fn layer(config: &ModelConfig, geometry: &Geometry, stacked: &[Stacked], segments: bool) -> Body {
    let Geometry { rows, len, compute, .. } = *geometry;
    let (heads, kv_heads, width) =
        (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let eps = config.rms_norm_eps;
    let graph = &mut Graph::default();
    let x = graph.parameter(Shape::new(compute, &[rows, len, config.hidden_size]));
    let weights: Vec<Value> = stacked
        .iter()
        .map(|weight| graph.parameter(Shape::new(ElementType::F32, weight.member_dims())))
        .collect();
    let [input_norm, q, k, v, q_norm, k_norm, o, post_norm, gate, up, down] = weights[..] else {
        unreachable!("a layer has eleven weights")
    };
    let table = Shape::new(ElementType::F32, &[len, width / 2]);
    let rotary = [graph.parameter(table.clone()), graph.parameter(table)];
    let segments = segments.then(|| graph.parameter(Shape::new(ElementType::I32, &[rows, len])));

    let h = rms_norm(graph, x, input_norm, eps);
    let q = linear(graph, h, q);
    let q = graph.reshape(q, &[rows, len, heads, width]);
    let q = rms_norm(graph, q, q_norm, eps);
    let q = rotate(graph, q, rotary);
    let k = linear(graph, h, k);
    let k = graph.reshape(k, &[rows, len, kv_heads, width]);
    let k = rms_norm(graph, k, k_norm, eps);
    let k = rotate(graph, k, rotary);
    let v = linear(graph, h, v);
    let v = graph.reshape(v, &[rows, len, kv_heads, width]);
    let q = graph.reshape(q, &[rows, len, kv_heads, heads / kv_heads, width]);
    let a = attention(graph, &Attention { q, k, v, segments, query_chunk: geometry.query_chunk });
    let a = graph.reshape(a, &[rows, len, heads * width]);
    let a = linear(graph, a, o);
    let x = graph.add(x, a);
    let x = graph.constrain(x, &batch_sharding(3, 0));
    let h = rms_norm(graph, x, post_norm, eps);
    let gate = linear(graph, h, gate);
    let up = linear(graph, h, up);
    let f = swiglu(graph, gate, up);
    let f = linear(graph, f, down);
    let x = graph.add(x, f);
    let x = graph.constrain(x, &batch_sharding(3, 0));
    Body { graph: std::mem::take(graph), outputs: vec![x] }
}

/// `x · wᵀ`: `x` `[…, in]`, `w` `[out, in]` f32, rounded to the type of `x`.
fn linear(graph: &mut Graph, x: Value, w: Value) -> Value {
    let element = graph.shape(x).element;
    let w = graph.convert(w, element);
    let last = graph.dims(x).len() - 1;
    graph.dot(x, w, &DotAxes::contract(last, 1), element)
}

/// `x / sqrt(mean(x²) + eps) · weight` over the last axis, in f32, then in the type of `x`.
fn rms_norm(graph: &mut Graph, x: Value, weight: Value, eps: f64) -> Value {
    let element = graph.shape(x).element;
    let dims = graph.dims(x).to_vec();
    let last = dims.len() - 1;
    let x = graph.convert(x, ElementType::F32);
    let square = graph.mul(x, x);
    let mean = graph.sum(square, &[last]);
    let mean = graph.scale(mean, 1.0 / dims[last] as f64);
    let mean = graph.offset(mean, eps);
    let factor = graph.rsqrt(mean);
    let factor = graph.broadcast_like(factor, x, &[last]);
    let y = graph.mul(x, factor);
    let weight = graph.broadcast(weight, &[last], &dims);
    let y = graph.mul(y, weight);
    graph.convert(y, element)
}

/// Rotates the two halves of every head by its position: `x` `[rows, len, heads, width]`.
fn rotate(graph: &mut Graph, x: Value, [cos, sin]: [Value; 2]) -> Value {
    let element = graph.shape(x).element;
    let dims = graph.dims(x).to_vec();
    let half = dims[3] / 2;
    let x = graph.convert(x, ElementType::F32);
    let mut part = |range| {
        let ranges = [0..dims[0], 0..dims[1], 0..dims[2], range];
        graph.slice(x, &ranges)
    };
    let (a, b) = (part(0..half), part(half..dims[3]));
    let cos = graph.broadcast_like(cos, a, &[0, 2]);
    let sin = graph.broadcast_like(sin, a, &[0, 2]);
    let (ac, bs) = (graph.mul(a, cos), graph.mul(b, sin));
    let (bc, as_) = (graph.mul(b, cos), graph.mul(a, sin));
    let first = graph.sub(ac, bs);
    let second = graph.add(bc, as_);
    let y = graph.concat(first, second, 3);
    graph.convert(y, element)
}

/// `silu(gate) · up`, in f32, then in the type of `gate`.
fn swiglu(graph: &mut Graph, gate: Value, up: Value) -> Value {
    let element = graph.shape(gate).element;
    let gate = graph.convert(gate, ElementType::F32);
    let up = graph.convert(up, ElementType::F32);
    let sigmoid = graph.logistic(gate);
    let silu = graph.mul(gate, sigmoid);
    let y = graph.mul(silu, up);
    graph.convert(y, element)
}
