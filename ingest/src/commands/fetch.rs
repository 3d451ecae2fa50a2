//! `coda-ingest fetch`: brings everything remote of a manifest ahead of a build.

use super::build::plan_failure;
use clap::Args;
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    plan::{Inputs, Unreachable, fetcher},
    prefetch::{BlobOptions, BlobReport, PrefetchError, blobs, count_blobs, files, remote_files},
};
use coda_manifests::Manifest;
use serde::Serialize;
use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Instant};

/// Fetches the remote files of a manifest, and the blobs that its records name.
///
/// Run it again after an interruption: what has come stays. A build then reads from the cache and the
/// blob store.
#[derive(Args)]
pub(crate) struct Fetch {
    /// The manifest.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Blobs on their way at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    /// Manifest keys to override, such as `data.cache=/data/cache`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// The keys are a contract.
#[derive(Serialize)]
struct Summary {
    files: u64,
    file_bytes: u64,
    blobs_named: u64,
    blobs_fetched: u64,
    blob_bytes: u64,
    blobs_missing: u64,
    blobs_failed: u64,
    seconds: f64,
}

impl Fetch {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let manifest = Manifest::load(&self.manifest, &self.overrides, &[]).map_err(|e| {
            let exit = if e.is_usage() { Exit::Usage } else { Exit::Io };
            Failure::from_error(exit, &e).maybe_hint(e.hint())
        })?;
        let Inputs { sources, decode, fetch } =
            Inputs::new(&manifest).map_err(|e| plan_failure(&e))?;
        let stop = Stop::install()?;
        let fetch = fetch.map_or_else(|| fetcher(&manifest, Unreachable::Refused), Ok);
        let fetch = fetch.map_err(|e| plan_failure(&e))?;
        let count = remote_files(&sources).count() as u64;
        let bytes = remote_files(&sources).map(|file| file.bytes).sum();
        let mut summary = Summary {
            files: count,
            file_bytes: bytes,
            blobs_named: 0,
            blobs_fetched: 0,
            blob_bytes: 0,
            blobs_missing: 0,
            blobs_failed: 0,
            seconds: 0.0,
        };
        if count > 0 {
            let progress = Arc::new(Progress::start(self.progress, "fetch", "bytes", Some(bytes)));
            let outcome = files(&sources, &fetch, &progress, &stop);
            progress.finish();
            if let Some(exit) = ended(outcome, &stop)?.1 {
                return Ok(exit);
            }
        }
        let mut example = None;
        for (source, keys) in sources.iter().zip(&manifest.data.sources) {
            let Some(keys) = &keys.blobs else { continue };
            let store = manifest
                .resolve(&keys.store)
                .map_err(|e| Failure::from_error(Exit::Usage, &e).maybe_hint(e.hint()))?;
            let options = BlobOptions {
                store: &store,
                url: &keys.url,
                parallel: usize::from(self.parallel),
                decode: decode.clone(),
            };
            let (unknown, exit) = ended(count_blobs(source, &options, &stop), &stop)?;
            if let Some(exit) = exit {
                return Ok(exit);
            }
            let progress = Progress::start(self.progress, &source.name, "blobs", unknown);
            let outcome = blobs(source, &options, &fetch, &progress, &stop);
            progress.finish();
            let (report, exit) = ended(outcome, &stop)?;
            if let Some(exit) = exit {
                return Ok(exit);
            }
            summary.add(&report.unwrap_or_default(), &mut example);
        }
        summary.seconds = started.elapsed().as_secs_f64();
        self.report(&summary, example)
    }

    fn report(&self, summary: &Summary, example: Option<String>) -> Result<Exit, Failure> {
        if self.json {
            print_json(summary)?;
        } else {
            print_text(&summary.text())?;
        }
        let Some(example) = example else { return Ok(Exit::Done) };
        Err(Failure::io(format!(
            "{} blobs could not be fetched, such as {example}",
            summary.blobs_failed
        ))
        .hint("run the command again: it asks for these and keeps what has come"))
    }
}

impl Summary {
    fn add(&mut self, report: &BlobReport, example: &mut Option<String>) {
        self.blobs_named += report.named;
        self.blobs_fetched += report.fetched;
        self.blob_bytes += report.bytes;
        self.blobs_missing += report.gone;
        self.blobs_failed += report.failed;
        *example = example.take().or_else(|| report.example.clone());
    }

    fn text(&self) -> String {
        let mut out =
            format!("{} remote files, {}, are there", self.files, human::bytes(self.file_bytes));
        if self.blobs_named > 0 {
            let _ = write!(
                out,
                "; {} blobs named, {} fetched now ({}), {} do not exist, {} failed",
                human::count(self.blobs_named),
                human::count(self.blobs_fetched),
                human::bytes(self.blob_bytes),
                self.blobs_missing,
                self.blobs_failed
            );
        }
        let _ = writeln!(out, " ({:.1} s)", self.seconds);
        out
    }
}

/// What came out; or, after a signal, the code to end with.
fn ended<T>(
    outcome: Result<T, PrefetchError>,
    stop: &Stop,
) -> Result<(Option<T>, Option<Exit>), Failure> {
    if let Some(exit) = stop.requested() {
        eprintln!("stopped: run the same command to go on");
        return Ok((None, Some(exit)));
    }
    match outcome {
        Ok(done) => Ok((Some(done), None)),
        Err(PrefetchError::Fetch(error)) => Err(super::fetch_failure(&error)),
        Err(error @ PrefetchError::Url { .. }) => Err(Failure::from_error(Exit::Usage, &error)),
        Err(error) => Err(Failure::from_error(Exit::Io, &error)),
    }
}
