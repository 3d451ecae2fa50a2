//! The commands of the README: `cargo xtask quickstart`, `cargo xtask test`, and what needs more
//! than a test.

mod checks;
mod kit;
mod memory;
mod plugin;
mod process;
mod python;
mod quickstart;
mod report;

use clap::{Parser, Subcommand};
use coda_cli::Exit;
use std::process::ExitCode;

/// Build, try, test and measure CODA.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Ingest real code, look at the curriculum, train three stages, fill in a function, report.
    Quickstart(quickstart::Quickstart),
    /// Everything that continuous integration calls: format, lints, docs, tests, Python cross-checks.
    Test(checks::Test),
    /// The heavy outside judges: `PyTorch` and transformers from `PyPI` (some GB) on our numbers.
    Judges(python::Judges),
    /// Download what the tests load, the `PJRT` plugin for the CPU and `NVRTC`, and print the paths.
    Plugin,
    /// What a machine with a card needs to check and measure the CUDA engine, in one folder.
    GpuKit(kit::GpuKit),
    /// Licences, bans and sources of all dependencies (installs cargo-deny once).
    Deny,
    /// Hold ingest's peak memory on 500 MB of text against that on 50 MB.
    BenchMemory(memory::BenchMemory),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    coda_cli::run(|| {
        match cli.command {
            Task::Quickstart(quickstart) => quickstart.run()?,
            Task::Test(test) => test.run()?,
            Task::Judges(judges) => judges.run()?,
            Task::Plugin => plugin::run()?,
            Task::GpuKit(kit) => kit.run()?,
            Task::Deny => checks::deny()?,
            Task::BenchMemory(bench) => bench.run()?,
        }
        Ok(Exit::Done)
    })
}
