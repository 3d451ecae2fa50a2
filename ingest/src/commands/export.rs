//! `coda-ingest export`.

use clap::{Args, ValueEnum};
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::tokenize::Tokenizer;
use coda_shards::{
    ErrorClass, ShardSet,
    export::{
        DocumentFormat, DocumentOptions, ExportError, Exported, IdWidth, Part, Selected, Selection,
        write_documents, write_hf,
    },
};
use serde::Serialize;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

/// Write a shard set in the format of another trainer.
///
/// megatron, flat and olmo hold documents: rows are taken apart again, pads are left out, every
/// document keeps its end token. hf and parquet hold rows with all columns. docs/export.md says what
/// each keeps and loses.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest export shards/pre --to megatron --out megatron/pre
  coda-ingest export shards/pre --to flat --out nanogpt/train --part train --held-out 0.01
  coda-ingest export shards/pre --to olmo --out olmo/pre --split-sources
  coda-ingest export shards/post --to olmo --out olmo/post --label-mask
  coda-ingest export shards/pre --to hf --out datasets/pre --source code --source docs
  coda-ingest export shards/pre --to parquet --out parquet/pre --json

The output folder must not be there; it appears whole or not at all.")]
pub(crate) struct Export {
    /// The shard set.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// The folder to write; it must not be there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only this source; may be given again.
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Which side of the held-out boundary.
    #[arg(long, value_enum, default_value_t = Side::All, value_name = "WHICH")]
    part: Side,
    /// The share of every source's rows that is held out: `data.held_out` of the manifest.
    #[arg(long, value_name = "SHARE", required_if_eq_any = [("part", "train"), ("part", "held")])]
    held_out: Option<f64>,
    /// Files of its own for every source (megatron, flat, olmo).
    #[arg(long)]
    split_sources: bool,
    /// Beside each array of ids an array that is false where a token is only read, as prompts are (olmo).
    #[arg(long)]
    label_mask: bool,
    /// Bits of an id (megatron, flat, olmo); the default follows from the vocabulary, as the
    /// format's readers expect it.
    #[arg(long, value_name = "BITS", value_parser = ["16", "32"])]
    id_bits: Option<String>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// Formats by their names on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Megatron's .bin and .idx.
    Megatron,
    /// One flat .bin of ids, as nanoGPT reads it.
    Flat,
    /// OLMo-core's raw arrays with .csv.gz tables of documents.
    Olmo,
    /// A folder for `load_from_disk` of Hugging Face datasets.
    Hf,
    /// Parquet files, compressed with zstd.
    Parquet,
}

/// Which side of the held-out boundary.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// Every row.
    All,
    /// What training reads.
    Train,
    /// What training never reads.
    Held,
}

/// The keys are a contract.
#[derive(Serialize)]
struct Summary<'a> {
    format: &'a str,
    out: String,
    shard_set: String,
    fingerprint: &'a str,
    sources: Vec<&'a str>,
    rows: u64,
    documents: Option<u64>,
    /// Documents without an end token.
    cut_documents: Option<u64>,
    tokens: u64,
    /// The type of ids.
    dtype: &'a str,
    files: &'a [String],
    output_bytes: u64,
    seconds: f64,
}

impl Format {
    const fn documents(self) -> Option<DocumentFormat> {
        match self {
            Self::Megatron => Some(DocumentFormat::Megatron),
            Self::Flat => Some(DocumentFormat::Flat),
            Self::Olmo => Some(DocumentFormat::Olmo),
            Self::Hf | Self::Parquet => None,
        }
    }
}

impl Export {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        super::must_be_free(&self.out)?;
        super::must_lie_outside(&self.dir, &self.out)?;
        if self.to.documents().is_none() && (self.split_sources || self.id_bits.is_some()) {
            return Err(Failure::usage(
                "--split-sources and --id-bits are for formats of documents",
            )
            .hint("with hf and parquet the column source tells rows apart; ids have 32 bits"));
        }
        if self.label_mask && self.to != Format::Olmo {
            return Err(Failure::usage("--label-mask is for --to olmo: no other reader takes one")
                .hint("hf and parquet have the columns prefix_len and maskable"));
        }
        let set = ShardSet::open(&self.dir).map_err(|error| super::shard_failure(&error))?;
        let selection = Selection {
            sources: self.source.clone(),
            part: match self.part {
                Side::All => Part::All,
                Side::Train => Part::Train,
                Side::Held => Part::HeldOut,
            },
            held_out: self.held_out.unwrap_or(0.0),
        };
        let selected = selection.of(&set).map_err(|error| failure(&error))?;
        let width = match self.to.documents() {
            Some(format) => self.width(format, &set)?,
            None => IdWidth::U32,
        };
        super::make_parent(&self.out)?;
        let stop = Stop::install()?;
        let rows = selected.iter().map(|chosen| chosen.rows.end - chosen.rows.start).sum();
        let progress = Progress::start(self.progress, "export", "rows", Some(rows));
        let written = self.write(&set, &selected, width, &mut |rows| {
            progress.advance(rows);
            if stop.requested().is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        progress.finish();
        let done = match written {
            Err(ExportError::Stopped) => {
                eprintln!("stopped: nothing was written");
                return Ok(stop.requested().unwrap_or(Exit::Interrupted));
            }
            other => other.map_err(|error| failure(&error))?,
        };
        self.report(&set, &selected, width, &done, started)?;
        Ok(Exit::Done)
    }

    /// The width that the format's readers expect for the vocabulary, or the one that was asked for.
    fn width(&self, format: DocumentFormat, set: &ShardSet) -> Result<IdWidth, Failure> {
        let vocabulary = match self.id_bits.as_deref() {
            Some("16") => 0,
            Some(_) => u32::MAX,
            None => {
                let path = set.tokenizer_path();
                let tokenizer = Tokenizer::load(&path, false).map_err(|error| {
                    Failure::from_error(Exit::Incompatible, &error)
                        .hint("the width of ids follows from the vocabulary; or give --id-bits")
                })?;
                let ids = set.specials();
                tokenizer.id_limit().max(ids.eos.max(ids.pad).max(ids.mask).saturating_add(1))
            }
        };
        Ok(format.width(vocabulary))
    }

    fn write(
        &self,
        set: &ShardSet,
        selected: &[Selected],
        width: IdWidth,
        tick: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Exported, ExportError> {
        match self.to.documents() {
            Some(format) => {
                let options = DocumentOptions {
                    format,
                    width,
                    split_sources: self.split_sources,
                    label_mask: self.label_mask,
                };
                write_documents(set, selected, options, &self.out, tick)
            }
            None if self.to == Format::Parquet => {
                coda_ingest::parquet_rows::write_parquet(set, selected, &self.out, tick)
            }
            None => write_hf(set, selected, &self.out, tick),
        }
    }

    fn report(
        &self,
        set: &ShardSet,
        selected: &[Selected],
        width: IdWidth,
        done: &Exported,
        started: Instant,
    ) -> Result<(), Failure> {
        let format = self.to.to_possible_value();
        let documents = self.to.documents().is_some();
        let summary = Summary {
            format: format.as_ref().map_or("", |value| value.get_name()),
            out: self.out.display().to_string(),
            shard_set: self.dir.display().to_string(),
            fingerprint: set.fingerprint(),
            sources: selected.iter().map(|chosen| chosen.name.as_str()).collect(),
            rows: done.rows,
            documents: documents.then_some(done.documents),
            cut_documents: documents.then_some(done.cut_documents),
            tokens: done.tokens,
            dtype: width.dtype(),
            files: &done.files,
            output_bytes: bytes(&self.out, &done.files)?,
            seconds: started.elapsed().as_secs_f64(),
        };
        if self.json { print_json(&summary) } else { print_text(&summary.text()) }
    }
}

impl Summary<'_> {
    fn text(&self) -> String {
        let rate = human::rate(self.tokens as f64 / self.seconds.max(1e-9), "tokens");
        let what = match (self.documents, self.cut_documents) {
            (Some(documents), Some(cut)) if cut > 0 => {
                format!(
                    "{} documents ({cut} of them without an end token)",
                    human::count(documents)
                )
            }
            (Some(documents), _) => format!("{} documents", human::count(documents)),
            _ => format!("{} rows", human::count(self.rows)),
        };
        format!(
            "{}: {what}, {} tokens as {}, {} in {} files, in {:.1} s ({rate})\n",
            self.out,
            human::count(self.tokens),
            self.dtype,
            human::bytes(self.output_bytes),
            self.files.len(),
            self.seconds,
        )
    }
}

fn bytes(dir: &Path, files: &[String]) -> Result<u64, Failure> {
    let size = |name: &String| {
        let path = dir.join(name);
        let found = path.metadata().map(|found| found.len());
        found.map_err(|e| Failure::io(format!("cannot read {}: {e}", path.display())))
    };
    files.iter().map(size).sum()
}

fn failure(error: &ExportError) -> Failure {
    let exit = match error.class() {
        ErrorClass::Usage => Exit::Usage,
        ErrorClass::Io => Exit::Io,
        ErrorClass::Artefact => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}
