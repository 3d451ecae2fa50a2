//! `coda-ingest merge` and `--task`: a build in parts.

use super::build::{already_there, build_failure, report};
use clap::Args;
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    build::{BuildError, recover},
    part::{CHUNK_BYTES, MergeOptions, Parts, Task, TaskOptions, run_task},
    pipeline::PipelineError,
    plan::Plan,
    source::InputFile,
};
use coda_manifests::{Data, Manifest};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Merges the parts of all tasks into the shard set that one process would have written.
#[derive(Args)]
pub(crate) struct Merge {
    /// The parts, in any order; each of the N once.
    #[arg(value_name = "PART", required = true)]
    parts: Vec<PathBuf>,
    /// Write the shard set here.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Merge even if a shard set is there and replace it; the old one stays until the new one is
    /// complete. An unfinished one is begun anew.
    #[arg(long)]
    force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Merge {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let parts = Parts::open(&self.parts).map_err(|e| build_failure(&e.into()))?;
        let stop = Stop::install()?;
        recover(&self.out).map_err(|e| build_failure(&e))?;
        if let Some(index) = already_there(self.force, &self.out, parts.recipe())? {
            return report(self.json, &index, parts.data(), &self.out, started, None);
        }
        let progress = Progress::start(self.progress, "merge", "bytes", Some(parts.bytes()));
        let built = parts.merge(&MergeOptions {
            out: &self.out,
            replace: self.force,
            progress: &progress,
            stop: &stop,
        });
        progress.finish();
        match built {
            Err(BuildError::Pipeline(PipelineError::Stopped)) => Ok(stopped(&stop)),
            other => {
                let built = other.map_err(|e| build_failure(&e))?;
                report(self.json, &built.index, parts.data(), &self.out, started, Some(&built))
            }
        }
    }
}

/// A build that a signal has stopped.
pub(super) fn stopped(stop: &Stop) -> Exit {
    eprintln!(
        "stopped: nothing is complete yet; the same command goes on with what has been finished"
    );
    stop.requested().unwrap_or(Exit::Interrupted)
}

/// What a task gave; the keys are a contract.
#[derive(Serialize)]
struct TaskSummary {
    task: String,
    records: u64,
    tokens: u64,
    output_bytes: u64,
    seconds: f64,
    part: String,
}

/// How a task is run, as the command line says.
pub(super) struct TaskArgs {
    pub(super) task: Task,
    pub(super) out: PathBuf,
    pub(super) jobs: usize,
    pub(super) force: bool,
    pub(super) json: bool,
    pub(super) progress: ProgressArgs,
}

/// Where the part of a task goes by default: beside the shard set.
pub(super) fn default_part(set: &Path, task: Task) -> PathBuf {
    let name = set.file_name().unwrap_or_default().to_string_lossy();
    set.with_file_name(format!("{name}.part-{}-of-{}", task.number(), task.of()))
}

/// The largest of some files, and its share of their bytes.
fn largest_share(files: &[InputFile]) -> Option<(&str, f64)> {
    let all: u64 = files.iter().map(|file| file.bytes).sum();
    let largest = files.iter().max_by_key(|file| file.bytes)?;
    Some((&largest.name, largest.bytes as f64 / all.max(1) as f64))
}

/// `--task I/N`: tokenizes the task's share of the input into a part.
pub(super) fn task(
    manifest: &Manifest,
    plan: &Plan,
    recipe: String,
    args: &TaskArgs,
    stop: &Stop,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let mut total = 0;
    for source in &plan.sources {
        let share = args.task.files(&source.files);
        total += source.files[share].iter().map(|file| file.bytes).sum::<u64>();
        if let Some((name, share)) = largest_share(&source.files)
            && share * f64::from(args.task.of()) > 2.0
        {
            eprintln!(
                "note: {name} is {:.0} % of source {}; tasks take whole files, so one of the {} \
                 reads all of it",
                share * 100.0,
                source.name,
                args.task.of()
            );
        }
    }
    let progress = Progress::start(args.progress, "tokenize", "bytes", Some(total));
    let data = Data { overlong: Some(manifest.overlong()), ..manifest.data.clone() };
    let done = run_task(
        plan,
        &TaskOptions {
            task: args.task,
            out: &args.out,
            data,
            recipe,
            chunk_bytes: CHUNK_BYTES,
            jobs: args.jobs,
            replace: args.force,
            progress: &progress,
            stop,
        },
    );
    progress.finish();
    let done = match done {
        Err(BuildError::Pipeline(PipelineError::Stopped)) => return Ok(stopped(stop)),
        other => other.map_err(|e| build_failure(&e))?,
    };
    let summary = TaskSummary {
        task: args.task.to_string(),
        records: done.records,
        tokens: done.tokens,
        output_bytes: done.bytes,
        seconds: started.elapsed().as_secs_f64(),
        part: args.out.display().to_string(),
    };
    if args.json {
        print_json(&summary)?;
    } else {
        print_text(&format!(
            "{}: task {}, {} records, {} tokens, {}\n",
            summary.part,
            summary.task,
            human::count(summary.records),
            human::count(summary.tokens),
            human::bytes(summary.output_bytes)
        ))?;
    }
    Ok(Exit::Done)
}
