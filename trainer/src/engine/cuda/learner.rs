//! The learner whose parameters, gradients and optimizer state stay on the card; alone, or as one of
//! several ranks.

use super::{
    CudaEngine,
    batch::{Prepared, Sending},
    model::Network,
    ops::Rope,
    optimizer::{DeviceOptimizer, Trained},
    ranks::{CardRanks, Link},
    weights::{Places, Sums},
};
use crate::{
    engine::{Batch, EngineError, Learner, LearnerSettings, LossOutput, StepInput, StepOutput},
    model::Params,
    optim::{Optimizer, OptimizerSettings, clip_scale},
    parallel::{
        Collective as _, RankLearner, RankPart, RankStart, Shards,
        lanes::{self, LANES},
    },
};
use coda_cuda::{ArenaUse, Block, CudaError, Element, PinnedBytes, Span};
use std::{ops::Range, rc::Rc, sync::Arc};

/// Trains a model on a card.
pub struct CudaLearner {
    engine: CudaEngine,
    settings: LearnerSettings,
    rows_at_once: usize,
    /// What the model computes with, bf16.
    weights: Rc<Block>,
    /// The tensors whose optimizer state is here: all, unless other ranks have the rest.
    owned: Vec<usize>,
    owned_places: Places,
    /// What is trained, f32, of the owned tensors; without it the weights themselves are.
    master: Option<Block>,
    /// Gradients: the sum, and one more for every halving of the pieces (see [`lanes`]).
    sums: Vec<Rc<Sums>>,
    optimizer: DeviceOptimizer,
    /// Page-locked memory for the batches of a step.
    hosts: Vec<PinnedBytes>,
    /// Parameters and optimizer in this process's memory, if they are those of the card.
    fetched: Option<(Params, Optimizer)>,
    of_optimizer: OptimizerSettings,
    among: Option<(CardRanks, Shards)>,
}

/// A pass that is queued: the cross entropies on the card, each token's row and weight, and the batch's
/// rows.
type Queued = (Block, Vec<(usize, f64)>, usize);

/// The passes of a step, as [`lanes`] has them.
struct Passes<'a> {
    sending: Vec<Option<Sending>>,
    ropes: Vec<Rc<Rope>>,
    batches: &'a [Batch],
    queued: Vec<Queued>,
}

impl CudaLearner {
    /// A learner that begins with these parameters and this optimizer, and takes so many rows
    /// through one forward and backward pass. Gradients of passes add up one after the other.
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
        let owned = (0..params.len()).collect();
        let mut learner = Self::with(
            engine,
            &params,
            &optimizer,
            optimizer_settings,
            settings,
            rows_at_once,
            owned,
        )?;
        learner.fetched = Some((params, optimizer));
        Ok(learner)
    }

    /// As [`CudaLearner::new`], of one of several ranks, each with an engine of its own; returns when
    /// all have joined. Gradients add up as [`lanes`] says.
    ///
    /// # Errors
    /// As there, and if the ranks do not find each other.
    pub fn among(
        engine: CudaEngine,
        start: RankStart,
        link: Link,
        optimizer_settings: &OptimizerSettings,
        settings: LearnerSettings,
        rows_at_once: usize,
    ) -> Result<Self, EngineError> {
        let RankStart { params, part, shards, channels } = start;
        let owned = shards.of_rank(channels.rank()).collect();
        let ranks = CardRanks::join(&engine.run, link, channels)?;
        let mut learner =
            Self::with(engine, &params, &part, optimizer_settings, settings, rows_at_once, owned)?;
        learner.among = Some((ranks, shards));
        Ok(learner)
    }

    fn with(
        engine: CudaEngine,
        params: &Params,
        optimizer: &Optimizer,
        optimizer_settings: &OptimizerSettings,
        settings: LearnerSettings,
        rows_at_once: usize,
        owned: Vec<usize>,
    ) -> Result<Self, EngineError> {
        let (card, places) = (&engine.run.card, &engine.places);
        let owned_places = places.some(&owned);
        let weights = places.zeros(card, Element::Bf16)?;
        // The f32 values of all tensors are needed once, where gradients will be.
        let sums = Sums::new(card, places)?;
        let grads = &sums.block;
        for index in 0..places.len() {
            card.write(places.span(grads, Element::F32, index)?, params.get(index))?;
        }
        card.round(places.all(grads, Element::F32)?, places.all(&weights, Element::Bf16)?)?;
        let master = if settings.bf16_weights {
            None
        } else {
            let master = card.room(Element::F32, owned_places.total)?;
            for (place, &index) in owned.iter().enumerate() {
                let from = places.span(grads, Element::F32, index)?;
                card.copy(from, owned_places.span(&master, Element::F32, place)?)?;
            }
            Some(master)
        };
        Ok(Self {
            optimizer: DeviceOptimizer::upload(card, optimizer_settings, optimizer, &owned_places)?,
            engine,
            settings,
            rows_at_once,
            weights,
            owned,
            owned_places,
            master,
            sums: vec![Rc::new(sums)],
            hosts: Vec::new(),
            of_optimizer: optimizer_settings.clone(),
            fetched: None,
            among: None,
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

    /// Queues forward and backward of all batches, which leaves the sum of their gradients in
    /// `self.sums[0]`: the losses of each batch.
    fn gradients(&mut self, input: &StepInput<'_>) -> Result<Vec<LossOutput>, EngineError> {
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
            .map(|(prepared, host)| prepared.send(card, host).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        let mut passes = Passes { sending, ropes, batches, queued: Vec::new() };
        let lanes = self.among.as_ref().map_or(1, |(ranks, _)| LANES / ranks.ranks());
        self.sum(&mut passes, 0..batches.len(), lanes, 0)?;
        let output = |(losses, weights, rows): &Queued| {
            self.engine.output(losses, weights, *rows, denominator)
        };
        Ok(passes.queued.iter().map(output).collect::<Result<_, _>>()?)
    }

    /// Sums the gradients of some pieces into `self.sums[level]`.
    fn sum(
        &mut self,
        passes: &mut Passes<'_>,
        pieces: Range<usize>,
        lanes: usize,
        level: usize,
    ) -> Result<(), CudaError> {
        let (run, places) = (Rc::clone(&self.engine.run), &self.engine.places);
        let card = &run.card;
        if self.sums.len() == level {
            self.sums.push(Rc::new(Sums::new(card, places)?));
        }
        if lanes > 1 && pieces.len() > 1 {
            let middle = lanes::middle(&pieces);
            self.sum(passes, pieces.start..middle, lanes / 2, level)?;
            self.sum(passes, middle..pieces.end, lanes / 2, level + 1)?;
            let all = |level: usize| self.engine.places.all(&self.sums[level].block, Element::F32);
            return card.add_floats(all(level)?, all(level + 1)?);
        }
        let sum = &self.sums[level];
        sum.begin();
        let network = Network::new(&self.engine.config, places, &self.weights, Some(sum));
        for piece in pieces {
            let sending = passes.sending[piece].take().expect("a piece is in one lane");
            let ready = sending.receive(card)?;
            let losses = self.engine.pass(&network, &ready, &passes.ropes[piece], true)?;
            passes.queued.push((losses, ready.weights, passes.batches[piece].rows));
        }
        sum.finish(card, places)
    }

    /// The losses of the rows, and whether those of all ranks are finite.
    fn agree(
        &mut self,
        outcome: Result<Vec<LossOutput>, EngineError>,
    ) -> Result<(Vec<f64>, bool), EngineError> {
        let outcome = outcome.map(|outputs| {
            outputs.into_iter().flat_map(|output| output.row_sums).collect::<Vec<f64>>()
        });
        let losses = outcome.iter().flatten().sum::<f64>();
        match &mut self.among {
            Some((ranks, _)) => ranks.agree(outcome, losses),
            None => outcome.map(|row_sums| (row_sums, losses.is_finite())),
        }
    }

    /// The Euclidean norm of the whole gradient, whose sum over the ranks is with the owners.
    fn norm(&mut self) -> Result<f64, EngineError> {
        let (card, places) = (&self.engine.run.card, &self.engine.places);
        let grads = &self.sums[0].block;
        let count = if self.among.is_some() { self.owned.len() } else { 1 };
        let squares = card.room(Element::F64, count)?;
        let of = |at: usize, len: usize| Span::of(&squares, Element::F64, at, len);
        let Some((ranks, shards)) = &mut self.among else {
            card.sum_of_squares(places.all(grads, Element::F32)?, of(0, 1)?)?;
            return Ok(card.read::<f64>(of(0, 1)?)?[0].sqrt());
        };
        // Tensor by tensor, so that it does not matter who has which.
        for (at, &index) in self.owned.iter().enumerate() {
            card.sum_of_squares(places.span(grads, Element::F32, index)?, of(at, 1)?)?;
        }
        ranks.norm(&card.read::<f64>(of(0, count)?)?, shards)
    }

    /// From the gradients of the ranks to new weights everywhere: the norm, by what it was clipped, and
    /// whether it was applied.
    fn share_out(
        &mut self,
        finite: bool,
        lr: f64,
    ) -> Result<(f64, Option<f64>, bool), EngineError> {
        let sum = Rc::clone(&self.sums[0]);
        if let Some((ranks, shards)) = &mut self.among {
            let mut grads = spans(&self.engine.places, &sum.block, Element::F32)?;
            ranks.reduce_to_owners(&mut grads, shards)?;
        }
        let norm = self.norm()?;
        let clipped = self.settings.grad_clip.and_then(|limit| clip_scale(norm, limit));
        let applied = finite && norm.is_finite();
        if applied {
            self.fetched = None;
            let (card, places) = (&self.engine.run.card, &self.engine.places);
            let trained = Trained {
                owned: &self.owned,
                places,
                weights: &self.weights,
                grads: &sum.block,
                master: self.master.as_ref().map(|block| (block, &self.owned_places)),
            };
            self.optimizer.step(card, &trained, lr, clipped.unwrap_or(1.0))?;
            if let Some((ranks, shards)) = &mut self.among {
                let mut weights = spans(places, &self.weights, Element::Bf16)?;
                ranks.gather_from_owners(&mut weights, shards)?;
            }
        }
        Ok((norm, clipped, applied))
    }

    /// Brings what is trained of the owned tensors to this process's memory, with their optimizer.
    fn fetch(&self) -> Result<(Vec<Vec<f32>>, Optimizer), CudaError> {
        let (card, places) = (&self.engine.run.card, &self.engine.places);
        let values = match &self.master {
            Some(master) => self.owned_places.read(card, master, Element::F32)?,
            None => self
                .owned
                .iter()
                .map(|&index| places.read_one(card, &self.weights, Element::Bf16, index))
                .collect::<Result<_, _>>()?,
        };
        let shapes: Vec<_> = self.owned.iter().map(|&index| places.shape(index).clone()).collect();
        let empty = Optimizer::new(&self.of_optimizer, &shapes);
        Ok((values, self.optimizer.fetch(card, &self.owned_places, empty)?))
    }
}

impl Learner for CudaLearner {
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let outcome = self.gradients(input);
        // The hosts' memory must not be filled anew while the card reads it.
        let waited = self.engine.run.card.synchronize();
        let outcome = outcome.and_then(|outputs| Ok(waited.map(|()| outputs)?));
        let (row_sums, finite) = self.agree(outcome)?;
        let loss = row_sums.iter().sum::<f64>() / input.denominator;
        let moved = self.share_out(finite, input.lr);
        if let (Err(_), Some((ranks, _))) = (&moved, &mut self.among) {
            // The others may be anywhere in this.
            ranks.leave();
        }
        let (norm, clipped, applied) = moved?;
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
        if self.among.is_some() {
            // No rank has all of it; see `part`.
            return Ok(None);
        }
        if self.fetched.is_none() {
            let (values, optimizer) = self.fetch()?;
            self.fetched = Some((Params::from_values(&self.engine.config, values), optimizer));
        }
        Ok(self.fetched.as_ref().map(|(params, optimizer)| (params, optimizer)))
    }
}

impl RankLearner for CudaLearner {
    fn part(&mut self) -> Result<RankPart, EngineError> {
        let (values, optimizer) = self.fetch()?;
        let tensors = self.owned.iter().copied().zip(values.into_iter().map(Arc::new)).collect();
        Ok(RankPart { tensors, optimizer })
    }
}

fn spans<'a>(
    places: &Places,
    block: &'a Block,
    element: Element,
) -> Result<Vec<Span<'a>>, CudaError> {
    (0..places.len()).map(|index| places.span(block, element, index)).collect()
}
