//! Derivatives of what only moves elements: they are moved back.

use crate::graph::{Graph, Node, Value};
use std::ops::Range;

impl Graph {
    /// Summed over what was repeated.
    pub(super) fn broadcast_share(&mut self, axes: &[usize], node: &Node, arrived: Value) -> Value {
        let before = self.dims(node.inputs[0]).to_vec();
        let after = self.dims(arrived).to_vec();
        let kept = |axis: &usize| {
            axes.iter().position(|a| a == axis).is_some_and(|k| before[k] == after[*axis])
        };
        let repeated: Vec<usize> = (0..after.len()).filter(|axis| !kept(axis)).collect();
        let total = self.sum(arrived, &repeated);
        self.reshape(total, &before)
    }

    pub(super) fn transpose_share(&mut self, order: &[usize], arrived: Value) -> Value {
        let place = |axis| order.iter().position(|o| *o == axis).expect("a permutation");
        let back: Vec<usize> = (0..order.len()).map(place).collect();
        self.transpose(arrived, &back)
    }

    pub(super) fn slice_share(
        &mut self,
        ranges: &[Range<usize>],
        node: &Node,
        arrived: Value,
    ) -> Value {
        let extents = self.dims(node.inputs[0]).iter().zip(ranges);
        let margins: Vec<(usize, usize)> =
            extents.map(|(extent, range)| (range.start, extent - range.end)).collect();
        self.pad(arrived, &margins)
    }

    pub(super) fn pad_share(
        &mut self,
        margins: &[(usize, usize)],
        node: &Node,
        arrived: Value,
    ) -> Value {
        let extents = self.dims(node.inputs[0]).iter().zip(margins);
        let ranges: Vec<Range<usize>> =
            extents.map(|(extent, (low, _))| *low..low + extent).collect();
        self.slice(arrived, &ranges)
    }

    pub(super) fn concat_shares(
        &mut self,
        axis: usize,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let whole: Vec<Range<usize>> = self.dims(arrived).iter().map(|extent| 0..*extent).collect();
        let seam = self.dims(node.inputs[0])[axis];
        let part = |range: Range<usize>| {
            let mut ranges = whole.clone();
            ranges[axis] = range;
            ranges
        };
        let (first, second) = (part(0..seam), part(seam..whole[axis].end));
        vec![Some(self.slice(arrived, &first)), Some(self.slice(arrived, &second))]
    }
}
