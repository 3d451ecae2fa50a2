//! One task: its files through readers and workers, into chunks.

use super::{
    ChunkEntry, FORMAT, Next, PART_FILE, PartError, PartIndex, Task,
    chunk::{ChunkBuf, Head},
};
use crate::{
    build::{BuildError, workers},
    pipeline::{Done, Outcome, PipelineError, Place, SourcePlan, Step, Steps, drive},
    plan::Plan,
    reject::Reject,
};
use coda_cli::{Progress, signals::Stop};
use coda_manifests::Data;
use coda_shards::{
    DirLock, FileEntry, Specials, TOKENIZER_FILE,
    commit::{FileError, names, write_atomic},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// What [`TaskOptions::chunk_bytes`] should be: few files, little lost, little memory for the merge.
pub const CHUNK_BYTES: usize = 32 << 20;

/// Where and how a task is run.
pub struct TaskOptions<'a> {
    /// Which one.
    pub task: Task,
    /// The part's folder.
    pub out: &'a Path,
    /// The data section of the manifest, with what stage and profile decide filled in.
    pub data: Data,
    /// What [`Plan::recipe`] says.
    pub recipe: String,
    /// A chunk is closed when it holds this many bytes; a task that is killed loses no more.
    pub chunk_bytes: usize,
    /// Worker threads.
    pub jobs: usize,
    /// Whether a part that is there is begun anew.
    pub replace: bool,
    /// Bytes of input read.
    pub progress: &'a Progress,
    /// Whether somebody wants the run to end.
    pub stop: &'a Stop,
}

/// What a task gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskReport {
    /// Records, usable or not.
    pub records: u64,
    /// Ids of its documents.
    pub tokens: u64,
    /// Bytes of the part.
    pub bytes: u64,
}

/// Runs one task of a plan. A part that is complete is left as it is; one that is not goes on.
///
/// # Errors
/// If the folder holds something else, an input cannot be read, the part cannot be written, or a
/// signal came.
pub fn run_task(plan: &Plan, options: &TaskOptions<'_>) -> Result<TaskReport, BuildError> {
    let workers = workers(options.jobs)?;
    let line = plan.line(&workers, options.progress, options.stop);
    let Some(mut part) = Part::open(plan, options)? else {
        return Ok(PartIndex::load(options.out)?.report());
    };
    while let Some(next) = part.index.next {
        let number = usize::from(next.source);
        let Some(source) = plan.sources.get(number) else { break };
        let files = options.task.files(&source.files);
        let first = u32::try_from(files.start).unwrap_or(Place::END);
        let mut from = next.place;
        if from.file < first {
            from = Place { file: first, ..Place::default() };
        }
        let share = &source.files[..files.end];
        let behind = share.get(files.start..from.file as usize).unwrap_or_default();
        options.progress.advance(behind.iter().map(|file| file.bytes).sum());
        // How many of a task's documents stay, only the merge can say.
        let budget = source.budget.filter(|_| plan.dedup.is_none());
        let full = budget.is_some_and(|budget| part.index.tokens[number] >= budget);
        if !full {
            let part = &mut part;
            drive(source, share, &line, from, |steps, full| {
                let chunk = ChunkBuf::new();
                let most = options.chunk_bytes;
                SourceWriter { part, source, number, budget, place: from, chunk, from, most }
                    .run(steps, full)
            })
            .map_err(BuildError::Pipeline)?;
        }
        let last = number + 1 == plan.sources.len();
        part.index.next =
            (!last).then(|| Next { source: next.source + 1, place: Place::default() });
        part.save()?;
    }
    let report = part.index.report();
    part.lock.release()?;
    Ok(report)
}

/// A part that is being written.
struct Part {
    dir: PathBuf,
    lock: DirLock,
    index: PartIndex,
}

impl Part {
    /// Takes the folder and goes on where the task stopped; nothing when it is complete.
    fn open(plan: &Plan, options: &TaskOptions<'_>) -> Result<Option<Self>, BuildError> {
        let dir = options.out;
        fs::create_dir_all(dir).map_err(|error| FileError::new("create", dir, error))?;
        let fresh = fresh(plan, options);
        let found = match PartIndex::load(dir) {
            Ok(found) => Some(found),
            Err(PartError::Missing { .. }) => None,
            Err(_) if options.replace => None,
            Err(error) => return Err(error.into()),
        };
        let found = found.filter(|_| !options.replace);
        check_folder(dir)?;
        if let Some(found) = &found {
            let same = (&found.recipe, found.task) == (&fresh.recipe, fresh.task);
            if !same {
                let problem =
                    format!("it holds task {} of another build or another task", found.task);
                return Err(PartError::Occupied { dir: dir.to_owned(), problem }.into());
            }
        }
        let lock = DirLock::acquire(dir)?;
        let index = found.unwrap_or(fresh);
        for name in names(dir)? {
            let kept = (name == PART_FILE && !index.fingerprint.is_empty())
                || index.chunks.iter().any(|chunk| chunk.file == name);
            if is_ours(&name) && !kept {
                let path = dir.join(&name);
                fs::remove_file(&path).map_err(|e| FileError::new("remove", &path, e))?;
            }
        }
        let tokenizer = plan.tokenizer.json();
        write_atomic(&dir.join(TOKENIZER_FILE), |file| file.write_all(tokenizer))?;
        if index.next.is_none() {
            lock.release()?;
            return Ok(None);
        }
        Ok(Some(Self { dir: dir.to_owned(), lock, index }))
    }

    fn save(&mut self) -> Result<(), FileError> {
        self.index.fingerprint = self.index.compute_fingerprint();
        let bytes = self.index.to_bytes();
        write_atomic(&self.dir.join(PART_FILE), |file| file.write_all(&bytes))
    }
}

fn fresh(plan: &Plan, options: &TaskOptions<'_>) -> PartIndex {
    let tokenizer = plan.tokenizer.json();
    PartIndex {
        format: FORMAT.to_owned(),
        format_version: PartIndex::version(&options.data),
        fingerprint: String::new(),
        recipe: options.recipe.clone(),
        task: options.task,
        data: options.data.clone(),
        specials: Specials {
            eos: plan.specials.eos,
            pad: plan.specials.pad,
            mask: plan.specials.mask,
        },
        origins: plan.sources.iter().map(|source| source.origins.clone()).collect(),
        tokenizer: FileEntry {
            bytes: tokenizer.len() as u64,
            blake3: blake3::hash(tokenizer).to_hex().to_string(),
        },
        skipped: vec![0; plan.sources.len()],
        tokens: vec![0; plan.sources.len()],
        chunks: Vec::new(),
        next: Some(Next::default()),
    }
}

/// Refuses a folder with files that are none of a part's.
fn check_folder(dir: &Path) -> Result<(), BuildError> {
    let names = names(dir)?;
    // Without a mark of ours, even a tokenizer.json is somebody else's.
    let mark = |name: &String| name == coda_shards::LOCK_FILE || name == PART_FILE;
    let marked = names.iter().any(mark);
    match names.iter().find(|name| !(marked && is_ours(name)) && *name != coda_shards::LOCK_FILE) {
        None => Ok(()),
        Some(name) => {
            let problem = format!("{name} is there and does not belong to a part");
            Err(PartError::Occupied { dir: dir.to_owned(), problem }.into())
        }
    }
}

fn is_ours(name: &str) -> bool {
    let chunk = name.strip_prefix("chunk-").and_then(|rest| rest.strip_suffix(".bin"));
    [PART_FILE, TOKENIZER_FILE].contains(&name)
        || chunk.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        || name.starts_with(coda_shards::commit::TEMPORARY)
}

impl PartIndex {
    fn report(&self) -> TaskReport {
        TaskReport {
            records: self.chunks.iter().map(|chunk| chunk.records).sum(),
            tokens: self.tokens.iter().sum(),
            bytes: self.chunks.iter().map(|chunk| chunk.bytes).sum(),
        }
    }
}

/// Takes the results of one source, in order, and closes chunks.
struct SourceWriter<'a> {
    part: &'a mut Part,
    source: &'a SourcePlan,
    number: usize,
    /// Ids after which the merge needs no more.
    budget: Option<u64>,
    /// The record that comes next.
    place: Place,
    /// The first record of the chunk.
    from: Place,
    chunk: ChunkBuf,
    /// Bytes at which it is closed.
    most: usize,
}

impl SourceWriter<'_> {
    fn run(mut self, steps: Steps, full: &AtomicBool) -> Result<(), PipelineError> {
        for step in steps {
            let Step::Records(done) = step else {
                return self.close().map_err(PipelineError::Commit);
            };
            if self.batch(done).map_err(PipelineError::Commit)? {
                full.store(true, Ordering::Relaxed);
                return self.close().map_err(PipelineError::Commit);
            }
        }
        // Whoever cut the input off knows why, and says so instead.
        Err(PipelineError::Stopped)
    }

    /// Takes a batch; says whether the budget is reached.
    fn batch(&mut self, done: Done) -> Result<bool, crate::pipeline::CommitError> {
        self.part.index.skipped[self.number] += done.skipped;
        for (index, (location, outcome)) in done.records.into_iter().enumerate() {
            let file = location.file;
            let record = Head { file, marks: done.marks.get(index).and_then(Option::as_ref) };
            if file != self.place.file {
                self.place = Place { file, ..Place::default() };
            }
            if self.chunk.records() == 0 {
                self.from = self.place;
            }
            let ids = match outcome {
                Outcome::Text { ids, bytes } => {
                    self.chunk.text(record, &ids, bytes);
                    ids.len()
                }
                Outcome::Chat { row, bytes } => {
                    self.chunk.chat(record, &row, bytes);
                    // A conversation may be cut or dropped: only the merge knows what it counts.
                    0
                }
                Outcome::Dropped { reason } => {
                    self.chunk.drop(record, reason);
                    0
                }
                Outcome::Rejected { fault, head } => {
                    let input = &self.source.files[file as usize];
                    let reject = Reject::new(&self.source.name, input, location, fault, &head);
                    self.chunk.reject(record, &reject)?;
                    0
                }
                Outcome::Recorded(reject) => {
                    self.chunk.reject(record, &reject)?;
                    0
                }
            };
            self.part.index.tokens[self.number] += ids as u64;
            self.place.records += 1;
            if self.budget.is_some_and(|b| self.part.index.tokens[self.number] >= b) {
                return Ok(true);
            }
            if self.chunk.bytes().len() >= self.most {
                self.close()?;
            }
        }
        Ok(false)
    }

    /// Writes the chunk, if it holds anything, and notes where the task stands.
    fn close(&mut self) -> Result<(), crate::pipeline::CommitError> {
        let chunk = std::mem::replace(&mut self.chunk, ChunkBuf::new());
        let index = &mut self.part.index;
        let source = u16::try_from(self.number)?;
        index.next = Some(Next { source, place: self.place });
        if chunk.records() > 0 {
            let file = format!("chunk-{:05}.bin", index.chunks.len());
            let bytes = chunk.bytes();
            write_atomic(&self.part.dir.join(&file), |out| out.write_all(bytes))?;
            index.chunks.push(ChunkEntry {
                file,
                source,
                start: self.from,
                records: chunk.records(),
                bytes: bytes.len() as u64,
                blake3: blake3::hash(bytes).to_hex().to_string(),
            });
        }
        Ok(self.part.save()?)
    }
}
