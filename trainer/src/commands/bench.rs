//! `coda-trainer bench`: training steps on made-up rows, timed.

use super::{
    engines::EngineArgs,
    inputs::{ManifestArgs, init_path, recipe_failure},
};
use crate::{
    engine::{Batch, EngineError, Learner, StepInput, xla::Processes},
    fit::{optimizer_settings, starting_shape},
    forecast::{Card, Job},
    model::{ModelConfig, Params, layout},
    optim::Optimizer,
};
use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_manifests::MasterWeights;
use coda_random::{Purpose, Stream};
use coda_shards::Specials;
use coda_stages::Recipe;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, time::Instant};

/// The options of a measurement.
#[derive(Args)]
pub(super) struct Bench {
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Tokens per row, one or several: each is measured by itself.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    lengths: Vec<u32>,
    /// Tokens of one forward and backward pass; rows of greater length pass one at a time.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    tokens: u32,
    /// Passes whose gradients are added up before the optimizer's step.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Steps that are timed.
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..))]
    timed: u32,
    /// Steps before them: kernels are compiled, sizes planned, memory taken.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    warm_up: u32,
    /// Tokens of a document; 0: every row is one, so that attention spans it.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    documents: u32,
    /// Operations per second that count as all of the device, for the share that is reached (MFU). Known
    /// cards have their makers' figure.
    #[arg(long, value_name = "N")]
    peak: Option<f64>,
    /// Also tell what one more step on a card spends its time on.
    #[arg(long)]
    timeline: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    engine: &'static str,
    device: Option<String>,
    parameters: u64,
    optimizer: &'static str,
    lengths: Vec<Timing>,
}

/// At one length of rows.
#[derive(Debug, Serialize)]
struct Timing {
    length: u32,
    rows_per_pass: u32,
    passes: u32,
    /// Tokens of a step.
    tokens: u64,
    /// Tokens that are scored.
    scored: u64,
    /// Seconds of each step.
    seconds: Vec<f64>,
    /// Their median.
    median: f64,
    tokens_per_second: f64,
    /// Operations of the model a second; see docs/scaling.md for what counts.
    flops: f64,
    /// Their share of the peak.
    mfu: Option<f64>,
    /// Bytes of a card's memory: the most in use, and held.
    memory: Option<[u64; 2]>,
    /// The loss of the last step, to see that it is a number.
    loss: f64,
    /// Operations of one step with their number and seconds, longest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<(String, u32, f64)>,
}

impl Bench {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let manifest = self.manifest.load(&self.engine.overrides())?;
        self.engine.check(manifest.train.engine)?;
        // How many rows there are does not matter: steps are made up.
        let recipe =
            Recipe::resolve(&manifest, Some(1 << 20)).map_err(|error| recipe_failure(&error))?;
        let specials = Specials { eos: 0, pad: 0, mask: 0 };
        let init = init_path(&manifest, &recipe, None)?;
        let config = starting_shape(&recipe, init.as_deref(), specials)?.ok_or_else(|| {
            Failure::usage("the manifest says nothing about the model")
                .hint("give model.init or the keys of model")
        })?;
        config.check().map_err(|error| Failure::usage(error.to_string()))?;
        let lengths =
            if self.lengths.is_empty() { vec![recipe.row_length] } else { self.lengths.clone() };
        let mut measured = Measured {
            engine: self.engine.name(manifest.train.engine, Some(&config)),
            device: None,
            parameters: config.parameters(),
            optimizer: Optimizer::new(&optimizer_settings(&recipe.optimizer), &[]).kind(),
            lengths: Vec::new(),
        };
        let params = Params::init(&config, recipe.seed);
        for length in lengths {
            let rows = (self.tokens / length.max(1)).max(1);
            let recipe = Recipe {
                row_length: length,
                micro_batch: Some(rows),
                global_batch: rows * self.passes,
                ..recipe.clone()
            };
            measured.lengths.push(self.measure(&recipe, &config, &params, &mut measured.device)?);
        }
        if self.json {
            print_json(&measured)?;
        } else {
            print_text(&measured.text())?;
        }
        Ok(Exit::Done)
    }

    fn measure(
        &self,
        recipe: &Recipe,
        config: &ModelConfig,
        params: &Params,
        device: &mut Option<String>,
    ) -> Result<Timing, Failure> {
        let of_optimizer = optimizer_settings(&recipe.optimizer);
        let optimizer = Optimizer::new(&of_optimizer, params.layout());
        let mut learner = self.engine.learner(
            recipe,
            config,
            params.clone(),
            optimizer,
            &Processes::alone(),
            None,
        )?;
        let batches: Vec<Batch> = (0..self.passes)
            .map(|pass| rows_of_noise(recipe, config, pass, self.documents))
            .collect();
        let scored: u64 = batches.iter().map(scored_tokens).sum();
        let tokens = recipe.tokens_per_step();
        let failed = |error: EngineError| {
            Failure::from_error(Exit::Incompatible, &error).maybe_hint(error.hint())
        };
        let lr = recipe.lr.peak;
        let step = |learner: &mut dyn Learner| {
            let denominator = tokens as f64;
            let input = StepInput { batches: &batches, mask_id: MASK, denominator, lr };
            let output = learner.step(&input).map_err(failed)?;
            wait(learner).map_err(failed)?;
            Ok::<f64, Failure>(output.loss)
        };
        for _ in 0..self.warm_up {
            step(&mut *learner)?;
        }
        let mut loss = 0.0;
        let mut seconds = Vec::new();
        for _ in 0..self.timed {
            let started = Instant::now();
            loss = step(&mut *learner)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        let mut timeline = Vec::new();
        if self.timeline
            && let Some(card) =
                learner.cuda().map(|learner| learner.engine().card().stream().clone())
        {
            let refused = |error: coda_cuda::CudaError| failed(error.into());
            card.start_timeline().map_err(refused)?;
            step(&mut *learner)?;
            timeline = by_operation(card.stop_timeline().map_err(refused)?);
        }
        let info = learner.cuda().map(|learner| learner.engine().info().clone());
        let known = info.as_ref().and_then(|info| Card::of_device(&info.name, info.memory));
        let peak = self.peak.or(known.map(|card| card.flops));
        *device = info.map(|info| info.name);
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        // What a token reads is what counts: its row, or its document.
        let reach = match self.documents {
            0 => recipe.row_length,
            documents => documents.min(recipe.row_length),
        };
        let job = Job {
            model: config,
            global_batch: recipe.global_batch,
            row_length: reach,
            optimizer_state: Optimizer::state_bytes(&of_optimizer, &layout(config)),
            master: recipe.master_weights == MasterWeights::F32,
            scored: scored as f64 / tokens as f64,
            cards: 1,
        };
        let flops = tokens as f64 * job.model_flops_per_token() / median;
        Ok(Timing {
            length: recipe.row_length,
            rows_per_pass: recipe.global_batch / self.passes,
            passes: self.passes,
            tokens,
            scored,
            seconds,
            median,
            tokens_per_second: tokens as f64 / median,
            flops,
            mfu: peak.map(|peak| flops / peak),
            memory: learner.cuda().map(|learner| [learner.usage().peak, learner.usage().held]),
            loss,
            timeline,
        })
    }
}

/// The id that stands for a mask in made-up rows.
const MASK: u32 = 0;

/// Waits until a card is done with what the step queued.
fn wait(learner: &dyn Learner) -> Result<(), EngineError> {
    match learner.cuda() {
        Some(learner) => Ok(learner.engine().card().synchronize()?),
        None => Ok(()),
    }
}

/// Rows of even noise: every id is as likely, every second token is masked.
fn rows_of_noise(recipe: &Recipe, config: &ModelConfig, pass: u32, documents: u32) -> Batch {
    let rows = recipe.micro_batch.unwrap_or(1) as usize;
    let len = recipe.row_length as usize;
    let mut draws = vec![0; rows * len];
    Stream::new(recipe.seed, u64::from(pass), 0, Purpose::TokenMask).fill(0, &mut draws);
    let vocabulary = u32::try_from(config.vocab_size).unwrap_or(u32::MAX);
    let input_ids: Vec<u32> = draws.iter().map(|draw| 1 + (draw >> 1) % (vocabulary - 1)).collect();
    let masked = |(draw, id): (&u32, &u32)| if draw & 1 == 1 { MASK } else { *id };
    let document = |at: usize| u32::try_from(at % len).unwrap_or(u32::MAX) / documents.max(1);
    Batch {
        rows,
        len,
        noised_ids: draws.iter().zip(&input_ids).map(masked).collect(),
        sigma: vec![0.5; rows],
        segment_ids: (documents > 0).then(|| (0..rows * len).map(document).collect()),
        input_ids,
    }
}

fn scored_tokens(batch: &Batch) -> u64 {
    (0..batch.rows).map(|row| batch.scored_tokens(row, MASK).count() as u64).sum()
}

fn by_operation(timed: Vec<coda_cuda::Timed>) -> Vec<(String, u32, f64)> {
    let mut sums: BTreeMap<String, (u32, f64)> = BTreeMap::new();
    for coda_cuda::Timed { name, seconds } in timed {
        let (count, sum) = sums.entry(name.into_owned()).or_default();
        *count += 1;
        *sum += seconds;
    }
    let mut sums: Vec<_> = sums.into_iter().map(|(name, (n, sum))| (name, n, sum)).collect();
    sums.sort_by(|a, b| b.2.total_cmp(&a.2));
    sums
}

impl Measured {
    fn text(&self) -> String {
        let device = self.device.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
        let mut text = format!(
            "{} parameters, {}, engine {}{device}\n\
             length  rows  passes  step       tokens/s    TFLOP/s    MFU  memory\n",
            human::count(self.parameters),
            self.optimizer,
            self.engine,
        );
        for of in &self.lengths {
            let mfu = of.mfu.map_or("      ".to_owned(), |mfu| format!("{:5.1}%", 100.0 * mfu));
            let memory = of.memory.map(|[peak, _]| human::bytes(peak)).unwrap_or_default();
            let _ = writeln!(
                text,
                "{:>6}  {:>4}  {:>6}  {:<9} {:>9.0}  {:>9.1}  {mfu}  {memory}",
                of.length,
                of.rows_per_pass,
                of.passes,
                format!("{:.4} s", of.median),
                of.tokens_per_second,
                of.flops / 1e12,
            );
        }
        for of in self.lengths.iter().filter(|of| !of.timeline.is_empty()) {
            let total: f64 = of.timeline.iter().map(|(_, _, seconds)| seconds).sum();
            let _ = writeln!(text, "\none step at length {}: {:.1} ms", of.length, 1e3 * total);
            for (name, count, seconds) in &of.timeline {
                let share = 100.0 * seconds / total;
                let _ =
                    writeln!(text, "{:>9.3} ms {share:>5.1}%  {count:>5} x {name}", 1e3 * seconds);
            }
        }
        text
    }
}
