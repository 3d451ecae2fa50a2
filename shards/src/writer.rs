//! Writes a shard set, row by row, with at most one record batch in memory.

use crate::{
    Index, RowBuf, ShardEntry, ShardError, SourceEntry, Specials, Totals,
    arrow::{Columns, Encoder},
    behind::Behind,
    blocks::Summing,
    card,
    commit::{self, AtomicFile, FileError, Written, names},
    growing::{GrowingFile, PARTIAL},
    index::{FORMAT, FileEntry, INDEX_FILE, README_FILE, REJECTS_FILE, TOKENIZER_FILE},
    lock::{DirLock, LOCK_FILE},
    progress::{PROGRESS_FILE, Progress},
    row::{Rules, row_key},
};
use coda_manifests::SpanKinds;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Tokens per record batch, about: 8 MiB of ids. Large enough that a shard of 128 MiB maps as 16
/// batches, small enough that the writer's memory stays bounded.
const BATCH_TOKENS: u32 = 1 << 21;
/// Tokens after which the disk is asked to take what there is of a shard: forced only at its end, a whole
/// shard keeps the end of a build waiting.
const FORCED_TOKENS: u64 = 1 << 22;
/// The longest row: so long that nothing reaches it, so short that no offset overflows.
const MAX_ROW_LENGTH: u32 = 1 << 24;

/// What the writer must know before the first row.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Tokens per row, at most 2^24.
    pub row_length: u32,
    /// Rows of every shard but the last.
    pub rows_per_shard: u32,
    /// The ids with a meaning of their own.
    pub specials: Specials,
    /// The kinds of spans that rows have, if they have any: this decides the format version.
    pub spans: Option<SpanKinds>,
    /// The `tokenizer.json` that made the tokens; it is copied into the set.
    pub tokenizer: PathBuf,
    /// Hash of the manifest.
    pub manifest_hash: String,
    /// The names of the sources, in the order of their rows.
    pub sources: Vec<String>,
    /// Whether a finished shard set at the same place may be removed first.
    pub replace: bool,
}

/// What only the producer of the rows knows about a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// The name, as in [`WriterOptions::sources`].
    pub name: String,
    /// The licence, as the manifest says.
    pub license: Option<String>,
    /// Documents in the source's rows.
    pub documents: u64,
    /// Bytes of text that went in.
    pub input_bytes: u64,
    /// Rejected records by reason.
    pub rejects: BTreeMap<String, u64>,
    /// Usable records that a rule of the manifest left out, by rule.
    pub drops: BTreeMap<String, u64>,
    /// The remote addresses that it was read from, with revisions settled.
    pub origins: Vec<String>,
}

/// Writes a shard set. Rows come in the order of their sources; `index.json` is written last, by
/// [`ShardWriter::finish`]. Dropped (or killed) before that, it leaves no finished set; the next
/// writer clears what is there, or goes on behind the last [`ShardWriter::save`].
pub struct ShardWriter {
    dir: PathBuf,
    /// Forces to disk what is complete. Before the lock, so that it has ended when the lock is given up.
    behind: Behind,
    lock: DirLock,
    /// The index so far; shards and sources grow with the rows.
    index: Index,
    shard: Option<Shard>,
    columns: Columns,
    rejects: GrowingFile,
}

/// The shard that is being written.
struct Shard {
    path: PathBuf,
    rows: u64,
    encoder: Encoder<Summing<AtomicFile>>,
    /// The same file for `behind`, and the rows of it that the disk was not asked to take yet.
    written: Arc<Written>,
    not_forced: u64,
}

impl ShardWriter {
    /// Starts a shard set in `dir`, which is made if need be; what an unfinished one left is removed.
    ///
    /// # Errors
    /// If the options contradict themselves, if `dir` holds a finished set (and
    /// [`WriterOptions::replace`] is off) or files that are none of ours, if another process writes
    /// there, or if reading the tokenizer or writing fails.
    pub fn create(dir: impl AsRef<Path>, options: WriterOptions) -> Result<Self, ShardError> {
        let dir = dir.as_ref();
        let (lock, tokenizer) = enter(dir, &options)?;
        clear(dir, &[])?;
        Self::begin(dir, lock, options, tokenizer)
    }

    /// Like [`ShardWriter::create`], but goes on with an unfinished set of the same options where
    /// one is there. Then the second value is what the producer of the rows gave to the last
    /// [`ShardWriter::save`]: the next row is the one after that.
    ///
    /// # Errors
    /// As [`ShardWriter::create`], and [`ShardError::OtherBuild`] if the unfinished set has other
    /// options, or [`ShardError::Damaged`] if a shard of it is not as it was written.
    pub fn resume(
        dir: impl AsRef<Path>,
        options: WriterOptions,
    ) -> Result<(Self, Option<serde_json::Value>), ShardError> {
        let dir = dir.as_ref();
        let (lock, tokenizer) = enter(dir, &options)?;
        let Some(progress) = Progress::load(dir)? else {
            clear(dir, &[])?;
            return Ok((Self::begin(dir, lock, options, tokenizer)?, None));
        };
        if !same_build(&progress.index, &start(options, &tokenizer)) {
            return Err(ShardError::OtherBuild { dir: dir.to_path_buf() });
        }
        progress.check_shards(dir)?;
        let rejects = GrowingFile::reopen(&dir.join(REJECTS_FILE), &progress.rejects)?;
        let partial = format!("{PARTIAL}{REJECTS_FILE}");
        let shards = progress.index.shards.iter().map(|shard| shard.file.as_str());
        let kept: Vec<&str> =
            shards.chain([PROGRESS_FILE, TOKENIZER_FILE, partial.as_str()]).collect();
        clear(dir, &kept)?;
        let mut behind = Behind::start(dir)?;
        copy_tokenizer(dir, tokenizer, &mut behind)?;
        let Progress { index, producer, .. } = progress;
        let columns = Columns::default();
        let dir = dir.to_path_buf();
        Ok((Self { dir, behind, lock, index, shard: None, columns, rejects }, Some(producer)))
    }

    fn begin(
        dir: &Path,
        lock: DirLock,
        options: WriterOptions,
        tokenizer: Vec<u8>,
    ) -> Result<Self, ShardError> {
        let index = start(options, &tokenizer);
        let mut behind = Behind::start(dir)?;
        copy_tokenizer(dir, tokenizer, &mut behind)?;
        let rejects = GrowingFile::create(&dir.join(REJECTS_FILE))?;
        let columns = Columns::default();
        Ok(Self { dir: dir.to_path_buf(), behind, lock, index, shard: None, columns, rejects })
    }

    /// Appends a row. Says whether it has completed a shard: the moment for [`ShardWriter::save`]. The
    /// shard is forced to disk while the next rows come.
    ///
    /// # Errors
    /// If the row breaks a rule of the format, or writing this row or any before it fails.
    pub fn push(&mut self, row: &RowBuf) -> Result<bool, ShardError> {
        self.check_row(row)
            .map_err(|problem| ShardError::BadRow { row: self.index.rows, problem })?;
        let source = &mut self.index.sources[usize::from(row.source)];
        if source.rows == 0 {
            source.first_row = self.index.rows;
        }
        source.rows += 1;
        source.tokens += u64::from(row.valid_len);
        source.padding_tokens += u64::from(self.index.row_length - row.valid_len);
        self.index.rows += 1;
        self.columns.push(row);
        if self.columns.rows() == self.index.rows_per_batch as usize {
            self.flush_batch()?;
        }
        let rows = self.shard.as_ref().map_or(0, |shard| shard.rows) + self.columns.rows() as u64;
        let complete = rows == u64::from(self.index.rows_per_shard);
        if complete {
            self.close_shard()?;
        }
        Ok(complete)
    }

    /// Notes where the producer of the rows stands, as soon as everything up to here is on disk, so that
    /// [`ShardWriter::resume`] can go on from here. Only right after a completed shard. Killed before the
    /// note is there, the next run goes on from the one before.
    ///
    /// # Errors
    /// If the last shard is not complete, or writing fails (what is written later may say so later).
    pub fn save(&mut self, producer: serde_json::Value) -> Result<(), ShardError> {
        if self.shard.is_some() || self.columns.rows() > 0 {
            let problem = "its progress was to be noted in the middle of a shard".to_owned();
            return Err(ShardError::Settings { problem });
        }
        let (rejects, written) = self.rejects.save()?;
        let (note, dir) =
            (Progress { index: self.index.clone(), rejects, producer }, self.dir.clone());
        self.behind.then(move || {
            written.map_or(Ok(()), |written| written.force())?;
            note.save(&dir)
        })?;
        Ok(())
    }

    /// Appends a line to `rejects.jsonl`: a record that was not taken in, and why.
    ///
    /// # Errors
    /// If the record has no JSON form, or writing fails.
    pub fn push_reject(&mut self, reject: &impl Serialize) -> Result<(), ShardError> {
        let path = self.dir.join(REJECTS_FILE);
        let mut line = serde_json::to_vec(reject)
            .map_err(|error| FileError::new("write", &path, error.into()))?;
        line.push(b'\n');
        self.rejects.write_all(&line).map_err(|error| FileError::new("write", &path, error).into())
    }

    /// Rows written so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.index.rows
    }

    /// Completes the set: the last shard, `rejects.jsonl`, the card, and then `index.json`.
    ///
    /// # Errors
    /// If the reports are not those of [`WriterOptions::sources`], or writing fails.
    pub fn finish(mut self, reports: Vec<SourceReport>) -> Result<Index, ShardError> {
        self.close_shard()?;
        self.behind.wait()?;
        complete_sources(&mut self.index, reports)?;
        let rejects = self.rejects.commit()?;
        self.index.files.insert(REJECTS_FILE.to_owned(), rejects);
        let readme = card::render(&self.index);
        let path = self.dir.join(README_FILE);
        commit::write_atomic(&path, |file| file.write_all(readme.as_bytes()))?;
        self.index.files.insert(README_FILE.to_owned(), file_entry(readme.as_bytes()));
        self.index.fingerprint = self.index.compute_fingerprint();
        self.index.check().map_err(|problem| ShardError::Settings { problem })?;
        let bytes = self.index.to_bytes();
        commit::write_atomic(&self.dir.join(INDEX_FILE), |file| file.write_all(&bytes))?;
        // With the index the set is finished; what follows a crash here, `tidy` does.
        remove(&self.dir.join(PROGRESS_FILE))?;
        self.lock.release()?;
        Ok(self.index)
    }

    fn check_row(&self, row: &RowBuf) -> Result<(), String> {
        let index = &self.index;
        if row.tokens.len() != index.row_length as usize {
            return Err(format!("{} tokens instead of {}", row.tokens.len(), index.row_length));
        }
        let rules = Rules::of(index);
        let spans = row.maskable.iter().map(|span| (span.start, span.len));
        rules.check(row.source, (row.prefix_len, row.valid_len), &row.segments, spans)?;
        rules.check_spans(row.valid_len, &row.segments, row.spans.iter().copied())?;
        let (before, after) = index.sources.split_at(usize::from(row.source) + 1);
        if after.iter().any(|source| source.rows > 0) {
            return Err(format!("source {} comes after a later source", row.source));
        }
        let source = &before[usize::from(row.source)];
        if row.row_key != row_key(&source.name, source.rows) {
            return Err(format!("row_key is not that of row {} of {}", source.rows, source.name));
        }
        if row.tokens[row.valid_len as usize..].iter().any(|&id| id != index.specials.pad) {
            return Err("a token after valid_len is not the pad id".to_owned());
        }
        Ok(())
    }

    fn flush_batch(&mut self) -> Result<(), ShardError> {
        if self.shard.is_none() {
            self.shard = Some(self.open_shard()?);
        }
        if let Some(shard) = &mut self.shard {
            let rows = self.columns.rows() as u64;
            let written = shard.encoder.write(&mut self.columns);
            written.map_err(|error| FileError::new("write", &shard.path, error))?;
            shard.rows += rows;
            shard.not_forced += rows;
            if shard.not_forced * u64::from(self.index.row_length) >= FORCED_TOKENS {
                shard.not_forced = 0;
                let written = Arc::clone(&shard.written);
                self.behind.then(move || written.force())?;
            }
        }
        Ok(())
    }

    fn open_shard(&self) -> Result<Shard, ShardError> {
        let path = self.dir.join(Index::shard_file(self.index.shards.len()));
        let file = AtomicFile::create(&path)?;
        let written = Arc::new(file.written()?);
        let encoder = Encoder::new(Summing::new(file), &self.index)
            .map_err(|error| FileError::new("write", &path, error))?;
        Ok(Shard { path, rows: 0, encoder, written, not_forced: 0 })
    }

    fn close_shard(&mut self) -> Result<(), ShardError> {
        if self.columns.rows() > 0 {
            self.flush_batch()?;
        }
        let Some(shard) = self.shard.take() else { return Ok(()) };
        let finished = shard.encoder.finish();
        let finished = finished.map_err(|error| FileError::new("write", &shard.path, error))?;
        let (file, sums) = finished.finish();
        self.behind.then(move || file.commit())?;
        self.index.shards.push(ShardEntry {
            file: Index::shard_file(self.index.shards.len()),
            rows: shard.rows,
            first_row: self.index.shards.last().map_or(0, |last| last.first_row + last.rows),
            bytes: sums.bytes,
            blake3: sums.blake3,
            crc32c: sums.crc32c,
        });
        Ok(())
    }
}

fn check(options: &WriterOptions) -> Result<(), ShardError> {
    let settings = |problem: String| Err(ShardError::Settings { problem });
    if options.row_length == 0 || options.row_length > MAX_ROW_LENGTH {
        return settings(format!("row_length {} is not in 1..=2^24", options.row_length));
    }
    if options.rows_per_shard == 0 {
        return settings("rows_per_shard is 0".to_owned());
    }
    if options.sources.len() > usize::from(u16::MAX) + 1 {
        return settings(format!("{} sources are more than 65536", options.sources.len()));
    }
    for (i, name) in options.sources.iter().enumerate() {
        if options.sources[..i].contains(name) {
            return settings(format!("two sources are called {name:?}"));
        }
    }
    Ok(())
}

/// The index before the first row.
fn start(options: WriterOptions, tokenizer: &[u8]) -> Index {
    let sources =
        options.sources.into_iter().map(|name| SourceEntry { name, ..SourceEntry::default() });
    Index {
        format: FORMAT.to_owned(),
        format_version: Index::version(options.spans),
        fingerprint: String::new(),
        manifest_hash: options.manifest_hash,
        row_length: options.row_length,
        id_bits: u32::BITS,
        rows: 0,
        rows_per_shard: options.rows_per_shard,
        rows_per_batch: (BATCH_TOKENS / options.row_length).max(1),
        specials: options.specials,
        spans: options.spans,
        totals: Totals::default(),
        sources: sources.collect(),
        shards: Vec::new(),
        files: BTreeMap::from([(TOKENIZER_FILE.to_owned(), file_entry(tokenizer))]),
    }
}

fn complete_sources(index: &mut Index, reports: Vec<SourceReport>) -> Result<(), ShardError> {
    let named = reports.iter().map(|report| &report.name);
    if !named.eq(index.sources.iter().map(|source| &source.name)) {
        let problem = "the reports are not those of the sources, in their order".to_owned();
        return Err(ShardError::Settings { problem });
    }
    let mut next = 0;
    for (source, report) in index.sources.iter_mut().zip(reports) {
        source.first_row = next;
        next += source.rows;
        source.license = report.license;
        source.documents = report.documents;
        source.input_bytes = report.input_bytes;
        source.rejects = report.rejects;
        source.drops = report.drops;
        source.origins = report.origins;
    }
    index.totals = Totals::of(&index.sources);
    Ok(())
}

fn file_entry(bytes: &[u8]) -> FileEntry {
    FileEntry { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
}

/// Refuses a directory that a new set must not go into.
fn occupied(dir: &Path, replace: bool) -> Result<(), ShardError> {
    let refuse = |problem: String| Err(ShardError::Occupied { dir: dir.to_path_buf(), problem });
    let names = names(dir)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if has(INDEX_FILE) && !replace {
        return refuse("a finished shard set is there".to_owned());
    }
    // Without a mark of ours, even a README.md is somebody else's.
    let ours = has(INDEX_FILE) || has(LOCK_FILE);
    match names.iter().find(|name| !(ours && is_ours(name))) {
        Some(name) => refuse(format!("{name} is there and does not belong to a shard set")),
        None => Ok(()),
    }
}

/// Takes the lock on a directory that a set may go into, and reads the tokenizer for it.
fn enter(dir: &Path, options: &WriterOptions) -> Result<(DirLock, Vec<u8>), ShardError> {
    check(options)?;
    let tokenizer = fs::read(&options.tokenizer)
        .map_err(|error| FileError::new("read", &options.tokenizer, error))?;
    fs::create_dir_all(dir).map_err(|error| FileError::new("create", dir, error))?;
    occupied(dir, options.replace)?;
    let lock = DirLock::acquire(dir)?;
    // Again under the lock: another writer may have finished in between.
    occupied(dir, options.replace)?;
    Ok((lock, tokenizer))
}

/// Whether an unfinished set was begun with these options.
fn same_build(unfinished: &Index, fresh: &Index) -> bool {
    let settings = |index: &Index| Index {
        rows: 0,
        shards: Vec::new(),
        sources: index
            .sources
            .iter()
            .map(|source| SourceEntry { name: source.name.clone(), ..SourceEntry::default() })
            .collect(),
        ..index.clone()
    };
    settings(unfinished) == settings(fresh)
}

fn copy_tokenizer(dir: &Path, tokenizer: Vec<u8>, behind: &mut Behind) -> Result<(), FileError> {
    let path = dir.join(TOKENIZER_FILE);
    behind.then(move || {
        if fs::read(&path).is_ok_and(|found| found == tokenizer) {
            return Ok(());
        }
        commit::write_atomic(&path, |file| file.write_all(&tokenizer))
    })
}

/// Removes what a run left that was stopped between the index and its own end. A set that somebody
/// is still writing is left alone.
///
/// # Errors
/// If the directory cannot be read or a file cannot be removed.
pub fn tidy(dir: impl AsRef<Path>) -> Result<(), ShardError> {
    let dir = dir.as_ref();
    let left = |name: &str| {
        name == PROGRESS_FILE || name.starts_with(PARTIAL) || name.starts_with(commit::TEMPORARY)
    };
    if !names(dir)?.iter().any(|name| name == LOCK_FILE || left(name)) {
        return Ok(());
    }
    let lock = match DirLock::acquire(dir) {
        Ok(lock) => lock,
        Err(ShardError::Locked { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names(dir)?.iter().filter(|name| left(name)) {
        remove(&dir.join(name))?;
    }
    lock.release()
}

/// Removes a former set or what a crash left of one, but for what is kept; the index first, so that
/// no half set looks finished.
fn clear(dir: &Path, kept: &[&str]) -> Result<(), ShardError> {
    let mut names = names(dir)?;
    names.retain(|name| name != LOCK_FILE && !kept.contains(&name.as_str()));
    names.sort_by_key(|name| name != INDEX_FILE);
    for name in &names {
        remove(&dir.join(name))?;
        if name == INDEX_FILE {
            commit::sync_dir(dir)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::new("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn is_ours(name: &str) -> bool {
    let shard = name.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".arrow"));
    [INDEX_FILE, LOCK_FILE, PROGRESS_FILE, TOKENIZER_FILE, REJECTS_FILE, README_FILE]
        .contains(&name)
        || shard.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        || name.starts_with(commit::TEMPORARY)
        || name.starts_with(PARTIAL)
}
