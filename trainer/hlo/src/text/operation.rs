//! One line for one operation.

use super::Printer;
use crate::graph::{Graph, Node, Value};
use crate::op::{Binary, Comparison, DotAxes, Op, Unary};
use crate::shape::{ElementType, Shape};
use std::collections::HashMap;
use std::fmt::Display;

/// A node's operands and types as text.
struct Operands {
    names: Vec<String>,
    shapes: Vec<Shape>,
    result: Shape,
}

impl Operands {
    fn of(graph: &Graph, node: &Node, names: &HashMap<Value, String>) -> Self {
        Self {
            names: node.inputs.iter().map(|value| names[value].clone()).collect(),
            shapes: node.inputs.iter().map(|value| graph.shape(*value).clone()).collect(),
            result: graph.shape(node.outputs[0]).clone(),
        }
    }

    /// `%a, %b`
    fn list(&self) -> String {
        self.names.join(", ")
    }

    /// `(tensor<…>, tensor<…>) -> tensor<…>`
    fn signature(&self) -> String {
        format!("({}) -> {}", list(&self.shapes), self.result)
    }
}

impl Printer {
    /// The operation's line; the name of its result.
    pub(super) fn operation(
        &mut self,
        graph: &Graph,
        node: &Node,
        names: &HashMap<Value, String>,
    ) -> String {
        let given = Operands::of(graph, node, names);
        let (operands, signature, result) = (given.list(), given.signature(), &given.result);
        let simple = |name: &str| format!("stablehlo.{name} {operands} : {signature}");
        let text = match &node.op {
            Op::Constant(number) => return self.constant(*number, result),
            Op::StopGradient => return given.names[0].clone(),
            Op::Constrain(_) if !self.sharded => return given.names[0].clone(),
            Op::Constrain(sharding) => {
                format!("sdy.sharding_constraint {operands} {} : {result}", sharding.text())
            }
            Op::Iota(axis) => format!("stablehlo.iota dim = {axis} : {result}"),
            Op::Unary(Unary::IsFinite) | Op::Convert | Op::Reshape => simple(match &node.op {
                Op::Convert => "convert",
                Op::Reshape => "reshape",
                _ => "is_finite",
            }),
            Op::Unary(op) => format!("stablehlo.{} {operands} : {result}", unary(*op)),
            Op::Binary(op) => format!("stablehlo.{} {operands} : {result}", binary(*op)),
            Op::Compare(comparison) => {
                format!("stablehlo.compare {}, {operands} : {signature}", direction(*comparison))
            }
            Op::Select => format!("stablehlo.select {operands} : {}, {result}", given.shapes[0]),
            Op::Dot(axes) => dot(axes, &given),
            Op::Sum(axes) => self.reduce("add", 0.0, axes, &given),
            Op::Max(axes) => {
                let least = match result.element {
                    ElementType::I32 => f64::from(i32::MIN),
                    _ => f64::NEG_INFINITY,
                };
                self.reduce("maximum", least, axes, &given)
            }
            Op::Broadcast(axes) => format!(
                "stablehlo.broadcast_in_dim {operands}, dims = [{}] : {signature}",
                list(axes)
            ),
            Op::Transpose(order) => {
                format!("stablehlo.transpose {operands}, dims = [{}] : {signature}", list(order))
            }
            Op::Slice(ranges) => {
                let ranges = ranges.iter().map(|range| format!("{}:{}", range.start, range.end));
                format!("stablehlo.slice {operands} [{}] : {signature}", list(ranges))
            }
            Op::Pad(margins) => self.pad(margins, &given),
            Op::Concat(axis) => {
                format!("stablehlo.concatenate {operands}, dim = {axis} : {signature}")
            }
            Op::Take | Op::TakeAlong => gather(&given, matches!(node.op, Op::TakeAlong)),
            Op::ScatterAdd => self.scatter(&given, false),
            Op::ScatterAddAlong => self.scatter(&given, true),
            Op::DynamicSlice => format!(
                "stablehlo.dynamic_slice {operands}, sizes = [{}] : {signature}",
                list(&result.dims)
            ),
            Op::DynamicUpdateSlice => simple("dynamic_update_slice"),
            Op::Parameter | Op::Scan(_) => unreachable!("not one line"),
        };
        self.assign(&text)
    }

    fn reduce(&mut self, by: &str, start: f64, axes: &[usize], given: &Operands) -> String {
        let scalar = Shape::scalar(given.result.element);
        let start = self.constant(start, &scalar);
        format!(
            "stablehlo.reduce({} init: {start}) applies stablehlo.{by} across dimensions = [{}] : \
             ({}, {scalar}) -> {}",
            given.names[0],
            list(axes),
            given.shapes[0],
            given.result
        )
    }

    fn pad(&mut self, margins: &[(usize, usize)], given: &Operands) -> String {
        let scalar = Shape::scalar(given.result.element);
        let zero = self.constant(0.0, &scalar);
        format!(
            "stablehlo.pad {}, {zero}, low = [{}], high = [{}], interior = [{}] : ({}, {scalar}) \
             -> {}",
            given.names[0],
            list(margins.iter().map(|(low, _)| low)),
            list(margins.iter().map(|(_, high)| high)),
            list(margins.iter().map(|_| 0)),
            given.shapes[0],
            given.result
        )
    }

    /// Rows added at places; `batched`: within each group. What is added to what is said in a region.
    fn scatter(&mut self, given: &Operands, batched: bool) -> String {
        let scalar = Shape::scalar(given.result.element);
        let rank = given.shapes[1].rank();
        let numbers = if batched {
            "update_window_dims = [2], inserted_window_dims = [1], input_batching_dims = [0], \
             scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], \
             index_vector_dim = 2"
                .to_owned()
        } else {
            format!(
                "update_window_dims = [{rank}], inserted_window_dims = [0], \
                 scatter_dims_to_operand_dims = [0], index_vector_dim = {rank}"
            )
        };
        let (old, new, sum) = (self.name(), self.name(), self.name());
        let indent = "  ".repeat(self.depth + 2);
        format!(
            "\"stablehlo.scatter\"({}) <{{scatter_dimension_numbers = #stablehlo.scatter<{numbers}>, \
             indices_are_sorted = false, unique_indices = false}}> ({{\n\
             {indent}^bb0({old}: {scalar}, {new}: {scalar}):\n\
             {indent}  {sum} = stablehlo.add {old}, {new} : {scalar}\n\
             {indent}  stablehlo.return {sum} : {scalar}\n\
             {indent}}}) : {}",
            given.list(),
            given.signature()
        )
    }
}

fn gather(given: &Operands, batched: bool) -> String {
    let rank = given.shapes[1].rank();
    let width = given.result.dims[rank];
    let (numbers, sizes) = if batched {
        let numbers = "offset_dims = [2], collapsed_slice_dims = [1], operand_batching_dims = [0], \
                       start_indices_batching_dims = [0], start_index_map = [1], \
                       index_vector_dim = 2";
        (numbers.to_owned(), format!("1, 1, {width}"))
    } else {
        let numbers = format!(
            "offset_dims = [{rank}], collapsed_slice_dims = [0], start_index_map = [0], \
             index_vector_dim = {rank}"
        );
        (numbers, format!("1, {width}"))
    };
    format!(
        "\"stablehlo.gather\"({}) <{{dimension_numbers = #stablehlo.gather<{numbers}>, \
         slice_sizes = array<i64: {sizes}>, indices_are_sorted = false}}> : {}",
        given.list(),
        given.signature()
    )
}

fn dot(axes: &DotAxes, given: &Operands) -> String {
    let batch = if axes.lhs_batch.is_empty() {
        String::new()
    } else {
        format!("batching_dims = [{}] x [{}], ", list(&axes.lhs_batch), list(&axes.rhs_batch))
    };
    format!(
        "stablehlo.dot_general {}, {batch}contracting_dims = [{}] x [{}] : {}",
        given.list(),
        list(&axes.lhs_contract),
        list(&axes.rhs_contract),
        given.signature()
    )
}

/// Anything, with commas.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn unary(op: Unary) -> &'static str {
    match op {
        Unary::Neg => "negate",
        Unary::Exp => "exponential",
        Unary::Log => "log",
        Unary::Sqrt => "sqrt",
        Unary::Rsqrt => "rsqrt",
        Unary::Logistic => "logistic",
        Unary::Sine => "sine",
        Unary::Cosine => "cosine",
        Unary::Abs => "abs",
        Unary::Floor => "floor",
        Unary::IsFinite => "is_finite",
        Unary::Not => "not",
    }
}

fn binary(op: Binary) -> &'static str {
    match op {
        Binary::Add => "add",
        Binary::Sub => "subtract",
        Binary::Mul => "multiply",
        Binary::Div => "divide",
        Binary::Maximum => "maximum",
        Binary::Minimum => "minimum",
        Binary::Pow => "power",
        Binary::And => "and",
        Binary::Or => "or",
    }
}

fn direction(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "EQ",
        Comparison::Ne => "NE",
        Comparison::Lt => "LT",
        Comparison::Le => "LE",
        Comparison::Gt => "GT",
        Comparison::Ge => "GE",
    }
}
