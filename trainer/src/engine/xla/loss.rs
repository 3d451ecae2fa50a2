//! The head and the cross entropy, over scored positions only.
//!
//! How many positions are scored differs from step to step, while a program's shapes are fixed. So
//! the host lists the scored outputs of every part of the batch, one part for each group of
//! devices that share rows; the program goes over the lists in chunks and stops after the last one
//! that any part needs.

use super::{mesh::batch_sharding, program::Geometry};
use coda_hlo::{Body, Comparison, Direction, DotAxes, ElementType, Graph, Shape, Value};

/// Which outputs are scored: see [`super::batch::Pass`] for how the host makes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    /// Places among the outputs of a part `[parts, capacity]`, i32.
    pub places: Value,
    /// The id that each should predict, i32.
    pub targets: Value,
    /// The weight of each, f32; 0 for the padding of the list.
    pub weights: Value,
    /// Chunks to go over, i32.
    pub trips: Value,
}

/// The losses of the listed outputs `[parts, capacity]` f32, weighted, and their sum.
///
/// `hidden` is `[rows, len, D]`, `head` `[V, D]` f32.
pub(super) fn scored_losses(
    graph: &mut Graph,
    geometry: &Geometry,
    hidden: Value,
    head: Value,
    scored: &Scored,
) -> (Value, Value) {
    let Geometry { parts, loss_chunk, compute, .. } = *geometry;
    let (outputs, capacity) = (geometry.outputs_of_a_part(), geometry.capacity());
    let chunks = capacity / loss_chunk;
    let width = graph.dims(hidden)[2];
    let vocabulary = graph.dims(head)[0];
    let hidden = graph.reshape(hidden, &[parts, outputs, width]);
    let hidden = graph.constrain(hidden, &batch_sharding(3, 0));
    let chosen = graph.take_along(hidden, scored.places);
    let chosen = graph.constrain(chosen, &batch_sharding(3, 0));
    let head = graph.convert(head, compute);
    let mut in_chunks = |value: Value| {
        let rest = graph.dims(value)[2..].to_vec();
        let dims: Vec<usize> = [parts, chunks, loss_chunk].into_iter().chain(rest).collect();
        let value = graph.reshape(value, &dims);
        let axes: Vec<usize> = [1, 0].into_iter().chain(2..dims.len()).collect();
        graph.transpose(value, &axes)
    };
    let xs = [chosen, scored.targets, scored.weights].map(&mut in_chunks).to_vec();

    let mut body = Graph::default();
    let flat = |element| Shape::new(element, &[parts, loss_chunk]);
    let sum = body.parameter(Shape::scalar(ElementType::F32));
    let x = body.parameter(Shape::new(compute, &[parts, loss_chunk, width]));
    let targets = body.parameter(flat(ElementType::I32));
    let weights = body.parameter(flat(ElementType::F32));
    let head_all = body.parameter(Shape::new(compute, &[vocabulary, width]));
    let losses = cross_entropies(&mut body, x, head_all, targets);
    let losses = body.mul(losses, weights);
    let added = body.sum(losses, &[0, 1]);
    let sum = body.add(sum, added);

    let zero = graph.constant(0.0, Shape::scalar(ElementType::F32));
    let body = Body { graph: body, outputs: vec![sum, losses] };
    let trips = Some(scored.trips);
    let found = graph.scan(&[zero], &xs, &[head], body, Direction::Forward, trips);
    let losses = graph.transpose(found[1], &[1, 0, 2]);
    (graph.reshape(losses, &[parts, capacity]), found[0])
}

/// `log Σ exp(logits) - logits[target]` for `x` `[parts, n, D]`, in f32.
fn cross_entropies(graph: &mut Graph, x: Value, head: Value, targets: Value) -> Value {
    let logits = graph.dot(x, head, &DotAxes::contract(2, 1), ElementType::F32);
    let fixed = graph.stop_gradient(logits);
    let highest = graph.max_over(fixed, &[2]);
    let highest = graph.broadcast_like(highest, logits, &[2]);
    let shifted = graph.sub(logits, highest);
    let exponentials = graph.exp(shifted);
    let total = graph.sum(exponentials, &[2]);
    let log_total = graph.log(total);
    let dims = graph.dims(logits).to_vec();
    let ids = graph.iota(2, Shape::new(ElementType::I32, &dims));
    let targets = graph.broadcast_like(targets, logits, &[2]);
    let hit = graph.compare(Comparison::Eq, ids, targets);
    let zero = graph.constant_like(0.0, shifted);
    let at_target = graph.select(hit, shifted, zero);
    let at_target = graph.sum(at_target, &[2]);
    graph.sub(log_total, at_target)
}
