//! `coda-ingest card`.

use clap::Args;
use coda_cli::{Exit, Failure, print_json, print_text};
use coda_shards::{CardOptions, DatasetCard, Index, commit};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Print a dataset card for a hub: front matter, sources, licences, counts, how to read the set.
///
/// The README.md inside a shard set is part of the set and stays as it is; this card is richer and
/// goes beside it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest card shards/pre
  coda-ingest card shards/pre --title 'My code corpus' --language en --out README.md --folder data
  coda-ingest card shards/pre --json")]
pub(crate) struct Card {
    /// The shard set.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Write the card to this file, which must not be there and must lie outside the set.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The title; the default is the name of the folder.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// A language of the texts, as an ISO 639 code such as en; may be given again.
    #[arg(long, value_name = "CODE", value_parser = language)]
    language: Vec<String>,
    /// The folder of the shards as seen from the card, such as data.
    #[arg(long, value_name = "FOLDER", default_value = "")]
    folder: String,
    /// Print the card's fields as JSON.
    #[arg(long)]
    json: bool,
}

/// The keys are a contract.
#[derive(Serialize)]
struct Report<'a> {
    shard_set: String,
    fingerprint: &'a str,
    #[serde(flatten)]
    card: &'a DatasetCard,
}

fn language(code: &str) -> Result<String, String> {
    let letters = code.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if letters && (2..=12).contains(&code.len()) {
        Ok(code.to_owned())
    } else {
        Err("an ISO 639 code in small letters was expected, such as en".to_owned())
    }
}

impl Card {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let index = Index::load(&self.dir).map_err(|error| super::shard_failure(&error))?;
        let name = || {
            let real = self.dir.canonicalize().ok();
            let named = real.as_deref().unwrap_or(&self.dir).file_name();
            named.map_or_else(|| "shard set".to_owned(), |name| name.to_string_lossy().into())
        };
        let card = DatasetCard::new(
            &index,
            &CardOptions {
                title: self.title.clone().unwrap_or_else(name),
                languages: self.language.clone(),
                folder: self.folder.clone(),
                program: format!("coda-ingest {}", env!("CARGO_PKG_VERSION")),
            },
        );
        if let Some(out) = &self.out {
            self.write(out, &card)?;
        }
        if self.json {
            let shard_set = self.dir.display().to_string();
            print_json(&Report { shard_set, fingerprint: &index.fingerprint, card: &card })?;
        } else if self.out.is_none() {
            print_text(&card.render())?;
        }
        Ok(Exit::Done)
    }

    fn write(&self, out: &Path, card: &DatasetCard) -> Result<(), Failure> {
        if out.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!("{} is there already", out.display()))
                .hint("a card is never written over a file; name another, or remove it"));
        }
        super::must_lie_outside(&self.dir, out)?;
        super::make_parent(out)?;
        commit::write_atomic(out, |file| file.write_all(card.render().as_bytes()))
            .map_err(|error| super::file_failure(&error))?;
        eprintln!("{} is written", out.display());
        Ok(())
    }
}
