//! How every CODA binary talks to people and to scripts.
//!
//! * stdout carries results, stderr progress and errors ([`print_json`], [`print_text`]);
//! * a run ends with one of the exit codes of [`Exit`];
//! * an error is a [`Failure`]: what happened, why, and a hint what to do ([`run`] prints it);
//! * [`Progress`] is a bar with rate and ETA on a terminal, plain lines elsewhere;
//! * [`signals`] turns SIGINT and SIGTERM into "finish this step, save, leave".

mod exit;
pub mod human;
mod output;
mod progress;
pub mod signals;

pub use exit::{Exit, Failure, run};
pub use output::{print_json, print_text};
pub use progress::{Progress, ProgressArgs, ProgressMode};
