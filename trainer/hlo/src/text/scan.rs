//! A loop as `stablehlo.while`.
//!
//! It carries the step's number, the carries, what is stacked (zeros at first, one slice written per
//! step), and, unchanged, the number of trips, the `xs` and the constants: a region of its own sees
//! everything that it uses as its argument.

use super::Printer;
use super::operation::list;
use crate::graph::{Graph, Node, Value};
use crate::liveness::{Live, LiveScan};
use crate::op::{Direction, ScanOp};
use crate::shape::{ElementType, Shape};
use std::collections::HashMap;

/// What the loop carries, in this order after the step's number.
struct Loop {
    names: Vec<String>,
    initial: Vec<String>,
    shapes: Vec<Shape>,
}

impl Loop {
    /// Adds a value that starts as `initial`; its place.
    fn push(&mut self, name: String, initial: String, shape: Shape) -> usize {
        self.names.push(name);
        self.initial.push(initial);
        self.shapes.push(shape);
        self.names.len() - 1
    }
}

impl Printer {
    pub(super) fn scan(
        &mut self,
        graph: &Graph,
        scan: &ScanOp,
        node: &Node,
        around: &Live,
        names: &mut HashMap<Value, String>,
    ) {
        let live = LiveScan::of(scan, node, around);
        let index = Shape::scalar(ElementType::I32);
        let zero = self.constant(0.0, &index);
        let trips = self.trips(scan, node, names);
        let mut carried = Loop { names: Vec::new(), initial: Vec::new(), shapes: Vec::new() };
        let step = carried.push(self.name(), zero, index.clone());
        let trips = carried.push(self.name(), trips, index);

        let mut input = |printer: &mut Self, place: usize| {
            let value = node.inputs[place];
            let name = printer.name();
            carried.push(name, names[&value].clone(), graph.shape(value).clone())
        };
        let carries: Vec<usize> = live.carries.iter().map(|k| input(self, *k)).collect();
        let xs: Vec<usize> = live.xs.iter().map(|k| input(self, scan.carries + k)).collect();
        let after_xs = scan.carries + scan.xs;
        let constants: Vec<usize> =
            live.constants.iter().map(|k| input(self, after_xs + k)).collect();
        let mut stacked = Vec::new();
        for k in &live.stacked {
            let shape = graph.shape(node.outputs[scan.carries + k]).clone();
            let (initial, name) = (self.constant(0.0, &shape), self.name());
            stacked.push(carried.push(name, initial, shape));
        }

        let result = self.name();
        let pairs = carried.names.iter().zip(&carried.initial);
        let pairs = list(pairs.map(|(name, initial)| format!("{name} = {initial}")));
        let shapes = list(&carried.shapes);
        let count = carried.names.len();
        self.line(&format!("{result}:{count} = stablehlo.while({pairs}) : {shapes}"));
        self.line("cond {");
        self.region(|printer| {
            let more = printer.assign(&format!(
                "stablehlo.compare LT, {}, {} : (tensor<i32>, tensor<i32>) -> tensor<i1>",
                carried.names[step], carried.names[trips]
            ));
            printer.line(&format!("stablehlo.return {more} : tensor<i1>"));
        });
        self.line("} do {");
        self.region(|printer| {
            let at = printer.slice_number(scan, &carried.names[step], &carried.names[trips]);
            let mut inside = HashMap::new();
            let parameters = scan.body.parameters();
            for (k, place) in live.carries.iter().zip(&carries) {
                inside.insert(parameters[*k], carried.names[*place].clone());
            }
            for (k, place) in live.xs.iter().zip(&xs) {
                let (name, shape) = (&carried.names[*place], &carried.shapes[*place]);
                let slice = printer.read_slice(name, shape, &at);
                inside.insert(parameters[scan.carries + k], slice);
            }
            for (k, place) in live.constants.iter().zip(&constants) {
                inside.insert(parameters[after_xs + k], carried.names[*place].clone());
            }
            printer.graph(&scan.body, &live.body_outputs(scan), &mut inside);
            let mut next = carried.names.clone();
            let one = printer.constant(1.0, &carried.shapes[step]);
            next[step] = printer
                .assign(&format!("stablehlo.add {}, {one} : tensor<i32>", carried.names[step]));
            for (k, place) in live.carries.iter().zip(&carries) {
                next[*place].clone_from(&inside[&scan.outputs[*k]]);
            }
            for (k, place) in live.stacked.iter().zip(&stacked) {
                let slice = &inside[&scan.outputs[scan.carries + k]];
                let (name, shape) = (&carried.names[*place], &carried.shapes[*place]);
                next[*place] = printer.write_slice(name, shape, slice, &at);
            }
            printer.line(&format!("stablehlo.return {} : {shapes}", list(&next)));
        });
        self.line("}");
        for (k, place) in live.carries.iter().zip(&carries) {
            names.insert(node.outputs[*k], format!("{result}#{place}"));
        }
        for (k, place) in live.stacked.iter().zip(&stacked) {
            names.insert(node.outputs[scan.carries + k], format!("{result}#{place}"));
        }
    }

    /// How many steps the loop takes.
    fn trips(&mut self, scan: &ScanOp, node: &Node, names: &HashMap<Value, String>) -> String {
        let all = self.constant(scan.length as f64, &Shape::scalar(ElementType::I32));
        if !scan.has_trips {
            return all;
        }
        let given = &names[node.inputs.last().expect("trips")];
        self.assign(&format!("stablehlo.minimum {given}, {all} : tensor<i32>"))
    }

    /// Which slice a step works on.
    fn slice_number(&mut self, scan: &ScanOp, step: &str, trips: &str) -> String {
        match scan.direction {
            Direction::Forward => step.to_owned(),
            Direction::Reverse => {
                let one = self.constant(1.0, &Shape::scalar(ElementType::I32));
                let last = self.assign(&format!("stablehlo.subtract {trips}, {one} : tensor<i32>"));
                self.assign(&format!("stablehlo.subtract {last}, {step} : tensor<i32>"))
            }
        }
    }

    /// One slice along the leading axis, without it.
    fn read_slice(&mut self, name: &str, shape: &Shape, at: &str) -> String {
        let flat = shape.without(&[0]);
        let slice = flat.stacked(1);
        let (starts, types) = self.starts(shape, at);
        let part = self.assign(&format!(
            "stablehlo.dynamic_slice {name}, {starts}, sizes = [{}] : ({shape}, {types}) -> {slice}",
            list(&slice.dims)
        ));
        self.assign(&format!("stablehlo.reshape {part} : ({slice}) -> {flat}"))
    }

    /// The stack with one slice along the leading axis replaced.
    fn write_slice(&mut self, name: &str, shape: &Shape, part: &str, at: &str) -> String {
        let flat = shape.without(&[0]);
        let slice = flat.stacked(1);
        let (starts, types) = self.starts(shape, at);
        let part = self.assign(&format!("stablehlo.reshape {part} : ({flat}) -> {slice}"));
        self.assign(&format!(
            "stablehlo.dynamic_update_slice {name}, {part}, {starts} : ({shape}, {slice}, {types}) \
             -> {shape}"
        ))
    }

    /// Where a slice starts: at a number along the leading axis, at zero along the others.
    fn starts(&mut self, shape: &Shape, at: &str) -> (String, String) {
        let zero = self.constant(0.0, &Shape::scalar(ElementType::I32));
        let starts = (0..shape.rank()).map(|axis| if axis == 0 { at } else { zero.as_str() });
        (list(starts), list((0..shape.rank()).map(|_| "tensor<i32>")))
    }
}
