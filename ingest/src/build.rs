//! A planned build: every source through the line, into one shard set.
//!
//! After every finished shard the build notes where it stands. Stopped at any moment, the same build
//! goes on there: it loses at most the work since the last finished shard, and the bytes of the
//! finished set are the same.

use crate::{
    dedup::{DedupError, Deduper},
    pack::PackedRow,
    part::PartError,
    pipeline::{
        Commit, CommitError, Line, PipelineError, Place, SourceProgress, SourceReport, run_source,
    },
    plan::Plan,
    reject::Reject,
    spans::{NotByteLevel, Scratch, SpanFinder},
};
use coda_cli::{Progress, signals::Stop};
use coda_manifests::Dedup;
use coda_shards::{
    Index, RowBuf, ShardError, ShardSet, ShardWriter, Span, WriterOptions,
    commit::{self, FileError},
    row_key,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// Whether a finished set at `out` is replaced (it stays until the new one is complete), and an
    /// unfinished one is begun anew.
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
    /// Tokens that were there already when the build went on.
    pub tokens_before: u64,
}

/// Where a build stands after a finished shard.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BuildProgress {
    /// The reports of the sources before the one at hand.
    finished: Vec<SourceReport>,
    /// The source at hand.
    current: SourceProgress,
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
    /// A part could not be written or merged.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The tokenizer's tokens have no spans.
    #[error(transparent)]
    Spans(#[from] NotByteLevel),
    /// The state of deduplication cannot be kept.
    #[error(transparent)]
    Dedup(#[from] DedupError),
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
    let workers = workers(options.jobs)?;
    let named = plan.sources.iter().zip(&plan.licenses);
    let set = SetPlan {
        row_length: plan.row_length,
        rows_per_shard: options.rows_per_shard,
        specials: coda_shards::Specials {
            eos: plan.specials.eos,
            pad: plan.specials.pad,
            mask: plan.specials.mask,
        },
        tokenizer: options.tokenizer,
        recipe: &options.recipe,
        spans: plan.spans.as_ref(),
        sources: named
            .map(|(source, license)| SetSource {
                name: &source.name,
                license: license.as_ref(),
                origins: &source.origins,
            })
            .collect(),
    };
    put(options.out, options.replace, &options.recipe, |dir, anew| {
        let (mut fresh, mut dedup) = (true, None);
        let state = dedup_state(dir);
        let built = write_set(dir, &set, anew, |number, commit, from| {
            if std::mem::take(&mut fresh) {
                dedup = open_dedup(plan.dedup.as_ref(), &state, from.as_ref())?;
                if number > 0 || from.is_some() {
                    options.progress.skip_to(bytes_before(plan, number, from.as_ref()));
                    options.progress.say("going on behind the last finished shard");
                }
            }
            let dedup = dedup.as_ref();
            let line = Line { dedup, ..plan.line(&workers, options.progress, options.stop) };
            let mut commit = Flushing { commit, dedup };
            run_source(&plan.sources[number], &line, &mut commit, from).map_err(from_pipeline)
        })?;
        drop(dedup);
        remove_state(&state)?;
        Ok(built)
    })
}

/// Lets `write` make a set in `out`; or, to replace a finished one, in a folder beside it that then
/// takes its place. The second argument of `write`: whether an unfinished set is begun anew.
pub(crate) fn put(
    out: &Path,
    replace: bool,
    recipe: &str,
    mut write: impl FnMut(&Path, bool) -> Result<Built, BuildError>,
) -> Result<Built, BuildError> {
    if let Some(parent) = out.parent() {
        std::fs::create_dir_all(parent).map_err(|e| FileError::new("create", parent, e))?;
    }
    let replaces = replace && out.join(coda_shards::INDEX_FILE).exists();
    if !replaces {
        return write(out, replace);
    }
    let next = next_to(out);
    let waiting = ShardSet::open(&next).ok().map(|set| set.index().clone());
    if let Some(index) = waiting.filter(|index| index.manifest_hash == recipe) {
        // A run was killed when only the renaming was left to do.
        coda_shards::tidy(&next)?;
        remove_state(&dedup_state(&next))?;
        commit::replace_dir(&next, out)?;
        let tokens_before = index.totals.tokens;
        return Ok(Built { index, reports: Vec::new(), tokens_before });
    }
    let built = match write(&next, false) {
        Err(
            BuildError::Shards(
                ShardError::OtherBuild { .. }
                | ShardError::Damaged { .. }
                | ShardError::Occupied { .. },
            )
            | BuildError::Dedup(DedupError::Damaged { .. }),
        ) => {
            commit::remove_dir(&next)?;
            write(&next, true)
        }
        other => other,
    }?;
    commit::replace_dir(&next, out)?;
    Ok(built)
}

/// Where the set that will replace the one at `out` is built.
fn next_to(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".next-{name}"))
}

/// Puts right what a killed run left around `out`: a complete set that was about to take its place
/// takes it, a former one that was being removed goes, and so do notes of progress in a finished set.
///
/// # Errors
/// If renaming or removing fails.
pub fn recover(out: &Path) -> Result<(), BuildError> {
    let next = next_to(out);
    let finished = |dir: &Path| dir.join(coda_shards::INDEX_FILE).exists();
    if !finished(out) && finished(&next) {
        coda_shards::tidy(&next)?;
        remove_state(&dedup_state(&next))?;
        commit::replace_dir(&next, out)?;
    }
    if finished(out) {
        coda_shards::tidy(out)?;
        remove_state(&dedup_state(out))?;
        if !next.exists() {
            remove_state(&dedup_state(&next))?;
        }
    }
    Ok(commit::remove_trash_of(out)?)
}

/// Where the state of deduplication is kept while the set in `dir` is built.
pub(crate) fn dedup_state(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!(".dedup-{name}"))
}

pub(crate) fn remove_state(state: &Path) -> Result<(), FileError> {
    if state.symlink_metadata().is_ok() {
        commit::remove_dir(state)?;
    }
    // What a run left that was killed while it removed it.
    commit::remove_trash_of(state)
}

/// Deduplication from its start, or as it was before the record at which the build goes on.
pub(crate) fn open_dedup(
    keys: Option<&Dedup>,
    state: &Path,
    current: Option<&SourceProgress>,
) -> Result<Option<Deduper>, BuildError> {
    if keys.is_none() || current.is_none() {
        remove_state(state)?;
    }
    let Some(keys) = keys else { return Ok(None) };
    let dedup = Deduper::open(state, keys)?;
    if let Some(current) = current {
        dedup.resume(current.decided_before())?;
    }
    Ok(Some(dedup))
}

/// Puts the state of deduplication on disk before the notes that count on it.
pub(crate) struct Flushing<'a> {
    pub(crate) commit: &'a mut dyn Commit,
    pub(crate) dedup: Option<&'a Deduper>,
}

impl Commit for Flushing<'_> {
    fn row(&mut self, row: PackedRow) -> Result<bool, CommitError> {
        self.commit.row(row)
    }

    fn note(&mut self, progress: SourceProgress) -> Result<(), CommitError> {
        self.dedup.map_or(Ok(()), Deduper::flush)?;
        self.commit.note(progress)
    }

    fn reject(&mut self, reject: Reject) -> Result<(), CommitError> {
        self.commit.reject(reject)
    }
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

/// What the writer of a set must know.
pub(crate) struct SetPlan<'a> {
    pub(crate) row_length: u32,
    pub(crate) rows_per_shard: u32,
    pub(crate) specials: coda_shards::Specials,
    pub(crate) tokenizer: &'a Path,
    pub(crate) recipe: &'a str,
    /// Finds the spans that are noted in rows.
    pub(crate) spans: Option<&'a SpanFinder>,
    pub(crate) sources: Vec<SetSource<'a>>,
}

/// What the index says of a source beyond its rows.
pub(crate) struct SetSource<'a> {
    pub(crate) name: &'a str,
    pub(crate) license: Option<&'a String>,
    pub(crate) origins: &'a [String],
}

/// Writes a set, or goes on with it. `run` brings source after source, from its start or from where
/// it stood.
pub(crate) fn write_set(
    dir: &Path,
    set: &SetPlan<'_>,
    anew: bool,
    mut run: impl FnMut(
        usize,
        &mut dyn Commit,
        Option<SourceProgress>,
    ) -> Result<SourceReport, BuildError>,
) -> Result<Built, BuildError> {
    let options = WriterOptions {
        row_length: set.row_length,
        rows_per_shard: set.rows_per_shard,
        specials: set.specials,
        spans: set.spans.map(SpanFinder::kinds),
        tokenizer: set.tokenizer.to_owned(),
        manifest_hash: set.recipe.to_owned(),
        sources: set.sources.iter().map(|source| source.name.to_owned()).collect(),
        replace: false,
    };
    let (mut writer, noted) = if anew {
        (ShardWriter::create(dir, options)?, None)
    } else {
        ShardWriter::resume(dir, options)?
    };
    let (mut reports, mut current) = (Vec::with_capacity(set.sources.len()), None);
    if let Some(noted) = noted {
        let noted = BuildProgress::read(dir, noted)?;
        (reports, current) = (noted.finished, Some(noted.current));
    }
    let counted = reports.iter().chain(current.as_ref().map(|current| &current.report));
    let tokens_before = counted.map(|report| report.tokens).sum();
    for (number, source) in (0..).zip(&set.sources).skip(reports.len()) {
        let from = current.take();
        let ordinal = from.as_ref().map_or(0, |from| from.report.rows);
        let (writer, finished, name) = (&mut writer, &reports, source.name);
        let spans = set.spans.map(|finder| (finder, Scratch::default()));
        let mut rows = Rows { writer, finished, name, number, ordinal, spans };
        let report = run(usize::from(number), &mut rows, from)?;
        reports.push(report);
    }
    let entry = |(source, report): (&SetSource<'_>, &SourceReport)| coda_shards::SourceReport {
        name: source.name.to_owned(),
        license: source.license.cloned(),
        origins: source.origins.to_vec(),
        documents: report.documents,
        input_bytes: report.text_bytes,
        rejects: report.reasons.iter().map(|(&r, &n)| (r.to_owned(), n)).collect(),
        drops: report.drops.iter().map(|(&r, &n)| (r.to_owned(), n)).collect(),
    };
    let entries = set.sources.iter().zip(&reports).map(entry).collect();
    Ok(Built { index: writer.finish(entries)?, reports, tokens_before })
}

impl BuildProgress {
    fn read(dir: &Path, noted: serde_json::Value) -> Result<Self, BuildError> {
        serde_json::from_value(noted).map_err(|error| {
            BuildError::Shards(ShardError::Damaged {
                file: dir.to_owned(),
                place: "the note of its progress".to_owned(),
                problem: error.to_string(),
            })
        })
    }
}

/// Bytes of the files that are not read again when a build goes on.
fn bytes_before(plan: &Plan, finished: usize, current: Option<&SourceProgress>) -> u64 {
    let whole = plan.sources.iter().take(finished).flat_map(|source| &source.files);
    let file = current.map_or(0, |current| current.place.file);
    let file = if file == Place::END { usize::MAX } else { file as usize };
    let begun = plan.sources.get(finished).map_or(&[][..], |source| &source.files);
    whole.chain(begun.iter().take(file)).map(|file| file.bytes).sum()
}

/// Brings a [`ShardError`] back that went through the pipeline as any error.
pub(crate) fn from_pipeline(error: PipelineError) -> BuildError {
    let inner = match error {
        PipelineError::Commit(inner) => inner,
        PipelineError::Dedup(error) => return BuildError::Dedup(error),
        other => return BuildError::Pipeline(other),
    };
    match inner.downcast::<ShardError>() {
        Ok(error) => BuildError::Shards(*error),
        Err(other) => BuildError::Pipeline(PipelineError::Commit(other)),
    }
}

/// Gives the rows of one source their keys and writes them.
struct Rows<'a> {
    writer: &'a mut ShardWriter,
    /// The reports of the sources before.
    finished: &'a [SourceReport],
    name: &'a str,
    number: u16,
    ordinal: u64,
    spans: Option<(&'a SpanFinder, Scratch)>,
}

impl Commit for Rows<'_> {
    fn row(&mut self, row: PackedRow) -> Result<bool, CommitError> {
        // Blocks (S3) may lie anywhere in a packed row, in a conversation only in the answer.
        let end = if row.prefix_len == 0 { length(row.tokens.len()) } else { row.valid_len };
        let span = Span { start: row.prefix_len, len: end - row.prefix_len };
        let spans = match &mut self.spans {
            Some((finder, scratch)) => {
                let valid = row.tokens.get(..row.valid_len as usize).unwrap_or_default();
                finder.find(scratch, valid, &row.segments)
            }
            None => Vec::new(),
        };
        let row = RowBuf {
            tokens: row.tokens,
            segments: row.segments,
            row_key: row_key(self.name, self.ordinal),
            source: self.number,
            prefix_len: row.prefix_len,
            valid_len: row.valid_len,
            maskable: if span.len > 0 { vec![span] } else { Vec::new() },
            spans,
        };
        let complete = self.writer.push(&row)?;
        self.ordinal += 1;
        Ok(complete)
    }

    fn note(&mut self, current: SourceProgress) -> Result<(), CommitError> {
        let progress = BuildProgress { finished: self.finished.to_vec(), current };
        Ok(self.writer.save(serde_json::to_value(progress)?)?)
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
            encoder: self.tokenizer.encoder(),
            specials: self.specials,
            row_length: self.row_length,
            overlong: self.overlong,
            packing: self.packing,
            benchmarks: self.benchmarks.as_ref(),
            marker: self.marker.as_ref(),
            dedup: None,
            decode: self.decode.clone(),
            fetch: self.fetch.as_ref(),
            workers,
            progress,
            stop,
        }
    }
}
