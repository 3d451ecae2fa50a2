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
    time::{Duration, Instant},
};

/// The stack of a rank's thread: that of a main thread.
const STACK: usize = 8 << 20;

/// How long the others may take to end when a rank has failed. They see it within milliseconds; a
/// driver that does not come back may not keep the failure from being told.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let mut learner = Self {
            ranks: Vec::with_capacity(ranks),
            settings: settings.clone(),
            layout,
            rows_at_once,
            fetched: None,
        };
        let (told, opened) = channel();
        for (rank, channels) in channels(ranks)?.into_iter().enumerate() {
            let part = shards.part(rank, &optimizer, settings, &learner.layout)?;
            let (params, shards, open) = (params.clone(), shards.clone(), open.clone());
            let begin = RankStart { params, part, shards, channels };
            let answer = Answer::to(rank, &told);
            learner.ranks.push(Rank::start(rank, move || open(begin), answer)?);
        }
        learner.all_of(&opened)?;
        learner.fetched = Some((params, optimizer));
        Ok(learner)
    }

    /// Puts work before a rank, which answers.
    fn ask<T: Send + 'static>(
        &self,
        rank: usize,
        answer: Answer<T>,
        work: impl FnOnce(&mut dyn RankLearner) -> Result<T, EngineError> + Send + 'static,
    ) {
        let work = move |learner: &mut dyn RankLearner| answer.give(work(learner));
        if let Some(sender) = &self.ranks[rank].work {
            // What cannot be put before it is dropped, and the answer with it, which tells so.
            drop(sender.send(Box::new(work)));
        }
    }

    /// Puts work before all ranks and waits for all of them: the first error, if possible one of a
    /// rank's own.
    fn ask_all<T, W>(&mut self, work: impl Fn(usize) -> W) -> Result<Vec<T>, EngineError>
    where
        T: Send + 'static,
        W: FnOnce(&mut dyn RankLearner) -> Result<T, EngineError> + Send + 'static,
    {
        let (told, answers) = channel();
        for rank in 0..self.ranks.len() {
            self.ask(rank, Answer::to(rank, &told), work(rank));
        }
        self.all_of(&answers)
    }

    /// What all ranks answer, as [`ParallelLearner::ask_all`] says. After an error the others have
    /// [`PATIENCE`]; who does not answer then is left to itself.
    fn all_of<T>(
        &mut self,
        answers: &Receiver<(usize, Result<T, EngineError>)>,
    ) -> Result<Vec<T>, EngineError> {
        let mut of_ranks: Vec<Option<Result<T, EngineError>>> = Vec::new();
        of_ranks.resize_with(self.ranks.len(), || None);
        let mut until = None;
        while of_ranks.iter().any(Option::is_none) {
            let answer = match until {
                None => answers.recv().ok(),
                Some(until) => {
                    let left = Instant::saturating_duration_since(&until, Instant::now());
                    answers.recv_timeout(left).ok()
                }
            };
            let Some((rank, answer)) = answer else { break };
            if answer.is_err() {
                until.get_or_insert_with(|| Instant::now() + PATIENCE);
            }
            of_ranks[rank] = Some(answer);
        }
        let ranks = of_ranks.len();
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (rank, answer) in of_ranks.into_iter().enumerate() {
            match answer {
                Some(Ok(answer)) => done.push(answer),
                Some(Err(error)) => failed.push((rank, error)),
                None => {
                    self.ranks[rank] = Rank { work: None, thread: None };
                    failed.push((rank, ParallelError::Gone(rank).into()));
                }
            }
        }
        // A rank that could not do its part knows why; the others know only that it could not.
        let own = failed.iter().position(|(_, error)| {
            !matches!(error, EngineError::Parallel(ParallelError::Part(_) | ParallelError::Gone(_)))
        });
        match own {
            _ if failed.is_empty() => Ok(done),
            Some(own) if ranks > 1 => {
                let (rank, error) = failed.swap_remove(own);
                Err(EngineError::OfRank { rank, error: Box::new(error) })
            }
            own => Err(failed.swap_remove(own.unwrap_or(0)).1),
        }
    }

    fn fetch(&mut self) -> Result<(Params, Optimizer), EngineError> {
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
        let (told, answer) = channel();
        let work = move |learner: &mut dyn RankLearner| learner.loss(&batch, mask_id, denominator);
        self.ask(0, Answer::to(0, &told), work);
        answer.recv().map_err(|_| ParallelError::Gone(0))?.1
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        if self.fetched.is_none() {
            self.fetched = Some(self.fetch()?);
        }
        Ok(self.fetched.as_ref().map(|(params, optimizer)| (params, optimizer)))
    }
}

impl Rank {
    /// Starts a rank's thread; it answers whether it could open its learner.
    fn start(
        rank: usize,
        open: impl FnOnce() -> Result<Box<dyn RankLearner>, EngineError> + Send + 'static,
        answer: Answer<()>,
    ) -> Result<Self, ParallelError> {
        let (work, list) = channel::<Work>();
        let run = move || {
            let mut learner = match open() {
                Ok(learner) => learner,
                Err(error) => return answer.give(Err(error)),
            };
            answer.give(Ok(()));
            for work in list {
                work(learner.as_mut());
            }
        };
        let thread = thread::Builder::new()
            .name(format!("rank {rank}"))
            .stack_size(STACK)
            .spawn(run)
            .map_err(|error| ParallelError::Thread { rank, problem: error.to_string() })?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }
}

/// What a rank owes: it is given once, or when this is dropped, as by a panic: that the rank is gone.
struct Answer<T> {
    rank: usize,
    to: Option<Sender<(usize, Result<T, EngineError>)>>,
}

impl<T> Answer<T> {
    fn to(rank: usize, to: &Sender<(usize, Result<T, EngineError>)>) -> Self {
        Self { rank, to: Some(to.clone()) }
    }

    fn give(mut self, answer: Result<T, EngineError>) {
        if let Some(to) = self.to.take() {
            // Nobody may want it any more.
            drop(to.send((self.rank, answer)));
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            drop(to.send((self.rank, Err(ParallelError::Gone(self.rank).into()))));
        }
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
