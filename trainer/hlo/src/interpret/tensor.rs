//! Numbers with a shape.

use crate::shape::{ElementType, Shape};

/// A value of the interpreter: elements row by row, the last axis changing fastest. Booleans are 0
/// and 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type and extents.
    pub shape: Shape,
    /// One number per element.
    pub values: Vec<f64>,
}

impl Tensor {
    /// A tensor of these numbers.
    ///
    /// # Panics
    /// If their number does not fit the shape.
    #[must_use]
    pub fn new(shape: Shape, values: Vec<f64>) -> Self {
        assert_eq!(shape.size(), values.len(), "numbers for {shape}");
        Self { shape, values }
    }

    /// One f32 number.
    #[must_use]
    pub fn scalar(number: f64) -> Self {
        Self::new(Shape::scalar(ElementType::F32), vec![number])
    }

    /// One number everywhere.
    #[must_use]
    pub fn filled(shape: Shape, number: f64) -> Self {
        let values = vec![number; shape.size()];
        Self { shape, values }
    }

    /// A tensor whose elements follow from their places.
    pub(super) fn from_places(shape: &Shape, element: impl Fn(&[usize]) -> f64) -> Self {
        let places = places(&shape.dims);
        let values = places.map(|place| element(&place)).collect();
        Self { shape: shape.clone(), values }
    }

    /// The element at a place.
    pub(super) fn at(&self, place: &[usize]) -> f64 {
        self.values[self.offset(place)]
    }

    /// Where the element at a place lies.
    pub(super) fn offset(&self, place: &[usize]) -> usize {
        let extents = self.shape.dims.iter().zip(place);
        extents.fold(0, |offset, (extent, at)| offset * extent + at)
    }

    /// One slice along the leading axis.
    pub(super) fn leading(&self, at: usize) -> Self {
        let shape = self.shape.without(&[0]);
        let width = shape.size();
        Self { shape, values: self.values[at * width..(at + 1) * width].to_vec() }
    }
}

/// Every place of a box of these extents, in order.
pub(super) fn places(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let dims = dims.to_vec();
    let count: usize = dims.iter().product();
    (0..count).map(move |number| {
        let mut rest = number;
        let mut place = vec![0; dims.len()];
        for axis in (0..dims.len()).rev() {
            place[axis] = rest % dims[axis];
            rest /= dims[axis];
        }
        place
    })
}
