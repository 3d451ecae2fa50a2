//! `coda-trainer --stage …`: a training run.

use super::engines::EngineArgs;
use super::inputs::{ManifestArgs, Rows, init_path, path_failure};
use super::processes::ProcessArgs;
use crate::{
    checkpoint::Identity,
    fit::{FitOptions, Job, Resume, fit, starting_model, starting_shape},
};
use clap::Args;
use coda_cli::{Exit, Failure, ProgressArgs, print_json, print_text, signals::Stop};
use coda_manifests::Manifest;
use serde_json::json;
use std::{path::PathBuf, sync::Arc};

/// The options of a run.
#[derive(Args)]
pub(super) struct Train {
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    processes: ProcessArgs,
    /// Ranks that share each step, 1, 2, 4 or 8: on the CUDA engine a card each, on the CPU engine threads,
    /// as a rehearsal. Each has its own rows, all weights, and part of the optimizer's state. Their number
    /// changes no bit of the result (docs/parallel.md).
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// The run's folder: checkpoints, metrics.jsonl, tb, run.json. Without it, train.out, or
    /// runs/NAME.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A checkpoint, Hugging Face directory or run whose weights to begin with.
    #[arg(long, value_name = "CHECKPOINT")]
    init: Option<PathBuf>,
    /// Whether to go on from the newest checkpoint in the run's folder.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    resume: Resume,
    /// Optimizer steps of the whole run (train.steps).
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Save and leave after this many steps of the whole run; a later call goes on.
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Train {
    /// Whether threads of ranks do the work, for which this one waits.
    pub(super) const fn has_ranks(&self) -> bool {
        self.ranks.is_some()
    }

    pub(super) fn run(self) -> Result<Exit, Failure> {
        let steps: Vec<String> =
            self.steps.iter().map(|steps| format!("train.steps={steps}")).collect();
        let overrides = [steps, self.engine.overrides()].concat();
        let mut manifest = self.manifest.load(&overrides)?;
        if let Some(out) = &self.out {
            manifest.allow(out).map_err(|error| path_failure(&error))?;
        }
        let of_manifest = manifest.train.engine;
        self.engine.check(of_manifest)?;
        let out = self.out(&manifest)?;
        let stop = Stop::install()?;
        let Rows { dir, ranges, recipe, feed } = self.manifest.rows(&manifest)?;
        let init = init_path(&manifest, &recipe, self.init.as_deref())?;
        let specials = feed.set().specials();
        let shape = starting_shape(&recipe, init.as_deref(), specials)?;
        self.engine.check_ranks(&recipe, shape.as_ref(), self.ranks)?;
        let order: Vec<_> = ranges
            .iter()
            .map(|range| json!([range.first_row, range.rows, range.held_out_rows, range.weight]))
            .collect();
        let fingerprint = feed.set().fingerprint().to_owned();
        let processes = self.processes.join(self.engine.is_xla(of_manifest))?;
        let is_first = processes.group.is_first();
        let model = || starting_model(&recipe, init.as_deref(), specials);
        let job = Job {
            recipe: &recipe,
            feed: &feed,
            identity: Identity::new(&recipe, &fingerprint, json!(order)),
            description: json!({
                "coda": env!("CARGO_PKG_VERSION"),
                "engine": self.engine.name(of_manifest, shape.as_ref()),
                "xla": recipe.xla,
                "ranks": self.ranks.unwrap_or(1),
                "threads": rayon::current_num_threads(),
                "shard_set": {"dir": dir, "fingerprint": fingerprint},
                "init": init,
                "recipe": recipe,
                "manifest": manifest,
            }),
            model: &model,
            learner: &|config, params, optimizer| {
                let (processes, ranks) = (&processes, self.ranks);
                self.engine.learner(&recipe, config, params, optimizer, processes, ranks)
            },
        };
        let options = FitOptions {
            out,
            resume: self.resume,
            stop_after: self.stop_after,
            progress: self.progress,
            stop,
            group: Arc::clone(&processes.group),
        };
        let (summary, exit) = fit(&job, &options)?;
        if !is_first {
            return Ok(exit);
        }
        if self.json {
            print_json(&summary)?;
        } else {
            print_text(&summary.text())?;
        }
        Ok(exit)
    }

    fn out(&self, manifest: &Manifest) -> Result<PathBuf, Failure> {
        match (&self.out, &manifest.train.out) {
            (Some(out), _) => Ok(out.clone()),
            (None, Some(out)) => manifest.resolve(out).map_err(|error| path_failure(&error)),
            (None, None) => Ok(PathBuf::from("runs").join(&manifest.name)),
        }
    }
}
