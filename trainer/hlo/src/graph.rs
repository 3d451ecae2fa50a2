//! The graph: nodes in the order in which they were added, each a function of earlier ones.

use crate::op::Op;
use crate::shape::Shape;
use std::collections::HashMap;

/// A value of one graph. It means nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) usize);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
}

/// A computation without effects. Every operation adds a node and returns its value; nodes that no
/// output needs cost nothing, for they are not printed.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    shapes: Vec<Shape>,
    parameters: Vec<Value>,
}

impl Graph {
    /// The shape of a value.
    #[must_use]
    pub fn shape(&self, value: Value) -> &Shape {
        &self.shapes[value.0]
    }

    /// The extents of a value.
    #[must_use]
    pub fn dims(&self, value: Value) -> &[usize] {
        &self.shapes[value.0].dims
    }

    /// The parameters, in the order in which they were added.
    #[must_use]
    pub fn parameters(&self) -> &[Value] {
        &self.parameters
    }

    /// A further parameter: a value from outside.
    pub fn parameter(&mut self, shape: Shape) -> Value {
        let value = self.push(Op::Parameter, &[], shape);
        self.parameters.push(value);
        value
    }

    /// `number` everywhere, rounded to the element type.
    pub fn constant(&mut self, number: f64, shape: Shape) -> Value {
        self.push(Op::Constant(number), &[], shape)
    }

    /// `number` everywhere, in the shape of `value`.
    pub fn constant_like(&mut self, number: f64, value: Value) -> Value {
        let shape = self.shape(value).clone();
        self.constant(number, shape)
    }

    /// The index along `axis`, at every position.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn iota(&mut self, axis: usize, shape: Shape) -> Value {
        assert!(axis < shape.rank(), "iota: {shape} has no axis {axis}");
        self.push(Op::Iota(axis), &[], shape)
    }

    /// The same value, through which no gradient flows.
    pub fn stop_gradient(&mut self, value: Value) -> Value {
        let shape = self.shape(value).clone();
        self.push(Op::StopGradient, &[value], shape)
    }

    /// Adds the nodes of another graph, its parameters bound to `arguments`, and returns what its
    /// `outputs` are here.
    ///
    /// # Panics
    /// If the arguments do not fit the parameters.
    pub fn inline(&mut self, graph: &Graph, arguments: &[Value], outputs: &[Value]) -> Vec<Value> {
        assert_eq!(graph.parameters.len(), arguments.len(), "inline: one argument per parameter");
        let mut here: HashMap<Value, Value> = HashMap::new();
        for (parameter, argument) in graph.parameters.iter().zip(arguments) {
            let (expected, found) = (graph.shape(*parameter), self.shape(*argument));
            assert_eq!(expected, found, "inline: {found} for a parameter of {expected}");
            here.insert(*parameter, *argument);
        }
        for node in graph.nodes.iter().filter(|node| !matches!(node.op, Op::Parameter)) {
            let inputs: Vec<Value> = node.inputs.iter().map(|value| here[value]).collect();
            let shapes = node.outputs.iter().map(|value| graph.shape(*value).clone()).collect();
            let copies = self.push_many(node.op.clone(), &inputs, shapes);
            here.extend(node.outputs.iter().copied().zip(copies));
        }
        outputs.iter().map(|value| here[value]).collect()
    }

    /// A node with one output.
    pub(crate) fn push(&mut self, op: Op, inputs: &[Value], shape: Shape) -> Value {
        self.push_many(op, inputs, vec![shape])[0]
    }

    /// A node with several outputs.
    pub(crate) fn push_many(&mut self, op: Op, inputs: &[Value], shapes: Vec<Shape>) -> Vec<Value> {
        for value in inputs {
            assert!(value.0 < self.shapes.len(), "a value of another graph");
        }
        let outputs: Vec<Value> = shapes.into_iter().map(|shape| self.fresh(shape)).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        outputs
    }

    /// A value that the caller hangs on a node.
    pub(crate) fn fresh(&mut self, shape: Shape) -> Value {
        self.shapes.push(shape);
        Value(self.shapes.len() - 1)
    }

    /// How many values there are.
    pub(crate) fn values(&self) -> usize {
        self.shapes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ElementType;

    #[test]
    fn inlining_binds_parameters_and_keeps_the_outside() {
        let scalar = Shape::scalar(ElementType::F32);
        let mut inner = Graph::default();
        let (a, b) = (inner.parameter(scalar.clone()), inner.parameter(scalar.clone()));
        let difference = inner.sub(a, b);
        let mut outer = Graph::default();
        let (x, y) = (outer.parameter(scalar.clone()), outer.parameter(scalar));
        let result = outer.inline(&inner, &[y, x], &[difference, a]);
        assert_eq!(result[1], y);
        let tensors = [crate::Tensor::scalar(3.0), crate::Tensor::scalar(10.0)];
        assert_eq!(crate::interpret(&outer, &tensors, &[result[0]])[0].values, [7.0]);
    }

    #[test]
    #[should_panic(expected = "tensor<2xf32> for a parameter of tensor<f32>")]
    fn inlining_refuses_an_argument_of_another_shape() {
        let mut inner = Graph::default();
        inner.parameter(Shape::scalar(ElementType::F32));
        let mut outer = Graph::default();
        let x = outer.parameter(Shape::new(ElementType::F32, &[2]));
        outer.inline(&inner, &[x], &[]);
    }
}
