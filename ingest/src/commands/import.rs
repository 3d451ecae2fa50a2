//! `coda-ingest import`.

use super::build::{already_there, build_failure};
use clap::{Args, ValueEnum};
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    build::recover,
    import::{ImportError, ImportFormat, ImportOptions, Imported, Width, import, inputs},
    tokenize::{Tokenizer, Vocabulary},
};
use coda_manifests::Packing;
use coda_shards::{Index, REJECTS_FILE, Specials};
use serde::Serialize;
use std::{path::PathBuf, time::Instant};

/// Make a shard set of ids that another program has tokenized.
///
/// Documents come with their end tokens; one without gets one. A document with an id that the
/// tokenizer does not have is one reject.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest import --from megatron data/my_text_document --tokenizer tokenizer.json \\
      --eos '<|endoftext|>' --pad '<|endoftext|>' --mask '<|mask|>' --row-length 1024 \\
      --name my-text --out shards/my-text
  coda-ingest import --from flat train.bin --id-bits 16 --tokenizer gpt2.json \\
      --eos 50256 --pad 50256 --mask 50257 --row-length 1024 --name web --out shards/web
  coda-ingest import --from olmo preprocessed/ --id-bits 32 --tokenizer tokenizer.json \\
      --eos '<|endoftext|>' --pad '<|pad|>' --mask '<|mask|>' --row-length 4096 \\
      --name dolma --license ODC-By-1.0 --out shards/dolma --json")]
pub(crate) struct Import {
    /// The files, or folders that hold them; for Megatron also its prefixes.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Format,
    /// The tokenizer.json that made the ids; it is copied into the set.
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// The token that ends documents: its text or its id.
    #[arg(long, value_name = "TOKEN")]
    eos: String,
    /// The token that fills rows: its text or its id.
    #[arg(long, value_name = "TOKEN")]
    pad: String,
    /// The token that stands for a masked position: its text or its id.
    #[arg(long, value_name = "TOKEN")]
    mask: String,
    /// Tokens per row.
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u32).range(2..=1 << 24))]
    row_length: u32,
    /// Rows per shard file.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    rows_per_shard: u32,
    /// How documents become rows.
    #[arg(long, value_enum, default_value_t = Pack::Concat, value_name = "HOW")]
    packing: Pack,
    /// The name of the source; the draws of its rows derive from it.
    #[arg(long, value_name = "NAME", value_parser = source_name)]
    name: String,
    /// The licence of the documents.
    #[arg(long, value_name = "LICENCE")]
    license: Option<String>,
    /// Bits of an id, where no meta.json says it (flat, olmo).
    #[arg(long, value_name = "BITS", value_parser = ["8", "16", "32"])]
    id_bits: Option<String>,
    /// Write the shard set here.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Import even if a shard set is there and replace it; the old one stays until the new one is
    /// complete.
    #[arg(long)]
    force: bool,
    /// Share of rejected documents above which the import ends with exit code 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    max_reject_rate: f64,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// Formats by their names on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Megatron's .bin and .idx.
    Megatron,
    /// Flat .bin files, documents bounded by end tokens.
    Flat,
    /// Raw arrays with .csv.gz tables of documents, as Dolma and OLMo-core have them.
    Olmo,
}

/// How documents become rows.
#[derive(Clone, Copy, ValueEnum)]
enum Pack {
    /// One after the other; a document that does not fit goes on in the next row.
    Concat,
    /// Whole, into the row with the least room that takes them.
    BestFit,
}

/// The keys are a contract.
#[derive(Serialize)]
struct Summary {
    documents: u64,
    rejected: u64,
    rows: u64,
    tokens: u64,
    padding_tokens: u64,
    input_bytes: u64,
    output_bytes: u64,
    /// Documents that came without an end token; null for a set that was there already.
    ends_added: Option<u64>,
    seconds: f64,
    shard_set: String,
    fingerprint: String,
}

fn source_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    if !name.is_empty() && name.len() <= 200 && name.chars().all(plain) {
        Ok(name.to_owned())
    } else {
        Err("a name of letters, digits and -_.+/ was expected".to_owned())
    }
}

/// The id of a token by its text, or the id itself.
fn id(vocabulary: &Vocabulary, said: &str, option: &'static str) -> Result<u32, Failure> {
    if let Some(id) = vocabulary.id(said) {
        return Ok(id);
    }
    match said.parse::<u32>() {
        Ok(id) if id < vocabulary.id_limit() => Ok(id),
        Ok(id) => Err(Failure::usage(format!(
            "{option} is {id}, but the ids of the tokenizer lie below {}",
            vocabulary.id_limit()
        ))
        .hint("add the token to the added_tokens of a copy of the tokenizer")),
        Err(_) => vocabulary
            .require(said, option)
            .map_err(|error| Failure::from_error(Exit::Usage, &error).maybe_hint(error.hint())),
    }
}

impl Import {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let tokenizer = Tokenizer::load(&self.tokenizer, false)
            .map_err(|error| Failure::from_error(Exit::Usage, &error).maybe_hint(error.hint()))?;
        let specials = Specials {
            eos: id(&tokenizer, &self.eos, "--eos")?,
            pad: id(&tokenizer, &self.pad, "--pad")?,
            mask: id(&tokenizer, &self.mask, "--mask")?,
        };
        let inputs = inputs(self.format(), &self.paths, self.width(), specials.eos)
            .map_err(|error| failure(&error))?;
        let stop = Stop::install()?;
        let total = inputs.iter().map(|input| input.bytes).sum();
        let progress = |args| Progress::start(args, "import", "bytes", Some(total));
        let quiet = ProgressArgs { quiet: true, ..self.progress };
        let mut options = ImportOptions {
            inputs: &inputs,
            tokenizer: &self.tokenizer,
            vocabulary: tokenizer.id_limit(),
            specials,
            row_length: self.row_length,
            rows_per_shard: self.rows_per_shard,
            packing: match self.packing {
                Pack::Concat => Packing::Concat,
                Pack::BestFit => Packing::BestFit,
            },
            name: &self.name,
            license: self.license.as_ref(),
            out: &self.out,
            replace: self.force,
            progress: &progress(quiet),
            stop: &stop,
        };
        let recipe = options.recipe().map_err(|error| failure(&error))?;
        recover(&self.out).map_err(|error| build_failure(&error))?;
        if let Some(index) = already_there(self.force, &self.out, &recipe)? {
            eprintln!("{} is up to date: same files and settings", self.out.display());
            return self.report(&index, None, started);
        }
        let shown = progress(self.progress);
        options.progress = &shown;
        let imported = import(&options, &recipe);
        shown.finish();
        match imported {
            Err(ImportError::Stopped) => {
                eprintln!("stopped: no shard set was finished");
                Ok(stop.requested().unwrap_or(Exit::Interrupted))
            }
            Err(error) => Err(failure(&error)),
            Ok(Imported { built, ends_added }) => {
                self.report(&built.index, Some(ends_added), started)
            }
        }
    }

    const fn format(&self) -> ImportFormat {
        match self.from {
            Format::Megatron => ImportFormat::Megatron,
            Format::Flat => ImportFormat::Flat,
            Format::Olmo => ImportFormat::Olmo,
        }
    }

    fn width(&self) -> Option<Width> {
        Width::of_dtype(&format!("uint{}", self.id_bits.as_deref()?))
    }

    fn report(
        &self,
        index: &Index,
        ends_added: Option<u64>,
        started: Instant,
    ) -> Result<Exit, Failure> {
        let totals = &index.totals;
        let summary = Summary {
            documents: totals.documents,
            rejected: totals.rejected,
            rows: index.rows,
            tokens: totals.tokens,
            padding_tokens: totals.padding_tokens,
            input_bytes: totals.input_bytes,
            output_bytes: index.bytes(),
            ends_added,
            seconds: started.elapsed().as_secs_f64(),
            shard_set: self.out.display().to_string(),
            fingerprint: index.fingerprint.clone(),
        };
        if self.json {
            print_json(&summary)?;
        } else {
            print_text(&summary.text(index))?;
        }
        let all = (summary.documents + summary.rejected) as f64;
        if summary.rejected as f64 <= self.max_reject_rate * all {
            return Ok(Exit::Done);
        }
        Err(Failure::check_failed(format!(
            "{} of {all} documents were rejected, more than --max-reject-rate ({}) allows; the shard \
             set is complete without them",
            summary.rejected, self.max_reject_rate
        ))
        .hint(format!("{} lists each of them", self.out.join(REJECTS_FILE).display())))
    }
}

impl Summary {
    fn text(&self, index: &Index) -> String {
        let added = self.ends_added.filter(|&added| added > 0);
        let added = added.map_or(String::new(), |n| format!(" ({n} of them got an end token)"));
        format!(
            "{}: {} documents{added}, {} tokens, {} rows of {}, {} in {:.1} s, fingerprint {}\n",
            self.shard_set,
            human::count(self.documents),
            human::count(self.tokens),
            self.rows,
            index.row_length,
            human::bytes(self.output_bytes),
            self.seconds,
            self.fingerprint,
        )
    }
}

fn failure(error: &ImportError) -> Failure {
    let exit = match error {
        ImportError::Build(error) => return build_failure(error),
        ImportError::Damaged { .. } => Exit::Incompatible,
        ImportError::File(_) => Exit::Io,
        _ => Exit::Usage,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}
