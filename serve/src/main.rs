//! `coda-serve`: a model over HTTP.

fn main() -> std::process::ExitCode {
    coda_cli::run(coda_serve::main)
}
