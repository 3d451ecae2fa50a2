//! Operations that take their places from values.

use crate::graph::{Graph, Value};
use crate::op::Op;
use crate::shape::{ElementType, Shape};

impl Graph {
    /// Rows of a table `[N, D]` by their numbers `[..]`: `[.., D]`. A number out of range is the
    /// caller's fault; the nearest row is taken and its gradient is lost.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn take(&mut self, table: Value, ids: Value) -> Value {
        let (rows, places) = (self.shape(table), self.shape(ids));
        assert!(
            rows.rank() == 2 && places.element == ElementType::I32,
            "take: rows of {rows} by {places}"
        );
        let mut dims = places.dims.clone();
        dims.push(rows.dims[1]);
        let result = rows.with_dims(&dims);
        self.push(Op::Take, &[table, ids], result)
    }

    /// Rows of `values` `[G, N, D]` by their numbers `[G, K]` within each group: `[G, K, D]`. A
    /// number out of range is the caller's fault, as in [`Graph::take`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn take_along(&mut self, values: Value, ids: Value) -> Value {
        let (rows, places) = (self.shape(values), self.shape(ids));
        assert!(
            rows.rank() == 3
                && places.rank() == 2
                && places.element == ElementType::I32
                && rows.dims[0] == places.dims[0],
            "take_along: rows of {rows} by {places}"
        );
        let result = rows.with_dims(&[rows.dims[0], places.dims[1], rows.dims[2]]);
        self.push(Op::TakeAlong, &[values, ids], result)
    }

    /// A part of these extents that starts at `starts`, one i32 scalar per axis. A start that lets
    /// the part leave the value is moved back until it fits.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn dynamic_slice(&mut self, value: Value, starts: &[Value], sizes: &[usize]) -> Value {
        self.starts_fit("dynamic_slice", value, starts, sizes);
        let result = self.shape(value).with_dims(sizes);
        let mut inputs = vec![value];
        inputs.extend(starts);
        self.push(Op::DynamicSlice, &inputs, result)
    }

    /// `value` with `update` written over the part that starts at `starts`, as in
    /// [`Graph::dynamic_slice`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn dynamic_update_slice(&mut self, value: Value, update: Value, starts: &[Value]) -> Value {
        let sizes = self.dims(update).to_vec();
        self.starts_fit("dynamic_update_slice", value, starts, &sizes);
        let result = self.shape(value).clone();
        let (whole, part) = (result.element, self.shape(update).element);
        assert_eq!(whole, part, "dynamic_update_slice: element types");
        let mut inputs = vec![value, update];
        inputs.extend(starts);
        self.push(Op::DynamicUpdateSlice, &inputs, result)
    }

    /// `base` `[N, D]` plus the rows of `updates` `[.., D]` at `ids` `[..]`: the gradient of `take`.
    pub(crate) fn scatter_add(&mut self, base: Value, ids: Value, updates: Value) -> Value {
        let shape = self.shape(base).clone();
        self.push(Op::ScatterAdd, &[base, ids, updates], shape)
    }

    /// The same within each group: the gradient of `take_along`.
    pub(crate) fn scatter_add_along(&mut self, base: Value, ids: Value, updates: Value) -> Value {
        let shape = self.shape(base).clone();
        self.push(Op::ScatterAddAlong, &[base, ids, updates], shape)
    }

    fn starts_fit(&self, what: &str, value: Value, starts: &[Value], sizes: &[usize]) {
        let shape = self.shape(value);
        let scalar = Shape::scalar(ElementType::I32);
        let fits = sizes.len() == shape.rank()
            && starts.len() == shape.rank()
            && sizes.iter().zip(&shape.dims).all(|(size, extent)| size <= extent);
        let scalars = starts.iter().all(|start| *self.shape(*start) == scalar);
        assert!(fits && scalars, "{what}: {sizes:?} of {shape} at {} starts", starts.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "take: rows of tensor<4xf32> by tensor<2xi32>")]
    fn a_table_has_two_axes() {
        let mut graph = Graph::default();
        let table = graph.parameter(Shape::new(ElementType::F32, &[4]));
        let ids = graph.parameter(Shape::new(ElementType::I32, &[2]));
        graph.take(table, ids);
    }

    #[test]
    #[should_panic(expected = "dynamic_slice: [5] of tensor<4xf32> at 1 starts")]
    fn a_dynamic_slice_is_no_larger_than_its_value() {
        let mut graph = Graph::default();
        let value = graph.parameter(Shape::new(ElementType::F32, &[4]));
        let start = graph.parameter(Shape::scalar(ElementType::I32));
        graph.dynamic_slice(value, &[start], &[5]);
    }
}
