//! What an output needs, and what is left out.

use crate::graph::{Graph, Node, Value};
use crate::op::{Op, ScanOp};

/// Which values some outputs need, themselves included.
pub(crate) struct Live {
    values: Vec<bool>,
}

impl Live {
    /// What these outputs of a graph need.
    pub(crate) fn of(graph: &Graph, outputs: &[Value]) -> Self {
        let mut live = Self { values: vec![false; graph.values()] };
        live.mark(outputs);
        for node in graph.nodes.iter().rev() {
            if !live.has(node) {
                continue;
            }
            let needed = match &node.op {
                Op::Scan(scan) => LiveScan::of(scan, node, &live).inputs(scan, node),
                _ => node.inputs.clone(),
            };
            live.mark(&needed);
        }
        live
    }

    /// Whether a value is needed.
    pub(crate) fn value(&self, value: Value) -> bool {
        self.values[value.0]
    }

    /// Whether any output of a node is needed.
    pub(crate) fn has(&self, node: &Node) -> bool {
        node.outputs.iter().any(|value| self.value(*value))
    }

    fn mark(&mut self, values: &[Value]) {
        for value in values {
            self.values[value.0] = true;
        }
    }
}

/// The parts of a loop that are needed, as places in its lists.
pub(crate) struct LiveScan {
    /// Carries that are needed after the loop, or within it for something that is.
    pub carries: Vec<usize>,
    pub xs: Vec<usize>,
    pub constants: Vec<usize>,
    pub stacked: Vec<usize>,
}

impl LiveScan {
    /// What is needed of a loop when `around` is needed outside.
    pub(crate) fn of(scan: &ScanOp, node: &Node, around: &Live) -> Self {
        let wanted = |place: usize| around.value(node.outputs[place]);
        let stacked: Vec<usize> =
            (0..scan.stacked()).filter(|k| wanted(scan.carries + k)).collect();
        let mut carries: Vec<usize> = (0..scan.carries).filter(|k| wanted(*k)).collect();
        loop {
            let places = carries.iter().copied();
            let roots: Vec<Value> = places
                .chain(stacked.iter().map(|k| scan.carries + k))
                .map(|place| scan.outputs[place])
                .collect();
            let inside = Live::of(&scan.body, &roots);
            let used = |place: &usize| inside.value(scan.body.parameters()[*place]);
            // a carry that a needed one reads is needed too, and with it what makes it
            let next: Vec<usize> =
                (0..scan.carries).filter(|k| carries.contains(k) || used(k)).collect();
            if next.len() == carries.len() {
                let after_carries = scan.carries + scan.xs;
                return Self {
                    xs: (0..scan.xs).filter(|k| used(&(scan.carries + k))).collect(),
                    constants: (0..scan.constants())
                        .filter(|k| used(&(after_carries + k)))
                        .collect(),
                    carries,
                    stacked,
                };
            }
            carries = next;
        }
    }

    /// The body's outputs that are needed.
    pub(crate) fn body_outputs(&self, scan: &ScanOp) -> Vec<Value> {
        let stacked = self.stacked.iter().map(|k| scan.carries + k);
        self.carries.iter().copied().chain(stacked).map(|place| scan.outputs[place]).collect()
    }

    /// The node's inputs that are needed: carries, xs, constants, trips.
    fn inputs(&self, scan: &ScanOp, node: &Node) -> Vec<Value> {
        let xs = self.xs.iter().map(|k| scan.carries + k);
        let constants = self.constants.iter().map(|k| scan.carries + scan.xs + k);
        let places = self.carries.iter().copied().chain(xs).chain(constants);
        let mut inputs: Vec<Value> = places.map(|place| node.inputs[place]).collect();
        inputs.extend(scan.has_trips.then(|| *node.inputs.last().expect("trips")));
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Direction, ElementType, Shape};

    /// Three carries: 0 counts by 1, 1 adds 0, 2 adds a constant and is read by nobody else.
    #[test]
    fn a_loop_keeps_only_what_its_needed_parts_read() {
        let scalar = Shape::scalar(ElementType::F32);
        let mut body = Graph::default();
        let carry: Vec<Value> = (0..3).map(|_| body.parameter(scalar.clone())).collect();
        let x = body.parameter(scalar.clone());
        let constant = body.parameter(scalar.clone());
        let zero = body.offset(carry[0], 1.0);
        let one = body.add(carry[1], carry[0]);
        let two = body.add(carry[2], constant);
        let body = Body { graph: body, outputs: vec![zero, one, two, x, carry[1]] };
        let mut graph = Graph::default();
        let init: Vec<Value> = (0..3).map(|_| graph.parameter(scalar.clone())).collect();
        let xs = graph.parameter(Shape::new(ElementType::F32, &[4]));
        let constant = graph.parameter(scalar);
        let out = graph.scan(&init, &[xs], &[constant], body, Direction::Forward, None);
        let needs = |outputs: &[Value]| {
            let live = Live::of(&graph, outputs);
            graph.parameters().iter().map(|value| live.value(*value)).collect::<Vec<bool>>()
        };
        assert_eq!(needs(&[out[0]]), [true, false, false, false, false]);
        assert_eq!(needs(&[out[1]]), [true, true, false, false, false]);
        assert_eq!(needs(&[out[2]]), [false, false, true, false, true]);
        assert_eq!(needs(&[out[3]]), [false, false, false, true, false]);
        assert_eq!(needs(&[out[4]]), [true, true, false, false, false]);
    }
}
