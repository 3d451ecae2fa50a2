//! The model's operations, each with its forward and its backward pass, on dfdx's tape.
//!
//! dfdx provides the tape ([`Tape`], [`OwnedTape`]); the activations are buffers of
//! our own ([`Var`]), which the tape drives without knowing them. No operation copies a weight, and
//! an operation on another device can follow the same pattern.
//!
//! With [`NoneTape`] nothing is recorded: the closure of the backward pass is dropped at once, and
//! with it the activations that it would have kept.
//!
//! Sums are always taken in an order that depends on sizes alone, never on the number of threads.

mod attention;
mod cached;
mod cross_entropy;
mod elementwise;
mod embed;
mod few;
mod linear;
mod matmul;
mod norm;
mod recompute;
mod rope;
mod swiglu;

pub(crate) use attention::segment_ranges;
pub use attention::{AttentionShape, attention};
pub(crate) use cached::{KvRow, cached_attention};
pub use cross_entropy::{Scored, linear_cross_entropy};
pub(crate) use elementwise::{largest, negative_entropy, softmax};
pub use embed::embed;
pub(crate) use few::linear_of_few;
pub use linear::linear;
pub(crate) use matmul::{View, ViewMut, matmul};
pub use norm::rms_norm;
pub(crate) use recompute::run_backward;
pub use recompute::{Block, recompute};
pub use rope::{Rotary, head_norm_rope};
pub use swiglu::swiglu;

pub use dfdx::{
    prelude::{Cpu, NoneTape, OwnedTape},
    tensor::Tape as DfdxTape,
};

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

/// A tape of f32 operations: [`OwnedTape`] records, [`NoneTape`] does not.
pub trait Tape: DfdxTape<f32, Cpu> {}
impl<T: DfdxTape<f32, Cpu>> Tape for T {}

/// How `x · Wᵀ (+ residual)` is computed: [`linear()`], or a way that rounds otherwise.
pub(crate) type LinearMap<T> = fn(&mut T, &Var, &Weight, Option<&Var>) -> Var;

/// An activation: a matrix `[rows, width]`, row-major, with room for its gradient.
#[derive(Clone, Debug)]
pub struct Var {
    data: Rc<Vec<f32>>,
    grad: Rc<RefCell<Vec<f32>>>,
    rows: usize,
    width: usize,
}

/// A parameter: a matrix `[rows, width]` (a vector has one row), with its gradient.
#[derive(Clone, Debug)]
pub struct Weight {
    data: Arc<Vec<f32>>,
    grad: Rc<RefCell<Vec<f32>>>,
    rows: usize,
    width: usize,
}

impl Var {
    /// A new activation without a gradient.
    ///
    /// # Panics
    /// If `data` is not `rows · width` long.
    #[must_use]
    pub fn new(data: Vec<f32>, rows: usize, width: usize) -> Self {
        assert_eq!(data.len(), rows * width, "[{rows}, {width}]");
        Self { data: Rc::new(data), grad: Rc::default(), rows, width }
    }

    /// The same values with a gradient of its own.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { grad: Rc::default(), ..self.clone() }
    }

    /// Some of its rows, as a new activation.
    ///
    /// # Panics
    /// If one is not there.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let width = self.width;
        let row = |&row: &usize| &self.data[row * width..][..width];
        Self::new(rows.iter().flat_map(row).copied().collect(), rows.len(), width)
    }

    /// The values.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Takes the gradient out; zeros where nothing has arrived.
    #[must_use]
    pub fn take_grad(&self) -> Vec<f32> {
        let grad = self.grad.take();
        if grad.is_empty() { vec![0.0; self.data.len()] } else { grad }
    }

    /// Adds to the gradient.
    pub fn add_grad(&self, more: Vec<f32>) {
        let mut grad = self.grad.borrow_mut();
        if grad.is_empty() {
            *grad = more;
        } else {
            elementwise::add(&mut grad, &more);
        }
    }

    /// The gradient to accumulate into, and whether it holds something already. When it does not,
    /// its values are zero.
    fn grad_buffer(&self) -> (RefMut<'_, Vec<f32>>, bool) {
        let mut grad = self.grad.borrow_mut();
        let holds = !grad.is_empty();
        if !holds {
            grad.resize(self.data.len(), 0.0);
        }
        (grad, holds)
    }
}

impl Weight {
    /// A parameter `[rows, width]` and the cell its gradient is added into.
    ///
    /// # Panics
    /// If a size is not `rows · width`.
    #[must_use]
    pub fn new(
        data: Arc<Vec<f32>>,
        grad: Rc<RefCell<Vec<f32>>>,
        rows: usize,
        width: usize,
    ) -> Self {
        assert_eq!(data.len(), rows * width, "[{rows}, {width}]");
        Self { data, grad, rows, width }
    }

    /// The values.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The gradient, of full size.
    fn grad_buffer(&self) -> RefMut<'_, Vec<f32>> {
        let grad = self.grad.borrow_mut();
        debug_assert_eq!(grad.len(), self.data.len(), "a gradient has the size of its parameter");
        grad
    }
}
