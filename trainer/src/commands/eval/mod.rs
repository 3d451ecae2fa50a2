//! `coda-trainer eval`: the held-out loss of a checkpoint, and what its programs are worth.

mod code;

use super::engines::EngineArgs;
use super::inputs::{ManifestArgs, Rows};
use crate::{
    checkpoint::{HfWeights, Store},
    feed::HeldOutRows,
    fit::{bytes_by_tokenizer, held_out_loss, micro_batch, nll_bound},
    metrics::Nll,
};
use clap::{Args, Subcommand};
use coda_cli::{Exit, Failure, print_json, print_text};
use coda_manifests::{Engine as EngineKey, HeldOutLoss, Recompute};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

/// An evaluation.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Eval {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    held_out: HeldOut,
}

#[derive(Subcommand)]
enum Command {
    /// Judge programs: HumanEval, HumanEval+, MBPP, MBPP+ and HumanEval-Infilling.
    Code(code::Code),
}

impl Eval {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Some(Command::Code(code)) => code.run(),
            None => self.held_out.run(),
        }
    }
}

/// The options of a held-out loss.
#[derive(Args)]
struct HeldOut {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// A checkpoint, Hugging Face directory or run.
    // Optional for the type only: with a subcommand nobody asks for it.
    #[arg(long, value_name = "DIR", required = true)]
    checkpoint: Option<PathBuf>,
    /// Also bound the likelihood, under single masks, S1, S2 and S3, by noise level.
    #[arg(long)]
    nll: bool,
    /// Noise levels at which every row is masked for --nll.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "nll")]
    levels: u32,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nll: BTreeMap<&'static str, Nll>,
    seconds: f64,
}

impl HeldOut {
    fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        self.engine.check(EngineKey::Auto)?;
        let manifest = self.manifest.load(&[])?;
        let Rows { dir, recipe, feed, .. } = self.manifest.rows(&manifest)?;
        let named = self.checkpoint.as_deref();
        let checkpoint = Store::locate(named.ok_or_else(|| Failure::usage("give --checkpoint"))?)?;
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
        let mut nll = BTreeMap::new();
        if self.nll {
            if self.levels == 0 {
                return Err(Failure::usage("--levels must be at least 1"));
            }
            let bytes_of = bytes_by_tokenizer(&feed)?;
            for under in HeldOutLoss::ALL {
                let (levels, bytes_of) = (self.levels, &*bytes_of);
                let found = nll_bound(&feed, &held_out, under, levels, &mut loss, bytes_of, rows)?;
                nll.extend(found.map(|found| (under.name(), found)));
            }
        }
        let result = Evaluated {
            checkpoint,
            shard_set: dir,
            held_out_loss: measured.loss,
            nats_per_token: measured.nats_per_token,
            rows: measured.rows,
            nll,
            seconds: started.elapsed().as_secs_f64(),
        };
        if self.json {
            print_json(&result)?;
        } else {
            print_text(&format!(
                "held-out loss {:.4}, {:.4} nats per masked token, {} rows\n",
                result.held_out_loss, result.nats_per_token, result.rows
            ))?;
            for (name, nll) in &result.nll {
                print_text(&format!(
                    "{name}: {:.4} nats a token, {:.4} bits a byte{}\n",
                    nll.nats_per_token,
                    nll.bits_per_byte,
                    if nll.bound { "" } else { " (not a bound)" }
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}
