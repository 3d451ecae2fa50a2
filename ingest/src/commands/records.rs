//! `coda-ingest records`: what lies in files, as JSON lines.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use coda_cli::{
    Exit, Failure, Progress, ProgressArgs, human, print_json, print_text, signals::Stop,
};
use coda_ingest::{
    fetch::{Address, Asking, FetchError, FetchOptions, Fetcher},
    records::{LeftOut, RecordsError, Sink, Written, write_records},
    source::{Container, Filters, InputFile, SourceError, list_files, list_remote},
};
use coda_shards::commit::AtomicFile;
use serde::Serialize;
use std::{
    io::{self, BufWriter, ErrorKind, IsTerminal as _, Write},
    path::PathBuf,
    sync::Arc,
};

/// So much of what is left out is named.
const NAMED: usize = 10;
/// What the files are called in errors.
const NAME: &str = "PATH";

const FORMATS: [Container; 7] = [
    Container::Jsonl,
    Container::Json,
    Container::Pairs,
    Container::Parquet,
    Container::Arrow,
    Container::Text,
    Container::Code,
];

/// Write the records of files as JSON lines, as they stand: Parquet, Arrow, JSON in any of its forms, text,
/// archives of these; local or remote.
///
/// It shows what a corpus holds before a manifest names it, and makes benchmark files of a hub into what
/// `coda-trainer eval code` reads.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest records data/part-0.parquet --head 2
  coda-ingest records hf://datasets/openai/openai_humaneval/openai_humaneval --out HumanEval.jsonl
  coda-ingest records hf://datasets/google-research-datasets/mbpp/full --out mbpp.jsonl
  coda-ingest records hf://datasets/org/name@0123abc/data/*.parquet --head 1 | python3 -m json.tool")]
pub(crate) struct Records {
    /// Files, globs, folders, or addresses of these: `hf://datasets/org/name[@revision]/path`, `s3://`,
    /// `gs://`, `az://`, `https://`.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Write them here, whole or not at all; without it, to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only the first N records.
    #[arg(long, value_name = "N")]
    head: Option<u64>,
    /// How records lie in the files; without it, by extension.
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    format: Option<Container>,
    /// Where remote files are kept that are not a hub's, which has a cache of its own.
    #[arg(long, value_name = "DIR", default_value = ".cache/coda")]
    cache: PathBuf,
    /// Ask no server: only what was fetched before is there.
    #[arg(long)]
    offline: bool,
    /// Ask other machines over http:// too.
    #[arg(long)]
    allow_http: bool,
    /// Print a summary as JSON.
    #[arg(long, requires = "out")]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// The keys are a contract.
#[derive(Serialize)]
struct Summary {
    out: String,
    files: usize,
    records: u64,
    rejected: u64,
    output_bytes: u64,
    /// The remote files, with their revisions settled.
    origins: Vec<String>,
}

impl Records {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::install()?;
        let fetcher = self.fetcher().map_err(|error| super::fetch_failure(&error))?;
        let files = self.files(fetcher.as_ref()).map_err(|error| list_failure(&error))?;
        let mut file = self.out.as_deref().map(AtomicFile::create).transpose();
        let file = file.as_mut().map_err(|error| super::file_failure(error))?;
        // A bar would stand between the records.
        let hidden = file.is_none() && io::stdout().is_terminal();
        let progress = ProgressArgs { quiet: self.progress.quiet || hidden, ..self.progress };
        let remote = files.iter().filter(|file| file.origin.is_some());
        let total = files.iter().chain(remote).map(|file| file.bytes).sum();
        let progress = Arc::new(Progress::start(progress, "records", "bytes", Some(total)));
        let mut named = Vec::new();
        let mut left_out = |LeftOut { file, number, problem }: LeftOut<'_>| {
            let place = if number == 0 { String::new() } else { format!(", record {number}") };
            if named.len() < NAMED {
                named.push(format!("left out: {file}{place}: {problem}"));
            }
        };
        let mut stdout = BufWriter::new(io::stdout().lock());
        let out: &mut dyn Write = match file {
            Some(file) => file,
            None => &mut stdout,
        };
        let sink = Sink { out, left_out: &mut left_out, progress: &progress, stop: &stop };
        let written = write_records(&files, fetcher.as_ref(), self.head, sink)
            .and_then(|written| stdout.flush().map_err(RecordsError::Write).map(|()| written));
        progress.finish();
        for line in named {
            eprintln!("{line}");
        }
        match written {
            Ok(written) => self.end(&files, written, file.take()),
            // Who reads stdout has seen enough.
            Err(RecordsError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {
                Ok(Exit::Done)
            }
            Err(RecordsError::Stopped | RecordsError::Fetch(FetchError::Stopped)) => {
                Ok(stop.requested().unwrap_or(Exit::Interrupted))
            }
            Err(RecordsError::Fetch(error)) => Err(super::fetch_failure(&error)),
            Err(error) => Err(Failure::from_error(Exit::Io, &error)),
        }
    }

    /// Gives the file its name and says what came out.
    fn end(
        &self,
        files: &[InputFile],
        written: Written,
        file: Option<AtomicFile>,
    ) -> Result<Exit, Failure> {
        let Written { records, bytes, rejected } = written;
        if let (Some(file), Some(out)) = (file, &self.out) {
            file.commit().map_err(|error| super::file_failure(&error))?;
            let origins = files.iter().filter(|file| file.origin.is_some());
            let summary = Summary {
                out: out.display().to_string(),
                files: files.len(),
                records,
                rejected,
                output_bytes: bytes,
                origins: origins.map(|file| file.name.clone()).collect(),
            };
            if self.json {
                print_json(&summary)?;
            } else {
                print_text(&summary.text())?;
            }
        }
        if rejected == 0 {
            return Ok(Exit::Done);
        }
        let (one, them) = if rejected == 1 { ("record is", "it") } else { ("records are", "them") };
        Err(Failure::check_failed(format!("{rejected} {one} left out"))
            .hint(format!("the others are written; --format says how to read {them}")))
    }

    fn fetcher(&self) -> Result<Option<Fetcher>, FetchError> {
        let asking = if self.offline { Asking::Offline } else { Asking::Noted };
        // Somebody waits for it, and a file that broke off is taken up by the next call.
        let attempts = 4;
        let allow_http = self.allow_http;
        let options = FetchOptions { allow_http, asking, attempts, ..FetchOptions::default() };
        let remote = self.paths.iter().any(|path| Address::is_one(path));
        remote.then(|| Fetcher::new(&self.cache, options)).transpose()
    }

    fn files(&self, fetcher: Option<&Fetcher>) -> Result<Vec<InputFile>, SourceError> {
        let filters = Filters { container: self.format, ..Filters::default() };
        let mut files = Vec::new();
        for path in &self.paths {
            files.extend(match fetcher.filter(|_| Address::is_one(path)) {
                Some(fetcher) => list_remote(NAME, path, &filters, fetcher)?.1,
                None => list_files(NAME, &[path.into()], &filters)?,
            });
        }
        Ok(files)
    }
}

impl Summary {
    fn text(&self) -> String {
        let Self { out, files, records, output_bytes, .. } = self;
        let files = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        let (records, bytes) = (human::count(*records), human::bytes(*output_bytes));
        format!("{out}: {records} records of {files}, {bytes}\n")
    }
}

fn format() -> impl clap::builder::TypedValueParser<Value = Container> {
    let of_name = |name: String| FORMATS.into_iter().find(|format| format.name() == name);
    PossibleValuesParser::new(FORMATS.map(Container::name))
        .map(move |name| of_name(name).unwrap_or(Container::Jsonl))
}

fn list_failure(error: &SourceError) -> Failure {
    let failure = super::source_failure(error);
    match error {
        SourceError::Format { .. } => failure.hint("say it with --format"),
        _ => failure,
    }
}
