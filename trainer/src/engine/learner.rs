//! Learners: what holds a model while it is trained.
//!
//! An [`Engine`] turns a batch into gradients; a learner also owns parameters and optimizer, so
//! that they may live where the engine computes. [`HostLearner`] keeps them in this process's
//! memory.

use super::{Batch, Engine, EngineError, LossOutput};
use crate::{
    model::{Grads, Params},
    optim::{Optimizer, clip_scale, global_norm, round_to_bf16, scale},
};
use coda_manifests::MasterWeights;
use coda_stages::Recipe;
use std::ops::Range;

/// What one optimizer step is given.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// The rows of the global batch, in pieces for one forward and backward pass each; of each piece
    /// [`Learner::own_rows`].
    pub batches: &'a [Batch],
    /// The id that stands for a masked token.
    pub mask_id: u32,
    /// Tokens of the global batch: what the sum of the losses is divided by.
    pub denominator: f64,
    /// The learning rate.
    pub lr: f64,
}

/// What an optimizer step gives. Of several processes each has the sums of its own rows; the norm, and
/// whether the step was applied, are those of the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// As [`LossOutput::row_sums`], for the rows of all batches in order.
    pub row_sums: Vec<f64>,
    /// The sum of `row_sums` in order, divided by the denominator.
    pub loss: f64,
    /// The Euclidean norm of the whole gradient, before clipping.
    pub norm: f64,
    /// What the gradient was multiplied by, if it was too long.
    pub clipped: Option<f64>,
    /// Whether the parameters changed: not when loss or norm are not finite.
    pub applied: bool,
}

/// How a learner treats gradients and weights, the same for the whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnerSettings {
    /// Largest norm of the whole gradient; `None`: no clipping.
    pub grad_clip: Option<f64>,
    /// Whether weights are rounded to `bf16` after every step, as the reference has them.
    pub bf16_weights: bool,
}

impl LearnerSettings {
    /// Those of a recipe.
    #[must_use]
    pub fn of(recipe: &Recipe) -> Self {
        Self {
            grad_clip: recipe.grad_clip,
            bf16_weights: recipe.master_weights == MasterWeights::Bf16,
        }
    }
}

/// A model that is being trained.
pub trait Learner {
    /// How many rows the batches of a step should have.
    fn rows_at_once(&self) -> usize;

    /// Of a piece of `rows` rows, those that this process has to give. All, unless several processes
    /// train one model; then no piece of a step may have fewer rows than [`Learner::rows_at_once`].
    fn own_rows(&self, rows: usize) -> Range<usize> {
        0..rows
    }

    /// One optimizer step on the sum of the batches' gradients. Nothing changes if loss or norm are
    /// not finite.
    ///
    /// # Errors
    /// If a batch is malformed or the engine fails; then nothing has changed.
    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError>;

    /// The loss of a batch, the own rows of a piece, as the model stands.
    ///
    /// # Errors
    /// As [`Engine::loss`].
    fn loss(
        &mut self,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError>;

    /// Parameters and optimizer as they stand, brought to this process's memory. Of several processes
    /// all have to call this; the first gets them, the others nothing.
    ///
    /// # Errors
    /// If they cannot be fetched from where they live.
    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError>;
}

/// Keeps everything in this process's memory: the engine's gradients, the optimizer's step.
pub struct HostLearner<E> {
    engine: E,
    params: Params,
    grads: Grads,
    optimizer: Optimizer,
    settings: LearnerSettings,
    rows_at_once: usize,
}

impl<E: Engine> HostLearner<E> {
    /// A learner that begins with these parameters and this optimizer, and takes so many rows
    /// through one forward and backward pass.
    #[must_use]
    pub fn new(
        engine: E,
        params: Params,
        optimizer: Optimizer,
        settings: LearnerSettings,
        rows_at_once: usize,
    ) -> Self {
        let grads = Grads::zeros(&params);
        Self { engine, params, grads, optimizer, settings, rows_at_once }
    }
}

impl<E: Engine> Learner for HostLearner<E> {
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let StepInput { batches, mask_id, denominator, lr } = *input;
        self.grads.reset();
        let mut row_sums = Vec::new();
        for batch in batches {
            let output = self.engine.loss_and_grads(
                &self.params,
                batch,
                mask_id,
                denominator,
                &mut self.grads,
            )?;
            row_sums.extend(output.row_sums);
        }
        // Summed row by row, so that the loss does not depend on the split into micro-batches.
        let loss = row_sums.iter().sum::<f64>() / denominator;
        let norm = global_norm(&self.grads.slices());
        let clipped = self.settings.grad_clip.and_then(|limit| clip_scale(norm, limit));
        let applied = loss.is_finite() && norm.is_finite();
        if applied {
            if let Some(factor) = clipped {
                scale(&mut self.grads.slices_mut(), factor);
            }
            let mut params = self.params.slices_mut();
            self.optimizer.step(lr, &mut params, &self.grads.slices());
            if self.settings.bf16_weights {
                round_to_bf16(&mut params);
            }
        }
        Ok(StepOutput { row_sums, loss, norm, clipped, applied })
    }

    fn loss(
        &mut self,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        self.engine.loss(&self.params, batch, mask_id, denominator)
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        Ok(Some((&self.params, &self.optimizer)))
    }
}
