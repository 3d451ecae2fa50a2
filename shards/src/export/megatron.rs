//! Megatron's `IndexedDataset`: a `.bin` of ids and an `.idx` that says where documents lie.
//!
//! The index, little-endian: 9 bytes of magic, u64 version 1, u8 type code, u64 number of sequences,
//! u64 number of entries of the last table; then, for each sequence, i32 length, then i64 byte offset;
//! then, one more than there are documents, i64 first sequences. A document is one sequence here.

use super::{
    ExportError, IdWidth,
    documents::{About, Boundaries, Ended, Output},
};
use crate::commit::FileError;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;

/// The lengths go to a nameless file first: they stand thrice in the index, table after table, and
/// there may be billions of them.
pub(super) struct Megatron {
    path: PathBuf,
    stem: String,
    width: IdWidth,
    lengths: BufWriter<File>,
}

impl Megatron {
    pub(super) fn create(dir: &Path, stem: &str, width: IdWidth) -> Result<Self, FileError> {
        let path = dir.join(format!("{stem}.idx"));
        let lengths = tempfile::tempfile_in(dir).map_err(|e| FileError::new("create", &path, e))?;
        Ok(Self { path, stem: stem.to_owned(), width, lengths: BufWriter::new(lengths) })
    }
}

impl Boundaries for Megatron {
    fn document(&mut self, ended: &Ended<'_>) -> Result<(), ExportError> {
        let length = i32::try_from(ended.tokens).map_err(|_| ExportError::TooLong {
            row: ended.row,
            tokens: ended.tokens,
            format: "Megatron's index",
            most: i32::MAX.unsigned_abs().into(),
        })?;
        let written = self.lengths.write_all(&length.to_le_bytes());
        written.map_err(|e| FileError::new("write", &self.path, e).into())
    }

    fn finish(self: Box<Self>, about: &About<'_>) -> Result<Vec<String>, ExportError> {
        let Self { path, stem, width, lengths } = *self;
        let error = |e| FileError::new("write", &path, e);
        let mut lengths = lengths.into_inner().map_err(|e| error(e.into_error()))?;
        let mut index = Output::create(path.clone())?;
        index.put(|sink| write_index(sink, &mut lengths, width, about.documents))?;
        index.finish()?;
        Ok(vec![format!("{stem}.bin"), format!("{stem}.idx")])
    }
}

const fn code(width: IdWidth) -> u8 {
    match width {
        IdWidth::U16 => 8,
        // There is no unsigned type of four bytes; no id that we write reaches the sign.
        IdWidth::U32 | IdWidth::I32 => 4,
    }
}

fn write_index(
    sink: &mut dyn Write,
    lengths: &mut File,
    width: IdWidth,
    documents: u64,
) -> io::Result<()> {
    sink.write_all(MAGIC)?;
    sink.write_all(&VERSION.to_le_bytes())?;
    sink.write_all(&[code(width)])?;
    sink.write_all(&documents.to_le_bytes())?;
    sink.write_all(&(documents + 1).to_le_bytes())?;
    lengths.seek(SeekFrom::Start(0))?;
    io::copy(lengths, sink)?;
    lengths.seek(SeekFrom::Start(0))?;
    let mut lengths = BufReader::new(lengths);
    let (mut length, mut pointer) = ([0; 4], 0u64);
    for _ in 0..documents {
        sink.write_all(&pointer.to_le_bytes())?;
        lengths.read_exact(&mut length)?;
        pointer += u64::from(u32::from_le_bytes(length)) * width.bytes();
    }
    for first in 0..=documents {
        sink.write_all(&first.to_le_bytes())?;
    }
    Ok(())
}
