//! `coda-trainer`: shard sets to models, models to text.

use coda_trainer::commands;

fn main() -> std::process::ExitCode {
    coda_cli::run(|| {
        // Before any thread exists: no plugin may ask a cloud's metadata server about this machine.
        coda_pjrt::prepare_environment()
            .map_err(|error| coda_cli::Failure::usage(error.to_string()))?;
        commands::main()
    })
}
