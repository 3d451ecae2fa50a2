//! Derivatives of what takes its places from values.

use crate::graph::{Graph, Node, Value};
use crate::shape::ElementType;

impl Graph {
    pub(super) fn take_shares(&mut self, node: &Node, arrived: Value) -> Vec<Option<Value>> {
        let share = self.scattered(node, arrived, Graph::scatter_add);
        vec![Some(share), None]
    }

    pub(super) fn take_along_shares(&mut self, node: &Node, arrived: Value) -> Vec<Option<Value>> {
        let share = self.scattered(node, arrived, Graph::scatter_add_along);
        vec![Some(share), None]
    }

    /// The rows added up where they were taken from, in f32: a frequent row is taken thousands of
    /// times, and a sum in bf16 stops growing.
    fn scattered(
        &mut self,
        node: &Node,
        arrived: Value,
        scatter: fn(&mut Graph, Value, Value, Value) -> Value,
    ) -> Value {
        let rows = self.shape(node.inputs[0]).clone();
        let base = self.constant(0.0, rows.with_element(ElementType::F32));
        let updates = self.convert(arrived, ElementType::F32);
        let total = scatter(self, base, node.inputs[1], updates);
        self.convert(total, rows.element)
    }

    pub(super) fn dynamic_slice_shares(
        &mut self,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let (value, starts) = node.inputs.split_first().expect("a value");
        let zeros = self.constant_like(0.0, *value);
        let share = self.dynamic_update_slice(zeros, arrived, starts);
        let mut shares = vec![Some(share)];
        shares.resize(node.inputs.len(), None);
        shares
    }

    pub(super) fn dynamic_update_slice_shares(
        &mut self,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let (update, starts) = (node.inputs[1], &node.inputs[2..]);
        let zeros = self.constant_like(0.0, update);
        let around = self.dynamic_update_slice(arrived, zeros, starts);
        let sizes = self.dims(update).to_vec();
        let within = self.dynamic_slice(arrived, starts, &sizes);
        let mut shares = vec![Some(around), Some(within)];
        shares.resize(node.inputs.len(), None);
        shares
    }
}
