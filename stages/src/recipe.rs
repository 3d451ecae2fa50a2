//! A recipe: every number that decides a run.

use crate::{Epochs, LearningRate};
use coda_curriculum::{Clocks, Curriculum, HoldRule, Progress};
use coda_manifests::{Cuda, Engine, MasterWeights, Overlong, Profile, Recompute, Stage, Xla};
use serde::{Deserialize, Serialize};

/// Everything that decides a run, with nothing left to defaults. Made by [`Recipe::resolve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The manifest's name.
    pub name: String,
    /// The stage.
    pub stage: Stage,
    /// Whose method.
    pub profile: Profile,
    /// Seed of every random draw.
    pub seed: u64,
    /// Optimizer steps of the run.
    pub total_steps: u64,
    /// How steps are counted into epochs.
    pub epochs: Epochs,
    /// Rows per step.
    pub global_batch: u32,
    /// Rows per forward and backward pass; `None`: as many as the engine takes.
    pub micro_batch: Option<u32>,
    /// Tokens per row (L).
    pub row_length: u32,
    /// Masking and noise over the run.
    pub curriculum: Curriculum,
    /// The optimizer with its constants.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over the run.
    pub lr: LearningRate,
    /// Largest norm of the whole gradient; `None`: no clipping.
    pub grad_clip: Option<f64>,
    /// Whether tokens attend only inside their own document.
    pub document_attention: bool,
    /// Whether pads may be masked, and then are scored, while S2 is off.
    pub score_pads: bool,
    /// What happens to conversations longer than a row.
    pub overlong: Overlong,
    /// The Hugging Face folder whose weights training starts from, as the manifest writes it.
    pub init: Option<String>,
    /// The shape of the model; `None`: that of `init`.
    pub model: Option<ModelShape>,
    /// The engine asked for.
    pub engine: Engine,
    /// Which activations are computed again.
    pub recompute: Recompute,
    /// What only the CUDA engine reads.
    #[serde(default)]
    pub cuda: Cuda,
    /// What only the XLA engine reads.
    #[serde(default)]
    pub xla: Xla,
    /// Precision of the weights that the optimizer updates.
    pub master_weights: MasterWeights,
    /// Steps between evaluations; 0: only at start and end.
    pub eval_every: u64,
    /// Micro-batches per evaluation.
    pub eval_batches: u32,
    /// Whether the held-out loss is also measured under S1, S2 and S3.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eval_by_strategy: bool,
    /// Noise levels of the likelihood bound that evaluations measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_nll_levels: Option<u32>,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: u64,
    /// How many checkpoints are kept.
    pub checkpoint_keep: u32,
    /// Steps between two lines of plain progress.
    pub log_every: u64,
}

/// The shape of a model (method §1), in the names of the Hugging Face configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Width of the residual stream (D).
    pub hidden_size: u32,
    /// Number of layers.
    pub num_hidden_layers: u32,
    /// Inner width of the feed-forward network.
    pub intermediate_size: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads.
    pub num_key_value_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Rows of the embedding (V).
    pub vocab_size: u32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon of every `RMSNorm`.
    pub rms_norm_eps: f64,
    /// Whether the head shares the embedding's weights.
    pub tie_word_embeddings: bool,
}

/// An optimizer with its constants (method §5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerRecipe {
    /// Relative step, parameter scale and first moment are off.
    Adafactor {
        /// Added to squared gradients.
        eps: f64,
        /// Largest root mean square of an update.
        clip_threshold: f64,
        /// `beta2 = 1 - step^decay_rate`.
        decay_rate: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay.
    Adamw {
        /// Decay of the first and the second moment.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
}

impl Recipe {
    /// The learning rate of step `step`, counted from 0.
    #[must_use]
    pub fn lr_at(&self, step: u64) -> f64 {
        self.lr.at(step, self.total_steps)
    }

    /// What the curriculum's schedules read before step `step`, counted from 0.
    #[must_use]
    pub fn progress(&self, step: u64) -> Progress {
        Progress {
            step,
            total_steps: self.total_steps,
            epoch: self.epochs.at(step, self.total_steps, self.global_batch),
        }
    }

    /// The schedules that wait for a held-out loss.
    #[must_use]
    pub fn holds(&self) -> Vec<HoldRule> {
        self.curriculum.holds(self.total_steps, &|step| self.progress(step))
    }

    /// The curriculum at a step, at which the schedules with a hold have these clocks.
    #[must_use]
    pub fn curriculum_at(&self, clocks: &Clocks) -> Curriculum {
        self.curriculum.at(clocks, &|clock| self.progress(clock))
    }

    /// Steps per epoch, where it is known.
    #[must_use]
    pub fn steps_per_epoch(&self) -> Option<f64> {
        self.epochs.steps_per_epoch(self.total_steps, self.global_batch)
    }

    /// Tokens that one step reads.
    #[must_use]
    pub fn tokens_per_step(&self) -> u64 {
        u64::from(self.global_batch) * u64::from(self.row_length)
    }
}
