//! Ids of any width, and files of them.

use super::ImportError;
use crate::decode::Fault;
use coda_shards::commit::FileError;
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes that are read at once; a multiple of every width.
const CHUNK: usize = 1 << 18;

/// How an id is written, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Two bytes, signed.
    I16,
    /// Four bytes.
    U32,
    /// Four bytes, signed.
    I32,
    /// Eight bytes, signed.
    I64,
}

impl Width {
    /// Bytes of an id.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// By the name that `NumPy` has for it.
    #[must_use]
    pub fn of_dtype(name: &str) -> Option<Self> {
        Some(match name {
            "uint8" => Self::U8,
            "uint16" => Self::U16,
            "int16" => Self::I16,
            "uint32" => Self::U32,
            "int32" => Self::I32,
            "int64" => Self::I64,
            _ => return None,
        })
    }

    /// By the number that Megatron has for it.
    pub(super) const fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::U8,
            3 => Self::I16,
            4 => Self::I32,
            5 => Self::I64,
            8 => Self::U16,
            _ => return None,
        })
    }

    /// The id at the start of some bytes that are long enough.
    fn first(self, bytes: &[u8]) -> i64 {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            let mut array = [0; N];
            array.copy_from_slice(&bytes[..N]);
            array
        }
        match self {
            Self::U8 => i64::from(bytes[0]),
            Self::U16 => i64::from(u16::from_le_bytes(array(bytes))),
            Self::I16 => i64::from(i16::from_le_bytes(array(bytes))),
            Self::U32 => i64::from(u32::from_le_bytes(array(bytes))),
            Self::I32 => i64::from(i32::from_le_bytes(array(bytes))),
            Self::I64 => i64::from_le_bytes(array(bytes)),
        }
    }

    /// All ids of some bytes, whatever they are.
    fn raw(self, bytes: &[u8]) -> impl Iterator<Item = i64> + '_ {
        bytes.chunks_exact(self.bytes()).map(move |id| self.first(id))
    }
}

/// The ids of a document, checked one by one against the tokenizer.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) ids: Vec<u32>,
    /// The first that is none of the tokenizer's, and how many there are in all.
    foreign: Option<(u64, i64)>,
    /// Ids seen, also those that were too many to keep.
    pub(super) seen: u64,
}

impl Document {
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        (self.foreign, self.seen) = (None, 0);
    }

    /// Takes one more id. `limit`: the tokenizer's ids lie below it.
    pub(super) fn push(&mut self, id: i64, limit: u32) {
        match u32::try_from(id) {
            Ok(known) if known < limit => {
                if self.seen < super::MAX_DOCUMENT_TOKENS {
                    self.ids.push(known);
                }
            }
            _ => self.foreign = self.foreign.or(Some((self.seen, id))),
        }
        self.seen += 1;
    }

    /// What is wrong with the document, if anything is.
    pub(super) fn fault(&self, limit: u32) -> Option<Fault> {
        if let Some((at, id)) = self.foreign {
            let message = format!("token {at} is {id}; the ids of the tokenizer lie below {limit}");
            return Some(Fault { at: Some(at), ..Fault::new("id_outside_vocabulary", message) });
        }
        if self.seen > super::MAX_DOCUMENT_TOKENS {
            let message = format!(
                "{} tokens are more than {}; is the end token right?",
                self.seen,
                super::MAX_DOCUMENT_TOKENS
            );
            return Some(Fault::new("document_too_long", message));
        }
        (self.seen == 0).then(|| Fault::new("empty_document", "it has no tokens".to_owned()))
    }
}

/// A file of nothing but ids.
pub(super) struct IdFile {
    path: PathBuf,
    file: File,
    width: Width,
    /// Ids in the file.
    pub(super) len: u64,
    /// Ids before the next one that the file gives.
    position: u64,
    chunk: Vec<u8>,
}

impl IdFile {
    /// Opens a file whose length must be a multiple of the width.
    pub(super) fn open(path: &Path, width: Width) -> Result<Self, ImportError> {
        let file = File::open(path).map_err(|e| FileError::new("open", path, e))?;
        let bytes = file.metadata().map_err(|e| FileError::new("read", path, e))?.len();
        let size = width.bytes() as u64;
        if bytes % size != 0 {
            let problem = format!("{bytes} bytes are no multiple of {size}, the size of an id");
            return Err(ImportError::damaged(path, "its end", problem));
        }
        let len = bytes / size;
        Ok(Self { path: path.to_owned(), file, width, len, position: 0, chunk: Vec::new() })
    }

    /// Hands out `count` ids from `start` on, in order; both were found to lie within the file.
    pub(super) fn read(
        &mut self,
        start: u64,
        count: u64,
        mut take: impl FnMut(i64) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let size = self.width.bytes();
        if start != self.position {
            let place = SeekFrom::Start(start * size as u64);
            self.file.seek(place).map_err(|e| FileError::new("read", &self.path, e))?;
            self.position = start;
        }
        let mut left = count;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK / size);
            self.chunk.resize(now * size, 0);
            self.file.read_exact(&mut self.chunk).map_err(|error| self.failed(error))?;
            self.position += now as u64;
            left -= now as u64;
            for id in self.width.raw(&self.chunk) {
                take(id)?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> ImportError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let problem = "it has become shorter while it was read";
            return ImportError::damaged(&self.path, "its end", problem);
        }
        FileError::new("read", &self.path, error).into()
    }
}
