//! Entries on disk: immutable files, sorted by key, each with a filter that says for most keys in one
//! look that they are not there.
//!
//! `N.run` holds the entries, each `W` words of key and one of ordinal, little-endian. `N.filter` is a
//! Bloom filter of blocks of 512 bits; a key's leading bits choose the block, so that writing it in
//! the order of the keys needs one block in memory, whatever the size of the run.

use super::{DedupError, table::Entry};
use crate::words::mix;
use coda_shards::commit::{AtomicFile, FileError};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bits of a filter block and how many of them a key sets: 51 keys a block give 1.5 % of false
/// answers.
const BLOCK_WORDS: usize = 8;
const KEYS_PER_BLOCK: u64 = 51;
const PROBES: usize = 6;
const FILTER_KEY: u64 = 0x6a09_e667_f3bc_c909;

/// What the list of runs says about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunEntry {
    /// Names its files.
    pub(super) number: u64,
    /// How often its entries were merged.
    pub(super) level: u32,
    pub(super) entries: u64,
    /// Smallest and largest ordinal.
    pub(super) first: u64,
    pub(super) last: u64,
    /// BLAKE3 of the two files, hex.
    run_blake3: String,
    filter_blake3: String,
}

/// A run that can be asked.
pub(super) struct Run<const W: usize> {
    pub(super) entry: RunEntry,
    entries: Bytes,
    filter: Bytes,
}

/// The bytes of a file; empty files cannot be mapped.
struct Bytes(Option<Mmap>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

fn paths(dir: &Path, number: u64) -> [PathBuf; 2] {
    [dir.join(format!("{number}.run")), dir.join(format!("{number}.filter"))]
}

/// Removes the files of a run that no list names any more.
pub(super) fn remove(dir: &Path, number: u64) -> Result<(), FileError> {
    for path in paths(dir, number) {
        fs::remove_file(&path).map_err(|e| FileError::new("remove", &path, e))?;
    }
    Ok(())
}

impl<const W: usize> Run<W> {
    /// Writes sorted entries, `most` of them at most, as run `number`.
    pub(super) fn write(
        dir: &Path,
        (number, level): (u64, u32),
        most: u64,
        entries: impl Iterator<Item = Entry<W>>,
    ) -> Result<Self, DedupError> {
        let [run_path, filter_path] = paths(dir, number);
        let mut run = Hashing::create(&run_path)?;
        let mut filter = Hashing::create(&filter_path)?;
        let blocks = most.div_ceil(KEYS_PER_BLOCK).max(1);
        let (mut block, mut bits) = (0, [0_u64; BLOCK_WORDS]);
        let (mut count, mut first, mut last) = (0, u64::MAX, 0);
        for Entry { key, ordinal } in entries {
            let (wanted, probes) = probes(&key, blocks);
            while block < wanted {
                filter.words(&bits)?;
                (block, bits) = (block + 1, [0; BLOCK_WORDS]);
            }
            for bit in probes {
                bits[bit / 64] |= 1 << (bit % 64);
            }
            run.words(&key)?;
            run.words(&[ordinal])?;
            count += 1;
            (first, last) = (first.min(ordinal), last.max(ordinal));
        }
        while block < blocks {
            filter.words(&bits)?;
            (block, bits) = (block + 1, [0; BLOCK_WORDS]);
        }
        let (run_blake3, filter_blake3) = (run.commit()?, filter.commit()?);
        let entry =
            RunEntry { number, level, entries: count, first, last, run_blake3, filter_blake3 };
        Ok(Self { entry, entries: map(&run_path)?, filter: map(&filter_path)? })
    }

    /// Opens a run and holds its files against the list.
    pub(super) fn open(dir: &Path, entry: RunEntry) -> Result<Self, DedupError> {
        let [run_path, filter_path] = paths(dir, entry.number);
        let (entries, filter) = (map(&run_path)?, map(&filter_path)?);
        for (path, bytes, expected) in [
            (&run_path, &entries, &entry.run_blake3),
            (&filter_path, &filter, &entry.filter_blake3),
        ] {
            if blake3::hash(bytes).to_hex().as_str() != expected {
                let problem = "its checksum is not the one in the list of runs".to_owned();
                return Err(DedupError::Damaged { path: path.clone(), problem });
            }
        }
        let sizes = (entries.len() as u64, filter.len() as u64);
        let entry_bytes = (W as u64 + 1) * 8;
        if sizes.0 != entry.entries * entry_bytes || !sizes.1.is_multiple_of(BLOCK_WORDS as u64 * 8)
        {
            let problem = "its length does not fit the list of runs".to_owned();
            return Err(DedupError::Damaged { path: run_path, problem });
        }
        Ok(Self { entry, entries, filter })
    }

    /// The ordinal of a key.
    pub(super) fn get(&self, key: &[u64; W]) -> Option<u64> {
        let blocks = (self.filter.len() / (BLOCK_WORDS * 8)) as u64;
        let (block, probes) = probes(key, blocks);
        let block = usize::try_from(block).ok()? * BLOCK_WORDS;
        let is_set = |bit: usize| word(&self.filter, block + bit / 64) >> (bit % 64) & 1 == 1;
        if !probes.into_iter().all(is_set) {
            return None;
        }
        let at = self.search(key);
        let entry = (at < self.len()).then(|| self.at(at))?;
        (entry.key == *key).then_some(entry.ordinal)
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<W>> {
        (0..self.len()).map(|index| self.at(index))
    }

    fn len(&self) -> usize {
        self.entries.len() / ((W + 1) * 8)
    }

    fn at(&self, index: usize) -> Entry<W> {
        let start = index * (W + 1);
        let key = std::array::from_fn(|part| word(&self.entries, start + part));
        Entry { key, ordinal: word(&self.entries, start + W) }
    }

    /// Where the first entry that is not below `key` stands. Keys are hashes, so their leading bits
    /// say nearly where: from there outwards in doubled steps, then by halves.
    fn search(&self, key: &[u64; W]) -> usize {
        let length = self.len();
        let below = |index: usize| self.at(index).key < *key;
        let guess = usize::try_from((u128::from(key[0]) * length as u128) >> 64).unwrap_or(0);
        let (mut low, mut high, mut step) = (guess, guess, 4);
        while low > 0 && !below(low - 1) {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 4;
        while high < length && below(high) {
            low = high + 1;
            high = (high + step).min(length);
            step *= 2;
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            if below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    bytes[index * 8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The block of a key and its bits there.
fn probes<const W: usize>(key: &[u64; W], blocks: u64) -> (u64, [usize; PROBES]) {
    let block = u64::try_from((u128::from(key[0]) * u128::from(blocks)) >> 64).unwrap_or(0);
    let hash = mix(key[0], key[W - 1] ^ FILTER_KEY);
    #[allow(clippy::cast_possible_truncation, reason = "nine bits")]
    let bit = |probe: usize| (hash >> (9 * probe)) as usize & 511;
    (block, std::array::from_fn(bit))
}

fn map(path: &Path) -> Result<Bytes, DedupError> {
    let file = File::open(path).map_err(|e| FileError::new("open", path, e))?;
    let length = file.metadata().map_err(|e| FileError::new("read", path, e))?.len();
    if length == 0 {
        return Ok(Bytes(None));
    }
    // SAFETY: runs are never changed after they got their names, and the folder belongs to one
    // process at a time. Maps, because a run can be larger than memory.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| FileError::new("map", path, e))?;
    Ok(Bytes(Some(map)))
}

/// A file that is hashed while it is written.
struct Hashing {
    path: PathBuf,
    file: AtomicFile,
    hasher: blake3::Hasher,
}

impl Hashing {
    fn create(path: &Path) -> Result<Self, FileError> {
        let file = AtomicFile::create(path)?;
        Ok(Self { path: path.to_owned(), file, hasher: blake3::Hasher::new() })
    }

    fn words<const N: usize>(&mut self, words: &[u64; N]) -> Result<(), FileError> {
        for word in words {
            let bytes = word.to_le_bytes();
            self.hasher.update(&bytes);
            let written: io::Result<()> = self.file.write_all(&bytes);
            written.map_err(|e| FileError::new("write", &self.path, e))?;
        }
        Ok(())
    }

    fn commit(self) -> Result<String, FileError> {
        self.file.commit()?;
        Ok(self.hasher.finalize().to_hex().to_string())
    }
}
