//! Activations in a card's memory, on dfdx's tape.
//!
//! The pattern is that of [`crate::ops`]: dfdx drives closures and knows nothing of the buffers. A
//! closure can fail with dfdx's own error only, so what the card said is kept beside the tape.

use crate::ops::{Cpu, OwnedTape, Tape, run_backward};
use coda_cuda::{Block, Card, CudaError, Element, Span};
use dfdx::tensor::CpuError;
use std::{cell::RefCell, rc::Rc};

/// A card, and what went wrong on it during a backward pass.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) card: Card,
    fault: RefCell<Option<CudaError>>,
}

impl Run {
    pub(super) fn new(card: Card) -> Rc<Self> {
        Rc::new(Self { card, fault: RefCell::default() })
    }

    /// Puts a backward pass on the tape.
    pub(super) fn backward<T: Tape>(
        self: &Rc<Self>,
        tape: &mut T,
        pass: impl FnOnce(&Card) -> Result<(), CudaError> + 'static,
    ) {
        let run = Rc::clone(self);
        tape.add_backward_op(move |_| {
            pass(&run.card).map_err(|error| {
                run.fault.replace(Some(error));
                CpuError::OutOfMemory
            })
        });
    }

    /// Runs a tape backwards.
    pub(super) fn run_backward(&self, tape: OwnedTape<f32, Cpu>) -> Result<(), CudaError> {
        run_backward(tape).map_err(|error| {
            let words = || CudaError::Shape(format!("the tape failed: {error:?}"));
            self.fault.take().unwrap_or_else(words)
        })
    }
}

/// An activation: a bf16 matrix `[rows, width]` with room for its gradient.
#[derive(Clone)]
pub(super) struct Var {
    data: Rc<RefCell<Option<Rc<Block>>>>,
    /// How to make the values again once they were forgotten.
    remake: Option<Rc<Remake>>,
    grad: Rc<RefCell<Option<Block>>>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

type Remake = dyn Fn(&Card) -> Result<Block, CudaError>;

/// The values of an activation, for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    block: Rc<Block>,
    len: usize,
}

impl Held {
    pub(super) fn span(&self) -> Result<Span<'_>, CudaError> {
        Span::of(&self.block, Element::Bf16, 0, self.len)
    }
}

impl Var {
    pub(super) fn new(data: Block, rows: usize, width: usize) -> Self {
        let data = Rc::new(RefCell::new(Some(Rc::new(data))));
        Self { data, remake: None, grad: Rc::default(), rows, width }
    }

    /// The same, with a way to make the values again, to the bit.
    pub(super) fn remade_by(
        self,
        remake: impl Fn(&Card) -> Result<Block, CudaError> + 'static,
    ) -> Self {
        Self { remake: Some(Rc::new(remake)), ..self }
    }

    /// Gives the values' memory back, if they can be made again.
    pub(super) fn forget(&self) {
        if self.remake.is_some() {
            self.data.replace(None);
        }
    }

    /// The same values with a gradient of its own.
    pub(super) fn detached(&self) -> Self {
        Self { grad: Rc::default(), ..self.clone() }
    }

    /// Number of values.
    pub(super) const fn len(&self) -> usize {
        self.rows * self.width
    }

    /// The values, made again if they were forgotten; from then on they are kept.
    pub(super) fn hold(&self, card: &Card) -> Result<Held, CudaError> {
        let mut data = self.data.borrow_mut();
        let block = match (data.as_ref(), &self.remake) {
            (Some(block), _) => Rc::clone(block),
            (None, Some(remake)) => Rc::clone(data.insert(Rc::new(remake(card)?))),
            (None, None) => unreachable!("only what can be made again is forgotten"),
        };
        Ok(Held { block, len: self.len() })
    }

    /// A gradient as a span.
    pub(super) fn of_grad<'a>(&self, block: &'a Block) -> Result<Span<'a>, CudaError> {
        Span::of(block, Element::Bf16, 0, self.len())
    }

    /// Takes the gradient out; zeros where nothing has arrived.
    pub(super) fn take_grad(&self, card: &Card) -> Result<Block, CudaError> {
        if let Some(grad) = self.grad.take() {
            return Ok(grad);
        }
        let grad = card.room(Element::Bf16, self.len())?;
        card.zero(self.of_grad(&grad)?)?;
        Ok(grad)
    }

    /// Adds to the gradient.
    pub(super) fn add_grad(&self, card: &Card, more: Block) -> Result<(), CudaError> {
        let mut grad = self.grad.borrow_mut();
        if let Some(grad) = grad.as_ref() {
            return card.add(self.of_grad(grad)?, self.of_grad(&more)?);
        }
        *grad = Some(more);
        Ok(())
    }

    /// Lets `fill` write the gradient: it is given the room, and whether that holds something
    /// already, to which it must add.
    pub(super) fn fill_grad(
        &self,
        card: &Card,
        fill: impl FnOnce(Span<'_>, bool) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let mut grad = self.grad.borrow_mut();
        let holds = grad.is_some();
        if !holds {
            *grad = Some(card.room(Element::Bf16, self.len())?);
        }
        let grad = grad.as_ref().expect("filled above");
        fill(self.of_grad(grad)?, holds)
    }
}
