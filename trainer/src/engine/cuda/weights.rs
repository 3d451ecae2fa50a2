//! A model's parameters in a card's memory: one piece of memory for all weights, one for all
//! gradients, in the order of [`crate::model::layout`].

use crate::{
    model::{ModelConfig, Params, layout},
    optim::TensorShape,
};
use coda_cuda::{Block, Card, CudaError, Element, Span};
use half::bf16;
use std::{ops::Range, rc::Rc};

/// Tensors begin at multiples of so many values: 256 bytes of bf16.
const GRAIN: usize = 128;

/// Where the tensors lie in a piece of memory that holds all of them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    shapes: Vec<TensorShape>,
    starts: Vec<usize>,
    /// Values of the whole piece, with what lies between the tensors.
    pub(super) total: usize,
}

impl Places {
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self::of_shapes(layout(config))
    }

    /// Some of the tensors, in a piece of memory of their own.
    pub(super) fn some(&self, tensors: &[usize]) -> Self {
        Self::of_shapes(tensors.iter().map(|&index| self.shapes[index].clone()).collect())
    }

    fn of_shapes(shapes: Vec<TensorShape>) -> Self {
        let (mut starts, mut total) = (Vec::new(), 0);
        for shape in &shapes {
            starts.push(total);
            total += shape.elements().next_multiple_of(GRAIN);
        }
        Self { shapes, starts, total }
    }

    /// The whole piece.
    pub(super) fn all<'a>(
        &self,
        block: &'a Block,
        element: Element,
    ) -> Result<Span<'a>, CudaError> {
        Span::of(block, element, 0, self.total)
    }

    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    pub(super) fn shape(&self, index: usize) -> &TensorShape {
        &self.shapes[index]
    }

    pub(super) fn range(&self, index: usize) -> Range<usize> {
        let start = self.starts[index];
        start..start + self.shapes[index].elements()
    }

    /// A new piece of memory, all zeros.
    pub(super) fn zeros(&self, card: &Card, element: Element) -> Result<Rc<Block>, CudaError> {
        let block = card.room(element, self.total)?;
        card.zero(self.all(&block, element)?)?;
        Ok(Rc::new(block))
    }

    /// Tensor `index` in a piece of memory.
    pub(super) fn span<'a>(
        &self,
        block: &'a Block,
        element: Element,
        index: usize,
    ) -> Result<Span<'a>, CudaError> {
        let range = self.range(index);
        Span::of(block, element, range.start, range.len())
    }

    /// Rounds parameters to bf16 and writes them.
    pub(super) fn write_rounded(
        &self,
        card: &Card,
        block: &Block,
        params: &Params,
    ) -> Result<(), CudaError> {
        for index in 0..self.len() {
            let rounded: Vec<bf16> = params.get(index).iter().map(|&v| bf16::from_f32(v)).collect();
            card.write(self.span(block, Element::Bf16, index)?, &rounded)?;
        }
        Ok(())
    }

    /// Reads all tensors; those of bf16 are widened.
    pub(super) fn read(
        &self,
        card: &Card,
        block: &Block,
        element: Element,
    ) -> Result<Vec<Vec<f32>>, CudaError> {
        (0..self.len()).map(|index| self.read_one(card, block, element, index)).collect()
    }

    /// Reads tensor `index`.
    pub(super) fn read_one(
        &self,
        card: &Card,
        block: &Block,
        element: Element,
        index: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let span = self.span(block, element, index)?;
        if element == Element::F32 {
            return card.read(span);
        }
        Ok(card.read::<bf16>(span)?.into_iter().map(f32::from).collect())
    }
}

/// A parameter, bf16 `[rows, width]` (a vector has one row), with its gradient, f32.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    weights: Rc<Block>,
    grads: Option<Rc<Block>>,
    start: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl Weight {
    pub(super) fn new(
        places: &Places,
        index: usize,
        weights: &Rc<Block>,
        grads: Option<&Rc<Block>>,
    ) -> Self {
        let (rows, width) = match places.shape(index).shape[..] {
            [width] => (1, width),
            [rows, width] => (rows, width),
            _ => unreachable!("parameters are vectors and matrices"),
        };
        let start = places.range(index).start;
        Self { weights: Rc::clone(weights), grads: grads.cloned(), start, rows, width }
    }

    pub(super) fn span(&self) -> Result<Span<'_>, CudaError> {
        Span::of(&self.weights, Element::Bf16, self.start, self.rows * self.width)
    }

    /// The gradient, to be added to.
    ///
    /// # Panics
    /// If the model was made without gradients, which then has no tape either.
    pub(super) fn grad(&self) -> Result<Span<'_>, CudaError> {
        let grads = self.grads.as_ref().expect("a tape needs gradients");
        Span::of(grads, Element::F32, self.start, self.rows * self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::{GRAIN, Places};
    use crate::model::config::tiny;

    #[test]
    fn tensors_lie_one_behind_the_other() {
        let places = Places::of(&tiny());
        let mut end = 0;
        for index in 0..places.len() {
            let range = places.range(index);
            assert_eq!(range.start, end);
            assert_eq!(range.len(), places.shape(index).elements());
            end = range.end.next_multiple_of(GRAIN);
        }
        assert_eq!(end, places.total);
    }
}
