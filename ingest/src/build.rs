//! A planned build: every source through the line, into one shard set.

use crate::{
    pack::PackedRow,
    pipeline::{Commit, CommitError, Line, PipelineError, SourceReport, run_source},
    plan::Plan,
    reject::Reject,
};
use coda_cli::{Progress, signals::Stop};
use coda_shards::{
    Index, RowBuf, ShardError, ShardWriter, Span, WriterOptions,
    commit::{AtomicDir, FileError},
    row_key,
};
use std::path::Path;

/// Where and how a build is written.
pub struct BuildOptions<'a> {
    /// The shard set's folder.
    pub out: &'a Path,
    /// The tokenizer file, copied into the set.
    pub tokenizer: &'a Path,
    /// Rows of every shard but the last.
    pub rows_per_shard: u32,
    /// What [`Plan::recipe`] says; kept in the index to recognise the same build.
    pub recipe: String,
    /// Worker threads.
    pub jobs: usize,
    /// Whether a finished set at `out` is replaced; it stays until the new one is complete.
    pub replace: bool,
    /// Bytes of input read.
    pub progress: &'a Progress,
    /// Whether somebody wants the run to end.
    pub stop: &'a Stop,
}

/// What a build gave.
#[derive(Debug)]
pub struct Built {
    /// The index of the set.
    pub index: Index,
    /// One report a source, in order.
    pub reports: Vec<SourceReport>,
}

/// Why a build ended.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The shard set could not be written.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// A folder could not be put in place.
    #[error(transparent)]
    File(#[from] FileError),
    /// An input could not be read, or a signal came.
    #[error(transparent)]
    Pipeline(PipelineError),
    /// The system gives no threads.
    #[error("cannot start {jobs} worker threads")]
    Threads {
        /// How many were asked for.
        jobs: usize,
        /// What the system said.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Runs a plan.
///
/// # Errors
/// [`BuildError`]; then no finished set was written, and one that was there before is untouched.
pub fn build(plan: &Plan, options: &BuildOptions<'_>) -> Result<Built, BuildError> {
    if let Some(parent) = options.out.parent() {
        std::fs::create_dir_all(parent).map_err(|e| FileError::new("create", parent, e))?;
    }
    let replaces = options.replace && options.out.join(coda_shards::INDEX_FILE).exists();
    if !replaces {
        return write(plan, options, options.out);
    }
    let beside = AtomicDir::create(options.out)?;
    let built = write(plan, options, beside.path())?;
    beside.commit()?;
    Ok(built)
}

/// A thread pool for a build.
///
/// # Errors
/// If the system gives no threads.
pub fn workers(jobs: usize) -> Result<rayon::ThreadPool, BuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .thread_name(|index| format!("coda-worker-{index}"))
        .build()
        .map_err(|source| BuildError::Threads { jobs, source })
}

fn write(plan: &Plan, options: &BuildOptions<'_>, dir: &Path) -> Result<Built, BuildError> {
    let workers = workers(options.jobs)?;
    let line = plan.line(&workers, options.progress, options.stop);
    let mut writer = ShardWriter::create(
        dir,
        WriterOptions {
            row_length: plan.row_length,
            rows_per_shard: options.rows_per_shard,
            specials: coda_shards::Specials {
                eos: plan.specials.eos,
                pad: plan.specials.pad,
                mask: plan.specials.mask,
            },
            tokenizer: options.tokenizer.to_owned(),
            manifest_hash: options.recipe.clone(),
            sources: plan.sources.iter().map(|source| source.name.clone()).collect(),
            replace: false,
        },
    )?;
    let mut reports = Vec::with_capacity(plan.sources.len());
    for (number, source) in (0..).zip(&plan.sources) {
        let mut rows = Rows { writer: &mut writer, name: &source.name, number, ordinal: 0 };
        reports.push(run_source(source, &line, &mut rows).map_err(from_pipeline)?);
    }
    let entries = plan
        .sources
        .iter()
        .zip(&plan.licenses)
        .zip(&reports)
        .map(|((source, license), report)| coda_shards::SourceReport {
            name: source.name.clone(),
            license: license.clone(),
            documents: report.documents,
            input_bytes: report.text_bytes,
            rejects: report.reasons.iter().map(|(&r, &n)| (r.to_owned(), n)).collect(),
            drops: report.drops.iter().map(|(&r, &n)| (r.to_owned(), n)).collect(),
        })
        .collect();
    Ok(Built { index: writer.finish(entries)?, reports })
}

/// Brings a [`ShardError`] back that went through the pipeline as any error.
fn from_pipeline(error: PipelineError) -> BuildError {
    let PipelineError::Commit(inner) = error else { return BuildError::Pipeline(error) };
    match inner.downcast::<ShardError>() {
        Ok(error) => BuildError::Shards(*error),
        Err(other) => BuildError::Pipeline(PipelineError::Commit(other)),
    }
}

/// Gives the rows of one source their keys and writes them.
struct Rows<'a> {
    writer: &'a mut ShardWriter,
    name: &'a str,
    number: u16,
    ordinal: u64,
}

impl Commit for Rows<'_> {
    fn row(&mut self, row: PackedRow) -> Result<(), CommitError> {
        // Blocks (S3) may lie anywhere in a packed row, in a conversation only in the answer.
        let end = if row.prefix_len == 0 { length(row.tokens.len()) } else { row.valid_len };
        let span = Span { start: row.prefix_len, len: end - row.prefix_len };
        let row = RowBuf {
            tokens: row.tokens,
            segments: row.segments,
            row_key: row_key(self.name, self.ordinal),
            source: self.number,
            prefix_len: row.prefix_len,
            valid_len: row.valid_len,
            maskable: if span.len > 0 { vec![span] } else { Vec::new() },
        };
        self.writer.push(&row)?;
        self.ordinal += 1;
        Ok(())
    }

    fn reject(&mut self, reject: Reject) -> Result<(), CommitError> {
        Ok(self.writer.push_reject(&reject)?)
    }
}

/// Row lengths fit `u32`: the writer has checked them.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Plan {
    /// The line that all sources of this plan go through.
    #[must_use]
    pub fn line<'a>(
        &'a self,
        workers: &'a rayon::ThreadPool,
        progress: &'a Progress,
        stop: &'a Stop,
    ) -> Line<'a> {
        Line {
            encoder: &self.tokenizer,
            specials: self.specials,
            row_length: self.row_length,
            overlong: self.overlong,
            decode: self.decode.clone(),
            workers,
            progress,
            stop,
        }
    }
}
