//! The plain judge: every operation as loops over f64.

mod index;
mod layout;
mod ops;
mod tensor;

use crate::graph::{Graph, Value};
use crate::liveness::Live;
use crate::number::rounded;
use crate::op::{Direction, Op, ScanOp};
use std::collections::HashMap;
pub use tensor::Tensor;

/// Computes `outputs` from one tensor per parameter, in f64 throughout: what the graph means,
/// without rounding. Slow and simple on purpose.
///
/// # Panics
/// If the inputs do not fit the parameters.
#[must_use]
pub fn interpret(graph: &Graph, inputs: &[Tensor], outputs: &[Value]) -> Vec<Tensor> {
    Interpreter { round: false }.run(graph, inputs, outputs)
}

/// The same, but every result is rounded to its element type, as a device holds it. Sums are still
/// exact until they are done.
///
/// # Panics
/// If the inputs do not fit the parameters.
#[must_use]
pub fn interpret_rounded(graph: &Graph, inputs: &[Tensor], outputs: &[Value]) -> Vec<Tensor> {
    Interpreter { round: true }.run(graph, inputs, outputs)
}

struct Interpreter {
    round: bool,
}

impl Interpreter {
    fn run(&self, graph: &Graph, inputs: &[Tensor], outputs: &[Value]) -> Vec<Tensor> {
        assert_eq!(inputs.len(), graph.parameters().len(), "one input per parameter");
        let mut known: HashMap<Value, Tensor> = HashMap::new();
        for (parameter, input) in graph.parameters().iter().zip(inputs) {
            assert_eq!(*graph.shape(*parameter), input.shape, "an input's shape");
            known.insert(*parameter, input.clone());
        }
        let live = Live::of(graph, outputs);
        for node in graph.nodes.iter().filter(|node| live.has(node)) {
            let given = || node.inputs.iter().map(|value| known.get(value));
            let results = match &node.op {
                Op::Parameter => continue,
                // what a loop needs for outputs that nobody wants is not computed
                Op::Scan(scan) => self.scan(scan, &given().collect::<Vec<_>>()),
                op => {
                    let given: Vec<&Tensor> = given().map(|t| t.expect("computed")).collect();
                    vec![ops::evaluate(op, &given, graph.shape(node.outputs[0]))]
                }
            };
            for (value, mut result) in node.outputs.iter().zip(results) {
                if self.round {
                    let element = result.shape.element;
                    result.values.iter_mut().for_each(|number| *number = rounded(*number, element));
                }
                known.insert(*value, result);
            }
        }
        outputs.iter().map(|value| known[value].clone()).collect()
    }

    /// A loop, step by step. An input that is not known is one that no needed output reads: zeros
    /// stand for it.
    fn scan(&self, scan: &ScanOp, given: &[Option<&Tensor>]) -> Vec<Tensor> {
        let parameters = scan.body.parameters();
        let input = |place: usize| {
            given[place].cloned().unwrap_or_else(|| {
                let shape = scan.body.shape(parameters[place]);
                let sliced = (scan.carries..scan.carries + scan.xs).contains(&place);
                Tensor::filled(if sliced { shape.stacked(scan.length) } else { shape.clone() }, 0.0)
            })
        };
        let mut carries: Vec<Tensor> = (0..scan.carries).map(input).collect();
        let xs: Vec<Tensor> = (scan.carries..scan.carries + scan.xs).map(input).collect();
        let constants: Vec<Tensor> =
            (scan.carries + scan.xs..parameters.len()).map(input).collect();
        let mut stacks: Vec<Tensor> = scan.outputs[scan.carries..]
            .iter()
            .map(|value| Tensor::filled(scan.body.shape(*value).stacked(scan.length), 0.0))
            .collect();
        let mut order: Vec<usize> = (0..trips(scan, given)).collect();
        if scan.direction == Direction::Reverse {
            order.reverse();
        }
        for at in order {
            let mut inputs = carries;
            inputs.extend(xs.iter().map(|x| x.leading(at)));
            inputs.extend(constants.iter().cloned());
            carries = self.run(&scan.body, &inputs, &scan.outputs);
            let stacked = carries.split_off(scan.carries);
            for (stack, slice) in stacks.iter_mut().zip(stacked) {
                let width = slice.values.len();
                stack.values[at * width..(at + 1) * width].copy_from_slice(&slice.values);
            }
        }
        carries.extend(stacks);
        carries
    }
}

/// How many steps a loop takes.
fn trips(scan: &ScanOp, given: &[Option<&Tensor>]) -> usize {
    if !scan.has_trips {
        return scan.length;
    }
    let wanted = given.last().copied().flatten().expect("trips are always needed").values[0];
    (0..scan.length).take_while(|step| (*step as f64) < wanted).count()
}
