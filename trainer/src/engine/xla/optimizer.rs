//! Clipping and the optimizers as parts of a graph: the formulas of [`crate::optim`], on stacked
//! weights.
//!
//! What depends on the step's number or on the learning rate comes from the host, in f64, rounded
//! once: [`scalars`].

use super::{mesh::weight_sharding, program::StepSettings, weights::Stacked};
use crate::optim::{AdafactorSettings, AdamWSettings, OptimizerSettings};
use coda_hlo::{ElementType, Graph, Shape, Value};
use coda_manifests::MeshShape;

/// Length of the vector that [`scalars`] gives.
pub(super) const SCALARS: usize = 5;

/// A tensor of the optimizer's state, for all layers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StateTensorKind {
    /// Laid out like a weight; the name of a member is `<weight>.<part>`.
    pub tensor: Stacked,
    /// `first`, `second`, `row`, `column` or `square`.
    pub part: &'static str,
}

/// The state of all weights, in the order of the step's arguments: weight by weight.
#[must_use]
pub(super) fn state_of(
    settings: &OptimizerSettings,
    weights: &[Stacked],
    mesh: MeshShape,
) -> Vec<StateTensorKind> {
    weights.iter().flat_map(|weight| state_of_one(settings, weight, mesh)).collect()
}

fn state_of_one(
    settings: &OptimizerSettings,
    weight: &Stacked,
    mesh: MeshShape,
) -> Vec<StateTensorKind> {
    let rank = weight.dims.len();
    let like = |part| StateTensorKind {
        tensor: Stacked { name: format!("{}.{part}", weight.name), ..weight.clone() },
        part,
    };
    let without = |dim: usize, part| {
        let keep = |i: &usize| *i != dim;
        let dims: Vec<usize> = (0..rank).filter(keep).map(|i| weight.dims[i]).collect();
        let axes: Vec<Option<&str>> = (0..rank)
            .filter(keep)
            .map(|i| weight.sharding.dims[i].first().map(String::as_str))
            .collect();
        StateTensorKind {
            tensor: Stacked {
                name: format!("{}.{part}", weight.name),
                sharding: weight_sharding(mesh, &dims, &axes),
                dims,
                ..weight.clone()
            },
            part,
        }
    };
    match (settings, is_matrix(weight)) {
        (OptimizerSettings::AdamW(_), _) => vec![like("first"), like("second")],
        (OptimizerSettings::Adafactor(_), true) => {
            vec![without(rank - 1, "row"), without(rank - 2, "column")]
        }
        (OptimizerSettings::Adafactor(_), false) => vec![like("square")],
    }
}

fn is_matrix(weight: &Stacked) -> bool {
    weight.member_dims().len() == 2
}

/// The numbers of one step, `step` counted from 1: first what the loss's gradient begins with,
/// `1 / denominator`, then those of the optimizer.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the program computes in f32")]
pub(super) fn scalars(
    settings: &OptimizerSettings,
    step: u64,
    lr: f64,
    denominator: f64,
) -> [f32; SCALARS] {
    let numbers = match settings {
        OptimizerSettings::AdamW(AdamWSettings { beta1, beta2, weight_decay, .. }) => {
            let correction = |beta: f64| 1.0 - beta.powf(step as f64);
            let root = correction(*beta2).sqrt();
            [lr / correction(*beta1), root, 1.0 - lr * weight_decay, 1.0]
        }
        OptimizerSettings::Adafactor(AdafactorSettings { decay_rate, weight_decay, .. }) => {
            let beta2 = 1.0 - (step as f64).powf(*decay_rate);
            [lr, beta2, 1.0 - beta2, 1.0 - lr * weight_decay]
        }
    };
    let [a, b, c, d] = numbers.map(|number| number as f32);
    [(1.0 / denominator) as f32, a, b, c, d]
}

/// The Euclidean norm of all gradients together.
pub(super) fn global_norm(graph: &mut Graph, gradients: &[Value]) -> Value {
    let mut total = graph.constant(0.0, Shape::scalar(ElementType::F32));
    for &gradient in gradients {
        let square = graph.mul(gradient, gradient);
        let axes: Vec<usize> = (0..graph.dims(square).len()).collect();
        let sum = graph.sum(square, &axes);
        total = graph.add(total, sum);
    }
    graph.sqrt(total)
}

/// Brings gradients of norm `norm` down to `limit`: times `min(1, limit / (norm + 1e-6))`.
pub(super) fn clip(graph: &mut Graph, gradients: &[Value], norm: Value, limit: f64) -> Vec<Value> {
    let below = graph.offset(norm, 1e-6);
    let limit = graph.constant_like(limit, norm);
    let factor = graph.div(limit, below);
    let one = graph.constant_like(1.0, factor);
    let factor = graph.minimum(factor, one);
    gradients.iter().map(|&gradient| by_scalar(graph, gradient, factor)).collect()
}

/// New weights, in f32, and new state.
pub(super) fn update(
    graph: &mut Graph,
    settings: &StepSettings,
    stacked: &[Stacked],
    (weights, gradients, state): (&[Value], &[Value], &[Value]),
    scalars: &[Value],
) -> (Vec<Value>, Vec<Value>) {
    let (mut new_weights, mut new_state) = (Vec::new(), Vec::new());
    let mut rest = state;
    for ((kind, &weight), &gradient) in stacked.iter().zip(weights).zip(gradients) {
        let count = match (&settings.optimizer, is_matrix(kind)) {
            (OptimizerSettings::Adafactor(_), false) => 1,
            _ => 2,
        };
        let (own, others) = rest.split_at(count);
        rest = others;
        let (new, own) = match &settings.optimizer {
            OptimizerSettings::AdamW(adamw) => {
                let keep = if is_matrix(kind) { scalars[3] } else { scalars[4] };
                adamw_step(graph, adamw, weight, gradient, own, [scalars[1], scalars[2], keep])
            }
            OptimizerSettings::Adafactor(adafactor) => {
                adafactor_step(graph, adafactor, kind, weight, gradient, own, scalars)
            }
        };
        new_weights.push(new);
        new_state.extend(own);
    }
    (new_weights, new_state)
}

fn adamw_step(
    graph: &mut Graph,
    settings: &AdamWSettings,
    weight: Value,
    gradient: Value,
    moments: &[Value],
    [step_size, root_of_correction, keep]: [Value; 3],
) -> (Value, Vec<Value>) {
    let square = graph.mul(gradient, gradient);
    let mut average = |old, new, beta: f64| {
        let old = graph.scale(old, beta);
        let new = graph.scale(new, 1.0 - beta);
        graph.add(old, new)
    };
    let first = average(moments[0], gradient, settings.beta1);
    let second = average(moments[1], square, settings.beta2);
    let root = graph.sqrt(second);
    let correction = spread(graph, root_of_correction, root);
    let root = graph.div(root, correction);
    let root = graph.offset(root, settings.eps);
    let direction = graph.div(first, root);
    let change = by_scalar(graph, direction, step_size);
    let kept = by_scalar(graph, weight, keep);
    (graph.sub(kept, change), vec![first, second])
}

fn adafactor_step(
    graph: &mut Graph,
    settings: &AdafactorSettings,
    kind: &Stacked,
    weight: Value,
    gradient: Value,
    state: &[Value],
    scalars: &[Value],
) -> (Value, Vec<Value>) {
    let [lr, beta2, one_minus_beta2, keep] = scalars[1..] else { unreachable!("five scalars") };
    let rank = kind.dims.len();
    let square = graph.mul(gradient, gradient);
    let average = |graph: &mut Graph, old, new| {
        let old = by_scalar(graph, old, beta2);
        let new = by_scalar(graph, new, one_minus_beta2);
        graph.add(old, new)
    };
    let (direction, new_state) = if is_matrix(kind) {
        let (by_row, by_column) = (rank - 1, rank - 2);
        let mut mean = |axis: usize| {
            let sum = graph.sum(square, &[axis]);
            let mean = graph.scale(sum, 1.0 / kind.dims[axis] as f64);
            graph.offset(mean, settings.eps)
        };
        let (rows, columns) = (mean(by_row), mean(by_column));
        let row = average(graph, state[0], rows);
        let column = average(graph, state[1], columns);
        let total = graph.sum(row, &[rank - 2]);
        let mean = graph.scale(total, 1.0 / kind.dims[rank - 2] as f64);
        let mean = graph.broadcast_like(mean, row, &[rank - 2]);
        let ratio = graph.div(mean, row);
        let row_factor = graph.sqrt(ratio);
        let row_factor = graph.broadcast_like(row_factor, gradient, &[by_row]);
        let root = graph.sqrt(column);
        let one = graph.constant_like(1.0, root);
        let column_factor = graph.div(one, root);
        let column_factor = graph.broadcast_like(column_factor, gradient, &[by_column]);
        let direction = graph.mul(gradient, row_factor);
        (graph.mul(direction, column_factor), vec![row, column])
    } else {
        let square = graph.offset(square, settings.eps);
        let new = average(graph, state[0], square);
        let root = graph.sqrt(new);
        (graph.div(gradient, root), vec![new])
    };
    // The size of the update, of every layer by itself.
    let own_axes: Vec<usize> = (usize::from(kind.layers)..rank).collect();
    let square = graph.mul(direction, direction);
    let sum = graph.sum(square, &own_axes);
    let mean = graph.scale(sum, 1.0 / kind.member_elements() as f64);
    let rms = graph.sqrt(mean);
    let over = graph.scale(rms, 1.0 / settings.clip_threshold);
    let one = graph.constant_like(1.0, over);
    let over = graph.maximum(over, one);
    let lr = spread(graph, lr, over);
    let size = graph.div(lr, over);
    let size = graph.broadcast_like(size, direction, &own_axes);
    let change = graph.mul(size, direction);
    let kept = by_scalar(graph, weight, keep);
    (graph.sub(kept, change), new_state)
}

/// A scalar in the shape of `like`.
fn spread(graph: &mut Graph, scalar: Value, like: Value) -> Value {
    let dims = graph.dims(like).to_vec();
    graph.broadcast(scalar, &[], &dims)
}

fn by_scalar(graph: &mut Graph, value: Value, scalar: Value) -> Value {
    let scalar = spread(graph, scalar, value);
    graph.mul(value, scalar)
}
