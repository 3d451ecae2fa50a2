//! The launcher as a program of its own: for the tests, and for programs that have none.

fn main() -> std::process::ExitCode {
    match coda_sandbox::enter() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("coda-sandbox: {problem}");
            std::process::ExitCode::from(2)
        }
    }
}
