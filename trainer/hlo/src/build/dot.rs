//! Dot products and reductions.

use crate::graph::{Graph, Value};
use crate::op::{DotAxes, Op};
use crate::shape::{ElementType, Shape};

impl Graph {
    /// The generalized dot product, its sums kept in `out`.
    ///
    /// # Panics
    /// If the axes do not pair up or the element types differ.
    pub fn dot(&mut self, a: Value, b: Value, axes: &DotAxes, out: ElementType) -> Value {
        let (lhs, rhs) = (self.shape(a), self.shape(b));
        let pairs = |left: &[usize], right: &[usize]| {
            left.len() == right.len()
                && left.iter().zip(right).all(|(l, r)| {
                    *l < lhs.rank() && *r < rhs.rank() && lhs.dims[*l] == rhs.dims[*r]
                })
        };
        assert!(
            lhs.element == rhs.element
                && out.is_float()
                && pairs(&axes.lhs_batch, &axes.rhs_batch)
                && pairs(&axes.lhs_contract, &axes.rhs_contract),
            "dot: {lhs} with {rhs} over {axes:?}"
        );
        let mut dims: Vec<usize> = axes.lhs_batch.iter().map(|axis| lhs.dims[*axis]).collect();
        let free = DotAxes::free(lhs.rank(), &axes.lhs_batch, &axes.lhs_contract);
        dims.extend(free.iter().map(|axis| lhs.dims[*axis]));
        let free = DotAxes::free(rhs.rank(), &axes.rhs_batch, &axes.rhs_contract);
        dims.extend(free.iter().map(|axis| rhs.dims[*axis]));
        self.push(Op::Dot(axes.clone()), &[a, b], Shape { element: out, dims })
    }

    /// The sum over these axes, which vanish. Values of bf16 are summed in f32 and then rounded
    /// once: a sum of thousands in bf16 stops growing.
    ///
    /// # Panics
    /// If an axis is not there or is named twice.
    pub fn sum(&mut self, value: Value, axes: &[usize]) -> Value {
        if axes.is_empty() {
            return value;
        }
        let element = self.shape(value).element;
        if element == ElementType::Bf16 {
            let wide = self.convert(value, ElementType::F32);
            let total = self.sum(wide, axes);
            return self.convert(total, element);
        }
        let shape = self.reduced("sum", value, axes);
        self.push(Op::Sum(axes.to_vec()), &[value], shape)
    }

    /// The largest element over these axes, which vanish. It has no gradient: where one could flow,
    /// it must stand behind [`Graph::stop_gradient`], or [`Graph::gradients`] panics.
    ///
    /// # Panics
    /// If an axis is not there or is named twice.
    pub fn max_over(&mut self, value: Value, axes: &[usize]) -> Value {
        if axes.is_empty() {
            return value;
        }
        let shape = self.reduced("max_over", value, axes);
        self.push(Op::Max(axes.to_vec()), &[value], shape)
    }

    fn reduced(&self, what: &str, value: Value, axes: &[usize]) -> Shape {
        let shape = self.shape(value);
        let once = axes.iter().enumerate().all(|(k, axis)| !axes[..k].contains(axis));
        let known = axes.iter().all(|axis| *axis < shape.rank());
        assert!(
            known && once && shape.element != ElementType::Bool,
            "{what} of {shape} over {axes:?}"
        );
        shape.without(axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_orders_batch_then_left_then_right() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::new(ElementType::Bf16, &[2, 3, 5, 7]));
        let b = graph.parameter(Shape::new(ElementType::Bf16, &[7, 11, 3]));
        let axes = DotAxes { lhs_batch: vec![1], rhs_batch: vec![2], ..DotAxes::contract(3, 0) };
        let product = graph.dot(a, b, &axes, ElementType::F32);
        assert_eq!(graph.shape(product), &Shape::new(ElementType::F32, &[3, 2, 5, 11]));
    }

    #[test]
    #[should_panic(expected = "dot: tensor<2x3xf32> with tensor<2x3xf32>")]
    fn a_dot_over_axes_of_other_extents_is_refused() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::new(ElementType::F32, &[2, 3]));
        graph.dot(a, a, &DotAxes::contract(1, 0), ElementType::F32);
    }

    #[test]
    #[should_panic(expected = "sum of tensor<2xf32> over [1]")]
    fn a_sum_over_an_axis_that_is_not_there_is_refused() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::new(ElementType::F32, &[2]));
        graph.sum(a, &[1]);
    }
}
