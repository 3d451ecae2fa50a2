//! Data parallel training: several ranks hold the same weights, take different rows, and share the
//! optimizer's state among them (ZeRO-1, Rajbhandari et al., 2020).
//!
//! A step of a rank: the gradient of its pieces of the batch; each tensor's sum over the ranks goes to
//! the rank that owns it ([`Shards`]); the owner clips it by the norm of the whole and moves the tensor;
//! the new values go to everybody. A [`Collective`] carries what ranks tell each other,
//! [`channels`] is the one among threads of a process, the CUDA engine has one among cards;
//! [`ParallelLearner`] runs a rank in each thread.
//!
//! **The number of ranks changes no bit.** Sums over rows have one shape, a tree that [`lanes`]
//! describes and that belongs to the batch: a rank sums a subtree, the collective the rest of it. All
//! else is done by one rank for a whole tensor, or is the same arithmetic on every rank.

mod channels;
pub mod lanes;
mod learner;
mod shards;

pub use channels::{Channels, channels};
pub use learner::{ParallelLearner, RankLearner, RankPart, RankStart};
pub use shards::Shards;

use crate::engine::EngineError;
use thiserror::Error;

/// What ranks do together. All of them have to call the same methods in the same order.
pub trait Collective {
    /// A tensor's values, where this backend reads and writes them.
    type Tensor<'a>;

    /// Why it could not be done.
    type Error: From<ParallelError>;

    /// The place of this rank.
    fn rank(&self) -> usize;

    /// How many there are: a power of two, [`lanes::LANES`] at most.
    fn ranks(&self) -> usize;

    /// Makes every tensor that this rank owns the sum over all ranks, pairs of neighbours first, then
    /// pairs of pairs. What the others have of it is undefined then.
    ///
    /// # Errors
    /// If a rank is gone, or the backend fails.
    fn reduce_to_owners(
        &mut self,
        tensors: &mut [Self::Tensor<'_>],
        shards: &Shards,
    ) -> Result<(), Self::Error>;

    /// Makes every tensor what its owner has.
    ///
    /// # Errors
    /// As [`Collective::reduce_to_owners`].
    fn gather_from_owners(
        &mut self,
        tensors: &mut [Self::Tensor<'_>],
        shards: &Shards,
    ) -> Result<(), Self::Error>;

    /// The numbers of every rank, in the order of the ranks. As all wait for all, this is a barrier too.
    ///
    /// # Errors
    /// As [`Collective::reduce_to_owners`].
    fn numbers(&mut self, own: &[f64]) -> Result<Vec<Vec<f64>>, Self::Error>;

    /// Tells each other whether every rank has its gradients, for nobody may wait for those of a rank that
    /// has none: what this rank made, and whether the sums of all ranks' losses are finite.
    ///
    /// # Errors
    /// Why this rank has none, that another has none, and as [`Collective::numbers`].
    fn agree<T>(
        &mut self,
        outcome: Result<T, EngineError>,
        losses: f64,
    ) -> Result<(T, bool), EngineError>
    where
        Self::Error: Into<EngineError>,
    {
        let own = [f64::from(u8::from(outcome.is_ok())), losses];
        let of_ranks = self.numbers(&own).map_err(Into::into)?;
        let made = outcome?;
        let done = |numbers: &Vec<f64>| numbers.first().is_some_and(|&done| done > 0.0);
        if let Some(rank) = of_ranks.iter().position(|numbers| !done(numbers)) {
            return Err(ParallelError::Part(rank).into());
        }
        Ok((made, of_ranks.iter().flatten().all(|number| number.is_finite())))
    }

    /// The Euclidean norm of the whole gradient, from the squared norms of the tensors that this rank owns.
    ///
    /// # Errors
    /// As [`Collective::numbers`].
    fn norm(&mut self, squares: &[f64], shards: &Shards) -> Result<f64, Self::Error> {
        let of_ranks = self.numbers(squares)?;
        Ok(shards.in_order(&of_ranks)?.iter().sum::<f64>().sqrt())
    }
}

/// A rank that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    type Tensor<'a> = &'a mut [f32];
    type Error = ParallelError;

    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn reduce_to_owners(&mut self, _: &mut [&mut [f32]], _: &Shards) -> Result<(), ParallelError> {
        Ok(())
    }

    fn gather_from_owners(
        &mut self,
        _: &mut [&mut [f32]],
        _: &Shards,
    ) -> Result<(), ParallelError> {
        Ok(())
    }

    fn numbers(&mut self, own: &[f64]) -> Result<Vec<Vec<f64>>, ParallelError> {
        Ok(vec![own.to_vec()])
    }
}

/// Why ranks cannot work together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParallelError {
    /// A number of ranks that the order of sums is not made for.
    #[error("{0} ranks cannot share a step: it takes 1, 2, 4 or 8")]
    Ranks(usize),
    /// There is less to do than there are ranks.
    #[error("the batch has only {pieces} pieces for {ranks} ranks")]
    Pieces {
        /// Pieces of the global batch.
        pieces: usize,
        /// Ranks that want one each.
        ranks: usize,
    },
    /// Another rank could not do its part of a step, and has told why itself.
    #[error("rank {0} could not do its part of the step")]
    Part(usize),
    /// A rank has ended before the others.
    #[error("rank {0} is gone")]
    Gone(usize),
    /// Ranks that do not do the same.
    #[error("rank {rank} sent {found} where {wanted} was expected")]
    Apart {
        /// The rank that sent it.
        rank: usize,
        /// What came.
        found: String,
        /// What should have come.
        wanted: String,
    },
    /// A rank's thread could not be started.
    #[error("rank {rank} cannot be started: {problem}")]
    Thread {
        /// The rank.
        rank: usize,
        /// What the system says.
        problem: String,
    },
    /// An optimizer's state that cannot be divided or put together.
    #[error("{0}")]
    State(String),
}

impl ParallelError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ranks(_) => Some("give --ranks one of these numbers".to_owned()),
            Self::Pieces { .. } => Some(
                "lower train.micro_batch, or raise train.global_batch, so that every rank gets a \
                 piece; or use fewer ranks"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
