//! `coda-trainer`: shard sets to models, models to text.

use coda_trainer::commands;

fn main() -> std::process::ExitCode {
    coda_cli::run(commands::main)
}
