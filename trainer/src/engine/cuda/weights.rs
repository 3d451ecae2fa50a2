//! A model's parameters in a card's memory: one piece of memory for all weights, one for all
//! gradients, in the order of [`crate::model::layout`].

use crate::{
    model::{ModelConfig, Params, layout},
    optim::TensorShape,
};
use coda_cuda::{Block, Card, CudaError, Element, Span};
use half::bf16;
use std::{cell::RefCell, collections::BTreeMap, ops::Range, rc::Rc};

/// Tensors begin at multiples of so many values: 128 bytes of bf16. Every matrix of a layer has a
/// multiple of them, so neighbours are one matrix (see [`Weight::with`]).
const GRAIN: usize = 64;

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

/// Sums of gradients, f32, that begin as nothing: what is first written to a tensor need not be added to
/// zeros, which would have to be written and read.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) block: Block,
    /// What has been written: where it begins and ends.
    written: RefCell<BTreeMap<usize, usize>>,
}

impl Sums {
    /// Sums in a new piece of memory.
    pub(super) fn new(card: &Card, places: &Places) -> Result<Self, CudaError> {
        // What lies between the tensors stays 0.
        let block = card.room(Element::F32, places.total)?;
        card.zero(places.all(&block, Element::F32)?)?;
        Ok(Self { block, written: RefCell::default() })
    }

    /// Begins anew, with nothing.
    pub(super) fn begin(&self) {
        self.written.borrow_mut().clear();
    }

    /// Makes what nothing was added to zeros.
    pub(super) fn finish(&self, card: &Card, places: &Places) -> Result<(), CudaError> {
        for index in 0..places.len() {
            let Range { start, end } = places.range(index);
            if !self.holds(start) {
                card.zero(Span::of(&self.block, Element::F32, start, end - start)?)?;
            }
        }
        Ok(())
    }

    /// Whether the value at `start` has been written.
    fn holds(&self, start: usize) -> bool {
        let written = self.written.borrow();
        written.range(..=start).next_back().is_some_and(|(_, &end)| start < end)
    }

    fn mark(&self, start: usize, len: usize) {
        self.written.borrow_mut().insert(start, start + len);
    }
}

/// A parameter, bf16 `[rows, width]` (a vector has one row), with its gradient, f32; or several that lie one
/// behind the other, as one matrix.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    weights: Rc<Block>,
    sums: Option<Rc<Sums>>,
    start: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl Weight {
    pub(super) fn new(
        places: &Places,
        index: usize,
        weights: &Rc<Block>,
        sums: Option<&Rc<Sums>>,
    ) -> Self {
        let (rows, width) = match places.shape(index).shape[..] {
            [width] => (1, width),
            [rows, width] => (rows, width),
            _ => unreachable!("parameters are vectors and matrices"),
        };
        let start = places.range(index).start;
        Self { weights: Rc::clone(weights), sums: sums.cloned(), start, rows, width }
    }

    /// This matrix with the rows of the next one below its own.
    ///
    /// # Panics
    /// If `next` does not begin where this one ends.
    pub(super) fn with(&self, next: &Self) -> Self {
        let adjacent = next.start == self.start + self.rows * self.width;
        assert!(adjacent && next.width == self.width, "tensors that lie apart");
        Self { rows: self.rows + next.rows, ..self.clone() }
    }

    pub(super) fn span(&self) -> Result<Span<'_>, CudaError> {
        Span::of(&self.weights, Element::Bf16, self.start, self.rows * self.width)
    }

    /// The gradient, to be added to.
    ///
    /// # Panics
    /// If the model was made without gradients, which then has no tape either.
    pub(super) fn grad(&self, card: &Card) -> Result<Span<'_>, CudaError> {
        let mut grad = None;
        self.fill_grad(|span, holds| {
            grad = Some(span);
            if holds { Ok(()) } else { card.zero(span) }
        })?;
        Ok(grad.expect("filled above"))
    }

    /// Lets `fill` write the gradient: it is given the room, and whether that holds something already,
    /// to which it must add.
    ///
    /// # Panics
    /// As [`Weight::grad`].
    pub(super) fn fill_grad<'a>(
        &'a self,
        fill: impl FnOnce(Span<'a>, bool) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let sums = self.sums.as_ref().expect("a tape needs gradients");
        let len = self.rows * self.width;
        let holds = sums.holds(self.start);
        sums.mark(self.start, len);
        fill(Span::of(&sums.block, Element::F32, self.start, len)?, holds)
    }
}

#[cfg(test)]
mod tests {
    use super::{GRAIN, Places};
    use crate::model::{ModelConfig, config::tiny};

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

    #[test]
    fn what_is_one_product_lies_together() {
        for (hidden_size, intermediate_size) in [(8, 8), (24, 40), (64, 96)] {
            let config = ModelConfig { hidden_size, intermediate_size, head_dim: 64, ..tiny() };
            let places = Places::of(&config);
            let at = |part: &str| {
                let name = format!("model.layers.1.{part}.weight");
                let of = |&index: &usize| places.shape(index).name == name;
                places.range((0..places.len()).find(of).unwrap())
            };
            assert_eq!(at("self_attn.q_proj").end, at("self_attn.k_proj").start);
            assert_eq!(at("mlp.gate_proj").end, at("mlp.up_proj").start);
        }
    }
}
