//! `coda-curriculum`: look at a curriculum before training on it.
//!
//! * `show` lays the schedules out over the run, with what they come to on average.
//! * `draw` shows the exact masks that the trainer will draw for given rows at a given step.
//! * `diff` shows where two runs, or the two profiles, part.

mod chart;
mod clocks;
mod compare;
mod diff;
mod differ;
mod draw;
mod heat;
mod html;
mod mix;
mod page;
mod plot;
mod rows;
mod run;
mod show;
mod table;
mod text;
mod timeline;
mod words;

use clap::{Args, Parser, Subcommand};
use coda_cli::{Exit, Failure};
use std::{path::PathBuf, process::ExitCode};

/// Look at a curriculum before training on it.
#[derive(Parser)]
#[command(name = "coda-curriculum", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line per epoch or phase: probabilities, block sizes, noise, learning rate, expectations.
    Show(show::ShowArgs),
    /// The exact mask plans of rows at a step.
    Draw(draw::DrawArgs),
    /// Where two runs show the model different things.
    Diff(diff::DiffArgs),
}

/// A manifest and the changes to it.
#[derive(Args)]
struct ManifestArgs {
    /// The manifest of the run.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Manifest keys to change, as in `curriculum.p3=0.5`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    coda_cli::run(|| {
        match cli.command {
            Command::Show(args) => show::run(&args)?,
            Command::Draw(args) => draw::run(&args)?,
            Command::Diff(args) => diff::run(&args)?,
        }
        Ok::<_, Failure>(Exit::Done)
    })
}
