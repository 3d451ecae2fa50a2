//! Pieces of a card's memory, with what lies in them.

use crate::{Block, CudaError, Source};
use std::{marker::PhantomData, ops::Range};

/// What a piece of memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 16-bit brain floats.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
    /// 32-bit unsigned integers.
    U32,
    /// Pairs of 32-bit integers.
    Pair,
}

impl Element {
    /// Bytes of one.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::F64 | Self::Pair => 8,
        }
    }
}

/// Values in a block of a card's memory: where, how many, of which kind.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pointer: u64,
    len: usize,
    element: Element,
    block: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    /// The values `[from, from + len)` of a block that is taken as values of one kind.
    ///
    /// # Errors
    /// If they do not lie in the block.
    pub fn of<S: Source>(
        block: &'a Block<S>,
        element: Element,
        from: usize,
        len: usize,
    ) -> Result<Self, CudaError> {
        let end = (from + len) * element.bytes();
        if end > block.bytes() {
            let bytes = block.bytes();
            return Err(CudaError::Shape(format!("{end} bytes of a block of {bytes}")));
        }
        let pointer = block.pointer() + (from * element.bytes()) as u64;
        Ok(Self { pointer, len, element, block: PhantomData })
    }

    /// A part of the values.
    ///
    /// # Errors
    /// If it does not lie in them.
    pub fn part(self, range: Range<usize>) -> Result<Self, CudaError> {
        if range.start > range.end || range.end > self.len {
            return Err(CudaError::Shape(format!("values {range:?} of {}", self.len)));
        }
        let pointer = self.pointer + (range.start * self.element.bytes()) as u64;
        Ok(Self { pointer, len: range.len(), ..self })
    }

    /// Its address.
    #[must_use]
    pub const fn pointer(self) -> u64 {
        self.pointer
    }

    /// Number of values.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Their kind.
    #[must_use]
    pub const fn element(self) -> Element {
        self.element
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.len * self.element.bytes()
    }

    /// Its address, if it holds what an operation wants.
    pub(crate) fn need(self, what: &str, element: Element, len: usize) -> Result<u64, CudaError> {
        if self.element != element || self.len != len {
            return Err(CudaError::Shape(format!(
                "{what}: {len} values of {element:?} wanted, {} of {:?} given",
                self.len, self.element
            )));
        }
        Ok(self.pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Element, Span};
    use crate::{Arena, CudaError, Source};

    struct Nowhere;

    impl Source for Nowhere {
        fn allocate(&self, _: usize) -> Result<u64, CudaError> {
            Ok(1 << 20)
        }
        fn release(&self, _: u64, _: usize) {}
    }

    #[test]
    fn spans_stay_in_their_block() {
        let block = Arena::new(Nowhere).block(100).unwrap();
        let span = Span::of(&block, Element::F32, 5, 20).unwrap();
        assert_eq!((span.pointer() - block.pointer(), span.bytes()), (20, 80));
        assert!(Span::of(&block, Element::F32, 6, 20).is_err());
        let part = span.part(3..20).unwrap();
        assert_eq!(part.pointer(), span.pointer() + 12);
        assert!(span.part(3..21).is_err());
        assert!(part.need("x", Element::F32, 17).is_ok());
        let error = part.need("weights", Element::Bf16, 17).unwrap_err().to_string();
        assert_eq!(error, "weights: 17 values of Bf16 wanted, 17 of F32 given");
    }
}
