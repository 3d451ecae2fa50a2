//! Every gradient against central differences of the interpreter.

mod common;

use coda_hlo::{
    Body, Direction, DotAxes, ElementType, Graph, Shape, Tensor, Value, interpret,
    interpret_rounded,
};
use common::{Case, cases, f32, spread};
use proptest::prelude::*;

#[test]
fn every_operation_agrees_with_differences() {
    for entry in cases::all() {
        let case = entry.case();
        eprintln!("{}", entry.name);
        case.check();
    }
}

#[test]
fn a_value_without_a_path_gets_zeros() {
    let mut graph = Graph::default();
    let (x, y) = (graph.parameter(f32(&[2])), graph.parameter(f32(&[3])));
    let loss = graph.sum(x, &[0]);
    let one = graph.constant_like(1.0, loss);
    let gradient = graph.gradients(&[(loss, one)], &[y])[0];
    let inputs = [spread(f32(&[2]), 1, 0.0, 1.0), spread(f32(&[3]), 2, 0.0, 1.0)];
    assert_eq!(interpret(&graph, &inputs, &[gradient])[0].values, [0.0; 3]);
}

#[test]
fn stop_gradient_lets_nothing_through() {
    let mut graph = Graph::default();
    let x = graph.parameter(f32(&[]));
    let still = graph.stop_gradient(x);
    let product = graph.mul(x, still);
    let one = graph.constant_like(1.0, product);
    let gradient = graph.gradients(&[(product, one)], &[x])[0];
    assert_eq!(interpret(&graph, &[Tensor::scalar(3.0)], &[gradient])[0].values, [3.0]);
}

#[test]
fn a_power_of_zero_has_a_gradient() {
    let mut graph = Graph::default();
    let (x, power) = (graph.parameter(f32(&[3])), graph.parameter(f32(&[3])));
    let y = graph.pow(x, power);
    let ones = graph.constant_like(1.0, y);
    let gradients = graph.gradients(&[(y, ones)], &[x, power]);
    let inputs =
        [Tensor::new(f32(&[3]), vec![0.0; 3]), Tensor::new(f32(&[3]), vec![0.0, 1.0, 2.0])];
    let found = interpret(&graph, &inputs, &gradients);
    assert_eq!(found[0].values, [0.0, 1.0, 0.0]);
    assert_eq!(found[1].values, [0.0, 0.0, 0.0]);
}

/// x^4 by a loop: the second derivative is 12 x^2.
#[test]
fn a_loop_can_be_differentiated_twice() {
    let mut body = Graph::default();
    let (carry, x) = (body.parameter(f32(&[])), body.parameter(f32(&[])));
    let next = body.mul(carry, x);
    let body = Body { graph: body, outputs: vec![next] };
    let mut graph = Graph::default();
    let x = graph.parameter(f32(&[]));
    let one = graph.constant_like(1.0, x);
    let power = graph.repeat(4, &[one], &[x], body, Direction::Forward, None)[0];
    let first = graph.gradients(&[(power, one)], &[x])[0];
    let second = graph.gradients(&[(first, one)], &[x])[0];
    let found = interpret(&graph, &[Tensor::scalar(1.5)], &[power, first, second]);
    let expected = [1.5f64.powi(4), 4.0 * 1.5f64.powi(3), 12.0 * 1.5f64.powi(2)];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found.values[0] - expected).abs() < 1e-12, "{found:?} {expected}");
    }
}

/// A row taken 4096 times with a gradient of one: in bf16 the sum would stop at 256.
#[test]
fn gradients_of_bf16_are_added_up_in_f32() {
    let bf16 = |dims: &[usize]| Shape::new(ElementType::Bf16, dims);
    let mut graph = Graph::default();
    let table = graph.parameter(bf16(&[2, 1]));
    let ids = graph.constant(1.0, common::i32(&[4096]));
    let rows = graph.take(table, ids);
    let ones = graph.constant_like(1.0, rows);
    let taken = graph.gradients(&[(rows, ones)], &[table])[0];
    let scale = graph.parameter(bf16(&[1]));
    let mut body = Graph::default();
    let (carry, constant) = (body.parameter(f32(&[1])), body.parameter(bf16(&[1])));
    let wide = body.convert(constant, ElementType::F32);
    let next = body.add(carry, wide);
    let body = Body { graph: body, outputs: vec![next] };
    let zero = graph.constant(0.0, f32(&[1]));
    let total = graph.repeat(4096, &[zero], &[scale], body, Direction::Forward, None)[0];
    let one = graph.constant_like(1.0, total);
    let looped = graph.gradients(&[(total, one)], &[scale])[0];
    let inputs = [Tensor::filled(bf16(&[2, 1]), 0.5), Tensor::filled(bf16(&[1]), 0.5)];
    let found = interpret_rounded(&graph, &inputs, &[taken, looped]);
    assert_eq!(found[0].values, [0.0, 4096.0]);
    assert_eq!(found[1].values, [4096.0]);
}

/// Two layers of a small network with random extents.
fn network(graph: &mut Graph, v: &[Value]) -> Vec<Value> {
    let hidden = graph.dot(v[0], v[1], &DotAxes::contract(1, 0), ElementType::F32);
    let gate = graph.logistic(hidden);
    let hidden = graph.mul(hidden, gate);
    let square = graph.mul(hidden, hidden);
    let mean = graph.sum(square, &[1]);
    let mean = graph.offset(mean, 0.1);
    let scale = graph.rsqrt(mean);
    let scale = graph.broadcast_like(scale, hidden, &[1]);
    let hidden = graph.mul(hidden, scale);
    vec![graph.dot(hidden, v[1], &DotAxes::contract(1, 1), ElementType::F32)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shapes_do_not_matter(rows in 1usize..4, width in 1usize..5, hidden in 1usize..5, seed in 1u64..999) {
        let inputs = vec![
            spread(f32(&[rows, width]), seed, -1.0, 1.0),
            spread(f32(&[width, hidden]), seed + 1, -1.0, 1.0),
        ];
        Case::new(inputs, network).check();
    }

    /// Any pairing of the axes of two operands of rank four.
    #[test]
    fn every_dot_has_its_gradient(
        left in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        right in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        batch in 0usize..3,
        contract in 0usize..3,
        seed in 1u64..999,
    ) {
        let extents = [2usize, 3, 1, 2];
        // paired axes are the first ones of both orders
        let mut rhs_dims = [2usize, 1, 3, 2];
        for k in 0..(batch + contract).min(4) {
            rhs_dims[right[k]] = extents[left[k]];
        }
        let contract = contract.min(4 - batch);
        let axes = DotAxes {
            lhs_batch: left[..batch].to_vec(),
            rhs_batch: right[..batch].to_vec(),
            lhs_contract: left[batch..batch + contract].to_vec(),
            rhs_contract: right[batch..batch + contract].to_vec(),
        };
        let inputs = vec![
            spread(f32(&extents), seed, -1.0, 1.0),
            spread(f32(&rhs_dims), seed + 1, -1.0, 1.0),
        ];
        let build = |g: &mut Graph, v: &[Value]| vec![g.dot(v[0], v[1], &axes, ElementType::F32)];
        Case::new(inputs, build).check();
    }

    /// A loop and the same steps written out give the same numbers.
    #[test]
    fn a_loop_is_its_steps(length in 1usize..5, reverse: bool, seed in 1u64..999) {
        let mut body = Graph::default();
        let (carry, x) = (body.parameter(f32(&[2])), body.parameter(f32(&[2])));
        let product = body.mul(carry, x);
        let next = body.sine(product);
        let direction = if reverse { Direction::Reverse } else { Direction::Forward };
        let inputs =
            vec![spread(f32(&[2]), seed, -1.0, 1.0), spread(f32(&[length, 2]), seed + 1, -2.0, 2.0)];
        let looped = Case::new(inputs.clone(), |g, v| {
            let body = Body { graph: body.clone(), outputs: vec![next] };
            g.scan(&[v[0]], &[v[1]], &[], body, direction, None)
        });
        let unrolled = Case::new(inputs.clone(), |g, v| {
            let mut order: Vec<usize> = (0..length).collect();
            if reverse {
                order.reverse();
            }
            let mut carry = v[0];
            for at in order {
                let slice = g.slice(v[1], &[at..at + 1, 0..2]);
                let slice = g.reshape(slice, &[2]);
                carry = g.inline(&body, &[carry, slice], &[next])[0];
            }
            vec![carry]
        });
        let values = |case: &Case| {
            let mut wanted = vec![case.loss];
            wanted.extend(case.gradients.iter().map(|(_, value)| *value));
            interpret(&case.graph, &inputs, &wanted)
        };
        for (a, b) in values(&looped).iter().zip(values(&unrolled)) {
            for (a, b) in a.values.iter().zip(&b.values) {
                prop_assert!((a - b).abs() <= 1e-12, "{} {}", a, b);
            }
        }
        looped.check();
    }
}
