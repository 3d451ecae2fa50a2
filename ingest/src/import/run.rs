//! Documents of ids to rows of a set.

use super::{ImportError, Input, ids::Document};
use crate::{
    build::{BuildError, Built, SetPlan, SetSource, put, write_set},
    decode::Fault,
    pack::{PackedRow, Packer},
    pipeline::{Commit, CommitError, PipelineError, SourceReport},
    reject::Reject,
    source::{Container, DigestError, InputFile, digest},
};
use coda_cli::{Progress, signals::Stop};
use coda_manifests::Packing;
use coda_shards::{Specials, commit::FileError};
use serde_json::json;
use std::path::Path;

/// Raised when the same files would give other rows.
const IMPORT_VERSION: u32 = 1;

/// What is imported, and into what.
pub struct ImportOptions<'a> {
    /// The files, in their order.
    pub inputs: &'a [Input],
    /// The `tokenizer.json` that made the ids; it is copied into the set.
    pub tokenizer: &'a Path,
    /// Its ids lie below this.
    pub vocabulary: u32,
    /// The ids with a meaning of their own.
    pub specials: Specials,
    /// Tokens per row.
    pub row_length: u32,
    /// Rows of every shard but the last.
    pub rows_per_shard: u32,
    /// How documents become rows.
    pub packing: Packing,
    /// The name of the set's one source; row keys derive from it.
    pub name: &'a str,
    /// Its licence.
    pub license: Option<&'a String>,
    /// The set's folder.
    pub out: &'a Path,
    /// Whether a finished set there is replaced, once the new one is complete.
    pub replace: bool,
    /// Bytes of ids read.
    pub progress: &'a Progress,
    /// Whether somebody wants it to end.
    pub stop: &'a Stop,
}

/// What an import gave.
pub struct Imported {
    /// The set.
    pub built: Built,
    /// Documents that came without an end token and got one.
    pub ends_added: u64,
}

impl ImportOptions<'_> {
    /// The hash of all that decides the bytes of the set.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn recipe(&self) -> Result<String, ImportError> {
        let input = |path: &Path, name: &str| -> Result<InputFile, ImportError> {
            let bytes = path.metadata().map_err(|e| FileError::new("read", path, e))?.len();
            let (path, name) = (path.to_owned(), name.to_owned());
            let container = Container::Text;
            Ok(InputFile { path, name, container, bytes, origin: None, vendored: false })
        };
        let mut files = vec![input(self.tokenizer, "tokenizer")?];
        for found in self.inputs {
            files.push(input(&found.path, &found.name)?);
            for suffix in ["idx", "csv.gz"] {
                let beside = found.path.with_extension(suffix);
                if beside.exists() {
                    files.push(input(&beside, suffix)?);
                }
            }
        }
        let files = digest(&files).map_err(|DigestError { path, source }| {
            ImportError::File(FileError::new("read", &path, source))
        })?;
        let widths: Vec<_> = self
            .inputs
            .iter()
            .map(|input| json!([input.format.name(), format!("{:?}", input.width)]))
            .collect();
        let said = json!({
            "version": IMPORT_VERSION,
            "vocabulary": self.vocabulary,
            "specials": self.specials,
            "row_length": self.row_length,
            "rows_per_shard": self.rows_per_shard,
            "packing": self.packing,
            "name": self.name,
            "license": self.license,
            "inputs": widths,
        });
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"coda import").update(said.to_string().as_bytes()).update(files.as_bytes());
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Imports the files as one source.
///
/// # Errors
/// [`ImportError`]; then no finished set was written, and one that was there before is untouched.
pub fn import(options: &ImportOptions<'_>, recipe: &str) -> Result<Imported, ImportError> {
    let set = SetPlan {
        row_length: options.row_length,
        rows_per_shard: options.rows_per_shard,
        specials: options.specials,
        tokenizer: options.tokenizer,
        recipe,
        spans: None,
        sources: vec![SetSource { name: options.name, license: options.license, origins: &[] }],
    };
    let (mut failed, mut ends_added) = (None, 0);
    let built = put(options.out, options.replace, recipe, |dir, _| {
        write_set(dir, &set, true, |_, commit, _| {
            let packer = Packer::new(options.packing, options.row_length, options.specials.pad);
            let report = SourceReport::default();
            let mut taker = Taker { options, commit, packer, report, ends_added: 0 };
            let outcome = taker.run();
            ends_added = taker.ends_added;
            outcome.map(|()| taker.report).map_err(|error| match error {
                ImportError::Build(error) => error,
                other => {
                    failed = Some(other);
                    BuildError::Pipeline(PipelineError::Stopped)
                }
            })
        })
    });
    match (built, failed) {
        (_, Some(failed)) => Err(failed),
        (built, None) => Ok(Imported { built: built?, ends_added }),
    }
}

/// Takes the documents in.
struct Taker<'a> {
    options: &'a ImportOptions<'a>,
    commit: &'a mut dyn Commit,
    packer: Packer,
    report: SourceReport,
    ends_added: u64,
}

fn written(error: CommitError) -> ImportError {
    ImportError::Build(crate::build::from_pipeline(PipelineError::Commit(error)))
}

impl Taker<'_> {
    fn run(&mut self) -> Result<(), ImportError> {
        let options = self.options;
        for input in options.inputs {
            let (mut number, mut offset, size) = (0, 0, input.width.bytes() as u64);
            input.documents(options.specials.eos, options.vocabulary, &mut |document| {
                if options.stop.requested().is_some() {
                    return Err(ImportError::Stopped);
                }
                number += 1;
                let bytes = document.seen * size;
                options.progress.advance(bytes);
                match document.fault(options.vocabulary) {
                    Some(fault) => self.reject(input, (number, offset), fault, document)?,
                    None => self.take(document, bytes)?,
                }
                offset += bytes;
                Ok(())
            })?;
        }
        while let Some(row) = self.packer.end() {
            self.row(row)?;
        }
        Ok(())
    }

    fn take(&mut self, document: &mut Document, bytes: u64) -> Result<(), ImportError> {
        let eos = self.options.specials.eos;
        if document.ids.last() != Some(&eos) {
            document.ids.push(eos);
            self.ends_added += 1;
        }
        self.report.documents += 1;
        self.report.text_bytes += bytes;
        self.report.tokens += document.ids.len() as u64;
        let mut rest = document.ids.as_slice();
        while !rest.is_empty() {
            if let Some(row) = self.packer.add(&mut rest) {
                self.row(row)?;
            }
        }
        Ok(())
    }

    fn row(&mut self, row: PackedRow) -> Result<(), ImportError> {
        self.report.rows += 1;
        self.report.padding_tokens += row.tokens.len() as u64 - u64::from(row.valid_len);
        // An import that is stopped begins anew: nothing is noted.
        self.commit.row(row).map_err(written)?;
        Ok(())
    }

    fn reject(
        &mut self,
        input: &Input,
        (number, offset): (u64, u64),
        fault: Fault,
        document: &Document,
    ) -> Result<(), ImportError> {
        self.report.rejected += 1;
        *self.report.reasons.entry(fault.reason).or_default() += 1;
        let head = document.ids.iter().take(64).flat_map(|id| id.to_le_bytes());
        let head: Vec<u8> = head.collect();
        let reject = Reject {
            source: self.options.name.to_owned(),
            file: input.name.clone(),
            line: None,
            row: Some(number),
            element: None,
            byte_offset: Some(offset),
            at: fault.at,
            reason: fault.reason,
            message: fault.message,
            head_blake3: blake3::hash(&head).to_hex().to_string(),
        };
        self.commit.reject(reject).map_err(written)
    }
}
