//! The derivative of a loop is a loop in the other direction.
//!
//! The forward loop additionally stacks what each step got as its carries. The backward loop takes
//! these slices, runs the body anew on them, and differentiates it there: nothing else of a step is
//! kept. Its carries are the gradients of the carries, and what has been added up so far for each
//! constant.

use super::Cotangents;
use super::dependence::scan_dependence;
use crate::build::scan::Body;
use crate::graph::{Graph, Node, Value};
use crate::op::{Op, ScanOp};
use crate::shape::{ElementType, Shape};

/// Where the parts of a loop that a gradient reaches are in its lists.
struct Reached {
    carries: Vec<usize>,
    xs: Vec<usize>,
    constants: Vec<usize>,
    /// Stacked outputs at which something arrived.
    stacked: Vec<usize>,
}

impl Graph {
    pub(super) fn scan_gradient(
        &mut self,
        place: usize,
        scan: &ScanOp,
        node: &Node,
        needed: &[bool],
        cotangents: &mut Cotangents,
    ) {
        let depends = scan_dependence(scan, needed);
        let after_carries = scan.carries + scan.xs;
        let arrived = |k: &usize| cotangents.get(node.outputs[scan.carries + k]).is_some();
        let reached = Reached {
            carries: (0..scan.carries).filter(|k| depends[*k]).collect(),
            xs: (0..scan.xs).filter(|k| needed[scan.carries + k]).collect(),
            constants: (0..scan.constants()).filter(|k| needed[after_carries + k]).collect(),
            stacked: (0..scan.stacked())
                .filter(|k| depends[scan.carries + k] && arrived(k))
                .collect(),
        };
        let (carries, rest) = node.inputs.split_at(scan.carries);
        let (xs, rest) = rest.split_at(scan.xs);
        let (constants, trips) = rest.split_at(scan.constants());

        let mut init = Vec::new();
        for k in &reached.carries {
            let got = cotangents.get(node.outputs[*k]);
            init.push(got.unwrap_or_else(|| self.constant_like(0.0, carries[*k])));
        }
        for k in &reached.constants {
            let total = total_shape(self.shape(constants[*k]));
            init.push(self.constant(0.0, total));
        }
        let mut slices = self.saved_carries(place);
        slices.extend(xs);
        slices.extend(
            reached.stacked.iter().filter_map(|k| cotangents.get(node.outputs[scan.carries + k])),
        );
        let body = backward_body(scan, &reached);
        let results = self.push_scan(
            scan.length,
            [&init, &slices, constants],
            body,
            scan.direction.reversed(),
            trips.first().copied(),
        );

        let (of_carries, rest) = results.split_at(reached.carries.len());
        let (of_constants, of_xs) = rest.split_at(reached.constants.len());
        for (k, share) in reached.carries.iter().zip(of_carries) {
            if needed[*k] {
                cotangents.add(self, carries[*k], *share);
            }
        }
        for (k, share) in reached.constants.iter().zip(of_constants) {
            let share = self.convert(*share, self.shape(constants[*k]).element);
            cotangents.add(self, constants[*k], share);
        }
        for (k, share) in reached.xs.iter().zip(of_xs) {
            cotangents.add(self, xs[*k], *share);
        }
    }

    /// What each step of the loop at `place` got as its carries, stacked: further outputs of it,
    /// unless it has them from an earlier call.
    fn saved_carries(&mut self, place: usize) -> Vec<Value> {
        let Op::Scan(scan) = &self.nodes[place].op else { unreachable!("a loop") };
        let carries = scan.body.parameters()[..scan.carries].to_vec();
        let mut saved = Vec::new();
        for carry in carries {
            let Op::Scan(scan) = &self.nodes[place].op else { unreachable!("a loop") };
            let stacked = &scan.outputs[scan.carries..];
            if let Some(k) = stacked.iter().position(|output| *output == carry) {
                saved.push(self.nodes[place].outputs[scan.carries + k]);
                continue;
            }
            let value = self.fresh(scan.body.shape(carry).stacked(scan.length));
            let node = &mut self.nodes[place];
            node.outputs.push(value);
            if let Op::Scan(scan) = &mut node.op {
                scan.outputs.push(carry);
            }
            saved.push(value);
        }
        saved
    }
}

/// One step back. Carries: gradients of the reached carries, totals of the reached constants.
/// Slices: the carries that the step got, its `xs`, what arrived at its stacked outputs. Constants:
/// the loop's. Stacked: the gradients of the reached `xs`.
fn backward_body(scan: &ScanOp, reached: &Reached) -> Body {
    let mut graph = Graph::default();
    let shape = |place: usize| scan.body.shape(scan.body.parameters()[place]).clone();
    let after_carries = scan.carries + scan.xs;
    let mut parameters = |shapes: Vec<Shape>| -> Vec<Value> {
        shapes.into_iter().map(|shape| graph.parameter(shape)).collect()
    };
    let of_carries = parameters(reached.carries.iter().map(|k| shape(*k)).collect());
    let totals = reached.constants.iter().map(|k| total_shape(&shape(after_carries + k)));
    let totals = parameters(totals.collect());
    let mut arguments = parameters((0..after_carries).map(shape).collect());
    let stacked = reached.stacked.iter().map(|k| scan.outputs[scan.carries + k]);
    let of_stacked = parameters(stacked.map(|value| scan.body.shape(value).clone()).collect());
    arguments.extend(parameters((0..scan.constants()).map(|k| shape(after_carries + k)).collect()));

    let again = graph.inline(&scan.body, &arguments, &scan.outputs);
    let mut seeds: Vec<(Value, Value)> =
        reached.carries.iter().map(|k| again[*k]).zip(of_carries).collect();
    seeds.extend(reached.stacked.iter().map(|k| again[scan.carries + k]).zip(of_stacked));
    let mut with_respect_to: Vec<Value> = reached.carries.iter().map(|k| arguments[*k]).collect();
    with_respect_to.extend(reached.constants.iter().map(|k| arguments[after_carries + k]));
    with_respect_to.extend(reached.xs.iter().map(|k| arguments[scan.carries + k]));
    let mut outputs = graph.gradients(&seeds, &with_respect_to);
    for (output, total) in outputs[reached.carries.len()..].iter_mut().zip(totals) {
        let share = graph.convert(*output, graph.shape(total).element);
        *output = graph.add(total, share);
    }
    Body { graph, outputs }
}

/// What the gradient of a constant is added up in: f32, for in bf16 a sum over many steps stops
/// growing.
fn total_shape(constant: &Shape) -> Shape {
    constant.with_element(ElementType::F32)
}
