//! `coda-ingest --dry-run`: what a build would read and give.

use super::outlook::Outlook;
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    build::workers,
    estimate::{Estimate, estimate},
    pipeline::{Line, SourcePlan},
    plan::Plan,
};
use coda_manifests::Clean;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

/// Files shown of each source in the text form.
const SHOWN: usize = 5;

#[derive(Serialize)]
struct DryRun<'a> {
    shard_set: String,
    row_length: u32,
    file_bytes: u64,
    /// Bytes of remote files that are not in the cache.
    #[serde(skip_serializing_if = "is_zero")]
    fetch_bytes: u64,
    estimated_tokens: u64,
    #[serde(flatten)]
    outlook: Outlook,
    sources: Vec<SourceView<'a>>,
}

#[derive(Serialize)]
struct SourceView<'a> {
    name: &'a str,
    files: Vec<FileView<'a>>,
    file_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    fetch_bytes: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    origins: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unlisted: Vec<Unlisted<'a>>,
    formats: BTreeSet<&'static str>,
    token_budget: Option<u64>,
    sampled_documents: u64,
    sampled_rejects: BTreeMap<&'static str, u64>,
    sampled_drops: BTreeMap<&'static str, u64>,
    /// The rules with profiles spelled out, as they could stand in the manifest.
    clean: &'a Clean,
    estimated_tokens: Option<u64>,
    /// Present where a ratio stands for a sample: no file of the source is here.
    #[serde(skip_serializing_if = "is_false")]
    estimated_by_ratio: bool,
}

#[derive(Serialize)]
struct Unlisted<'a> {
    address: &'a str,
    reason: &'a str,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct FileView<'a> {
    name: &'a str,
    bytes: u64,
}

/// Lists, samples and prints.
pub(super) fn dry_run(plan: &Plan, out: &Path, jobs: usize, json: bool) -> Result<Exit, Failure> {
    let pool = workers(jobs).map_err(|e| Failure::from_error(Exit::Io, &e))?;
    let progress =
        Progress::start(ProgressArgs { quiet: true, ..ProgressArgs::default() }, "", "", None);
    let stop = Stop::never();
    let line = Line { marker: None, ..plan.line(&pool, &progress, &stop) };
    let mut views = Vec::new();
    let mut problem = None;
    let mut timed = (0_u64, 0.0);
    for source in &plan.sources {
        let sample = estimate(source, &line).map_err(|e| Failure::from_error(Exit::Io, &e))?;
        if sample.sampled_documents == 0 && sample.sampled_drops.is_empty() && problem.is_none() {
            problem = nothing_usable(source, &sample);
        }
        timed = (timed.0 + sample.timed_tokens, timed.1 + sample.seconds);
        views.push(view(plan, source, sample));
    }
    let rate = (timed.0 > 0 && timed.1 > 0.0).then(|| timed.0 as f64 / timed.1);
    let tokens = views.iter().filter_map(|view| view.estimated_tokens).sum::<u64>();
    let dry = DryRun {
        shard_set: out.display().to_string(),
        row_length: plan.row_length,
        file_bytes: plan.file_bytes(),
        fetch_bytes: views.iter().map(|view| view.fetch_bytes).sum(),
        estimated_tokens: tokens,
        outlook: Outlook::new(tokens, plan.row_length, rate, jobs, out),
        sources: views,
    };
    if json {
        print_json(&dry)?;
    } else {
        print_text(&render(&dry))?;
    }
    problem.map_or(Ok(Exit::Done), Err)
}

fn view<'a>(plan: &'a Plan, source: &'a SourcePlan, sample: Estimate) -> SourceView<'a> {
    let to_fetch = source.files.iter().filter(|file| {
        let there = |origin| plan.fetch.as_ref().is_some_and(|f| f.has(origin, file.bytes));
        file.origin.as_deref().is_some_and(|origin| !there(origin))
    });
    let unlisted = source.unlisted.iter();
    SourceView {
        name: &source.name,
        files: source.files.iter().map(|f| FileView { name: &f.name, bytes: f.bytes }).collect(),
        file_bytes: source.files.iter().map(|file| file.bytes).sum(),
        fetch_bytes: to_fetch.map(|file| file.bytes).sum(),
        origins: &source.origins,
        unlisted: unlisted.map(|(address, reason)| Unlisted { address, reason }).collect(),
        formats: source.files.iter().map(|file| file.container.name()).collect(),
        token_budget: source.budget,
        sampled_documents: sample.sampled_documents,
        sampled_rejects: sample.sampled_rejects,
        sampled_drops: sample.sampled_drops,
        clean: source.cleaner.values(),
        estimated_tokens: sample.tokens,
        estimated_by_ratio: sample.by_ratio,
    }
}

/// Every sampled record was unusable: most likely the manifest names a wrong field.
fn nothing_usable(source: &SourcePlan, sample: &Estimate) -> Option<Failure> {
    let example = sample.reject_example.as_ref()?;
    if sample.sampled_rejects.keys().eq(&["missing_blob"]) {
        return None;
    }
    Some(
        Failure::usage(format!(
            "source {:?}: none of the sampled records is usable: {example}",
            source.name
        ))
        .hint("text_field (or fields, for kind: sft) names where the text is"),
    )
}

fn render(dry: &DryRun<'_>) -> String {
    let mut out = String::new();
    for source in &dry.sources {
        let formats: Vec<&str> = source.formats.iter().copied().collect();
        let _ = write!(
            out,
            "{}: {} files ({}), {}",
            source.name,
            source.files.len(),
            formats.join(", "),
            human::bytes(source.file_bytes)
        );
        match source.estimated_tokens {
            Some(tokens) => {
                let _ = write!(out, ", about {} tokens", human::count(tokens));
                if source.estimated_by_ratio {
                    out.push_str(" (not sampled: by size alone)");
                }
            }
            None if source.estimated_by_ratio || source.files.is_empty() => {
                out.push_str(", not sampled");
            }
            None => out.push_str(", no usable record in the sample"),
        }
        if let Some(budget) = source.token_budget {
            let _ = write!(out, " (budget {})", human::count(budget));
        }
        if source.fetch_bytes > 0 {
            let _ = write!(out, ", {} to fetch", human::bytes(source.fetch_bytes));
        }
        out.push('\n');
        for unlisted in &source.unlisted {
            let _ = writeln!(out, "    not listed: {}", unlisted.reason);
        }
        for (reason, count) in &source.sampled_rejects {
            let seen = source.sampled_documents;
            let _ = writeln!(out, "    {count} rejected in the sample of {seen}: {reason}");
        }
        for (rule, count) in &source.sampled_drops {
            let _ = writeln!(out, "    {count} left out in the sample: {rule}");
        }
        if !source.clean.is_off() {
            let clean = serde_json::to_string(source.clean).unwrap_or_default();
            let _ = writeln!(out, "    clean: {clean}");
        }
        for file in source.files.iter().take(SHOWN) {
            let _ = writeln!(out, "    {} {}", human::bytes(file.bytes), file.name);
        }
        if source.files.len() > SHOWN {
            let _ = writeln!(out, "    … and {} more", source.files.len() - SHOWN);
        }
    }
    let _ = write!(out, "{}: about {} tokens", dry.shard_set, human::count(dry.estimated_tokens));
    out += &dry.outlook.render(dry.row_length);
    if dry.fetch_bytes > 0 {
        let fetch = human::bytes(dry.fetch_bytes);
        let _ = writeln!(out, "{fetch} would be fetched first (`coda-ingest fetch` does it ahead)");
    }
    out
}
