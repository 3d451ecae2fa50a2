//! `coda-ingest verify`.

use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_ingest::spans::{self, Checked};
use serde::Serialize;
use std::{fmt::Write as _, path::PathBuf};

/// Check every byte of a shard set against its checksums. Exit code 4 when it is damaged.
#[derive(Args)]
pub(crate) struct Verify {
    /// The shard set.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    shard_set: String,
    sound: bool,
    fingerprint: &'a str,
    shards: usize,
    rows: u64,
    bytes: u64,
    problems: Vec<Problem<'a>>,
    /// Why the spans of the text were not found again, where they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    spans_unchecked: Option<&'a str>,
}

#[derive(Serialize)]
struct Problem<'a> {
    file: &'a str,
    block: Option<usize>,
    row: Option<u64>,
    message: &'a str,
}

impl Verify {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let failure = |error| super::shard_failure(&error);
        let mut report = coda_shards::verify(&self.dir).map_err(failure)?;
        let mut unchecked = None;
        if report.is_sound() {
            match spans::check(&self.dir).map_err(failure)? {
                Checked::All(problems) => report.problems = problems,
                Checked::Nothing(reason) => unchecked = Some(reason),
            }
        }
        let sound = report.is_sound();
        let dir = self.dir.display().to_string();
        if self.json {
            let problems = report.problems.iter().map(|p| Problem {
                file: &p.file,
                block: p.block,
                row: p.row,
                message: &p.message,
            });
            print_json(&Report {
                shard_set: dir,
                sound,
                fingerprint: &report.fingerprint,
                shards: report.shards,
                rows: report.rows,
                bytes: report.bytes,
                problems: problems.collect(),
                spans_unchecked: unchecked.as_deref(),
            })?;
        } else {
            let mut text = String::new();
            for problem in &report.problems {
                let _ = write!(text, "{}", problem.file);
                if let Some(block) = problem.block {
                    let _ = write!(text, ", block {block}");
                }
                if let Some(row) = problem.row {
                    let _ = write!(text, ", row {row}");
                }
                let _ = writeln!(text, ": {}", problem.message);
            }
            if let Some(reason) = &unchecked {
                let _ = writeln!(text, "note: its spans were not found again: {reason}");
            }
            let verdict = if sound { "sound" } else { "DAMAGED" };
            let _ = writeln!(
                text,
                "{dir}: {verdict}; {} rows in {} shards, {}, fingerprint {}",
                report.rows,
                report.shards,
                human::bytes(report.bytes),
                report.fingerprint,
            );
            print_text(&text)?;
        }
        Ok(if sound { Exit::Done } else { Exit::Incompatible })
    }
}
