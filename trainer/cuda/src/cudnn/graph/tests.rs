//! The backward graph computed in f64, operation by operation and through the tensors' strides, and
//! held against differences of attention itself.

use super::{Graph, Node, Place, Pointwise, Role, Tensor};
use crate::{AttentionSizes, cudnn::SumOrder};
use proptest::prelude::*;
use std::collections::HashMap;

type Memory = HashMap<Role, Vec<f64>>;

/// Every index of these sizes.
fn indices(sizes: [i64; 4]) -> impl Iterator<Item = [i64; 4]> {
    let [a, b, c, d] = sizes;
    (0..a * b * c * d).map(move |i| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
}

/// Where the element lies that meets index `at` of a tensor of `sizes`.
fn meets(tensor: &Tensor, at: [i64; 4], sizes: [i64; 4]) -> usize {
    let offset: i64 =
        (0..4).map(|axis| at[axis] * tensor.sizes[axis] / sizes[axis] * tensor.strides[axis]).sum();
    usize::try_from(offset).unwrap()
}

fn extent(tensor: &Tensor) -> usize {
    meets(tensor, tensor.sizes.map(|n| n - 1), tensor.sizes) + 1
}

/// Runs a graph; what it writes is added to `memory`.
fn run(graph: &Graph, memory: &mut Memory) {
    let mut values: Vec<Option<Vec<f64>>> = vec![None; graph.tensors.len()];
    for (at, tensor) in graph.tensors.iter().enumerate() {
        if let Place::Memory(role) | Place::Host(role) = tensor.place {
            values[at] = memory.get(&role).cloned();
        }
    }
    for node in &graph.nodes {
        let tensor = |at: usize| &graph.tensors[at];
        let read = |at: usize, i: [i64; 4], sizes| {
            let values = values[at].as_ref().expect("written before it is read");
            values[meets(tensor(at), i, sizes)]
        };
        let out = match node {
            Node::Attention { .. } => panic!("one operation of cuDNN's"),
            Node::Pointwise { y, .. } | Node::Sum { y, .. } | Node::View { y, .. } => *y,
            Node::Product { out, .. } => *out,
        };
        let sizes = tensor(out).sizes;
        let mut result = vec![f64::NAN; extent(tensor(out))];
        match node {
            Node::Attention { .. } => unreachable!(),
            Node::Pointwise { mode, x, b, .. } => {
                for i in indices(sizes) {
                    let b = b.map(|b| read(b, i, sizes));
                    let x = read(*x, i, sizes);
                    result[meets(tensor(out), i, sizes)] = match (mode, b) {
                        (Pointwise::Multiply, Some(b)) => x * b,
                        (Pointwise::Subtract, Some(b)) => x - b,
                        (Pointwise::Exp, None) => x.exp(),
                        (Pointwise::Copy, None) => x,
                        other => panic!("{other:?}"),
                    };
                }
            }
            Node::Sum { x, .. } => {
                result.fill(0.0);
                let all = tensor(*x).sizes;
                for i in indices(all) {
                    result[meets(tensor(out), i, all)] += read(*x, i, all);
                }
            }
            Node::Product { left, right, .. } => {
                let inner = tensor(*left).sizes[3];
                assert_eq!(inner, tensor(*right).sizes[2]);
                for i @ [row, head, m, n] in indices(sizes) {
                    let [rows, heads, height, width] = sizes;
                    result[meets(tensor(out), i, sizes)] = (0..inner)
                        .map(|k| {
                            read(*left, [row, head, m, k], [rows, heads, height, inner])
                                * read(*right, [row, head, k, n], [rows, heads, inner, width])
                        })
                        .sum();
                }
            }
            Node::View { x, .. } => result.clone_from(values[*x].as_ref().unwrap()),
        }
        if let Place::Memory(role) = tensor(out).place {
            memory.insert(role, result.clone());
        }
        values[out] = Some(result);
    }
}

/// Attention in `[rows, tokens, heads, width]`, by its definition: `y` and `ln Σ exp`.
fn attention(sizes: &AttentionSizes, q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let AttentionSizes { rows, len, heads, kv_heads, head } = *sizes;
    let (mut y, mut sums) = (vec![0.0; q.len()], vec![0.0; rows * heads * len]);
    for row in 0..rows {
        for h in 0..heads {
            let shared = h / (heads / kv_heads);
            for i in 0..len {
                let query = ((row * len + i) * heads + h) * head;
                let key = |j: usize| ((row * len + j) * kv_heads + shared) * head;
                let scores: Vec<f64> = (0..len)
                    .map(|j| (0..head).map(|d| q[query + d] * k[key(j) + d]).sum::<f64>())
                    .map(|score| (score / (head as f64).sqrt()).exp())
                    .collect();
                let total: f64 = scores.iter().sum();
                sums[(row * heads + h) * len + i] = total.ln();
                for (j, score) in scores.iter().enumerate() {
                    for d in 0..head {
                        y[query + d] += score / total * v[key(j) + d];
                    }
                }
            }
        }
    }
    (y, sums)
}

/// Numbers in (-1, 1) that look like chance.
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_backward_graph_gives_attentions_gradients(
        rows in 1..3_usize, len in 1..5_usize, kv_heads in 1..3_usize, shared in 1..4_usize,
        head in 1..4_usize, fixed: bool, seed: u64,
    ) {
        let sizes = AttentionSizes { rows, len, heads: kv_heads * shared, kv_heads, head };
        let (wide, narrow) = (rows * len * sizes.heads * head, rows * len * kv_heads * head);
        let inputs = [wide, narrow, narrow].map(|len| numbers(seed ^ len as u64, len));
        let [q, k, v] = &inputs;
        let gy = numbers(seed.rotate_left(7), wide);
        let (y, statistics) = attention(&sizes, q, k, v);
        let mut memory = Memory::from([
            (Role::Q, q.clone()), (Role::K, k.clone()), (Role::V, v.clone()),
            (Role::Y, y), (Role::Statistics, statistics), (Role::Gy, gy.clone()),
            (Role::Scale, vec![1.0 / (head as f64).sqrt()]), (Role::One, vec![1.0]),
        ]);
        let order = if fixed { SumOrder::Fixed } else { SumOrder::Any };
        run(&Graph::backward(&sizes, order), &mut memory);

        let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
            let (y, _) = attention(&sizes, &inputs[0], &inputs[1], &inputs[2]);
            y.iter().zip(&gy).map(|(a, b)| a * b).sum()
        };
        for (which, role) in [Role::Gq, Role::Gk, Role::Gv].into_iter().enumerate() {
            prop_assert_eq!(memory[&role].len(), inputs[which].len());
            for (i, ours) in memory[&role].iter().enumerate() {
                let step = 1e-5;
                let at = |change: f64| {
                    let mut moved = inputs.clone();
                    moved[which][i] += change;
                    loss(&moved)
                };
                let theirs = (at(step) - at(-step)) / (2.0 * step);
                prop_assert!((ours - theirs).abs() < 1e-7, "{role:?} {i}: {ours} and {theirs}");
            }
        }
    }
}

#[test]
fn sums_in_a_fixed_order_need_no_sums_in_memory() {
    let sizes = AttentionSizes { rows: 2, len: 256, heads: 16, kv_heads: 8, head: 128 };
    let per_query = 2 * 16 * 256 * 4;
    let any = Graph::backward(&sizes, SumOrder::Any);
    assert_eq!(any.scratch(), [(Role::Deltas, per_query), (Role::GqSums, per_query * 128)]);
    assert_eq!(any.nodes.len(), 20);
    let fixed = Graph::backward(&sizes, SumOrder::Fixed);
    assert_eq!(fixed.scratch(), [(Role::Deltas, per_query)]);
    assert!(Graph::forward(&sizes).scratch().is_empty());
}
