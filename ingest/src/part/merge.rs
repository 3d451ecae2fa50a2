//! Parts into one shard set.

use super::{
    ChunkEntry, PartError, PartIndex,
    chunk::{ChunkReader, Record, SketchSize},
};
use crate::{
    build::{
        BuildError, Built, Flushing, SetPlan, SetSource, dedup_state, from_pipeline, open_dedup,
        put, remove_state, write_set,
    },
    dedup::{Deduper, Sketcher},
    pack::Overlong,
    pipeline::{Done, Outcome, PipelineError, Place, RowPlan, Step, commit_steps},
    spans::SpanFinder,
};
use coda_cli::{Progress, signals::Stop};
use coda_manifests::Data;
use coda_shards::{TOKENIZER_FILE, commit::FileError};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
};

/// Records that go to the committer at once.
const AT_ONCE: usize = 4096;

/// The parts of a whole build, in the order of their tasks.
#[derive(Debug)]
pub struct Parts {
    parts: Vec<(PathBuf, PartIndex)>,
}

/// Where and how parts are merged.
pub struct MergeOptions<'a> {
    /// The shard set's folder.
    pub out: &'a Path,
    /// Whether a finished set at `out` is replaced, and an unfinished one is begun anew.
    pub replace: bool,
    /// Bytes of chunks read.
    pub progress: &'a Progress,
    /// Whether somebody wants the run to end.
    pub stop: &'a Stop,
}

impl Parts {
    /// Opens parts and checks that they make up a whole.
    ///
    /// # Errors
    /// If one is missing, there twice, not complete, damaged, or of another build.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, PartError> {
        let mut parts = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let index = PartIndex::load(dir)?;
            if index.next.is_some() {
                return Err(PartError::Unfinished { dir: dir.clone() });
            }
            parts.push((dir.clone(), index));
        }
        parts.sort_by_key(|(_, index)| index.task.number());
        let Some((_, first)) = parts.first() else {
            return Err(PartError::Incomplete("there are no parts to merge".to_owned()));
        };
        for (dir, index) in &parts {
            let foreign = |problem: String| PartError::Foreign { dir: dir.clone(), problem };
            if index.task.of() != first.task.of() {
                let problem =
                    format!("it is task {}, others are of {}", index.task, first.task.of());
                return Err(foreign(problem));
            }
            let same = |index: &PartIndex| {
                (index.recipe.clone(), index.tokenizer.clone(), index.origins.clone())
            };
            if same(index) != same(first) {
                return Err(foreign("its manifest or its inputs are others".to_owned()));
            }
        }
        let of = first.task.of();
        for number in 1..=of {
            let dirs: Vec<String> = parts
                .iter()
                .filter(|(_, index)| index.task.number() == number)
                .map(|(dir, _)| dir.display().to_string())
                .collect();
            match dirs.as_slice() {
                [_] => {}
                [] => {
                    let message = format!("the part of task {number}/{of} is missing");
                    return Err(PartError::Incomplete(message));
                }
                several => {
                    let several = several.join(" and ");
                    let message = format!("task {number}/{of} is there twice: {several}");
                    return Err(PartError::Incomplete(message));
                }
            }
        }
        Ok(Self { parts })
    }

    /// The hash of all that decides the rows, as in the index of the set.
    #[must_use]
    pub fn recipe(&self) -> &str {
        &self.first().recipe
    }

    /// The data section of the manifest.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.first().data
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().flat_map(|(_, index)| &index.chunks).map(|chunk| chunk.bytes).sum()
    }

    fn first(&self) -> &PartIndex {
        &self.parts[0].1
    }

    /// Packs the records of all parts, in the order of the input, into a shard set.
    ///
    /// # Errors
    /// If a chunk is damaged, or the set cannot be written.
    pub fn merge(&self, options: &MergeOptions<'_>) -> Result<Built, BuildError> {
        let (dir, first) = &self.parts[0];
        let tokenizer = dir.join(TOKENIZER_FILE);
        let json = fs::read(&tokenizer).map_err(|e| FileError::new("read", &tokenizer, e))?;
        if blake3::hash(&json).to_hex().as_str() != first.tokenizer.blake3 {
            let problem = "its BLAKE3 is not the one in part.json".to_owned();
            return Err(PartError::Damaged { file: tokenizer, problem }.into());
        }
        let data = &first.data;
        let spans = data.spans.map(|kinds| SpanFinder::new(kinds, &json)).transpose()?;
        let set = SetPlan {
            row_length: data.row_length,
            rows_per_shard: data.rows_per_shard,
            specials: first.specials,
            tokenizer: &tokenizer,
            recipe: &first.recipe,
            spans: spans.as_ref(),
            sources: data
                .sources
                .iter()
                .zip(&first.origins)
                .map(|(source, origins)| SetSource {
                    name: &source.name,
                    license: source.license.as_ref(),
                    origins,
                })
                .collect(),
        };
        put(options.out, options.replace, &first.recipe, |out, anew| {
            let (mut fresh, mut dedup) = (true, None);
            let state = dedup_state(out);
            let built = write_set(out, &set, anew, |number, commit, from| {
                if std::mem::take(&mut fresh) {
                    dedup = open_dedup(data.dedup.as_ref(), &state, from.as_ref())?;
                }
                let dedup = dedup.as_ref();
                let mut commit = Flushing { commit, dedup };
                let source = &data.sources[number];
                let rows = RowPlan {
                    name: &source.name,
                    files: &[],
                    budget: source.tokens.map(|tokens| tokens.0),
                    row_length: data.row_length,
                    pad: first.specials.pad,
                    overlong: match data.overlong {
                        Some(coda_manifests::Overlong::Drop) => Overlong::Drop,
                        _ => Overlong::Truncate,
                    },
                    packing: data.packing,
                };
                let place = from.as_ref().map(|from| from.place).unwrap_or_default();
                let skipped = if from.is_some() { 0 } else { self.skipped(number) };
                let full = AtomicBool::new(false);
                let report = std::thread::scope(|scope| {
                    let (steps, taken) = sync_channel(2);
                    let (full, commit) = (&full, &mut commit);
                    let committer =
                        scope.spawn(move || commit_steps(&rows, commit, from, taken, full));
                    let (source, to) = (Feed { number, dedup }, &steps);
                    let fed = self.feed(source, place, skipped, options, to, full);
                    drop(steps);
                    let report =
                        committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    match (report, fed) {
                        (Err(PipelineError::Stopped), Err(error)) => Err(error),
                        (report, _) => report.map_err(from_pipeline),
                    }
                })?;
                if let Some(dedup) = dedup
                    && report.budget_reached
                {
                    // What was decided behind the record that filled the budget is not in the set.
                    dedup.forget_after(report.decided)?;
                }
                Ok(report)
            })?;
            drop(dedup);
            remove_state(&state)?;
            Ok(built)
        })
    }

    /// Bands and bins of the sketches in the chunks.
    fn sketch(&self) -> SketchSize {
        let near = self.data().dedup.as_ref()?.near.as_ref()?;
        let sketcher = Sketcher::new(near);
        Some((sketcher.bands(), sketcher.bins()))
    }

    fn skipped(&self, source: usize) -> u64 {
        self.parts.iter().filter_map(|(_, index)| index.skipped.get(source)).sum()
    }

    /// Sends the records of a source to the committer, from a place on; what deduplication finds
    /// superfluous becomes a drop on the way.
    fn feed(
        &self,
        source: Feed<'_>,
        from: Place,
        skipped: u64,
        options: &MergeOptions<'_>,
        steps: &SyncSender<Step>,
        full: &AtomicBool,
    ) -> Result<(), BuildError> {
        let chunks = self.parts.iter().flat_map(|(dir, index)| {
            let own =
                index.chunks.iter().filter(|chunk| usize::from(chunk.source) == source.number);
            own.map(move |chunk| (dir, chunk))
        });
        let mut skipped = skipped;
        let mut chunks = chunks.peekable();
        while let Some((dir, chunk)) = chunks.next() {
            let behind = |next: &&(&PathBuf, &ChunkEntry)| order(next.1.start) <= order(from);
            options.progress.advance(chunk.bytes);
            if chunks.peek().as_ref().is_some_and(behind) {
                continue;
            }
            let path = dir.join(&chunk.file);
            let bytes = fs::read(&path).map_err(|e| FileError::new("read", &path, e))?;
            let damaged = |problem: String| PartError::Damaged { file: path.clone(), problem };
            if blake3::hash(&bytes).to_hex().as_str() != chunk.blake3 {
                return Err(damaged("its BLAKE3 is not the one in part.json".to_owned()).into());
            }
            options.progress.note(path.display().to_string());
            let mut place = chunk.start;
            let mut records = Vec::new();
            for record in ChunkReader::new(&bytes, self.sketch()).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                let location = record.0;
                if location.file != place.file {
                    place = Place { file: location.file, ..Place::default() };
                }
                if order(place) >= order(from) {
                    records.push(record);
                }
                place.records += 1;
                if records.len() == AT_ONCE {
                    let records = std::mem::take(&mut records);
                    let done = source.done(records, std::mem::take(&mut skipped))?;
                    if steps.send(Step::Records(done)).is_err() {
                        return Ok(());
                    }
                }
            }
            let done = source.done(records, std::mem::take(&mut skipped))?;
            if steps.send(Step::Records(done)).is_err() {
                return Ok(());
            }
            if full.load(Ordering::Relaxed) || options.stop.requested().is_some() {
                return Ok(());
            }
        }
        // Nobody is there to take it when the budget is reached.
        let _ = steps.send(Step::End);
        Ok(())
    }
}

/// A source that is fed.
#[derive(Clone, Copy)]
struct Feed<'a> {
    number: usize,
    dedup: Option<&'a Deduper>,
}

impl Feed<'_> {
    /// Records for the committer, those left out that an earlier document makes superfluous.
    fn done(self, records: Vec<Record>, skipped: u64) -> Result<Done, BuildError> {
        let mut done = Done {
            records: Vec::with_capacity(records.len()),
            decided: Vec::new(),
            marks: Vec::new(),
            skipped,
        };
        let source = u16::try_from(self.number).unwrap_or(u16::MAX);
        for (location, marks, mut outcome) in records {
            if let Some(dedup) = self.dedup {
                if let Some(marks) = marks
                    && let Some(reason) = dedup.decide(&marks, source)?.1.reason()
                {
                    outcome = Outcome::Dropped { reason };
                }
                done.decided.push(dedup.decided());
            }
            done.records.push((location, outcome));
        }
        Ok(done)
    }
}

/// Places in the order of the input.
const fn order(place: Place) -> (u32, u64) {
    (place.file, place.records)
}
