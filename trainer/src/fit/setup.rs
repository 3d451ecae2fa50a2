//! Where a run begins: a checkpoint of its own, another model, or fresh weights.

use super::{FitOptions, Job, METRICS_FILE, holds::HoldStates};
use crate::{
    checkpoint::{Found, HfWeights, Store},
    model::{ModelConfig, Params},
    optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings},
};
use coda_cli::{Exit, Failure};
use coda_manifests::Stage;
use coda_shards::{
    Specials,
    commit::{FileError, write_atomic},
};
use coda_stages::{ModelShape, OptimizerRecipe, Recipe};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether to go on from a checkpoint in the run's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Resume {
    /// From the newest whole one, if there is one; it must be of the same recipe and shard set.
    #[default]
    Auto,
    /// Begin anew; what is there is moved aside.
    Never,
    /// From the newest whole one, even if recipe or shard set have changed.
    Force,
}

/// A model that cannot be trained on these rows.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct SetupError {
    problem: String,
    hint: String,
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::incompatible(error.problem).hint(error.hint)
    }
}

pub(super) struct Begin {
    pub(super) config: ModelConfig,
    pub(super) params: Params,
    pub(super) optimizer: Optimizer,
    pub(super) step: u64,
    pub(super) holds: HoldStates,
    pub(super) resumed_from: Option<PathBuf>,
}

/// Gets the run's folder ready. Of several processes only the first may.
pub(super) fn prepare(job: &Job<'_>, options: &FitOptions, store: &Store) -> Result<(), Failure> {
    store.prepare()?;
    if options.resume == Resume::Never {
        move_aside(&options.out, store)?;
        store.prepare()?;
    } else if options.resume == Resume::Auto
        && let Some(found) = store.newest(|_| {})?
    {
        check_identity(job, &found)?;
    }
    let description = serde_json::to_string_pretty(&job.description).expect("plain data") + "\n";
    write_atomic(&options.out.join("run.json"), |out| out.write_all(description.as_bytes()))
        .map_err(|error| Failure::from_error(Exit::Io, &error))
}

/// Finds out where the run begins, from a folder that is ready. `say` is told what is worth knowing.
pub(super) fn begin(
    job: &Job<'_>,
    options: &FitOptions,
    store: &Store,
    say: impl Fn(&str),
) -> Result<Begin, Failure> {
    let found = match options.resume {
        Resume::Never => None,
        Resume::Auto | Resume::Force => store.newest(&say)?,
    };
    if let (Resume::Auto, Some(found)) = (options.resume, &found) {
        check_identity(job, found)?;
    }
    let settings = optimizer_settings(&job.recipe.optimizer);
    if let Some(found) = found {
        // Names and shapes are those of the checkpoint's own config.
        let config = HfWeights::open(&found.dir)?.config().clone();
        let mut optimizer = Optimizer::new(&settings, &crate::model::layout(&config));
        let (config, params) = found.restore(&mut optimizer)?;
        let step = found.run.step;
        say(&format!("resuming at step {step} from {}", found.dir.display()));
        // Before the first step everything is measured anew.
        let holds = if step > 0 { found.run.holds } else { HoldStates::new() };
        return Ok(Begin { config, params, optimizer, step, holds, resumed_from: Some(found.dir) });
    }
    let (config, params) = (job.model)()?;
    let optimizer = Optimizer::new(&settings, params.layout());
    let holds = HoldStates::new();
    Ok(Begin { config, params, optimizer, step: 0, holds, resumed_from: None })
}

fn check_identity(job: &Job<'_>, found: &Found) -> Result<(), Failure> {
    let differences = job.identity.differences(&found.run.identity);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::incompatible(format!(
        "{} is a checkpoint of another run: {}",
        found.dir.display(),
        differences.join("; ")
    ))
    .hint(
        "give the same values again, or another --out; --resume never begins anew (the old run is \
         moved aside), --resume force goes on all the same, --init takes only the weights",
    ))
}

/// Gives checkpoints, metrics and events of an earlier run other names.
fn move_aside(out: &Path, store: &Store) -> Result<(), Failure> {
    if store.steps()?.is_empty() && !out.join(METRICS_FILE).exists() {
        return Ok(());
    }
    let aside = (1..=u32::MAX)
        .map(|n| out.join(format!("before-{n}")))
        .find(|path| !path.exists())
        .expect("some name is free");
    let failed = |error| Failure::from_error(Exit::Io, &FileError::new("move", out, error));
    fs::create_dir(&aside).map_err(failed)?;
    for name in ["checkpoints", METRICS_FILE, "tb", "run.json"] {
        if out.join(name).exists() {
            fs::rename(out.join(name), aside.join(name)).map_err(failed)?;
        }
    }
    eprintln!("the run that was here is now in {}", aside.display());
    Ok(())
}

/// The optimizer of a recipe.
#[must_use]
pub(crate) fn optimizer_settings(recipe: &OptimizerRecipe) -> OptimizerSettings {
    match *recipe {
        OptimizerRecipe::Adafactor { eps, clip_threshold, decay_rate, weight_decay } => {
            OptimizerSettings::Adafactor(AdafactorSettings {
                eps,
                clip_threshold,
                decay_rate,
                weight_decay,
            })
        }
        OptimizerRecipe::Adamw { betas: [beta1, beta2], eps, weight_decay } => {
            OptimizerSettings::AdamW(AdamWSettings { beta1, beta2, eps, weight_decay })
        }
    }
}

/// The shape of the model that a run begins with, without its weights; None if neither recipe nor `init`
/// says it.
///
/// # Errors
/// If the checkpoint cannot be read.
pub(crate) fn starting_shape(
    recipe: &Recipe,
    init: Option<&Path>,
    specials: Specials,
) -> Result<Option<ModelConfig>, Failure> {
    Ok(match (recipe.model, init) {
        (Some(shape), _) => Some(model_config(&shape, specials)),
        (None, Some(path)) => Some(HfWeights::open(&Store::locate(path)?)?.config().clone()),
        (None, None) => None,
    })
}

/// The model that a run begins with: that of `init`, held against the recipe's shape, or fresh
/// weights of that shape.
///
/// # Errors
/// If there is neither, the checkpoint cannot be read, or it does not fit the recipe or the rows.
pub fn starting_model(
    recipe: &Recipe,
    init: Option<&Path>,
    specials: Specials,
) -> Result<(ModelConfig, Params), Failure> {
    let shape = recipe.model.map(|shape| model_config(&shape, specials));
    let (config, params) = match (init, shape) {
        (Some(path), shape) => {
            let dir = Store::locate(path)?;
            let (mut config, mut params) = HfWeights::open(&dir)?.read()?;
            config.mask_token_id = Some(specials.mask);
            if let Some(shape) = shape {
                same_shape(&config, &shape, &dir)?;
                // The released model's head is its own although the model it began with is tied.
                if config.tie_word_embeddings && !shape.tie_word_embeddings {
                    params.untie();
                    config.tie_word_embeddings = false;
                }
            }
            (config, params)
        }
        (None, Some(config)) => {
            check_vocabulary(&config, specials)?;
            config.check().map_err(|error| Failure::usage(error.to_string()))?;
            if recipe.stage != Stage::Pre {
                eprintln!(
                    "note: no --init and no model.init, so this stage begins with fresh weights"
                );
            }
            let params = Params::init(&config, recipe.seed);
            (config, params)
        }
        (None, None) => {
            return Err(Failure::usage("there is no model to begin with")
                .hint("give --init CHECKPOINT, model.init or the keys of model"));
        }
    };
    check_vocabulary(&config, specials)?;
    Ok((config, params))
}

/// A recipe's shape with the mask id of the rows.
fn model_config(shape: &ModelShape, specials: Specials) -> ModelConfig {
    ModelConfig {
        hidden_size: shape.hidden_size as usize,
        num_hidden_layers: shape.num_hidden_layers as usize,
        intermediate_size: shape.intermediate_size as usize,
        num_attention_heads: shape.num_attention_heads as usize,
        num_key_value_heads: shape.num_key_value_heads as usize,
        head_dim: shape.head_dim as usize,
        vocab_size: shape.vocab_size as usize,
        rope_theta: shape.rope_theta,
        rms_norm_eps: shape.rms_norm_eps,
        tie_word_embeddings: shape.tie_word_embeddings,
        mask_token_id: Some(specials.mask),
    }
}

fn check_vocabulary(config: &ModelConfig, specials: Specials) -> Result<(), SetupError> {
    let highest = specials.mask.max(specials.eos).max(specials.pad);
    if (highest as usize) < config.vocab_size {
        return Ok(());
    }
    Err(SetupError {
        problem: format!(
            "the shard set uses id {highest}, the model has only {} rows in its embedding",
            config.vocab_size
        ),
        hint: "raise model.vocab_size, or take the tokenizer that the model goes with".to_owned(),
    })
}

fn same_shape(found: &ModelConfig, asked: &ModelConfig, dir: &Path) -> Result<(), SetupError> {
    let numbers = |c: &ModelConfig| {
        [
            ("hidden_size", c.hidden_size),
            ("num_hidden_layers", c.num_hidden_layers),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("num_key_value_heads", c.num_key_value_heads),
            ("head_dim", c.head_dim),
            ("vocab_size", c.vocab_size),
        ]
    };
    let differs: Vec<String> = numbers(found)
        .into_iter()
        .zip(numbers(asked))
        .filter(|(found, asked)| found != asked)
        .map(|((name, found), (_, asked))| format!("{name} is {found}, the manifest says {asked}"))
        .collect();
    if differs.is_empty() {
        return Ok(());
    }
    Err(SetupError {
        problem: format!(
            "the model in {} has another shape: {}",
            dir.display(),
            differs.join("; ")
        ),
        hint: "leave model's shape out of the manifest, or give the checkpoint's".to_owned(),
    })
}
