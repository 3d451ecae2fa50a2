//! `coda-ingest train-tokenizer`.

use clap::Args;
use coda_cli::{Exit, Failure, Progress, ProgressArgs, human, print_json, print_text};
use coda_ingest::{
    decode::DecodeError,
    source::{Filters, list_files},
    train_tokenizer::{DEFAULT_SPECIALS, TrainError, TrainOptions, train},
};
use coda_shards::commit::{FileError, write_atomic};
use serde::Serialize;
use std::{fs, path::PathBuf, time::Instant};

/// Train a byte-level BPE tokenizer: NFC, the Qwen2 pre-tokenizer, control tokens last.
///
/// The same input gives the same file, whatever the number of threads.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest train-tokenizer --input src/ docs/ --vocab-size 4096 --out tokenizer.json
  coda-ingest train-tokenizer --input 'data/**/*.jsonl.zst' --text-field content \\
      --vocab-size 32768 --max-bytes 200000000 --out tokenizer.json")]
pub(crate) struct Train {
    /// Files, globs, or folders of code (language by extension).
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Ids in all: 256 bytes, merges and control tokens.
    #[arg(long, value_name = "N")]
    vocab_size: usize,
    /// The tokenizer.json to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A control token; repeat for several. Ids follow the order given. The default is what the
    /// stages of CODA need.
    #[arg(long, value_name = "TOKEN", default_values_t = DEFAULT_SPECIALS.iter().map(|&s| s.to_owned()))]
    special: Vec<String>,
    /// Field of the text in jsonl, parquet and Arrow files.
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_field: String,
    /// In folders, only files with these extensions.
    #[arg(long, value_name = "EXT", value_delimiter = ',')]
    extensions: Vec<String>,
    /// In folders and globs, leave out what matches; relative to the folder.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Read no more text than this.
    #[arg(long, default_value_t = 512 << 20, value_name = "N")]
    max_bytes: u64,
    /// Print a summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Serialize)]
struct Summary {
    tokenizer: String,
    vocab_size: usize,
    documents: u64,
    rejected: u64,
    input_bytes: u64,
    seconds: f64,
    fingerprint: String,
}

impl Train {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let filters = Filters {
            drop_vendored: true,
            extensions: self.extensions,
            exclude: self.exclude,
            ..Filters::default()
        };
        let mut files =
            list_files("--input", &self.input, &filters).map_err(|e| super::source_failure(&e))?;
        files.retain(|file| !file.vendored);
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let progress = Progress::start(
            self.progress,
            "train-tokenizer",
            "bytes",
            Some(total.min(self.max_bytes)),
        );
        let options = TrainOptions {
            vocab_size: self.vocab_size,
            specials: self.special,
            text_field: self.text_field,
            max_bytes: self.max_bytes,
            max_document_bytes: 64 << 20,
        };
        // Before the work, so that none is lost for want of a folder.
        if let Some(folder) = self.out.parent() {
            fs::create_dir_all(folder)
                .map_err(|error| super::file_failure(&FileError::new("create", folder, error)))?;
        }
        let trained =
            train(&files, &options, &|bytes| progress.advance(bytes)).map_err(|e| failure(&e))?;
        progress.finish();
        write_atomic(&self.out, |file| file.write_all(trained.json.as_bytes()))
            .map_err(|error| super::file_failure(&error))?;
        let summary = Summary {
            tokenizer: self.out.display().to_string(),
            vocab_size: trained.vocab_size,
            documents: trained.documents,
            rejected: trained.rejected,
            input_bytes: trained.bytes,
            seconds: started.elapsed().as_secs_f64(),
            fingerprint: blake3::hash(trained.json.as_bytes()).to_hex().to_string(),
        };
        if trained.vocab_size < options.vocab_size {
            eprintln!(
                "note: the text has only enough pairs for {} ids, not {}",
                trained.vocab_size, options.vocab_size
            );
        }
        if self.json {
            print_json(&summary)?;
        } else {
            print_text(&format!(
                "{}: {} ids from {} documents, {} of text, in {:.1} s\n",
                summary.tokenizer,
                summary.vocab_size,
                human::count(summary.documents),
                human::bytes(summary.input_bytes),
                summary.seconds,
            ))?;
        }
        Ok(Exit::Done)
    }
}

fn failure(error: &TrainError) -> Failure {
    match error {
        TrainError::TooSmall { .. } => {
            Failure::usage(error.to_string()).hint("give a larger --vocab-size")
        }
        TrainError::NoText { .. } => Failure::usage(error.to_string())
            .hint("--text-field names the field that holds the text; --extensions picks files"),
        TrainError::Decode(DecodeError::Read { .. }) => Failure::from_error(Exit::Io, error),
        TrainError::Decode(_) | TrainError::Trainer(_) => {
            Failure::from_error(Exit::Incompatible, error)
        }
    }
}
