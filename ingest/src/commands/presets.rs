//! `coda-ingest presets`: the corpora that a manifest can name.

use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_manifests::{Preset, presets};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _};

/// Lists presets, or shows what one stands for.
#[derive(Args)]
pub(crate) struct Presets {
    /// Show this one, with its keys.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Presets {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let Some(name) = &self.name else {
            if self.json {
                let all: Vec<Value> = presets().iter().map(as_json).collect();
                print_json(&json!({ "presets": all }))?;
            } else {
                print_text(&list())?;
            }
            return Ok(Exit::Done);
        };
        let preset = Preset::named(name).ok_or_else(|| {
            Failure::usage(format!("there is no preset {name:?}"))
                .hint("`coda-ingest presets` lists them")
        })?;
        if self.json {
            print_json(&as_json(preset))?;
        } else {
            print_text(&one(preset))?;
        }
        Ok(Exit::Done)
    }
}

fn as_json(preset: &Preset) -> Value {
    let published = &preset.published;
    json!({
        "name": preset.name,
        "about": preset.about,
        "keys": preset.expansion(),
        "published": {
            "paths": published.paths,
            "files": published.files,
            "bytes": published.bytes,
            "documents": published.documents,
            "subsets": published.subsets.iter().copied().collect::<BTreeMap<_, _>>(),
            "tokens": published.tokens,
        },
    })
}

fn list() -> String {
    let width = presets().iter().map(|preset| preset.name.len()).max().unwrap_or(0);
    presets().iter().fold(String::new(), |mut out, preset| {
        let first = preset.about.split_inclusive(". ").next().unwrap_or_default().trim();
        let _ = writeln!(out, "{:width$}  {first}", preset.name);
        out
    })
}

fn one(preset: &Preset) -> String {
    let mut out = format!("# {}: {}\n", preset.name, preset.about);
    let _ = writeln!(out, "# Published at {}", preset.published.paths);
    if let Some(figures) = figures(preset, preset.published.documents) {
        let _ = writeln!(out, "# Its publishers say: {figures}");
    }
    out + &preset.to_yaml()
}

/// What the publishers say, in words, with the documents that are meant; nothing when they say nothing.
pub(crate) fn figures(preset: &Preset, documents: Option<u64>) -> Option<String> {
    let published = &preset.published;
    // Size and tokens are told of the whole alone.
    let whole = documents == published.documents;
    let count = |n: Option<u64>, what| n.map(|n| format!("{} {what}", human::count(n)));
    let parts: Vec<String> = [
        count(published.files, "files"),
        published.bytes.filter(|_| whole).map(human::bytes),
        count(documents, "documents"),
        count(published.tokens.filter(|_| whole), "tokens"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
