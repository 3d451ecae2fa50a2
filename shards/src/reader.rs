//! Maps a shard set into memory.

use crate::{
    Index, Row, ShardEntry, ShardError, SourceEntry, SourceRange, Specials,
    arrow::{self, Batch},
    blocks::damaged_blocks,
    commit::FileError,
    held_out_rows,
    index::TOKENIZER_FILE,
    row::Rules,
};
use memmap2::Mmap;
use rayon::prelude::*;
use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How thoroughly [`ShardSet::open_with`] looks at the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Reads every byte once and holds each block of 1 MiB against its CRC-32C.
    #[default]
    Checksums,
    /// Only lengths, schemas and structure: opens at once, but does not see a changed token.
    Structure,
}

/// A shard set, mapped. Rows borrow from the mapping; nothing is copied.
///
/// The files must not be changed in place while the set is open. CODA never does so: it only ever
/// puts whole new files under a name.
pub struct ShardSet {
    dir: PathBuf,
    index: Index,
    shards: Vec<MappedShard>,
}

/// One mapped shard.
pub(crate) struct MappedShard {
    map: Arc<Mmap>,
    batches: Vec<Batch>,
    rows_per_batch: u64,
}

impl ShardSet {
    /// Opens a shard set and checks all its checksums.
    ///
    /// # Errors
    /// As [`ShardSet::open_with`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ShardError> {
        Self::open_with(dir, Check::default())
    }

    /// Opens a shard set.
    ///
    /// # Errors
    /// If the set is unfinished, of another version, or damaged (the error names the file and the
    /// place), or if reading fails.
    pub fn open_with(dir: impl AsRef<Path>, check: Check) -> Result<Self, ShardError> {
        let dir = dir.as_ref();
        let index = Index::load(dir)?;
        check_tokenizer(dir, &index)?;
        let shards = index
            .shards
            .par_iter()
            .map(|entry| MappedShard::open(dir, &index, entry, check))
            .collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_path_buf(), index, shards })
    }

    /// The set's index.
    #[must_use]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The set's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of rows.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.index.rows
    }

    /// Tokens per row.
    #[must_use]
    pub const fn row_length(&self) -> u32 {
        self.index.row_length
    }

    /// The sources, in the order of their rows.
    #[must_use]
    pub fn sources(&self) -> &[SourceEntry] {
        &self.index.sources
    }

    /// The ids with a meaning of their own.
    #[must_use]
    pub const fn specials(&self) -> Specials {
        self.index.specials
    }

    /// The set's own copy of the tokenizer.
    #[must_use]
    pub fn tokenizer_path(&self) -> PathBuf {
        self.dir.join(TOKENIZER_FILE)
    }

    /// Names the set: the hash of all that decides its bytes.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.index.fingerprint
    }

    /// The sources' rows as [`crate::Order`] wants them, without weights: of every source the last
    /// rows are held out, [`held_out_rows`] of them.
    #[must_use]
    pub fn source_ranges(&self, held_out: f64) -> Vec<SourceRange> {
        let range = |source: &SourceEntry| SourceRange {
            first_row: source.first_row,
            rows: source.rows,
            weight: None,
            held_out_rows: held_out_rows(source.rows, held_out),
        };
        self.index.sources.iter().map(range).collect()
    }

    /// A row; its slices lie in the mapping.
    ///
    /// # Errors
    /// If there is no such row, or it breaks a rule of the format (a damage that
    /// [`Check::Structure`] did not look for).
    pub fn row(&self, row: u64) -> Result<Row<'_>, ShardError> {
        let (number, within) = self.locate(row)?;
        let found = self.shards[number].row(within);
        self.rules().check_row(&found).map_err(|problem| ShardError::Damaged {
            file: self.dir.join(&self.index.shards[number].file),
            place: format!("row {row} (row {within} of the shard)"),
            problem,
        })?;
        Ok(found)
    }

    /// The addresses of the mapping that holds a row: proof that its slices are no copies.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn mapping_of(&self, row: u64) -> Result<Range<*const u8>, ShardError> {
        Ok(self.shards[self.locate(row)?.0].map.as_ptr_range())
    }

    fn rules(&self) -> Rules {
        Rules::of(&self.index)
    }

    /// The number of the shard and the row within it. All shards but the last are full.
    fn locate(&self, row: u64) -> Result<(usize, u64), ShardError> {
        let per_shard = u64::from(self.index.rows_per_shard);
        match usize::try_from(row / per_shard) {
            Ok(number) if row < self.index.rows => Ok((number, row % per_shard)),
            _ => Err(ShardError::OutOfRange { row, rows: self.index.rows }),
        }
    }
}

impl MappedShard {
    fn open(
        dir: &Path,
        index: &Index,
        entry: &ShardEntry,
        check: Check,
    ) -> Result<Self, ShardError> {
        let path = dir.join(&entry.file);
        let damaged = |place: String, problem: String| ShardError::Damaged {
            file: path.clone(),
            place,
            problem,
        };
        let map = Self::map_file(&path, entry.bytes)?
            .map_err(|problem| damaged("its end".to_owned(), problem))?;
        if check == Check::Checksums
            && let Some(block) = damaged_blocks(&map, &entry.crc32c).first()
        {
            let problem = "the block's CRC-32C is not the one in the index".to_owned();
            return Err(damaged(format!("block {block} (of 1 MiB)"), problem));
        }
        let map = Arc::new(map);
        Self::read(map, index, entry).map_err(|(place, problem)| damaged(place, problem))
    }

    /// Maps a file that must have `bytes` bytes; the inner error says how it differs.
    pub(crate) fn map_file(path: &Path, bytes: u64) -> Result<Result<Mmap, String>, ShardError> {
        let error = |action| move |error| FileError::new(action, path, error);
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err("the file is missing".to_owned()));
            }
            opened => opened.map_err(error("open"))?,
        };
        let found = file.metadata().map_err(error("read"))?.len();
        if found != bytes {
            return Ok(Err(format!("the file has {found} bytes, the index says {bytes}")));
        }
        if found == 0 {
            return Ok(Err("the file is empty".to_owned()));
        }
        // SAFETY: the mapping is read-only and private to this process. Nothing of CODA writes into
        // a shard after it got its name, and `ShardSet` documents that nobody else may.
        let map = unsafe { Mmap::map(&file) }.map_err(error("map"))?;
        Ok(Ok(map))
    }

    /// Finds the rows in a mapping.
    pub(crate) fn read(
        map: Arc<Mmap>,
        index: &Index,
        entry: &ShardEntry,
    ) -> Result<Self, arrow::Fault> {
        let batches = arrow::map(&map, index, entry.rows)?;
        Ok(Self { map, batches, rows_per_batch: u64::from(index.rows_per_batch) })
    }

    /// A row that is known to be within the shard.
    #[allow(clippy::cast_possible_truncation, reason = "both lie below lengths of vectors")]
    pub(crate) fn row(&self, row: u64) -> Row<'_> {
        self.batches[(row / self.rows_per_batch) as usize].row((row % self.rows_per_batch) as usize)
    }
}

impl Rules {
    pub(crate) fn of(index: &Index) -> Self {
        let sources = index.sources.len();
        Self { row_length: index.row_length, sources, kinds: index.spans }
    }

    pub(crate) fn check_row(&self, row: &Row<'_>) -> Result<(), String> {
        let spans = row.maskable_starts.iter().copied().zip(row.maskable_lens.iter().copied());
        self.check(row.source, (row.prefix_len, row.valid_len), row.segments, spans)?;
        self.check_spans(row.valid_len, row.segments, row.spans.iter())
    }
}

fn check_tokenizer(dir: &Path, index: &Index) -> Result<(), ShardError> {
    let path = dir.join(TOKENIZER_FILE);
    let bytes = std::fs::read(&path).map_err(|error| FileError::new("read", &path, error))?;
    if blake3::hash(&bytes).to_hex().as_str() != index.tokenizer_fingerprint() {
        return Err(ShardError::Damaged {
            file: path,
            place: "its content".to_owned(),
            problem: "its BLAKE3 is not the one in the index".to_owned(),
        });
    }
    Ok(())
}
