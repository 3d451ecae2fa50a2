//! From a manifest to a recipe.

use crate::defaults::{BLOCK_SIZES, Defaults, MODEL, SAMPLING_EPS, Span, Warmup, defaults};
use crate::{Epochs, LearningRate, ModelShape, OptimizerRecipe, Recipe, length};
use coda_curriculum::{Curriculum, CurriculumError};
use coda_manifests::{ConditionedSpan, Manifest, Model, Optimizer, OptimizerKind, Schedule, Train};

/// Why a manifest is no recipe.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The length of the run is counted in epochs, and nobody knows how long one is.
    #[error("train.epochs: {epochs} epochs cannot be counted without the shard set's rows")]
    NeedsRows {
        /// The epochs asked for.
        epochs: f64,
    },
    /// A schedule changes by epoch, and nobody knows how long one is.
    #[error("curriculum.{key}: it changes by epoch, and no one says how long an epoch is")]
    NeedsEpochs {
        /// The key below `curriculum`.
        key: &'static str,
    },
    /// The shard set has nothing to train on.
    #[error("the shard set has no rows to train on")]
    NoRows,
    /// A value that does not fit the rest.
    #[error("{key}: {message}")]
    Value {
        /// The manifest key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The curriculum cannot be drawn from.
    #[error(transparent)]
    Curriculum(#[from] CurriculumError),
}

impl RecipeError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NeedsRows { .. } => {
                Some("ingest first, or give train.steps as well as train.epochs".to_owned())
            }
            Self::NeedsEpochs { .. } => Some(
                "ingest first, or give train.epochs: they are equal parts of the run".to_owned(),
            ),
            Self::NoRows => Some("lower data.held_out or ingest more".to_owned()),
            Self::Value { .. } => Some("docs/manifest.md lists each stage's defaults".to_owned()),
            Self::Curriculum(error) => error.hint(),
        }
    }
}

impl Recipe {
    /// Fills in what the manifest leaves to its stage and profile. `rows` are the rows that the
    /// shard set has for training, without those held out; `None` when there is no shard set yet.
    ///
    /// # Errors
    /// If the run's length or epochs depend on rows that are not known, if there are no rows, or if
    /// values of the manifest do not fit those of the stage.
    pub fn resolve(manifest: &Manifest, rows: Option<u64>) -> Result<Self, RecipeError> {
        if rows == Some(0) {
            return Err(RecipeError::NoRows);
        }
        let train = &manifest.train;
        let defaults = defaults(manifest.stage, manifest.profile);
        let global_batch = train.global_batch.unwrap_or(defaults.global_batch);
        if let Some(micro) =
            train.micro_batch.filter(|&micro| !global_batch.is_multiple_of(micro.max(1)))
        {
            let message = format!("{micro} does not divide global_batch, {global_batch}");
            return Err(RecipeError::Value { key: "train.micro_batch", message });
        }
        let (total_steps, epochs) =
            length::length(train, defaults.steps, defaults.epochs, global_batch, rows)?;
        let score_pads = train.score_pads.unwrap_or(true);
        // Counted in epochs, the run has exactly as many as were asked for.
        let asked = train.epochs.or(defaults.epochs.filter(|_| train.steps.is_none()));
        let ratio = asked.map_or_else(
            || first_epoch(epochs, total_steps, global_batch),
            |epochs| (1.0 / epochs).min(1.0),
        );
        let curriculum = Curriculum { score_pads, ..curriculum(manifest, &defaults, ratio) };
        curriculum.check()?;
        if epochs == Epochs::Unknown {
            needs_no_epochs(&curriculum)?;
        }
        let tenth = (total_steps / 10).max(1);
        let grad_clip = train.grad_clip.unwrap_or(defaults.grad_clip);
        Ok(Self {
            name: manifest.name.clone(),
            stage: manifest.stage,
            profile: manifest.profile,
            seed: manifest.seed,
            total_steps,
            epochs,
            global_batch,
            micro_batch: train.micro_batch,
            row_length: manifest.data.row_length,
            curriculum,
            optimizer: optimizer(train.optimizer.as_ref(), defaults.optimizer)?,
            lr: learning_rate(train, &defaults, total_steps)?,
            grad_clip: (grad_clip > 0.0).then_some(grad_clip),
            document_attention: train.document_attention.unwrap_or(defaults.document_attention),
            score_pads,
            overlong: manifest.overlong(),
            init: manifest.model.as_ref().and_then(|model| model.init.clone()),
            model: model(manifest.model.as_ref()),
            engine: train.engine,
            recompute: train.recompute,
            cuda: train.cuda,
            xla: train.xla,
            master_weights: train.master_weights,
            eval_every: train.eval.every.unwrap_or(tenth),
            eval_batches: train.eval.batches.unwrap_or(8),
            eval_by_strategy: train.eval.by_strategy,
            eval_nll_levels: train.eval.nll_levels,
            checkpoint_every: train.checkpoint.every.unwrap_or(tenth),
            checkpoint_keep: train.checkpoint.keep.unwrap_or(2),
            log_every: train.log_every.unwrap_or(10),
        })
    }
}

/// `R` such that the conditioned span opens over the first epoch of a run counted in steps. Where
/// nobody knows an epoch: a tenth, as over the ten epochs of method §5.
fn first_epoch(epochs: Epochs, total_steps: u64, global_batch: u32) -> f64 {
    epochs
        .steps_per_epoch(total_steps, global_batch)
        .map_or(0.1, |steps| (steps / total_steps as f64).min(1.0))
}

fn curriculum(manifest: &Manifest, defaults: &Defaults, first_epoch: f64) -> Curriculum {
    let given = &manifest.curriculum;
    let [p1, p2, p3] = defaults.strategies.clone();
    let conditioned_span = given.conditioned_span.unwrap_or(match defaults.span {
        Span::Fixed(span) => span,
        Span::FirstEpoch => ConditionedSpan::Ratio(first_epoch),
    });
    Curriculum {
        profile: manifest.profile,
        seed: manifest.seed,
        p1: given.p1.clone().unwrap_or(p1),
        p2: given.p2.clone().unwrap_or(p2),
        p3: given.p3.clone().unwrap_or(p3),
        block_sizes: given
            .block_sizes
            .clone()
            .unwrap_or_else(|| Schedule::Constant(BLOCK_SIZES.to_vec())),
        mask_blocks: given.mask_blocks.unwrap_or_default(),
        sampling_eps: given.sampling_eps.clone().unwrap_or(Schedule::Constant(SAMPLING_EPS)),
        conditioned_span,
        score_pads: true,
        sources: given.sources.clone(),
    }
}

fn needs_no_epochs(curriculum: &Curriculum) -> Result<(), RecipeError> {
    let reads = [
        ("p1", curriculum.p1.reads_epochs()),
        ("p2", curriculum.p2.reads_epochs()),
        ("p3", curriculum.p3.reads_epochs()),
        ("block_sizes", curriculum.block_sizes.reads_epochs()),
        ("sampling_eps", curriculum.sampling_eps.reads_epochs()),
    ];
    match reads.into_iter().find(|(_, reads)| *reads) {
        Some((key, _)) => Err(RecipeError::NeedsEpochs { key }),
        None => curriculum
            .sources
            .keys()
            .try_for_each(|name| needs_no_epochs(&curriculum.of_source(name))),
    }
}

fn optimizer(
    given: Option<&Optimizer>,
    default: OptimizerKind,
) -> Result<OptimizerRecipe, RecipeError> {
    let none = Optimizer::default();
    let given = given.unwrap_or(&none);
    let kind = given.kind.unwrap_or(default);
    let (name, foreign) = match kind {
        OptimizerKind::Adafactor => {
            ("adafactor", [("train.optimizer.betas", given.betas.is_some()), ("", false)])
        }
        OptimizerKind::Adamw => (
            "adamw",
            [
                ("train.optimizer.decay_rate", given.decay_rate.is_some()),
                ("train.optimizer.clip_threshold", given.clip_threshold.is_some()),
            ],
        ),
    };
    if let Some((key, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(RecipeError::Value { key, message: format!("{name} has no such setting") });
    }
    let weight_decay = given.weight_decay.unwrap_or(0.0);
    Ok(match kind {
        OptimizerKind::Adafactor => OptimizerRecipe::Adafactor {
            eps: given.eps.unwrap_or(1e-30),
            clip_threshold: given.clip_threshold.unwrap_or(1.0),
            decay_rate: given.decay_rate.unwrap_or(-0.8),
            weight_decay,
        },
        OptimizerKind::Adamw => OptimizerRecipe::Adamw {
            betas: given.betas.unwrap_or([0.9, 0.999]),
            eps: given.eps.unwrap_or(1e-8),
            weight_decay,
        },
    })
}

fn learning_rate(
    train: &Train,
    defaults: &Defaults,
    total_steps: u64,
) -> Result<LearningRate, RecipeError> {
    let given = train.lr.clone().unwrap_or_default();
    let warmup_steps = match (given.warmup_steps, given.warmup_ratio, defaults.warmup) {
        (Some(steps), ..) => steps,
        (None, Some(ratio), _) | (None, None, Warmup::Ratio(ratio)) => share(total_steps, ratio),
        // A warm-up made for a long run must not swallow a short one.
        (None, None, Warmup::Steps(steps)) => steps.min(total_steps / 10),
    };
    if warmup_steps > total_steps {
        let message = format!("{warmup_steps} are more than the {total_steps} steps of the run");
        return Err(RecipeError::Value { key: "train.lr.warmup_steps", message });
    }
    Ok(LearningRate {
        peak: given.peak.unwrap_or(defaults.peak),
        schedule: given.schedule.unwrap_or(defaults.schedule),
        warmup_steps,
        min_ratio: given.min_ratio.unwrap_or(0.0),
    })
}

/// A share of the steps, rounded up as the Hugging Face trainer does.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the steps is at most all of them, and not negative"
)]
fn share(total_steps: u64, ratio: f64) -> u64 {
    (total_steps as f64 * ratio).ceil() as u64
}

fn model(given: Option<&Model>) -> Option<ModelShape> {
    let none = Model::default();
    let given = given.unwrap_or(&none);
    if given.init.is_some() && given.hidden_size.is_none() {
        return None;
    }
    // The manifest has checked that a shape is given as a whole or not at all.
    Some(ModelShape {
        hidden_size: given.hidden_size.unwrap_or(MODEL.hidden_size),
        num_hidden_layers: given.num_hidden_layers.unwrap_or(MODEL.num_hidden_layers),
        intermediate_size: given.intermediate_size.unwrap_or(MODEL.intermediate_size),
        num_attention_heads: given.num_attention_heads.unwrap_or(MODEL.num_attention_heads),
        num_key_value_heads: given.num_key_value_heads.unwrap_or(MODEL.num_key_value_heads),
        head_dim: given.head_dim.unwrap_or(MODEL.head_dim),
        vocab_size: given.vocab_size.unwrap_or(MODEL.vocab_size),
        rope_theta: given.rope_theta.unwrap_or(MODEL.rope_theta),
        rms_norm_eps: given.rms_norm_eps.unwrap_or(MODEL.rms_norm_eps),
        tie_word_embeddings: given.tie_word_embeddings.unwrap_or(MODEL.tie_word_embeddings),
    })
}
