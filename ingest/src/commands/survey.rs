//! `coda-ingest --dry-run` where the tokenizer is not there yet, so that nothing can be sampled:
//! what the manifest asks for, what is here, what its publishers say, and what would come out.

use super::outlook::Outlook;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_ingest::{
    fetch::Fetcher,
    plan::{Unreachable, fetcher, list_source},
};
use coda_manifests::{Manifest, Preset, Source, SourceKind};
use serde::Serialize;
use serde_json::{Value, json};
use std::{fmt::Write as _, path::Path};

/// Paths shown of each source in the text form.
const SHOWN: usize = 3;

#[derive(Serialize)]
struct Survey<'a> {
    shard_set: String,
    row_length: u32,
    /// Why nothing was sampled.
    not_sampled: String,
    estimated_tokens: u64,
    /// Sources of which neither a budget nor a publisher says how many tokens they give.
    unknown: Vec<&'a str>,
    #[serde(flatten)]
    outlook: Outlook,
    sources: Vec<SourceView<'a>>,
}

#[derive(Serialize)]
struct SourceView<'a> {
    name: &'a str,
    preset: Option<&'a str>,
    paths: &'a [String],
    /// Files that were found, and their bytes.
    files: usize,
    file_bytes: u64,
    /// Bytes of those that are not here yet.
    fetch_bytes: u64,
    /// Why there is none, or not all.
    not_listed: Vec<String>,
    token_budget: Option<u64>,
    estimated_tokens: Option<u64>,
    /// Rows, where every document is one: tokens are then counted with their pads.
    estimated_rows: Option<u64>,
    /// What the publishers say; nobody has counted it here.
    published: Option<Value>,
}

/// Prints what can be said without a tokenizer.
pub(super) fn survey(
    manifest: &Manifest,
    missing: &Path,
    out: &Path,
    jobs: usize,
    json: bool,
) -> Result<Exit, Failure> {
    // Where nothing can be fetched at all, the addresses are noted one by one.
    let fetch = fetcher(manifest, Unreachable::Noted).ok();
    let view = |source| view(manifest, source, fetch.as_ref());
    let sources: Vec<SourceView<'_>> = manifest.data.sources.iter().map(view).collect();
    let tokens = sources.iter().filter_map(|source| source.estimated_tokens).sum();
    let row_length = manifest.data.row_length;
    let survey = Survey {
        shard_set: out.display().to_string(),
        row_length,
        not_sampled: format!("the tokenizer {} is not there", missing.display()),
        estimated_tokens: tokens,
        unknown: sources.iter().filter(|s| s.estimated_tokens.is_none()).map(|s| s.name).collect(),
        outlook: Outlook::new(tokens, row_length, None, jobs, out),
        sources,
    };
    if json {
        print_json(&survey)?;
    } else {
        print_text(&render(&survey))?;
    }
    Ok(Exit::Done)
}

fn view<'a>(manifest: &Manifest, source: &'a Source, fetch: Option<&Fetcher>) -> SourceView<'a> {
    let preset = source.preset.as_deref().and_then(Preset::named);
    let (files, not_listed) = match list_source(manifest, source, fetch) {
        Ok(listed) => {
            (listed.files, listed.unlisted.into_iter().map(|(_, reason)| reason).collect())
        }
        Err(error) => (Vec::new(), vec![error.to_string()]),
    };
    let to_fetch = files.iter().filter(|file| {
        let there = |origin| fetch.is_some_and(|fetch| fetch.has(origin, file.bytes));
        file.origin.as_deref().is_some_and(|origin| !there(origin))
    });
    let fetch_bytes = to_fetch.map(|file| file.bytes).sum();
    let budget = source.tokens.map(|tokens| tokens.0);
    let published = preset.and_then(|preset| preset.published.tokens);
    let documents = preset.and_then(|preset| preset.published.documents_of(&source.paths));
    // A conversation is a row, however short.
    let rows = documents.filter(|_| source.kind == SourceKind::Sft);
    let padded = rows.map(|rows| rows * u64::from(manifest.data.row_length));
    SourceView {
        name: &source.name,
        preset: source.preset.as_deref(),
        paths: &source.paths,
        files: files.len(),
        file_bytes: files.iter().map(|file| file.bytes).sum(),
        fetch_bytes,
        not_listed,
        token_budget: budget,
        // A budget is an upper bound; so is all that there is.
        estimated_tokens: budget.into_iter().chain(published).chain(padded).min(),
        estimated_rows: rows,
        published: preset.map(|preset| {
            let published = &preset.published;
            json!({
                "paths": published.paths,
                "files": published.files,
                "bytes": published.bytes,
                "documents": documents,
                "tokens": published.tokens,
            })
        }),
    }
}

fn render(survey: &Survey<'_>) -> String {
    let mut out = format!("Nothing was sampled: {}.\n", survey.not_sampled);
    for source in &survey.sources {
        let _ = write!(out, "{}: ", source.name);
        match (source.estimated_tokens, source.token_budget) {
            (Some(tokens), Some(budget)) if tokens == budget => {
                let _ = write!(out, "{} tokens (its budget)", human::count(tokens));
            }
            (Some(tokens), _) if source.estimated_rows.is_some() => {
                let rows = human::count(source.estimated_rows.unwrap_or_default());
                let tokens = human::count(tokens);
                let _ = write!(out, "{rows} rows (a conversation each), {tokens} tokens with pads");
            }
            (Some(tokens), _) => {
                let _ = write!(out, "{} tokens (published)", human::count(tokens));
            }
            (None, _) => out.push_str("tokens unknown"),
        }
        if source.files > 0 {
            let bytes = human::bytes(source.file_bytes);
            let fetch = human::bytes(source.fetch_bytes);
            let _ = write!(out, "; {} files, {bytes}, {fetch} to fetch", source.files);
        }
        out.push('\n');
        for path in source.paths.iter().take(SHOWN) {
            let _ = writeln!(out, "    {path}");
        }
        if source.paths.len() > SHOWN {
            let _ = writeln!(out, "    … and {} more paths", source.paths.len() - SHOWN);
        }
        for reason in &source.not_listed {
            let _ = writeln!(out, "    not listed: {reason}");
        }
        if let Some(preset) = source.preset.and_then(Preset::named) {
            let documents = preset.published.documents_of(source.paths);
            let figures = super::presets::figures(preset, documents);
            let figures = figures.as_deref().unwrap_or("no figures");
            let _ = writeln!(out, "    published ({}): {figures}", preset.name);
        }
    }
    let _ =
        write!(out, "{}: about {} tokens", survey.shard_set, human::count(survey.estimated_tokens));
    if !survey.unknown.is_empty() {
        let _ = write!(out, " without {}", survey.unknown.join(", "));
    }
    out + &survey.outlook.render(survey.row_length)
}
