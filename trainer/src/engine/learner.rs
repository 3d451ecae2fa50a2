//! Learners: what holds a model while it is trained.
//!
//! An [`Engine`] turns a batch into gradients; a learner also owns parameters and optimizer, so
//! that they may live where the engine computes. [`HostLearner`] keeps them in this process's
//! memory; several ranks of one run in threads make a [`crate::parallel::ParallelLearner`].

use super::{Batch, Engine, EngineError, LossOutput};
use crate::{
    model::{Grads, Params},
    optim::{Optimizer, clip_scale, round_to_bf16, scale, squares},
    parallel::{
        Alone, Collective, ParallelError, RankLearner, RankPart, Shards,
        lanes::{self, LANES},
    },
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

/// What an optimizer step gives. Of several processes or ranks each has the sums of its own rows; the norm, and
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
    /// Whether weights are `bf16`, as the reference has them: rounded at the start and after every step.
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

    /// The learner on a card, if it is one.
    fn cuda(&self) -> Option<&super::cuda::CudaLearner> {
        None
    }

    /// Parameters and optimizer as they stand, brought to this process's memory. Of several processes
    /// all have to call this; the first gets them, the others nothing.
    ///
    /// # Errors
    /// If they cannot be fetched from where they live.
    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError>;
}

/// Keeps everything in this process's memory: the engine's gradients, the optimizer's step. Alone, or as
/// one of several ranks, which then has the optimizer's state of its own tensors only.
pub struct HostLearner<E, C = Alone> {
    engine: E,
    params: Params,
    optimizer: Optimizer,
    settings: LearnerSettings,
    rows_at_once: usize,
    /// Gradients: the sum, and one more for every halving of the pieces (see [`lanes`]).
    sums: Vec<Grads>,
    shards: Shards,
    collective: C,
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
        let shards = Shards::alone(params.len());
        Self::among(engine, params, optimizer, settings, rows_at_once, shards, Alone)
    }
}

impl<E, C> HostLearner<E, C>
where
    E: Engine,
    C: for<'a> Collective<Tensor<'a> = &'a mut [f32], Error = ParallelError>,
{
    /// As [`HostLearner::new`], of one of several ranks. `optimizer` is that of the tensors which the
    /// rank owns; so is what [`Learner::state`] gives.
    #[must_use]
    pub fn among(
        engine: E,
        mut params: Params,
        optimizer: Optimizer,
        settings: LearnerSettings,
        rows_at_once: usize,
        shards: Shards,
        collective: C,
    ) -> Self {
        if settings.bf16_weights {
            round_to_bf16(&mut params.slices_mut());
        }
        let sums = vec![Grads::zeros(&params)];
        Self { engine, params, optimizer, settings, rows_at_once, sums, shards, collective }
    }

    /// Sums the gradients of some pieces into `self.sums[level]`, as [`lanes`] says.
    fn sum(
        &mut self,
        input: &StepInput<'_>,
        pieces: Range<usize>,
        lanes: usize,
        level: usize,
        row_sums: &mut Vec<f64>,
    ) -> Result<(), EngineError> {
        if self.sums.len() == level {
            self.sums.push(Grads::zeros(&self.params));
        }
        if lanes > 1 && pieces.len() > 1 {
            let middle = lanes::middle(&pieces);
            self.sum(input, pieces.start..middle, lanes / 2, level, row_sums)?;
            self.sum(input, middle..pieces.end, lanes / 2, level + 1, row_sums)?;
            let (sums, others) = self.sums.split_at_mut(level + 1);
            sums[level].add(&others[0]);
            return Ok(());
        }
        self.sums[level].reset();
        for batch in &input.batches[pieces] {
            let output = self.engine.loss_and_grads(
                &self.params,
                batch,
                input.mask_id,
                input.denominator,
                &mut self.sums[level],
            )?;
            row_sums.extend(output.row_sums);
        }
        Ok(())
    }

    /// The gradients of the own pieces, in `self.sums[0]`, if every rank has its own: the losses of the
    /// rows, and whether those of all ranks are finite.
    fn gradients(&mut self, input: &StepInput<'_>) -> Result<(Vec<f64>, bool), EngineError> {
        let (pieces, lanes) = (0..input.batches.len(), LANES / self.collective.ranks());
        let mut row_sums = Vec::new();
        let outcome = self.sum(input, pieces, lanes, 0, &mut row_sums);
        let losses = row_sums.iter().sum();
        let ((), finite) = self.collective.agree(outcome, losses)?;
        Ok((row_sums, finite))
    }

    /// The Euclidean norm of the whole gradient, from the tensors that each rank owns.
    fn norm(&mut self) -> Result<f64, EngineError> {
        let grads = &self.sums[0];
        let owned = self.shards.of_rank(self.collective.rank());
        let squares: Vec<f64> = owned.map(|tensor| squares(grads.get(tensor))).collect();
        Ok(self.collective.norm(&squares, &self.shards)?)
    }
}

impl<E, C> Learner for HostLearner<E, C>
where
    E: Engine,
    C: for<'a> Collective<Tensor<'a> = &'a mut [f32], Error = ParallelError>,
{
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let (row_sums, finite) = self.gradients(input)?;
        // Summed row by row, so that the loss does not depend on the split into micro-batches.
        let loss = row_sums.iter().sum::<f64>() / input.denominator;
        self.collective.reduce_to_owners(&mut self.sums[0].slices_mut(), &self.shards)?;
        let norm = self.norm()?;
        let clipped = self.settings.grad_clip.and_then(|limit| clip_scale(norm, limit));
        let applied = finite && norm.is_finite();
        if applied {
            let (rank, shards) = (self.collective.rank(), &self.shards);
            let mut grads = shards.select(rank, self.sums[0].slices_mut());
            if let Some(factor) = clipped {
                scale(&mut grads, factor);
            }
            let grads: Vec<&[f32]> = grads.into_iter().map(|grad| &*grad).collect();
            let mut params = self.params.slices_mut();
            let mut owned = shards.select(rank, params.iter_mut().map(|values| &mut **values));
            self.optimizer.step(input.lr, &mut owned, &grads);
            if self.settings.bf16_weights {
                round_to_bf16(&mut owned);
            }
            self.collective.gather_from_owners(&mut params, shards)?;
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

impl<E, C> RankLearner for HostLearner<E, C>
where
    E: Engine,
    C: for<'a> Collective<Tensor<'a> = &'a mut [f32], Error = ParallelError>,
{
    fn part(&mut self) -> Result<RankPart, EngineError> {
        let owned = self.shards.of_rank(self.collective.rank());
        let tensors = owned.map(|tensor| (tensor, self.params.shared(tensor))).collect();
        Ok(RankPart { tensors, optimizer: self.optimizer.clone() })
    }
}
