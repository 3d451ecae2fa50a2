//! Documents of Megatron's `.bin`, as its `.idx` says.
//!
//! The index, little-endian: 9 bytes of magic, u64 version 1, u8 type code, u64 number of sequences,
//! u64 number of entries of the last table; then, for each sequence, i32 length, then i64 byte offset;
//! then i64 numbers: of each document its first sequence, and at the end the number of sequences.

use super::{
    ImportError, Width,
    ids::{Document, IdFile},
};
use coda_shards::commit::FileError;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
/// Bytes before the tables.
const HEAD: u64 = 34;

/// What the head of an index says.
struct Head {
    path: PathBuf,
    width: Width,
    sequences: u64,
    /// Entries of the last table: one more than there are documents.
    entries: u64,
}

/// The width of ids that the index beside a `.bin` gives.
pub(super) fn width(bin: &Path) -> Result<Width, ImportError> {
    Ok(Head::read(&bin.with_extension("idx"))?.width)
}

impl Head {
    fn read(path: &Path) -> Result<Self, ImportError> {
        let error = |e| FileError::new("read", path, e);
        let damaged = |place: &str, problem: String| ImportError::damaged(path, place, problem);
        let mut file = File::open(path).map_err(|e| FileError::new("open", path, e))?;
        let bytes = file.metadata().map_err(error)?.len();
        let mut head = [0; 34];
        if bytes < HEAD {
            let problem = format!("{bytes} bytes are fewer than the {HEAD} of its head");
            return Err(damaged("its end", problem));
        }
        file.read_exact(&mut head).map_err(error)?;
        if &head[..9] != MAGIC {
            let problem = "it does not begin with MMIDIDX and two zeros".to_owned();
            return Err(damaged("its start", problem));
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if word(9) != 1 {
            return Err(damaged("byte 9", format!("version {} is not 1", word(9))));
        }
        let width = Width::of_code(head[17]).ok_or_else(|| {
            damaged("byte 17", format!("{} is not the code of a type of integers", head[17]))
        })?;
        let (sequences, entries) = (word(18), word(26));
        let expected = (sequences.checked_mul(12))
            .zip(entries.checked_mul(8))
            .and_then(|(a, b)| a.checked_add(b)?.checked_add(HEAD));
        if expected != Some(bytes) {
            let modes = expected.and_then(|bytes| bytes.checked_add(sequences)) == Some(bytes);
            let problem = if modes && sequences > 0 {
                "it has modes of sequences: multimodal sets are not read".to_owned()
            } else {
                format!("{sequences} sequences and {entries} entries do not make {bytes} bytes")
            };
            return Err(damaged("its end", problem));
        }
        if entries == 0 {
            return Err(damaged("byte 26", "it has no table of documents".to_owned()));
        }
        Ok(Self { path: path.to_owned(), width, sequences, entries })
    }

    /// The bytes of a table from `start` on.
    fn table(&self, start: u64) -> Result<Table<'_>, ImportError> {
        let error = |e| FileError::new("read", &self.path, e);
        let mut file = File::open(&self.path).map_err(error)?;
        file.seek(SeekFrom::Start(start)).map_err(error)?;
        Ok(Table { path: &self.path, reader: BufReader::new(file) })
    }
}

/// Numbers of the index, one after the other.
struct Table<'a> {
    path: &'a Path,
    reader: BufReader<File>,
}

impl Table<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let problem = "it has become shorter while it was read";
                return ImportError::damaged(self.path, "its end", problem);
            }
            FileError::new("read", self.path, error).into()
        })?;
        Ok(bytes)
    }

    /// A number that must not be negative.
    fn count<const N: usize>(
        &mut self,
        place: impl Fn() -> String,
        value: impl Fn([u8; N]) -> i64,
    ) -> Result<u64, ImportError> {
        let found = value(self.next()?);
        u64::try_from(found)
            .map_err(|_| ImportError::damaged(self.path, place(), format!("{found} is negative")))
    }
}

/// Hands out the documents; one of several sequences is joined.
pub(super) fn documents(
    bin: &Path,
    mut ids: IdFile,
    limit: u32,
    take: &mut dyn FnMut(&mut Document) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let head = Head::read(&bin.with_extension("idx"))?;
    let size = head.width.bytes() as u64;
    let mut lengths = head.table(HEAD)?;
    let mut pointers = head.table(HEAD + head.sequences * 4)?;
    let mut firsts = head.table(HEAD + head.sequences * 12)?;
    let damaged = |place: String, problem: String| ImportError::damaged(&head.path, place, problem);
    let entry = |number: u64| format!("entry {number} of its documents");
    let start = firsts.count(|| entry(0), i64::from_le_bytes)?;
    if start != 0 {
        return Err(damaged(entry(0), format!("the first document starts at sequence {start}")));
    }
    let (mut sequence, mut document) = (0, Document::default());
    for number in 1..head.entries {
        let end = firsts.count(|| entry(number), i64::from_le_bytes)?;
        if end < sequence || end > head.sequences {
            let problem = format!("{end} is not in {sequence}..={} sequences", head.sequences);
            return Err(damaged(entry(number), problem));
        }
        document.clear();
        while sequence < end {
            let place = || format!("sequence {sequence}");
            let length = lengths.count(place, |bytes| i64::from(i32::from_le_bytes(bytes)))?;
            let pointer = pointers.count(place, i64::from_le_bytes)?;
            let first = pointer / size;
            let outside = first.checked_add(length).is_none_or(|end| end > ids.len);
            if pointer % size != 0 || outside {
                let problem =
                    format!("{length} ids from byte {pointer} do not lie in the {} ids", ids.len);
                return Err(damaged(place(), problem));
            }
            ids.read(first, length, |id| {
                document.push(id, limit);
                Ok(())
            })?;
            sequence += 1;
        }
        take(&mut document)?;
    }
    if sequence != head.sequences {
        let problem = format!("its documents end at sequence {sequence} of {}", head.sequences);
        return Err(damaged("its end".to_owned(), problem));
    }
    Ok(())
}
