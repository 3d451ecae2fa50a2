//! What several targets need.
#![allow(dead_code, reason = "each target uses a part of it")]

pub(crate) mod cases;

use coda_hlo::{Argument, ElementType, Graph, Module, Output, Shape, Tensor, Value, interpret};

pub(crate) fn f32(dims: &[usize]) -> Shape {
    Shape::new(ElementType::F32, dims)
}

pub(crate) fn i32(dims: &[usize]) -> Shape {
    Shape::new(ElementType::I32, dims)
}

/// Numbers between `low` and `high` that look random and are the same each time.
pub(crate) fn spread(shape: Shape, seed: u64, low: f64, high: f64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let numbers = (0..shape.size()).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        low + (high - low) * ((state >> 11) as f64 / (1u64 << 53) as f64)
    });
    let values = numbers.collect();
    Tensor::new(shape, values)
}

/// A graph with one parameter per input, a loss that weighs each element of `build`'s results
/// differently, and the gradients with respect to every float input.
pub(crate) struct Case {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) results: Vec<Value>,
    pub(crate) loss: Value,
    /// Pairs of an input's place and its gradient.
    pub(crate) gradients: Vec<(usize, Value)>,
}

impl Case {
    pub(crate) fn new(
        inputs: Vec<Tensor>,
        build: impl Fn(&mut Graph, &[Value]) -> Vec<Value>,
    ) -> Self {
        let mut graph = Graph::default();
        let parameters: Vec<Value> =
            inputs.iter().map(|input| graph.parameter(input.shape.clone())).collect();
        let results = build(&mut graph, &parameters);
        let mut loss = graph.constant(0.0, f32(&[]));
        for (k, result) in results.iter().enumerate() {
            let result = graph.convert(*result, ElementType::F32);
            let size = graph.shape(result).size();
            let flat = graph.reshape(result, &[size]);
            // weights between 0.5 and 1.5 without a pattern
            let place = graph.iota(0, f32(&[size]));
            let place = graph.offset(place, 1.0 + k as f64);
            let weight = graph.sine(place);
            let weight = graph.scale(weight, 0.5);
            let weight = graph.offset(weight, 1.0);
            let weighed = graph.mul(flat, weight);
            let total = graph.sum(weighed, &[0]);
            loss = graph.add(loss, total);
        }
        let one = graph.constant_like(1.0, loss);
        let places: Vec<usize> =
            (0..inputs.len()).filter(|place| inputs[*place].shape.element.is_float()).collect();
        let with_respect_to: Vec<Value> = places.iter().map(|k| parameters[*k]).collect();
        let gradients = graph.gradients(&[(loss, one)], &with_respect_to);
        let gradients = places.into_iter().zip(gradients).collect();
        Self { graph, inputs, results, loss, gradients }
    }

    /// The results, the loss and the gradients: what a program of this case returns, in this order.
    pub(crate) fn outputs(&self) -> Vec<Value> {
        let mut outputs = self.results.clone();
        outputs.push(self.loss);
        outputs.extend(self.gradients.iter().map(|(_, value)| *value));
        outputs
    }

    /// A program for one device that returns them.
    pub(crate) fn module(&self) -> Module {
        let outputs = self.outputs().into_iter();
        Module {
            name: "case".into(),
            mesh: None,
            graph: self.graph.clone(),
            arguments: vec![Argument::default(); self.inputs.len()],
            outputs: outputs
                .map(|value| Output { value, name: String::new(), sharding: None })
                .collect(),
        }
    }

    /// Holds every gradient against central differences of the loss.
    pub(crate) fn check(&self) {
        let values: Vec<Value> = self.gradients.iter().map(|(_, value)| *value).collect();
        let found = interpret(&self.graph, &self.inputs, &values);
        for ((place, _), gradient) in self.gradients.iter().zip(&found) {
            assert_eq!(gradient.shape, self.inputs[*place].shape);
            for element in 0..gradient.values.len() {
                let (step, found) = (1e-5, gradient.values[element]);
                let expected = (self.moved(*place, element, step)
                    - self.moved(*place, element, -step))
                    / (2.0 * step);
                let tolerance = 1e-6 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "input {place}, element {element}: gradient {found}, differences {expected}"
                );
            }
        }
    }

    /// The loss with one element of an input moved.
    fn moved(&self, place: usize, element: usize, step: f64) -> f64 {
        let mut inputs = self.inputs.clone();
        inputs[place].values[element] += step;
        interpret(&self.graph, &inputs, &[self.loss])[0].values[0]
    }
}
