//! The command line of `coda-trainer` (design §3).

mod ahead;
mod bench;
mod cards;
mod check;
mod engines;
mod eval;
mod export;
mod gpu;
mod inputs;
mod inspect;
mod plan;
mod processes;
mod sample;
mod train;
mod verify;

use crate::threads::share_this_thread;
use clap::{Parser, Subcommand};
use coda_cli::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  coda-trainer --stage pre --manifest manifests/pretrain.yaml --out runs/pre
  coda-trainer --stage mid --manifest my.yaml --init runs/pre --steps 500 train.lr.peak=1e-4
  coda-trainer sample --checkpoint runs/mid --prompt 'fn main() {' --max-new-tokens 64
  coda-trainer sample --checkpoint runs/mid --prefix 'fn add(a: u32, b: u32) -> u32 {' \\
      --span 24 --suffix '}' --trace trace.jsonl
  coda-trainer verify runs/pre

Any manifest key can be overridden: a.b.c=value.

Exit codes: 0 done; 1 a check failed or the loss is not a number; 2 usage or manifest error; 3 a
file cannot be read or written; 4 a shard set or checkpoint is damaged or does not fit; 130/143
stopped by SIGINT/SIGTERM after saving.";

/// Train masked diffusion language models, and sample from them.
#[derive(Parser)]
#[command(
    name = "coda-trainer",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Train,
}

#[derive(Subcommand)]
enum Command {
    /// Fill in masks: continue a prompt, or fill holes in a text.
    Sample(sample::Sample),
    /// Measure the held-out loss of a checkpoint on a shard set, or judge programs.
    Eval(eval::Eval),
    /// Show parameters, work per step and memory of a run before starting it.
    Plan(plan::Plan),
    /// Time training steps on made-up rows.
    Bench(bench::Bench),
    /// Show what a checkpoint holds.
    Inspect(inspect::Inspect),
    /// Check every byte of a checkpoint against its hashes.
    Verify(verify::Verify),
    /// Write the model of a checkpoint as a plain Hugging Face directory.
    Export(export::Export),
    /// Evaluate loss and gradients of one given batch, to hold this engine against another.
    Check(check::Check),
    /// What `plan --aot` starts: compiles the job on stdin in a process of its own.
    #[command(hide = true)]
    CompileAhead,
    /// What an evaluation starts: shuts itself in and becomes a solution's program.
    #[command(hide = true)]
    Sandboxed,
}

/// Parses the command line and runs what it says.
///
/// # Errors
/// Whatever the command fails with.
pub fn main() -> Result<Exit, Failure> {
    let cli = Cli::parse();
    let waits = match &cli.command {
        None => cli.train.has_ranks(),
        Some(command) => matches!(command, Command::CompileAhead | Command::Sandboxed),
    };
    if !waits {
        share_this_thread();
    }
    match cli.command {
        None => cli.train.run(),
        Some(Command::Sample(sample)) => sample.run(),
        Some(Command::Eval(eval)) => eval.run(),
        Some(Command::Plan(plan)) => plan.run(),
        Some(Command::Bench(bench)) => bench.run(),
        Some(Command::Inspect(inspect)) => inspect.run(),
        Some(Command::Verify(verify)) => verify.run(),
        Some(Command::Export(export)) => export.run(),
        Some(Command::Check(check)) => check.run(),
        Some(Command::CompileAhead) => crate::ahead::serve(),
        Some(Command::Sandboxed) => {
            coda_sandbox::enter().map(|()| Exit::Done).map_err(Failure::check_failed)
        }
    }
}
