//! The learner of several ranks, each in a thread of its own.

use super::{Channels, Collective as _, ParallelError, Shards, channels, lanes, shards::whole};
use crate::{
    engine::{Batch, EngineError, Learner, LossOutput, StepInput, StepOutput},
    model::Params,
    optim::{Optimizer, OptimizerSettings, TensorShape},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// The stack of a rank's thread: that of a main thread.
const STACK: usize = 8 << 20;

/// Something that a rank is to do.
type Work = Box<dyn FnOnce(&mut dyn RankLearner) + Send>;

/// What a rank begins with.
pub struct RankStart {
    /// All parameters.
    pub params: Params,
    /// The optimizer of the tensors that the rank owns.
    pub part: Optimizer,
    /// The owners of all tensors.
    pub shards: Shards,
    /// The way to the other ranks.
    pub channels: Channels,
}

impl RankStart {
    /// The rank's place.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.channels.rank()
    }
}

/// The learner of a rank: it computes whatever pieces it is given and takes part in the collective at
/// every step.
pub trait RankLearner: Learner {
    /// What the rank has of the tensors that it owns.
    ///
    /// # Errors
    /// If it cannot be fetched from where it lives.
    fn part(&mut self) -> Result<RankPart, EngineError>;
}

/// The tensors that a rank owns, and the optimizer's state of them.
pub struct RankPart {
    /// Each by its place in the model's layout.
    pub tensors: Vec<(usize, Arc<Vec<f32>>)>,
    /// The optimizer.
    pub optimizer: Optimizer,
}

/// Trains a model on several ranks of this process.
pub struct ParallelLearner {
    ranks: Vec<Rank>,
    settings: OptimizerSettings,
    layout: Vec<TensorShape>,
    rows_at_once: usize,
    /// Parameters and optimizer put together, if they are those of the ranks.
    fetched: Option<(Params, Optimizer)>,
}

struct Rank {
    /// Dropped so that the thread ends.
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl ParallelLearner {
    /// Starts the ranks. `rows_at_once` is the size of the pieces that a batch is made of. `open` makes
    /// the learner of a rank, in its thread.
    ///
    /// # Errors
    /// If there are not 1, 2, 4 or 8 ranks, a thread cannot be started, or a rank cannot open its
    /// engine.
    pub fn start<F>(
        ranks: usize,
        params: Params,
        optimizer: Optimizer,
        settings: &OptimizerSettings,
        rows_at_once: usize,
        open: F,
    ) -> Result<Self, EngineError>
    where
        F: FnOnce(RankStart) -> Result<Box<dyn RankLearner>, EngineError> + Clone + Send + 'static,
    {
        let layout = params.layout().to_vec();
        let shards = Shards::balanced(&layout, ranks)?;
        let mut started = Vec::with_capacity(ranks);
        let mut opened = Vec::with_capacity(ranks);
        for (rank, channels) in channels(ranks)?.into_iter().enumerate() {
            let part = shards.part(rank, &optimizer, settings, &layout)?;
            let (params, shards, open) = (params.clone(), shards.clone(), open.clone());
            let begin = RankStart { params, part, shards, channels };
            let (rank, told) = Rank::start(rank, move || open(begin))?;
            started.push(rank);
            opened.push(told);
        }
        for (rank, opened) in opened.into_iter().enumerate() {
            opened.recv().map_err(|_| ParallelError::Gone(rank))??;
        }
        Ok(Self {
            ranks: started,
            settings: settings.clone(),
            layout,
            rows_at_once,
            fetched: Some((params, optimizer)),
        })
    }

    /// Puts work before a rank; what comes of it can be received.
    fn ask<T: Send + 'static>(
        &self,
        rank: usize,
        work: impl FnOnce(&mut dyn RankLearner) -> T + Send + 'static,
    ) -> Result<Receiver<T>, ParallelError> {
        let (done, answer) = channel();
        // Nobody may want the answer any more.
        let work = move |learner: &mut dyn RankLearner| drop(done.send(work(learner)));
        let sender = self.ranks[rank].work.as_ref().ok_or(ParallelError::Gone(rank))?;
        sender.send(Box::new(work)).map_err(|_| ParallelError::Gone(rank))?;
        Ok(answer)
    }

    /// Puts work before all ranks and waits for all of them: the first error, if possible one of a
    /// rank's own.
    fn ask_all<T, W>(&self, work: impl Fn(usize) -> W) -> Result<Vec<T>, EngineError>
    where
        T: Send + 'static,
        W: FnOnce(&mut dyn RankLearner) -> Result<T, EngineError> + Send + 'static,
    {
        let asked: Vec<_> = (0..self.ranks.len()).map(|rank| self.ask(rank, work(rank))).collect();
        let answers = asked.into_iter().enumerate().map(|(rank, answer)| match answer?.recv() {
            Ok(answer) => answer,
            Err(_) => Err(ParallelError::Gone(rank).into()),
        });
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for answer in answers.collect::<Vec<_>>() {
            match answer {
                Ok(answer) => done.push(answer),
                Err(error) => failed.push(error),
            }
        }
        // A rank that could not do its part knows why; the others know only that it could not.
        let own = failed.iter().position(|error| {
            !matches!(error, EngineError::Parallel(ParallelError::Part(_) | ParallelError::Gone(_)))
        });
        if failed.is_empty() { Ok(done) } else { Err(failed.swap_remove(own.unwrap_or(0))) }
    }

    fn fetch(&self) -> Result<(Params, Optimizer), EngineError> {
        let parts = self.ask_all(|_| |learner: &mut dyn RankLearner| learner.part())?;
        let steps = parts.first().map_or(0, |part| part.optimizer.steps());
        let mut values: Vec<Option<Arc<Vec<f32>>>> = vec![None; self.layout.len()];
        let mut state = HashMap::new();
        for part in parts {
            for (tensor, of_tensor) in part.tensors {
                values[tensor] = Some(of_tensor);
            }
            let owned = part.optimizer.state().into_iter();
            state.extend(owned.map(|tensor| (tensor.name, tensor.values.to_vec())));
        }
        let values: Option<Vec<_>> = values.into_iter().collect();
        let missing = || ParallelError::State("no rank has one of the tensors".to_owned());
        let params = Params::from_shared(self.layout.clone(), values.ok_or_else(missing)?);
        Ok((params, whole(steps, state, &self.settings, &self.layout)?))
    }
}

impl Learner for ParallelLearner {
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let StepInput { batches, mask_id, denominator, lr } = *input;
        let pieces = lanes::pieces_of_ranks(batches.len(), self.ranks.len())?;
        // The first rank's parameters are to be its own while it changes them.
        self.fetched = None;
        let parts = self.ask_all(|rank| {
            let own = batches[pieces[rank].clone()].to_vec();
            move |learner: &mut dyn RankLearner| {
                learner.step(&StepInput { batches: &own, mask_id, denominator, lr })
            }
        })?;
        let row_sums: Vec<f64> = parts.iter().flat_map(|part| &part.row_sums).copied().collect();
        let loss = row_sums.iter().sum::<f64>() / denominator;
        let first = parts.into_iter().next().ok_or(ParallelError::Gone(0))?;
        Ok(StepOutput { row_sums, loss, ..first })
    }

    fn loss(
        &mut self,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let batch = batch.clone();
        let work = move |learner: &mut dyn RankLearner| learner.loss(&batch, mask_id, denominator);
        self.ask(0, work)?.recv().map_err(|_| ParallelError::Gone(0))?
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        if self.fetched.is_none() {
            self.fetched = Some(self.fetch()?);
        }
        Ok(self.fetched.as_ref().map(|(params, optimizer)| (params, optimizer)))
    }
}

impl Rank {
    /// Starts a rank's thread; whether it could open its learner can be received.
    #[allow(clippy::type_complexity, reason = "a rank, and what it says first")]
    fn start(
        rank: usize,
        open: impl FnOnce() -> Result<Box<dyn RankLearner>, EngineError> + Send + 'static,
    ) -> Result<(Self, Receiver<Result<(), EngineError>>), ParallelError> {
        let (work, list) = channel::<Work>();
        let (told, opened) = channel();
        let run = move || {
            let mut learner = match open() {
                Ok(learner) => learner,
                Err(error) => return drop(told.send(Err(error))),
            };
            drop(told.send(Ok(())));
            for work in list {
                work(learner.as_mut());
            }
        };
        let thread = thread::Builder::new()
            .name(format!("rank {rank}"))
            .stack_size(STACK)
            .spawn(run)
            .map_err(|error| ParallelError::Thread { rank, problem: error.to_string() })?;
        Ok((Self { work: Some(work), thread: Some(thread) }, opened))
    }
}

impl Drop for ParallelLearner {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            rank.work = None;
        }
        for thread in self.ranks.iter_mut().filter_map(|rank| rank.thread.take()) {
            // A rank that panicked has said so on its own.
            drop(thread.join());
        }
    }
}
