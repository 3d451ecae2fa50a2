//! Reverse-mode differentiation: from the last node to the first, each hands what it got to its
//! inputs.

mod dependence;
mod dot;
mod elementwise;
mod index;
mod layout;
mod scan;

use crate::graph::{Graph, Node, Value};
use crate::op::Op;
use dependence::dependent;
use std::collections::HashMap;

/// What has arrived at each value so far.
#[derive(Default)]
struct Cotangents {
    of: HashMap<Value, Value>,
}

impl Cotangents {
    fn get(&self, value: Value) -> Option<Value> {
        self.of.get(&value).copied()
    }

    /// A value that is used twice gets both.
    fn add(&mut self, graph: &mut Graph, value: Value, cotangent: Value) {
        let (expected, found) = (graph.shape(value), graph.shape(cotangent));
        assert_eq!(expected, found, "the gradient of {expected} is {found}");
        let total = match self.get(value) {
            Some(before) => graph.add(before, cotangent),
            None => cotangent,
        };
        self.of.insert(value, total);
    }
}

impl Graph {
    /// The gradient of `Σ value · seed` over the pairs in `seeds`, with respect to each of some
    /// values: zeros where no path leads. Calling it again differentiates once more.
    ///
    /// Scans get further outputs by it: what each step got as its carries.
    ///
    /// # Panics
    /// If a seed differs in shape from its value, or a [`Graph::max_over`] stands in the way.
    pub fn gradients(&mut self, seeds: &[(Value, Value)], with_respect_to: &[Value]) -> Vec<Value> {
        let mut cotangents = Cotangents::default();
        for (value, seed) in seeds {
            cotangents.add(self, *value, *seed);
        }
        let depends = dependent(self, with_respect_to);
        let on_the_way = |value: &Value| depends.get(value.0).copied().unwrap_or(false);
        for place in (0..self.nodes.len()).rev() {
            let node = &self.nodes[place];
            let arrived = |value: &Value| cotangents.get(*value).is_some() && on_the_way(value);
            let needed: Vec<bool> = node.inputs.iter().map(on_the_way).collect();
            if !node.outputs.iter().any(arrived) || !needed.contains(&true) {
                continue;
            }
            let node = node.clone();
            if let Op::Scan(scan) = &node.op {
                self.scan_gradient(place, scan, &node, &needed, &mut cotangents);
                continue;
            }
            let arrived = cotangents.get(node.outputs[0]).expect("seen above");
            let shares = self.shares(&node, arrived);
            for ((input, share), needed) in node.inputs.iter().zip(shares).zip(needed) {
                if let (Some(share), true) = (share, needed) {
                    cotangents.add(self, *input, share);
                }
            }
        }
        let found = with_respect_to.iter().map(|value| (value, cotangents.get(*value)));
        found.map(|(value, got)| got.unwrap_or_else(|| self.constant_like(0.0, *value))).collect()
    }

    /// What a node with one output hands to each of its inputs, for what it got.
    fn shares(&mut self, node: &Node, arrived: Value) -> Vec<Option<Value>> {
        match &node.op {
            Op::Unary(op) => self.unary_share(*op, node, arrived),
            Op::Binary(op) => self.binary_shares(*op, node, arrived),
            Op::Select => self.select_shares(node, arrived),
            Op::Convert => {
                let element = self.shape(node.inputs[0]).element;
                vec![Some(self.convert(arrived, element))]
            }
            Op::Dot(axes) => self.dot_shares(axes, node, arrived),
            Op::Sum(axes) => {
                vec![Some(self.broadcast_like(arrived, node.inputs[0], axes))]
            }
            Op::Broadcast(axes) => vec![Some(self.broadcast_share(axes, node, arrived))],
            Op::Reshape => {
                let dims = self.dims(node.inputs[0]).to_vec();
                vec![Some(self.reshape(arrived, &dims))]
            }
            Op::Transpose(order) => vec![Some(self.transpose_share(order, arrived))],
            Op::Slice(ranges) => vec![Some(self.slice_share(ranges, node, arrived))],
            Op::Pad(margins) => vec![Some(self.pad_share(margins, node, arrived))],
            Op::Concat(axis) => self.concat_shares(*axis, node, arrived),
            Op::Take => self.take_shares(node, arrived),
            Op::ScatterAdd => {
                let updates = self.take(arrived, node.inputs[1]);
                vec![Some(arrived), None, Some(updates)]
            }
            Op::TakeAlong => self.take_along_shares(node, arrived),
            Op::ScatterAddAlong => {
                let updates = self.take_along(arrived, node.inputs[1]);
                vec![Some(arrived), None, Some(updates)]
            }
            Op::DynamicSlice => self.dynamic_slice_shares(node, arrived),
            Op::DynamicUpdateSlice => self.dynamic_update_slice_shares(node, arrived),
            Op::Constrain(sharding) => vec![Some(self.constrain(arrived, sharding))],
            Op::Max(_) => panic!(
                "max_over of {} has no gradient: put stop_gradient before it",
                self.shape(node.inputs[0])
            ),
            Op::Parameter
            | Op::Constant(_)
            | Op::Iota(_)
            | Op::Compare(_)
            | Op::StopGradient
            | Op::Scan(_) => unreachable!("{:?} hands nothing on", node.op),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ElementType, Shape};

    #[test]
    #[should_panic(expected = "max_over of tensor<3xf32> has no gradient")]
    fn a_maximum_in_the_way_is_refused() {
        let mut graph = Graph::default();
        let x = graph.parameter(Shape::new(ElementType::F32, &[3]));
        let largest = graph.max_over(x, &[0]);
        let one = graph.constant_like(1.0, largest);
        graph.gradients(&[(largest, one)], &[x]);
    }

    #[test]
    #[should_panic(expected = "the gradient of tensor<3xf32> is tensor<f32>")]
    fn a_seed_has_the_shape_of_its_value() {
        let mut graph = Graph::default();
        let x = graph.parameter(Shape::new(ElementType::F32, &[3]));
        let seed = graph.constant(1.0, Shape::scalar(ElementType::F32));
        graph.gradients(&[(x, seed)], &[x]);
    }
}
