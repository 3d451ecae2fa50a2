//! Operations that move elements without changing them.

use crate::graph::{Graph, Value};
use crate::op::Op;
use crate::sharding::Sharding;
use std::ops::Range;

impl Graph {
    /// Repeats `value` along new axes: its axis `k` becomes axis `axes[k]` of the result. An extent
    /// of one may also grow.
    ///
    /// # Panics
    /// If the axes do not ascend or the extents do not fit.
    pub fn broadcast(&mut self, value: Value, axes: &[usize], dims: &[usize]) -> Value {
        let shape = self.shape(value);
        let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = axes.len() == shape.rank()
            && axes.iter().zip(&shape.dims).all(|(axis, extent)| {
                dims.get(*axis).is_some_and(|wanted| extent == wanted || *extent == 1)
            });
        assert!(ascending && fits, "broadcast: {shape} to {dims:?} by axes {axes:?}");
        let result = shape.with_dims(dims);
        if result == *shape {
            return value;
        }
        self.push(Op::Broadcast(axes.to_vec()), &[value], result)
    }

    /// Repeats `value`, which lacks the axes `missing`, to the extents of `like`. Its element type
    /// stays.
    ///
    /// # Panics
    /// If the extents do not fit.
    pub fn broadcast_like(&mut self, value: Value, like: Value, missing: &[usize]) -> Value {
        let dims = self.dims(like).to_vec();
        let axes: Vec<usize> = (0..dims.len()).filter(|axis| !missing.contains(axis)).collect();
        self.broadcast(value, &axes, &dims)
    }

    /// The same elements in the same order with other extents.
    ///
    /// # Panics
    /// If the number of elements changes.
    pub fn reshape(&mut self, value: Value, dims: &[usize]) -> Value {
        let shape = self.shape(value);
        let result = shape.with_dims(dims);
        assert_eq!(shape.size(), result.size(), "reshape: {shape} to {result}");
        if result == *shape {
            return value;
        }
        self.push(Op::Reshape, &[value], result)
    }

    /// Axis `k` of the result is axis `order[k]` of `value`.
    ///
    /// # Panics
    /// If `order` is not a permutation of the axes.
    pub fn transpose(&mut self, value: Value, order: &[usize]) -> Value {
        let shape = self.shape(value);
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..shape.rank()), "transpose: {shape} by {order:?}");
        if order.is_sorted() {
            return value;
        }
        let dims: Vec<usize> = order.iter().map(|axis| shape.dims[*axis]).collect();
        let result = shape.with_dims(&dims);
        self.push(Op::Transpose(order.to_vec()), &[value], result)
    }

    /// The part within these ranges, one per axis.
    ///
    /// # Panics
    /// If a range leaves its axis.
    pub fn slice(&mut self, value: Value, ranges: &[Range<usize>]) -> Value {
        let shape = self.shape(value);
        let fits = ranges.len() == shape.rank()
            && ranges
                .iter()
                .zip(&shape.dims)
                .all(|(range, extent)| range.start <= range.end && range.end <= *extent);
        assert!(fits, "slice: {shape} at {ranges:?}");
        let dims: Vec<usize> = ranges.iter().map(Range::len).collect();
        let result = shape.with_dims(&dims);
        if result == *shape {
            return value;
        }
        self.push(Op::Slice(ranges.to_vec()), &[value], result)
    }

    /// Zeros before and after, per axis.
    ///
    /// # Panics
    /// If there is not one pair per axis.
    pub fn pad(&mut self, value: Value, margins: &[(usize, usize)]) -> Value {
        let shape = self.shape(value);
        assert_eq!(margins.len(), shape.rank(), "pad: {shape} by {margins:?}");
        let extents = shape.dims.iter().zip(margins);
        let dims: Vec<usize> = extents.map(|(extent, (low, high))| low + extent + high).collect();
        let result = shape.with_dims(&dims);
        if result == *shape {
            return value;
        }
        self.push(Op::Pad(margins.to_vec()), &[value], result)
    }

    /// `b` after `a` along an axis.
    ///
    /// # Panics
    /// If they differ in anything but the extent of that axis.
    pub fn concat(&mut self, a: Value, b: Value, axis: usize) -> Value {
        let (first, second) = (self.shape(a), self.shape(b));
        let fits = axis < first.rank()
            && first.element == second.element
            && first.without(&[axis]) == second.without(&[axis])
            && first.rank() == second.rank();
        assert!(fits, "concat: {first} and {second} along axis {axis}");
        let mut result = first.clone();
        result.dims[axis] += second.dims[axis];
        self.push(Op::Concat(axis), &[a, b], result)
    }

    /// The same value, laid on the mesh like this; its gradient lies alike.
    ///
    /// # Panics
    /// If the sharding's rank differs.
    pub fn constrain(&mut self, value: Value, sharding: &Sharding) -> Value {
        let shape = self.shape(value).clone();
        assert_eq!(sharding.dims.len(), shape.rank(), "constrain: {shape} as {sharding:?}");
        self.push(Op::Constrain(sharding.clone()), &[value], shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ElementType, Shape};

    fn matrix() -> (Graph, Value) {
        let mut graph = Graph::default();
        let value = graph.parameter(Shape::new(ElementType::F32, &[2, 3]));
        (graph, value)
    }

    #[test]
    fn what_changes_nothing_adds_nothing() {
        let (mut graph, x) = matrix();
        assert_eq!(graph.reshape(x, &[2, 3]), x);
        assert_eq!(graph.transpose(x, &[0, 1]), x);
        assert_eq!(graph.slice(x, &[0..2, 0..3]), x);
        assert_eq!(graph.pad(x, &[(0, 0), (0, 0)]), x);
        assert_eq!(graph.broadcast(x, &[0, 1], &[2, 3]), x);
    }

    #[test]
    #[should_panic(expected = "slice: tensor<2x3xf32> at [0..2, 1..4]")]
    fn a_slice_stays_inside() {
        let (mut graph, x) = matrix();
        graph.slice(x, &[0..2, 1..4]);
    }

    #[test]
    #[should_panic(expected = "transpose: tensor<2x3xf32> by [0, 0]")]
    fn a_transposition_is_a_permutation() {
        let (mut graph, x) = matrix();
        graph.transpose(x, &[0, 0]);
    }

    #[test]
    #[should_panic(expected = "broadcast: tensor<2x3xf32> to [2, 4] by axes [0, 1]")]
    fn a_broadcast_keeps_extents() {
        let (mut graph, x) = matrix();
        graph.broadcast(x, &[0, 1], &[2, 4]);
    }
}
