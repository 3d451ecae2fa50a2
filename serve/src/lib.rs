//! A model behind the interface that programs speak already: OpenAI's completions and chat, with
//! infilling, and with the steps of denoising for those who ask.
//!
//! ```text
//! connection ──http──▶ api (what was asked?) ──rows──▶ scheduler (one thread, one decoder)
//!      ▲                                                     │ steps
//!      └────────────── answer (what is final?) ◀─────────────┘
//! ```
//!
//! The asynchronous runtime stays in this room; the model runs in a thread of its own.

#![allow(clippy::doc_markdown, reason = "OpenAI is a name")]

mod answer;
mod api;
mod app;
mod error;
mod metrics;
mod options;
mod scheduler;
mod server;

pub use options::{EngineArg, Options};

use clap::Parser;
use coda_cli::{Exit, Failure};

/// Parses the command line and serves until a signal comes.
///
/// # Errors
/// If the model cannot be read, the key is missing, or the address is taken.
pub fn main() -> Result<Exit, Failure> {
    server::serve(&Options::parse())
}
