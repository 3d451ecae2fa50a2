//! Optimizers on plain slices: Adafactor as the method uses it (method §5), `AdamW`, clipping.
//!
//! Parameters and gradients are lists of flat `f32` tensors in one fixed order. Sums are taken over
//! chunks whose size never depends on the number of threads, and the chunks are added in order, so
//! a step gives the same bits on any machine of the same kind, whatever the number of threads.

mod adafactor;
mod adamw;
mod clip;
mod state;

pub use adafactor::{Adafactor, AdafactorSettings};
pub(crate) use adamw::Factors as AdamWFactors;
pub use adamw::{AdamW, AdamWSettings};
pub(crate) use clip::squares;
pub use clip::{clip_scale, global_norm, scale};
pub use state::{StateError, StateTensor};

use half::bf16;
use rayon::prelude::*;

/// Elements per piece of parallel work. Part of the result: sums are made of such pieces.
pub(crate) const CHUNK: usize = 1 << 14;

/// The name and the shape of a parameter, in the order of the gradients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// The parameter's Hugging Face name.
    pub name: String,
    /// Its dimensions; their product is the number of elements.
    pub shape: Vec<usize>,
}

impl TensorShape {
    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Which optimizer, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerSettings {
    /// Factored second moments.
    Adafactor(AdafactorSettings),
    /// Adam with decoupled weight decay.
    AdamW(AdamWSettings),
}

/// An optimizer with its state.
#[derive(Clone, Debug)]
pub enum Optimizer {
    /// See [`Adafactor`].
    Adafactor(Adafactor),
    /// See [`AdamW`].
    AdamW(AdamW),
}

impl Optimizer {
    /// An optimizer that has made no step yet.
    #[must_use]
    pub fn new(settings: &OptimizerSettings, shapes: &[TensorShape]) -> Self {
        match settings {
            OptimizerSettings::Adafactor(settings) => {
                Self::Adafactor(Adafactor::new(*settings, shapes))
            }
            OptimizerSettings::AdamW(settings) => Self::AdamW(AdamW::new(*settings, shapes)),
        }
    }

    /// Moves every parameter one step against its gradient, at learning rate `lr`.
    ///
    /// # Panics
    /// If the tensors are not those that the optimizer was made for.
    pub fn step(&mut self, lr: f64, params: &mut [&mut [f32]], grads: &[&[f32]]) {
        match self {
            Self::Adafactor(optimizer) => optimizer.step(lr, params, grads),
            Self::AdamW(optimizer) => optimizer.step(lr, params, grads),
        }
    }

    /// Steps made so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        match self {
            Self::Adafactor(optimizer) => optimizer.steps(),
            Self::AdamW(optimizer) => optimizer.steps(),
        }
    }

    /// `adafactor` or `adamw`, as `train_state.safetensors` records it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Adafactor(_) => "adafactor",
            Self::AdamW(_) => "adamw",
        }
    }

    /// The state in full, for a checkpoint: together with [`Optimizer::steps`] all there is.
    #[must_use]
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        match self {
            Self::Adafactor(optimizer) => optimizer.state(),
            Self::AdamW(optimizer) => optimizer.state(),
        }
    }

    /// Takes up a state that [`Optimizer::state`] gave. `tensor` hands out a tensor by name and shape.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn restore(
        &mut self,
        steps: u64,
        tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, StateError>,
    ) -> Result<(), StateError> {
        match self {
            Self::Adafactor(optimizer) => optimizer.restore(steps, tensor),
            Self::AdamW(optimizer) => optimizer.restore(steps, tensor),
        }
    }

    /// Bytes of state for parameters of these shapes.
    #[must_use]
    pub fn state_bytes(settings: &OptimizerSettings, shapes: &[TensorShape]) -> u64 {
        let elements = |shape: &TensorShape| match (settings, shape.shape.as_slice()) {
            (OptimizerSettings::Adafactor(_), [rows, columns]) => rows + columns,
            (OptimizerSettings::Adafactor(_), _) => shape.elements(),
            (OptimizerSettings::AdamW(_), _) => 2 * shape.elements(),
        };
        4 * shapes.iter().map(elements).sum::<usize>() as u64
    }
}

/// Rounds parameters to the nearest `bf16` (ties to even): training without a master copy, as the
/// reference does.
pub fn round_to_bf16(params: &mut [&mut [f32]]) {
    for tensor in params {
        tensor.par_chunks_mut(CHUNK).for_each(|chunk| {
            for value in chunk {
                *value = bf16::from_f32(*value).to_f32();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::round_to_bf16;

    #[test]
    fn bf16_keeps_eight_bits_and_rounds_ties_to_even() {
        // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3·2^-8 between 1 + 2^-7 and 1 + 2^-6.
        let mut values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -std::f32::consts::PI];
        round_to_bf16(&mut [&mut values]);
        let bits = |values: [f32; 4]| values.map(f32::to_bits);
        assert_eq!(bits(values), bits([1.0, 1.0, 1.015_625, -3.140_625]));
    }
}
