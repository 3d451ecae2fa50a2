//! What a value is made of, and how many of it.

use std::fmt;

/// The type of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// IEEE binary32.
    F32,
    /// The upper half of a binary32.
    Bf16,
    /// Signed, 32 bits.
    I32,
    /// True or false; a byte on devices.
    Bool,
}

impl ElementType {
    /// Whether a gradient can flow through values of this type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16)
    }

    /// Bytes of one element in a device's memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
            Self::Bool => 1,
        }
    }

    /// The name in MLIR.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::I32 => "i32",
            Self::Bool => "i1",
        }
    }
}

/// Element type and extent of every axis. A scalar has no axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The type of the elements.
    pub element: ElementType,
    /// Extents, outermost first.
    pub dims: Vec<usize>,
}

impl Shape {
    /// A shape of these extents.
    #[must_use]
    pub fn new(element: ElementType, dims: &[usize]) -> Self {
        Self { element, dims: dims.to_vec() }
    }

    /// One element, no axes.
    #[must_use]
    pub fn scalar(element: ElementType) -> Self {
        Self { element, dims: Vec::new() }
    }

    /// Number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn size(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes in a device's memory, without what it may add for alignment.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.size() * self.element.bytes()
    }

    /// The same extents with elements of another type.
    #[must_use]
    pub fn with_element(&self, element: ElementType) -> Self {
        Self { element, dims: self.dims.clone() }
    }

    /// The same elements with other extents.
    pub(crate) fn with_dims(&self, dims: &[usize]) -> Self {
        Self::new(self.element, dims)
    }

    /// `count` of these, stacked on a new leading axis.
    pub(crate) fn stacked(&self, count: usize) -> Self {
        let mut dims = vec![count];
        dims.extend(&self.dims);
        Self { element: self.element, dims }
    }

    /// The extents without these axes.
    pub(crate) fn without(&self, axes: &[usize]) -> Self {
        let kept = self.dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        Self { element: self.element, dims: kept.map(|(_, extent)| *extent).collect() }
    }
}

impl fmt::Display for Shape {
    /// As MLIR writes it: `tensor<8x256xf32>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensor<")?;
        for extent in &self.dims {
            write!(f, "{extent}x")?;
        }
        write!(f, "{}>", self.element.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_read_as_mlir_types() {
        assert_eq!(Shape::new(ElementType::F32, &[8, 256]).to_string(), "tensor<8x256xf32>");
        assert_eq!(Shape::scalar(ElementType::Bool).to_string(), "tensor<i1>");
    }

    #[test]
    fn sizes_and_bytes_count_every_axis() {
        let shape = Shape::new(ElementType::Bf16, &[3, 4]);
        assert_eq!((shape.rank(), shape.size(), shape.bytes()), (2, 12, 24));
        assert_eq!(shape.without(&[0]).dims, [4]);
        assert_eq!(shape.stacked(5).dims, [5, 3, 4]);
    }
}
