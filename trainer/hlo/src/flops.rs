//! How much arithmetic a program is.

use crate::graph::{Graph, Value};
use crate::liveness::{Live, LiveScan};
use crate::op::{DotAxes, Op};

/// Floating-point operations of the dot products that `outputs` need: two per multiply and add,
/// the body of a loop as often as it runs (with `trips`: as often as it can). What compilers count
/// has loop bodies once.
#[must_use]
pub fn flops(graph: &Graph, outputs: &[Value]) -> u64 {
    let live = Live::of(graph, outputs);
    let needed = graph.nodes.iter().filter(|node| live.has(node));
    needed
        .map(|node| match &node.op {
            Op::Dot(axes) => dot(graph, node.inputs[0], axes, node.outputs[0]),
            Op::Scan(scan) => {
                let outputs = LiveScan::of(scan, node, &live).body_outputs(scan);
                scan.length as u64 * flops(&scan.body, &outputs)
            }
            _ => 0,
        })
        .sum()
}

fn dot(graph: &Graph, lhs: Value, axes: &DotAxes, result: Value) -> u64 {
    let summed: usize = axes.lhs_contract.iter().map(|axis| graph.dims(lhs)[*axis]).product();
    2 * graph.shape(result).size() as u64 * summed as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Direction, ElementType, Shape};

    #[test]
    fn a_loop_counts_as_often_as_it_runs_and_the_unneeded_not_at_all() {
        let matrix = Shape::new(ElementType::F32, &[4, 4]);
        let mut body = Graph::default();
        let (carry, x) = (body.parameter(matrix.clone()), body.parameter(matrix.clone()));
        let next = body.dot(carry, x, &DotAxes::contract(1, 0), ElementType::F32);
        let extra = body.dot(x, x, &DotAxes::contract(1, 0), ElementType::F32);
        let body = Body { graph: body, outputs: vec![next, extra] };
        let mut graph = Graph::default();
        let init = graph.parameter(matrix.clone());
        let xs = graph.parameter(matrix.stacked(7));
        let out = graph.scan(&[init], &[xs], &[], body, Direction::Forward, None);
        assert_eq!(flops(&graph, &[out[0]]), 7 * 2 * 4 * 4 * 4);
        assert_eq!(flops(&graph, &out), 7 * 2 * 2 * 4 * 4 * 4);
        assert_eq!(flops(&graph, &[init]), 0);
    }
}
