//! The fit loop: batches, gradients, clipping, a step, metrics, checkpoints, until the end or a
//! signal.

mod eval;
mod holds;
mod lock;
mod nll;
mod peers;
mod pieces;
mod report;
mod setup;
mod step;

pub use eval::{LossOf, held_out_loss};
pub use holds::HoldStates;
pub use nll::{BytesOf, bytes_by_tokenizer, nll_bound};
pub use report::Summary;
pub use setup::{Resume, SetupError, starting_model};
pub(crate) use setup::{optimizer_settings, starting_shape};
pub(crate) use step::{feed_failure, shard_exit};

use crate::{
    checkpoint::{
        CheckpointManifest, Identity, RunState, Store, TokenizerFiles, export_model,
        save_checkpoint,
    },
    engine::{EngineError, Learner},
    feed::{Feed, FeedError, HeldOutRows},
    launch::Group,
    metrics::{EventWriter, MetricsFile, StepMetrics, Watch},
    model::{ModelConfig, Params},
    optim::Optimizer,
};
use coda_cli::{Exit, Failure, ProgressArgs, signals::Stop};
use coda_manifests::HeldOutLoss;
use coda_shards::commit::FileError;
use coda_stages::Recipe;
use eval::{Shared, measure};
use holds::Holds;
use peers::Peers;
use pieces::Pieces;
use report::Reporter;
use serde_json::Value;
use setup::{Begin, begin, prepare};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use step::Stepped;

/// The metrics of a run, in its folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// The model of a finished run, in its folder: a plain Hugging Face directory.
pub const FINAL_DIR: &str = "final";

/// Gives the model to begin with.
pub type ModelSource<'a> = dyn Fn() -> Result<(ModelConfig, Params), Failure> + 'a;
/// Gives what trains a model, from the parameters and the optimizer it begins with.
pub type LearnerSource<'a> =
    dyn Fn(&ModelConfig, Params, Optimizer) -> Result<Box<dyn Learner>, Failure> + 'a;

/// What a run is made of.
pub struct Job<'a> {
    /// Everything that decides the run.
    pub recipe: &'a Recipe,
    /// Its rows.
    pub feed: &'a Feed,
    /// What a checkpoint must agree with.
    pub identity: Identity,
    /// What is written to `run.json` of the run's folder.
    pub description: Value,
    /// The model to begin with, asked for only when no checkpoint is resumed.
    pub model: &'a ModelSource<'a>,
    /// What trains it.
    pub learner: &'a LearnerSource<'a>,
}

/// How to run it.
#[derive(Clone)]
pub struct FitOptions {
    /// The run's folder.
    pub out: PathBuf,
    /// Whether to go on from a checkpoint in it.
    pub resume: Resume,
    /// Leave, with a checkpoint, after this many steps of the whole run.
    pub stop_after: Option<u64>,
    /// How to show progress.
    pub progress: ProgressArgs,
    /// Signals.
    pub stop: Stop,
    /// The processes that train together; all have to see the run's folder.
    pub group: Arc<Group>,
}

/// Trains. Returns the summary, and how the process should exit. Of several processes only the first
/// writes and speaks, and only its summary has losses.
///
/// # Errors
/// If a file cannot be read or written, a checkpoint does not fit, the loss is not a number, or another
/// process fails.
pub fn fit(job: &Job<'_>, options: &FitOptions) -> Result<(Summary, Exit), Failure> {
    let peers = Peers::new(Arc::clone(&options.group));
    let done = train(job, options, &peers).and_then(|done| {
        peers.part()?;
        Ok(done)
    });
    // Whoever waits for this process is to know why it does not come.
    done.inspect_err(|failure| peers.fail(failure))
}

fn train(job: &Job<'_>, options: &FitOptions, peers: &Peers) -> Result<(Summary, Exit), Failure> {
    let started = Instant::now();
    let is_first = peers.is_first();
    peers.agree_on_run(job, options)?;
    let _lock = is_first.then(|| lock::RunLock::acquire(&options.out)).transpose()?;
    let store = Store::of_run(&options.out);
    if is_first {
        prepare(job, options, &store)?;
    }
    peers.folder_is_ready()?;
    let say = |line: &str| {
        if is_first {
            eprintln!("{line}");
        }
    };
    let Begin { config, params, optimizer, step, holds, resumed_from } =
        begin(job, options, &store, say)?;
    peers.agree_on_start(step, &params)?;
    let file = |error: &dyn std::error::Error| Failure::from_error(Exit::Io, error);
    let metrics_path = options.out.join(METRICS_FILE);
    let start = || {
        let metrics = if step > 0 {
            MetricsFile::resume(&metrics_path, step)
        } else {
            MetricsFile::start(&metrics_path)
        };
        Ok((metrics?, EventWriter::start(&options.out.join("tb"), step)?))
    };
    let records = is_first.then(start).transpose();
    let set = job.feed.set();
    let mut training = Training {
        job,
        learner: (job.learner)(&config, params, optimizer)?,
        store,
        tokenizer: TokenizerFiles {
            path: set.tokenizer_path(),
            specials: set.specials(),
            row_length: set.row_length(),
        },
        held_out: HeldOutRows::choose(job.feed, held_out_limit(job.recipe)),
        holds: Holds::of(job.recipe, step, &holds),
        config,
        step,
        next: None,
        saved: resumed_from.as_ref().map(|_| step),
        records: records.map_err(|error: FileError| file(&error))?,
        watch: Watch::default(),
        peers,
        stop: options.stop.clone(),
    };
    let quiet = options.progress.quiet || !is_first;
    let reporter = Reporter::start(job.recipe, ProgressArgs { quiet, ..options.progress }, step);
    let exit = training.run(options, &reporter)?;
    reporter.finish();
    let checkpoint = training.saved.map(|step| training.store.path(step));
    let lines = if is_first {
        MetricsFile::read(&metrics_path).map_err(|error| file(&error))?
    } else {
        Vec::new()
    };
    let summary =
        Summary::of(job.recipe, &lines, training.step, started.elapsed(), checkpoint, resumed_from);
    Ok((summary, exit))
}

/// Rows per forward and backward pass where the recipe leaves it open: about 4096 tokens.
#[must_use]
pub fn micro_batch(recipe: &Recipe) -> u32 {
    recipe
        .micro_batch
        .unwrap_or_else(|| (4096 / recipe.row_length.max(1)).max(1))
        .clamp(1, recipe.global_batch.max(1))
}

fn held_out_limit(recipe: &Recipe) -> u64 {
    u64::from(recipe.eval_batches) * u64::from(micro_batch(recipe))
}

struct Training<'a> {
    job: &'a Job<'a>,
    learner: Box<dyn Learner>,
    store: Store,
    tokenizer: TokenizerFiles,
    held_out: HeldOutRows,
    /// The schedules that wait for a held-out loss.
    holds: Holds,
    config: ModelConfig,
    /// Optimizer steps done.
    step: u64,
    /// The rows of a step to come, and which; or why there are none.
    next: Option<(u64, Result<Pieces, FeedError>)>,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    /// What is recorded, in the first process.
    records: Option<(MetricsFile, EventWriter)>,
    /// Holds the masks against the curriculum.
    watch: Watch,
    /// The other processes.
    peers: &'a Peers,
    /// Signals.
    stop: Stop,
}

impl Training<'_> {
    fn run(&mut self, options: &FitOptions, reporter: &Reporter) -> Result<Exit, Failure> {
        let recipe = self.job.recipe;
        if self.step == 0 {
            let started = Instant::now();
            let mut line = StepMetrics::before_training(None, 0.0);
            self.evaluate(&mut line)?;
            line.holds.clone_from(self.holds.states());
            line.seconds = started.elapsed().as_secs_f64();
            reporter.held_out(&line);
            self.record(&line)?;
        }
        while self.step < recipe.total_steps {
            if options.stop_after.is_some_and(|last| self.step >= last) {
                self.save()?;
                return Ok(Exit::Done);
            }
            let Stepped { mut line, parted, stop } = self.one_step()?;
            let last = self.step == recipe.total_steps;
            let evaluated = last || is_due(self.step, recipe.eval_every);
            if evaluated {
                self.evaluate(&mut line)?;
            }
            let turns = self.holds.advance();
            if evaluated {
                line.holds.clone_from(self.holds.states());
            }
            self.record(&line)?;
            reporter.step(&line);
            for parting in &parted {
                reporter.parted(self.step, parting);
            }
            reporter.held_out(&line);
            for turn in &turns {
                reporter.turn(self.step, turn);
            }
            if last || is_due(self.step, recipe.checkpoint_every) {
                self.save()?;
            }
            // One that is alone sees a signal that came since.
            let stop = if self.peers.is_alone() { self.stop.requested() } else { stop };
            if let Some(exit) = stop.filter(|_| !last) {
                self.save()?;
                return Ok(exit);
            }
        }
        self.export_final(&options.out.join(FINAL_DIR))?;
        Ok(Exit::Done)
    }

    /// Measures the held-out losses that are asked for, and shows them to the schedules that wait.
    fn evaluate(&mut self, line: &mut StepMetrics) -> Result<(), Failure> {
        let (recipe, feed) = (self.job.recipe, self.job.feed);
        // The rows are chosen by the recipe, how many go at once by what runs the model.
        let rows = self.learner.rows_at_once();
        // Which rows are this process's does not change while it measures.
        let of_piece: Vec<_> = (0..=rows).map(|piece| self.learner.own_rows(piece)).collect();
        let own = |piece: usize| of_piece[piece].clone();
        let shared = Shared { peers: self.peers, own: &own };
        let learner = &mut self.learner;
        let mut loss = |batch: &_, mask, denominator| learner.loss(batch, mask, denominator);
        for under in HeldOutLoss::ALL {
            let always = under == HeldOutLoss::Plain || recipe.eval_by_strategy;
            if always || self.holds.look_at(under) {
                let held_out = &self.held_out;
                let found = measure(feed, held_out, under, &mut loss, rows, Some(&shared))?;
                line.measured(under, found);
            }
        }
        if let Some(levels) = recipe.eval_nll_levels {
            let held_out = &self.held_out;
            let bytes_of = bytes_by_tokenizer(feed)?;
            for under in HeldOutLoss::ALL {
                if under == HeldOutLoss::Plain || recipe.eval_by_strategy {
                    let how = (under, levels);
                    let (bytes_of, shared) = (&*bytes_of, Some(&shared));
                    let found =
                        nll::measure(feed, held_out, how, &mut loss, bytes_of, rows, shared)?;
                    line.nll.extend(found.map(|found| (under.name().to_owned(), found)));
                }
            }
        }
        self.holds.observe(|under| line.held_out_under(under));
        Ok(())
    }

    fn record(&mut self, line: &StepMetrics) -> Result<(), Failure> {
        let Some((metrics, events)) = &mut self.records else { return Ok(()) };
        let written =
            metrics.append(line).and_then(|()| events.scalars(line.step, &line.scalars()));
        written.map_err(|error| Failure::from_error(Exit::Io, &error))
    }

    /// Writes the model of a finished run, unless an earlier call has done so.
    fn export_final(&mut self, dir: &Path) -> Result<(), Failure> {
        self.save()?;
        // All processes ask for it, whatever the first one's disk holds.
        let state = self.learner.state().map_err(|error| engine_failure(&error))?;
        let Some((params, _)) = state else { return Ok(()) };
        let there = CheckpointManifest::verify(dir).is_ok_and(|found| found.step == self.step);
        if !there {
            export_model(dir, &self.config, params, &self.tokenizer, self.step)?;
        }
        Ok(())
    }

    /// Saves the state after `self.step` steps, unless it is saved already.
    fn save(&mut self) -> Result<(), Failure> {
        if self.saved == Some(self.step) {
            return Ok(());
        }
        if let Some((metrics, _)) = &mut self.records {
            metrics.sync().map_err(|error| Failure::from_error(Exit::Io, &error))?;
        }
        let recipe = self.job.recipe;
        let identity = self.job.identity.clone();
        let run = RunState {
            step: self.step,
            position: self.step * u64::from(recipe.global_batch),
            tokens: self.step * recipe.tokens_per_step(),
            holds: self.holds.states().clone(),
            identity_hash: identity.hash(),
            identity,
            recipe: recipe.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let path = self.store.path(self.step);
        let state = self.learner.state().map_err(|error| engine_failure(&error))?;
        if let Some((params, optimizer)) = state {
            save_checkpoint(&path, &self.config, params, optimizer, &self.tokenizer, &run)?;
            self.store.published(self.step, recipe.checkpoint_keep)?;
        }
        self.saved = Some(self.step);
        Ok(())
    }
}

fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// An engine that fails, as a user sees it.
pub(crate) fn engine_failure(error: &EngineError) -> Failure {
    if let EngineError::Launch(error) = error {
        return error.into();
    }
    Failure::from_error(Exit::CheckFailed, error).maybe_hint(error.hint())
}

/// The folder of a checkpoint, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod during_steps;
