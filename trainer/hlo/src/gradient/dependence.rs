//! Which values change when others do.

use crate::graph::{Graph, Value};
use crate::op::{Op, ScanOp, Unary};

/// For every value of the graph whether it follows, by a path that a gradient can take, from one of
/// `roots`.
pub(super) fn dependent(graph: &Graph, roots: &[Value]) -> Vec<bool> {
    let mut depends = vec![false; graph.values()];
    for root in roots {
        depends[root.0] = true;
    }
    for node in &graph.nodes {
        let needed: Vec<bool> = node.inputs.iter().map(|value| depends[value.0]).collect();
        let blocked = matches!(node.op, Op::StopGradient | Op::Unary(Unary::Floor));
        if blocked || !needed.contains(&true) {
            continue;
        }
        let reached = match &node.op {
            Op::Scan(scan) => scan_dependence(scan, &needed),
            _ => vec![true; node.outputs.len()],
        };
        for (output, reached) in node.outputs.iter().zip(reached) {
            depends[output.0] |= reached && graph.shape(*output).element.is_float();
        }
    }
    depends
}

/// Which outputs of a loop follow from those of its inputs that are marked. A carry follows from
/// whatever reaches it in any step.
pub(super) fn scan_dependence(scan: &ScanOp, inputs: &[bool]) -> Vec<bool> {
    let parameters = scan.body.parameters();
    let mut marked = inputs[..parameters.len()].to_vec();
    loop {
        let roots = parameters.iter().zip(&marked).filter(|(_, marked)| **marked);
        let roots: Vec<Value> = roots.map(|(parameter, _)| *parameter).collect();
        let inside = dependent(&scan.body, &roots);
        let mut outputs: Vec<bool> = scan.outputs.iter().map(|value| inside[value.0]).collect();
        let mut grown = false;
        for carry in 0..scan.carries {
            grown |= outputs[carry] && !marked[carry];
            marked[carry] |= outputs[carry];
            // with no step at all a carry is what it was
            outputs[carry] |= marked[carry];
        }
        if !grown {
            return outputs;
        }
    }
}
