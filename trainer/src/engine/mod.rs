//! Engines: what turns a batch into a loss and gradients.
//!
//! All engines read the same [`Batch`], work on the same [`Params`] and are held to the same
//! references: [`CpuEngine`], [`cuda::CudaEngine`] and [`xla::XlaEngine`].

mod cpu;
mod cpu_decoder;
pub mod cuda;
mod decoder;
mod learner;
pub mod xla;

pub use cpu::CpuEngine;
pub use cpu_decoder::CpuDecoder;
pub use decoder::{Decoder, Span, Uncached, decoder_of};
pub use learner::{HostLearner, Learner, LearnerSettings, StepInput, StepOutput};

use crate::model::{Grads, Params};
use thiserror::Error;

/// Rows of one forward pass. All lists are row-major `[rows, len]` unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of rows (B).
    pub rows: usize,
    /// Tokens per row (L).
    pub len: usize,
    /// The clean ids, after truncation (S2): the targets.
    pub input_ids: Vec<u32>,
    /// What the model sees. A position is scored when this is the mask id and the position is not
    /// the first of its row (method §2).
    pub noised_ids: Vec<u32>,
    /// The noise level of each row `[rows]`; a scored token weighs `1 / sigma`.
    pub sigma: Vec<f64>,
    /// The document each token belongs to, never falling within a row; tokens attend only inside
    /// their document. Absent: every token attends to its whole row.
    pub segment_ids: Option<Vec<u32>>,
}

/// The loss of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LossOutput {
    /// The sum of the weighted cross entropies of each row `[rows]`, not yet divided. The rows beside
    /// it change a row's value by rounding at most: products of other sizes may take other kernels.
    pub row_sums: Vec<f64>,
    /// Number of scored tokens.
    pub scored: u64,
    /// The sum of `row_sums` in order, divided by the denominator.
    pub loss: f64,
}

/// Why an engine could not run a batch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The batch does not fit itself or the model.
    #[error("the batch is malformed: {0}")]
    Batch(String),
    /// The tape failed, which on the CPU means that memory ran out.
    #[error("the backward pass failed: {0}")]
    Tape(String),
    /// Model, batch and device mesh do not fit together.
    #[error("the device mesh does not fit: {0}")]
    Mesh(String),
    /// The processes of a run cannot work together on one mesh.
    #[error("{0}")]
    Processes(String),
    /// The processes of a run have lost each other.
    #[error(transparent)]
    Launch(#[from] crate::launch::LaunchError),
    /// The ranks of a run cannot work together.
    #[error(transparent)]
    Parallel(#[from] crate::parallel::ParallelError),
    /// What one of several ranks has met.
    #[error("rank {rank}: {error}")]
    OfRank {
        /// The rank, whose card is that of the same number.
        rank: usize,
        /// Its error.
        error: Box<EngineError>,
    },
    /// A plugin refused a program or its arguments.
    #[error(transparent)]
    Xla(Box<coda_pjrt::PjrtError>),
    /// A card refused something.
    #[error(transparent)]
    Cuda(Box<coda_cuda::CudaError>),
    /// A model that the CUDA engine has no kernels for.
    #[error("the cuda engine cannot run this model: {0}")]
    CudaShape(String),
}

impl EngineError {
    /// The error itself, whichever rank has met it.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::OfRank { error, .. } => error.cause(),
            other => other,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OfRank { error, .. } => error.hint(),
            Self::Mesh(_) => Some(
                "choose train.xla.mesh.{data,fsdp,tensor}, train.global_batch and \
                 train.micro_batch so that they divide evenly"
                    .to_owned(),
            ),
            Self::Processes(_) => Some(
                "several processes need a plugin for GPUs or TPUs; with --rehearse each of them computes \
                 everything, to try them on the CPU plugin"
                    .to_owned(),
            ),
            Self::Launch(error) => error.hint(),
            Self::Parallel(error) => error.hint(),
            Self::Xla(error) => error.hint(),
            Self::Cuda(error) => error.hint(),
            Self::CudaShape(_) => Some("use --engine cpu".to_owned()),
            Self::Batch(_) | Self::Tape(_) => None,
        }
    }
}

impl From<coda_cuda::CudaError> for EngineError {
    fn from(error: coda_cuda::CudaError) -> Self {
        Self::Cuda(Box::new(error))
    }
}

/// Runs the model.
pub trait Engine {
    /// The loss of a batch, with its gradients *added* to `grads`.
    ///
    /// `loss = (1 / denominator) · Σ scored · CE / sigma` (method §2); `denominator` is the number
    /// of tokens of the *global* batch, so the gradients of its parts add up.
    ///
    /// # Errors
    /// If the batch is malformed or memory runs out.
    fn loss_and_grads(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        grads: &mut Grads,
    ) -> Result<LossOutput, EngineError>;

    /// The loss alone.
    ///
    /// # Errors
    /// As [`Engine::loss_and_grads`].
    fn loss(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError>;

    /// Logits `[positions, V]` as the model puts them out, *unshifted*: the output at position
    /// `j - 1` predicts token `j`. `positions` index into the flattened `[rows, len]`; absent means
    /// all of them, in order.
    ///
    /// # Errors
    /// If the ids are malformed or memory runs out.
    fn logits(
        &mut self,
        params: &Params,
        ids: &Ids<'_>,
        positions: Option<&[usize]>,
    ) -> Result<Vec<f32>, EngineError>;

    /// What samples from these parameters with kept keys and values, if the engine has it; without it
    /// [`Uncached`] runs whole rows.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn decoder(&mut self, _: &Params) -> Result<Option<Box<dyn Decoder>>, EngineError> {
        Ok(None)
    }
}

/// Token ids to run the model on.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a> {
    /// Number of rows (B).
    pub rows: usize,
    /// Tokens per row (L).
    pub len: usize,
    /// The ids `[rows, len]`.
    pub ids: &'a [u32],
    /// As [`Batch::segment_ids`].
    pub segment_ids: Option<&'a [u32]>,
}

impl Batch {
    /// What the model sees of this batch.
    #[must_use]
    pub fn noised(&self) -> Ids<'_> {
        Ids {
            rows: self.rows,
            len: self.len,
            ids: &self.noised_ids,
            segment_ids: self.segment_ids.as_deref(),
        }
    }

    /// The tokens of a row that count, by their place in the flattened batch: noised to the mask id and
    /// not the first of the row (method §2).
    pub(crate) fn scored_tokens(&self, row: usize, mask_id: u32) -> impl Iterator<Item = usize> {
        let tokens = row * self.len + 1..(row + 1) * self.len;
        tokens.filter(move |&token| self.noised_ids[token] == mask_id)
    }

    /// The id that a scored token is to be.
    pub(crate) fn target(&self, token: usize, vocab: usize) -> Result<u32, EngineError> {
        match self.input_ids[token] {
            target if (target as usize) < vocab => Ok(target),
            target => Err(EngineError::Batch(format!(
                "target {target} is not below the vocabulary's {vocab}"
            ))),
        }
    }

    /// Refuses lists of the wrong length and noise levels that are no probability above 0.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let tokens = self.rows * self.len;
        if self.input_ids.len() != tokens || self.sigma.len() != self.rows {
            return Err(EngineError::Batch(format!(
                "{} rows of {} tokens need {tokens} ids and {} sigmas, found {} and {}",
                self.rows,
                self.len,
                self.rows,
                self.input_ids.len(),
                self.sigma.len()
            )));
        }
        if let Some(sigma) = self.sigma.iter().find(|&&s| !(s > 0.0 && s <= 1.0)) {
            return Err(EngineError::Batch(format!("sigma {sigma} is not in (0, 1]")));
        }
        Ok(())
    }
}

impl Ids<'_> {
    /// Refuses places that are no token's.
    pub(crate) fn check_positions(&self, positions: &[usize]) -> Result<(), EngineError> {
        let tokens = self.rows * self.len;
        match positions.iter().find(|&&place| place >= tokens) {
            Some(at) => Err(EngineError::Batch(format!("position {at} of {tokens} tokens"))),
            None => Ok(()),
        }
    }

    pub(crate) fn check(&self, vocab: usize) -> Result<(), EngineError> {
        let tokens = self.rows * self.len;
        if self.ids.len() != tokens || tokens == 0 {
            return Err(EngineError::Batch(format!(
                "{} rows of {} tokens need {tokens} ids (and at least one), found {}",
                self.rows,
                self.len,
                self.ids.len()
            )));
        }
        if let Some(at) = self.ids.iter().position(|&id| id as usize >= vocab) {
            return Err(EngineError::Batch(format!(
                "id {} at row {}, position {} is not below the vocabulary's {vocab}",
                self.ids[at],
                at / self.len,
                at % self.len
            )));
        }
        let Some(segments) = self.segment_ids else { return Ok(()) };
        let falls = |row: &[u32]| row.windows(2).any(|pair| pair[1] < pair[0]);
        if segments.len() != tokens || segments.chunks(self.len).any(falls) {
            return Err(EngineError::Batch(
                "segment ids must be one a token and never fall within a row".into(),
            ));
        }
        Ok(())
    }
}
