//! The learner whose parameters, gradients and optimizer state stay on the card.

use super::{CudaEngine, batch::Prepared, model::Network, optimizer::DeviceOptimizer};
use crate::{
    engine::{Batch, EngineError, Learner, LearnerSettings, LossOutput, StepInput, StepOutput},
    model::Params,
    optim::{Optimizer, OptimizerSettings, clip_scale},
};
use coda_cuda::{ArenaUse, Block, CudaError, Element, PinnedBytes, Span};
use std::rc::Rc;

/// Trains a model on a card.
#[derive(Debug)]
pub struct CudaLearner {
    engine: CudaEngine,
    settings: LearnerSettings,
    rows_at_once: usize,
    /// What the model computes with, bf16.
    weights: Rc<Block>,
    /// What is trained, f32; without it the weights themselves are.
    master: Option<Rc<Block>>,
    grads: Rc<Block>,
    optimizer: DeviceOptimizer,
    /// Page-locked memory for the batches of a step.
    hosts: Vec<PinnedBytes>,
    /// Parameters and optimizer in this process's memory, if they are those of the card.
    fetched: Option<(Params, Optimizer)>,
    of_optimizer: OptimizerSettings,
}

impl CudaLearner {
    /// A learner that begins with these parameters and this optimizer, and takes so many rows
    /// through one forward and backward pass.
    ///
    /// # Errors
    /// If the card has no room.
    pub fn new(
        engine: CudaEngine,
        params: Params,
        optimizer: Optimizer,
        optimizer_settings: &OptimizerSettings,
        settings: LearnerSettings,
        rows_at_once: usize,
    ) -> Result<Self, EngineError> {
        let (card, places) = (&engine.run.card, &engine.places);
        let weights = places.zeros(card, Element::Bf16)?;
        let master = if settings.bf16_weights {
            places.write_rounded(card, &weights, &params)?;
            None
        } else {
            let master = places.zeros(card, Element::F32)?;
            for index in 0..places.len() {
                card.write(places.span(&master, Element::F32, index)?, params.get(index))?;
            }
            let all = |block, element| Span::of(block, element, 0, places.total);
            card.round(all(&master, Element::F32)?, all(&weights, Element::Bf16)?)?;
            Some(master)
        };
        Ok(Self {
            grads: places.zeros(card, Element::F32)?,
            optimizer: DeviceOptimizer::upload(card, optimizer_settings, &optimizer, places)?,
            engine,
            settings,
            rows_at_once,
            weights,
            master,
            hosts: Vec::new(),
            of_optimizer: optimizer_settings.clone(),
            fetched: Some((params, optimizer)),
        })
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &CudaEngine {
        &self.engine
    }

    /// What the card's memory holds.
    #[must_use]
    pub fn usage(&self) -> ArenaUse {
        self.engine.usage()
    }

    /// Forward and backward of all batches, and the square of the gradient's norm: the losses of
    /// each batch and what they weigh.
    fn gradients(&mut self, input: &StepInput<'_>) -> Result<(Vec<LossOutput>, f64), EngineError> {
        let vocabulary = self.engine.config.vocab_size;
        let StepInput { batches, mask_id, denominator, .. } = *input;
        let prepared = batches
            .iter()
            .map(|batch| Prepared::of_batch(batch, mask_id, denominator, vocabulary))
            .collect::<Result<Vec<_>, _>>()?;
        let ropes = batches
            .iter()
            .map(|batch| self.engine.rope(batch.len))
            .collect::<Result<Vec<_>, _>>()?;
        let card = &self.engine.run.card;
        while self.hosts.len() < batches.len() {
            self.hosts.push(PinnedBytes::new(card));
        }
        // All batches are on their way before the first is worked on, beside the work.
        let sending = prepared
            .into_iter()
            .zip(&mut self.hosts)
            .map(|(prepared, host)| prepared.send(card, host))
            .collect::<Result<Vec<_>, _>>()?;
        let places = &self.engine.places;
        let grads = Span::of(&self.grads, Element::F32, 0, places.total)?;
        card.zero(grads)?;
        let network = Network::new(&self.engine.config, places, &self.weights, Some(&self.grads));
        let mut passes = Vec::with_capacity(batches.len());
        for (sending, rope) in sending.into_iter().zip(&ropes) {
            let ready = sending.receive(card)?;
            let losses = self.engine.pass(&network, &ready, rope, true)?;
            passes.push((losses, ready.weights));
        }
        let squares = card.room(Element::F64, 1)?;
        let squares = Span::of(&squares, Element::F64, 0, 1)?;
        card.sum_of_squares(grads, squares)?;
        let outputs = passes
            .iter()
            .zip(batches)
            .map(|((losses, weights), batch)| {
                self.engine.output(losses, weights, batch.rows, denominator)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let squares: Vec<f64> = card.read(squares)?;
        Ok((outputs, squares[0]))
    }

    fn fetch(&self) -> Result<(Params, Optimizer), CudaError> {
        let (card, places) = (&self.engine.run.card, &self.engine.places);
        let values = match &self.master {
            Some(master) => places.read(card, master)?,
            None => places.read_wide(card, &self.weights)?,
        };
        let params = Params::from_values(&self.engine.config, values);
        let empty = Optimizer::new(&self.of_optimizer, params.layout());
        Ok((params, self.optimizer.fetch(card, places, empty)?))
    }
}

impl Learner for CudaLearner {
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let outcome = self.gradients(input);
        // The hosts' memory must not be filled anew while the card reads it.
        self.engine.run.card.synchronize()?;
        let (outputs, squares) = outcome?;
        let row_sums: Vec<f64> = outputs.into_iter().flat_map(|output| output.row_sums).collect();
        let loss = row_sums.iter().sum::<f64>() / input.denominator;
        let norm = squares.sqrt();
        let clipped = self.settings.grad_clip.and_then(|limit| clip_scale(norm, limit));
        let applied = loss.is_finite() && norm.is_finite();
        if applied {
            self.fetched = None;
            let engine = &self.engine;
            self.optimizer.step(
                &engine.run.card,
                &engine.places,
                [&self.weights, &self.grads],
                self.master.as_deref(),
                input.lr,
                clipped.unwrap_or(1.0),
            )?;
        }
        Ok(StepOutput { row_sums, loss, norm, clipped, applied })
    }

    fn loss(
        &mut self,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let weights = Rc::clone(&self.weights);
        self.engine.loss_on(&weights, batch, mask_id, denominator)
    }

    fn cuda(&self) -> Option<&CudaLearner> {
        Some(self)
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        if self.fetched.is_none() {
            self.fetched = Some(self.fetch()?);
        }
        Ok(self.fetched.as_ref().map(|(params, optimizer)| (params, optimizer)))
    }
}
