//! The derivative of a dot product: two more of them.

use crate::graph::{Graph, Node, Value};
use crate::op::DotAxes;

/// One operand's axes.
struct Side<'a> {
    value: Value,
    batch: &'a [usize],
    contract: &'a [usize],
    free: Vec<usize>,
}

impl Graph {
    pub(super) fn dot_shares(
        &mut self,
        axes: &DotAxes,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let side = |value: Value, batch, contract| Side {
            value,
            batch,
            contract,
            free: DotAxes::free(self.shape(value).rank(), batch, contract),
        };
        let lhs = side(node.inputs[0], &axes.lhs_batch[..], &axes.lhs_contract[..]);
        let rhs = side(node.inputs[1], &axes.rhs_batch[..], &axes.rhs_contract[..]);
        let batch = axes.lhs_batch.len();
        let after_left = batch + lhs.free.len();
        let left = self.dot_share(arrived, &lhs, &rhs, after_left);
        let right = self.dot_share(arrived, &rhs, &lhs, batch);
        vec![Some(left), Some(right)]
    }

    /// What `mine` gets: `arrived`, whose axes of the other operand start at `others_at`, times the
    /// other operand, summed over what that one has alone. The sums are kept in the element type of
    /// `mine`, the factors are of one type.
    fn dot_share(
        &mut self,
        arrived: Value,
        mine: &Side<'_>,
        other: &Side<'_>,
        others_at: usize,
    ) -> Value {
        let (element, factor) = (self.shape(mine.value).element, self.shape(other.value).element);
        let arrived = self.convert(arrived, factor);
        let axes = DotAxes {
            lhs_batch: (0..mine.batch.len()).collect(),
            rhs_batch: other.batch.to_vec(),
            lhs_contract: (0..other.free.len()).map(|k| others_at + k).collect(),
            rhs_contract: other.free.clone(),
        };
        let product = self.dot(arrived, other.value, &axes, element);
        // its axes: the batch, what is free in `mine`, then the other's contracted ones, ascending
        let mut ascending = other.contract.to_vec();
        ascending.sort_unstable();
        let partner = |axis: &usize| {
            let pair = other.contract.iter().position(|c| c == axis).expect("one of them");
            mine.contract[pair]
        };
        let mut places = mine.batch.to_vec();
        places.extend(&mine.free);
        places.extend(ascending.iter().map(partner));
        let order: Vec<usize> = (0..places.len())
            .map(|axis| places.iter().position(|place| *place == axis).expect("each axis once"))
            .collect();
        self.transpose(product, &order)
    }
}
