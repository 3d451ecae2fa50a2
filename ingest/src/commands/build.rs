//! `coda-ingest --manifest …`: builds a shard set.

use super::{
    dry_run::dry_run,
    merge::{TaskArgs, default_part, stopped},
    survey::survey,
};
use clap::Args;
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    build::{BuildError, BuildOptions, Built, build, recover},
    dedup::DedupError,
    explain::Target,
    part::Task,
    pipeline::PipelineError,
    plan::{Plan, PlanError, Unreachable},
};
use coda_manifests::{Data, Manifest, Source};
use coda_shards::{INDEX_FILE, Index, ShardError, ShardSet, SourceEntry, held_out_rows};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

/// Builds a shard set from a manifest.
#[derive(Args)]
pub(crate) struct Build {
    /// The manifest: sources, tokenizer, row length.
    #[arg(long, value_name = "FILE", required = true)]
    manifest: Option<PathBuf>,
    /// Write the shard set here instead of data.out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads; the bytes written do not depend on it. The default is all cores.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Only the I-th of N shares of the input (whole files), into a part for `merge`; --out then
    /// names the part.
    #[arg(long, value_name = "I/N", conflicts_with = "dry_run")]
    task: Option<Task>,
    /// List files, check tokenizer and fields, estimate tokens; write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Say step by step what happens to a document, and why; write nothing. DOC is
    /// SOURCE:FILE:LINE (or row), or the first digits of the BLAKE3 of its text.
    #[arg(long, value_name = "DOC", conflicts_with_all = ["dry_run", "force", "task"])]
    explain: Option<Target>,
    /// Build even if a shard set is there and replace it; the old one stays until the new one is
    /// complete. An unfinished one is begun anew.
    #[arg(long)]
    force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    /// Manifest keys to override, such as `data.row_length=1024`.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// The summary of a build; the keys are a contract.
#[derive(Serialize)]
struct Summary {
    documents: u64,
    rejected: u64,
    /// Usable records that a rule of the manifest left out.
    dropped: u64,
    rows: u64,
    tokens: u64,
    padding_tokens: u64,
    /// UTF-8 bytes of the documents taken in.
    input_bytes: u64,
    output_bytes: u64,
    seconds: f64,
    tokens_per_second: f64,
    shard_set: String,
    fingerprint: String,
    /// Pads among the positions of all rows.
    padding_share: f64,
    sources: Vec<SourceSummary>,
}

/// What one source has become, and what training will read of it.
#[derive(Serialize)]
struct SourceSummary {
    name: String,
    documents: u64,
    rejected: u64,
    dropped: u64,
    /// The same by rule.
    drops: BTreeMap<String, u64>,
    rows: u64,
    tokens: u64,
    padding_tokens: u64,
    padding_share: f64,
    /// Conversations that were cut; null for a set that was there already.
    overlong_truncated: Option<u64>,
    weight: Option<f64>,
    epochs: Option<f64>,
    /// Its share of the positions of training.
    training_share: f64,
}

/// Pads among all positions.
fn share(padding: u64, tokens: u64) -> f64 {
    padding as f64 / (padding + tokens).max(1) as f64
}

/// The sources of a set, and how the manifest mixes them.
fn sources(index: &Index, data: &Data, built: Option<&Built>) -> Vec<SourceSummary> {
    let held = |rows| rows - held_out_rows(rows, data.held_out);
    let train_rows: Vec<u64> = index.sources.iter().map(|source| held(source.rows)).collect();
    let shares = data.shares(&train_rows);
    let keys = data.sources.iter().zip(shares);
    let summary =
        |(number, (source, (keys, training_share))): (usize, (&SourceEntry, (&Source, f64)))| {
            let report = built.and_then(|built| built.reports.get(number));
            SourceSummary {
                name: source.name.clone(),
                documents: source.documents,
                rejected: source.rejected(),
                dropped: source.dropped(),
                drops: source.drops.clone(),
                rows: source.rows,
                tokens: source.tokens,
                padding_tokens: source.padding_tokens,
                padding_share: share(source.padding_tokens, source.tokens),
                overlong_truncated: report.map(|report| report.overlong_truncated),
                weight: keys.weight,
                epochs: keys.epochs,
                training_share,
            }
        };
    index.sources.iter().zip(keys).enumerate().map(summary).collect()
}

impl Summary {
    /// Tokens that were there before this run have no rate.
    fn new(
        index: &Index,
        data: &Data,
        out: &Path,
        started: Instant,
        built: Option<&Built>,
    ) -> Self {
        let totals = &index.totals;
        let seconds = started.elapsed().as_secs_f64();
        let before = built.map_or(totals.tokens, |built| built.tokens_before);
        let now = totals.tokens.saturating_sub(before);
        let shards: u64 = index.shards.iter().map(|shard| shard.bytes).sum();
        let files: u64 = index.files.values().map(|file| file.bytes).sum();
        Self {
            documents: totals.documents,
            rejected: totals.rejected,
            dropped: index.sources.iter().map(SourceEntry::dropped).sum(),
            rows: index.rows,
            tokens: totals.tokens,
            padding_tokens: totals.padding_tokens,
            input_bytes: totals.input_bytes,
            output_bytes: shards + files,
            seconds,
            tokens_per_second: now as f64 / seconds.max(1e-9),
            shard_set: out.display().to_string(),
            fingerprint: index.fingerprint.clone(),
            padding_share: share(totals.padding_tokens, totals.tokens),
            sources: sources(index, data, built),
        }
    }
}

impl Build {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let path = self.manifest.clone().unwrap_or_default();
        let manifest = Manifest::load(&path, &self.overrides, &[]).map_err(|e| {
            let exit = if e.is_usage() { Exit::Usage } else { Exit::Io };
            Failure::from_error(exit, &e).maybe_hint(e.hint())
        })?;
        let out = self.out(&manifest)?;
        let jobs = self.workers();
        if self.dry_run
            && let Ok(tokenizer) = manifest.resolve(&manifest.tokenizer.path)
            && !tokenizer.exists()
        {
            return survey(&manifest, &tokenizer, &out, jobs, self.json);
        }
        let unreachable = if self.dry_run { Unreachable::Noted } else { Unreachable::Refused };
        let plan = Plan::with(&manifest, unreachable).map_err(|e| plan_failure(&e))?;
        if let Some(reason) = plan.tokenizer.slow_because() {
            eprintln!(
                "note: {reason}: it goes through Hugging Face tokenizers, with the same ids but many \
                 times slower than the tokenizers of Qwen2 and Qwen3"
            );
        }
        let stop = Stop::install()?;
        if let Some(target) = &self.explain {
            return super::explain::run(&plan, target, &out, jobs, &stop, self.json);
        }
        if self.dry_run {
            return dry_run(&plan, &out, jobs, self.json);
        }
        let recipe = plan.recipe().map_err(|e| plan_failure(&e))?;
        if let Some(task) = self.task {
            let out = self.out.clone().unwrap_or_else(|| default_part(&out, task));
            let Self { force, json, progress, .. } = self;
            let args = TaskArgs { task, out, jobs, force, json, progress };
            return super::merge::task(&manifest, &plan, recipe, &args, &stop);
        }
        recover(&out).map_err(|e| build_failure(&e))?;
        if let Some(index) = already_there(self.force, &out, &recipe)? {
            return report(self.json, &index, &manifest.data, &out, started, None);
        }
        let total = plan.file_bytes();
        let progress = Progress::start(self.progress, "ingest", "bytes", Some(total));
        let tokenizer = plan.tokenizer.path().to_owned();
        let built = build(
            &plan,
            &BuildOptions {
                out: &out,
                tokenizer: &tokenizer,
                rows_per_shard: manifest.data.rows_per_shard,
                recipe,
                jobs,
                replace: self.force,
                progress: &progress,
                stop: &stop,
            },
        );
        progress.finish();
        let built = match built {
            Err(BuildError::Pipeline(PipelineError::Stopped)) => return Ok(stopped(&stop)),
            other => other.map_err(|e| build_failure(&e))?,
        };
        report(self.json, &built.index, &manifest.data, &out, started, Some(&built))
    }

    fn out(&self, manifest: &Manifest) -> Result<PathBuf, Failure> {
        match self.out.clone() {
            Some(out) => Ok(out),
            None => manifest
                .resolve(&manifest.data.out)
                .map_err(|e| Failure::from_error(Exit::Usage, &e).maybe_hint(e.hint())),
        }
    }

    fn workers(&self) -> usize {
        self.jobs.map_or_else(all_cores, usize::from)
    }
}

/// The index of a finished set at `out` that the same recipe made. Another finished set is an
/// error. With `--force` nothing that is there counts.
pub(super) fn already_there(
    force: bool,
    out: &Path,
    recipe: &str,
) -> Result<Option<Index>, Failure> {
    if force || !out.join(INDEX_FILE).exists() {
        return Ok(None);
    }
    match ShardSet::open(out) {
        Ok(set) if set.index().manifest_hash == recipe => Ok(Some(set.index().clone())),
        Ok(_) => Err(Failure::usage(format!(
            "{} holds a shard set of another manifest or of other inputs",
            out.display()
        ))
        .hint("--force replaces it once the new one is complete; --out writes elsewhere")),
        Err(error) => Err(super::shard_failure(&error)
            .hint("--force replaces it once the new one is complete; --out writes elsewhere")),
    }
}

pub(super) fn report(
    json: bool,
    index: &Index,
    data: &Data,
    out: &Path,
    started: Instant,
    built: Option<&Built>,
) -> Result<Exit, Failure> {
    let summary = Summary::new(index, data, out, started, built);
    let max_reject_rate = data.max_reject_rate;
    if built.is_none() {
        eprintln!("{} is up to date: same manifest, tokenizer and inputs", out.display());
    }
    if json {
        print_json(&summary)?;
    } else {
        print_text(&text(&summary, index, built))?;
    }
    let records = summary.documents + summary.rejected + summary.dropped;
    let allowed = summary.rejected as f64 <= max_reject_rate * records as f64;
    if allowed {
        return Ok(Exit::Done);
    }
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in index.sources.iter().flat_map(|source| &source.rejects) {
        *reasons.entry(reason).or_default() += count;
    }
    let list: Vec<String> = reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
    Err(Failure::check_failed(format!(
        "{} of {records} records were rejected ({}), more than data.max_reject_rate \
         ({max_reject_rate}) allows; the shard set is complete without them",
        summary.rejected,
        list.join(", "),
    ))
    .hint(format!(
        "{} lists each of them; allow them with data.max_reject_rate=0.01",
        out.join(coda_shards::REJECTS_FILE).display()
    )))
}

fn text(summary: &Summary, index: &Index, built: Option<&Built>) -> String {
    let mut out = String::new();
    for (number, source) in index.sources.iter().enumerate() {
        let _ = write!(
            out,
            "{}: {} documents, {} tokens, {} rows",
            source.name,
            human::count(source.documents),
            human::count(source.tokens),
            source.rows
        );
        let mixed = &summary.sources[number];
        if index.sources.len() > 1 {
            let _ = write!(out, ", {} of training", percent(mixed.training_share));
        }
        let padding = mixed.padding_share;
        if padding >= 0.0005 {
            let _ = write!(out, ", {} padding", percent(padding));
        }
        for (reason, count) in &source.rejects {
            let _ = write!(out, ", {count} rejected ({reason})");
        }
        for (rule, count) in &source.drops {
            let _ = write!(out, ", {count} left out ({rule})");
        }
        if let Some(report) = built.and_then(|built| built.reports.get(number)) {
            let notes = [
                (report.skipped_files, "binary or empty files passed over"),
                (report.overlong_truncated, "overlong conversations cut"),
            ];
            for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
                let _ = write!(out, ", {count} {what}");
            }
            if report.budget_reached {
                out.push_str(", budget reached");
            }
        }
        out.push('\n');
    }
    let _ = write!(
        out,
        "{}: {} rows of {} tokens, {}, from {} of text",
        summary.shard_set,
        summary.rows,
        index.row_length,
        human::bytes(summary.output_bytes),
        human::bytes(summary.input_bytes),
    );
    if built.is_some() {
        let rate = human::rate(summary.tokens_per_second, "tokens");
        let _ = write!(out, " in {:.1} s ({rate})", summary.seconds);
    }
    let _ = writeln!(out, ", fingerprint {}", summary.fingerprint);
    out
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn plan_failure(error: &PlanError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

pub(super) fn build_failure(error: &BuildError) -> Failure {
    match error {
        BuildError::Shards(error @ ShardError::Damaged { .. }) => super::shard_failure(error)
            .hint("this unfinished set cannot go on; --force begins it anew"),
        BuildError::Shards(error) => super::shard_failure(error),
        BuildError::Pipeline(error @ PipelineError::Changed { .. }) => {
            Failure::from_error(Exit::Incompatible, error)
                .hint("--force begins anew with the files as they are now")
        }
        BuildError::File(error) => super::file_failure(error),
        BuildError::Pipeline(PipelineError::Fetch(error)) => {
            Failure::from_error(Exit::Io, error).maybe_hint(error.hint())
        }
        BuildError::Dedup(DedupError::Damaged { .. }) => {
            Failure::from_error(Exit::Incompatible, error)
                .hint("this unfinished set cannot go on; --force begins it anew")
        }
        BuildError::Dedup(_) => Failure::from_error(Exit::Io, error),
        BuildError::Spans(error) => Failure::from_error(Exit::Usage, error).hint(error.hint()),
        BuildError::Part(error) => {
            let exit = match error {
                error if error.is_usage() => Exit::Usage,
                error if error.is_artefact() => Exit::Incompatible,
                _ => Exit::Io,
            };
            Failure::from_error(exit, error).maybe_hint(error.hint())
        }
        BuildError::Pipeline(_) | BuildError::Threads { .. } => {
            Failure::from_error(Exit::Io, error)
        }
    }
}
