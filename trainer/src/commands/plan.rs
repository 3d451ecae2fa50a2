//! `coda-trainer plan`: what a run takes, before it is started.

use super::{
    ahead::{Ahead, AheadArgs},
    gpu::{Calculated, GpuArgs},
    inputs::{ManifestArgs, init_path, recipe_failure},
};
use crate::{
    fit::{micro_batch, optimizer_settings, starting_shape},
    model::{ModelConfig, layout},
    optim::Optimizer,
    parallel::lanes,
};
use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_manifests::Recompute;
use coda_shards::Specials;
use coda_stages::Recipe;
use serde::Serialize;
use std::{fmt::Write as _, path::PathBuf, time::Duration};

/// The options of a plan.
#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// A checkpoint, Hugging Face directory or run whose shape to take.
    #[arg(long, value_name = "CHECKPOINT")]
    init: Option<PathBuf>,
    /// Floating-point operations per second that the machine really does; gives the time.
    #[arg(long, value_name = "N")]
    flops_per_second: Option<f64>,
    /// Rows that may be trained on, for manifests that count in epochs when there is no shard set.
    #[arg(long, value_name = "N")]
    train_rows: Option<u64>,
    #[command(flatten)]
    ahead: AheadArgs,
    #[command(flatten)]
    gpu: GpuArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Planned {
    parameters: u64,
    steps: u64,
    tokens_per_step: u64,
    tokens: u64,
    micro_batch: u32,
    flops_per_step: f64,
    flops: f64,
    memory: Memory,
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<Ahead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<Calculated>,
}

/// Bytes.
#[derive(Debug, PartialEq, Serialize)]
struct Memory {
    weights: u64,
    /// As many as the pieces of a batch take to be summed ([`lanes`]).
    gradients: u64,
    optimizer: u64,
    /// An estimate.
    activations: u64,
    total: u64,
}

impl Plan {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let manifest = self.manifest.load(&self.ahead.overrides())?;
        let recipe =
            Recipe::resolve(&manifest, self.train_rows).map_err(|error| recipe_failure(&error))?;
        let init = init_path(&manifest, &recipe, self.init.as_deref())?;
        // The ids of control tokens do not matter here.
        let specials = Specials { eos: 0, pad: 0, mask: 0 };
        let config = starting_shape(&recipe, init.as_deref(), specials)?.ok_or_else(|| {
            Failure::usage("the manifest says nothing about the model")
                .hint("give --init CHECKPOINT, model.init or the keys of model")
        })?;
        config.check().map_err(|error| Failure::usage(error.to_string()))?;
        let mut planned = planned(&recipe, &config, self.flops_per_second);
        planned.ahead = self.ahead.run(&config, &recipe)?;
        planned.gpu = self.gpu.run(&config, &recipe, planned.memory.optimizer)?;
        if self.json {
            print_json(&planned)?;
        } else {
            print_text(&planned.text())?;
        }
        Ok(Exit::Done)
    }
}

fn planned(recipe: &Recipe, config: &ModelConfig, speed: Option<f64>) -> Planned {
    let parameters = config.parameters();
    let tokens_per_step = recipe.tokens_per_step();
    let flops_per_step = tokens_per_step as f64 * flops_per_token(recipe, config);
    let flops = flops_per_step * recipe.total_steps as f64;
    let weights = 4 * parameters;
    let optimizer = Optimizer::state_bytes(&optimizer_settings(&recipe.optimizer), &layout(config));
    let activations = activation_bytes(recipe, config);
    let pieces = recipe.global_batch.div_ceil(micro_batch(recipe)) as usize;
    let gradients = lanes::buffers(pieces, 1) as u64 * weights;
    Planned {
        parameters,
        steps: recipe.total_steps,
        tokens_per_step,
        tokens: tokens_per_step * recipe.total_steps,
        micro_batch: micro_batch(recipe),
        flops_per_step,
        flops,
        memory: Memory {
            weights,
            gradients,
            optimizer,
            activations,
            total: weights + gradients + optimizer + activations,
        },
        seconds: speed.map(|speed| flops / speed),
        ahead: None,
        gpu: None,
    }
}

/// Forward and backward: three times two operations per weight of a matrix, and attention's two
/// products over the whole row. The head counts in full although only scored positions use it;
/// recomputation adds one more forward through the layers.
fn flops_per_token(recipe: &Recipe, config: &ModelConfig) -> f64 {
    let body = config.layer_matrices();
    let head = config.vocab_size * config.hidden_size;
    let row = recipe.row_length as usize;
    let attention = 2 * row * config.query_width() * config.num_hidden_layers;
    let passes = if recipe.recompute == Recompute::Layer { 4.0 } else { 3.0 };
    passes * 2.0 * (body + attention) as f64 + 3.0 * 2.0 * head as f64
}

/// What the forward pass keeps of a micro-batch, in f32: per layer and token the inputs of its
/// matrices and norms; with recomputation only each layer's input and one layer in full.
fn activation_bytes(recipe: &Recipe, config: &ModelConfig) -> u64 {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let layer = 4 * d + 3 * config.query_width() + 3 * config.kv_width() + 3 * f;
    let layers = config.num_hidden_layers;
    let per_token = match recipe.recompute {
        Recompute::None | Recompute::Pointwise => layers * layer,
        Recompute::Layer => layers * d + layer,
    };
    let tokens = u64::from(micro_batch(recipe)) * u64::from(recipe.row_length);
    4 * tokens * (per_token + 2 * d) as u64
}

impl Planned {
    fn text(&self) -> String {
        let memory = &self.memory;
        let mut text = format!(
            "parameters     {}\n\
             steps          {} of {} tokens, {} tokens in all\n\
             work           {:.3e} floating-point operations per step, {:.3e} in all\n\
             memory         {} = weights {} + gradients {} + optimizer {} + activations about {} \
             (micro-batch {})\n",
            human::count(self.parameters),
            self.steps,
            human::count(self.tokens_per_step),
            human::count(self.tokens),
            self.flops_per_step,
            self.flops,
            human::bytes(memory.total),
            human::bytes(memory.weights),
            human::bytes(memory.gradients),
            human::bytes(memory.optimizer),
            human::bytes(memory.activations),
            self.micro_batch,
        );
        if let Some(seconds) = self.seconds {
            let time = Duration::from_secs_f64(seconds);
            let _ = writeln!(text, "time           {}", human::duration(time));
        }
        if let Some(ahead) = &self.ahead {
            text += &ahead.text();
        }
        if let Some(gpu) = &self.gpu {
            text += &gpu.text();
        }
        text
    }
}
