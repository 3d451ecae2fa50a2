//! `coda-trainer eval`.

use super::engines::EngineArgs;
use super::inputs::{ManifestArgs, Rows};
use crate::{
    checkpoint::{HfWeights, Store},
    feed::HeldOutRows,
    fit::{held_out_loss, micro_batch},
};
use clap::Args;
use coda_cli::{Exit, Failure, print_json, print_text};
use coda_manifests::{Engine as EngineKey, HeldOutLoss, Recompute};
use serde::Serialize;
use std::{path::PathBuf, time::Instant};

/// The options of an evaluation.
#[derive(Args)]
pub(super) struct Eval {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// A checkpoint, Hugging Face directory or run.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Held-out rows to measure on; without it, all of them.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Evaluated {
    checkpoint: PathBuf,
    shard_set: PathBuf,
    held_out_loss: f64,
    nats_per_token: f64,
    rows: u64,
    seconds: f64,
}

impl Eval {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        self.engine.check(EngineKey::Auto)?;
        let manifest = self.manifest.load(&[])?;
        let Rows { dir, recipe, feed, .. } = self.manifest.rows(&manifest)?;
        let checkpoint = Store::locate(&self.checkpoint)?;
        let (config, params) = HfWeights::open(&checkpoint)?.read()?;
        let mut engine = self.engine.open(&config, Recompute::None)?;
        let held_out = HeldOutRows::choose(&feed, self.rows.unwrap_or(u64::MAX));
        let rows = micro_batch(&recipe) as usize;
        let mut loss =
            |batch: &_, mask, denominator| engine.loss(&params, batch, mask, denominator);
        let plain = HeldOutLoss::Plain;
        let measured = held_out_loss(&feed, &held_out, plain, &mut loss, rows)?;
        let Some(measured) = measured else {
            return Err(Failure::usage("the shard set has no held-out rows")
                .hint("raise data.held_out above 0"));
        };
        let result = Evaluated {
            checkpoint,
            shard_set: dir,
            held_out_loss: measured.loss,
            nats_per_token: measured.nats_per_token,
            rows: measured.rows,
            seconds: started.elapsed().as_secs_f64(),
        };
        if self.json {
            print_json(&result)?;
        } else {
            print_text(&format!(
                "held-out loss {:.4}, {:.4} nats per masked token, {} rows\n",
                result.held_out_loss, result.nats_per_token, result.rows
            ))?;
        }
        Ok(Exit::Done)
    }
}
