//! Raw records on their way from the decoder to the workers, in bounded batches.

use super::{DecodeError, Fault};
use std::{
    ops::{Deref, DerefMut, Range},
    sync::{Arc, Mutex},
};

/// A batch goes out when it holds this many bytes…
const BATCH_BYTES: usize = 2 << 20;
/// …or this many records.
const BATCH_RECORDS: usize = 4096;
/// Of a rejected record this many bytes are hashed, so that it can be found again.
pub(crate) const HEAD_BYTES: usize = 256;

/// Where a record stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Index into the source's files.
    pub file: u32,
    /// Line or row, from 1; 0 when the file as a whole is meant.
    pub number: u64,
    /// Element of a list inside the record, from 1; 0 when the record as a whole is meant.
    pub element: u32,
    /// Byte offset in the decompressed file; for column containers, the row's offset is not known
    /// and this is 0.
    pub offset: u64,
}

/// A piece of a batch's bytes.
pub type TextRange = Range<usize>;

/// What a raw record consists of.
#[derive(Clone, Debug)]
pub enum Body {
    /// One JSON value, still to be parsed.
    Json(TextRange),
    /// The text itself, UTF-8 not yet checked.
    Text(TextRange),
    /// One entry for each column of [`super::DecodeOptions::layout`]; nothing where the value is
    /// null. What is not text arrives as JSON.
    Columns(Vec<Option<TextRange>>),
    /// The elements of a list that stay together, each as in [`Body::Columns`].
    Elements(Vec<Vec<Option<TextRange>>>),
    /// Usable, but left out by a rule that looks at the file; the rule's code.
    Dropped(&'static str),
    /// Not usable.
    Rejected {
        /// Why.
        fault: Fault,
        /// BLAKE3 of the first bytes of the record.
        head: blake3::Hash,
    },
}

impl Body {
    /// The bytes by which a reject of this record can be found again.
    pub(crate) fn head(&self) -> TextRange {
        let first = |ranges: &[Option<TextRange>]| ranges.iter().flatten().next().cloned();
        match self {
            Self::Json(range) | Self::Text(range) => range.clone(),
            Self::Columns(ranges) => first(ranges).unwrap_or(0..0),
            Self::Elements(elements) => elements.iter().find_map(|e| first(e)).unwrap_or(0..0),
            Self::Dropped(_) | Self::Rejected { .. } => 0..0,
        }
    }
}

/// A record as the decoder found it.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Where.
    pub location: Location,
    /// What.
    pub body: Body,
}

/// Larger buffers are not kept for the next batch.
const KEPT_BYTES: usize = 4 * BATCH_BYTES;
/// As many buffers wait for the next batches at most.
const KEPT: usize = 4;

/// Buffers of batches that are done.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// The bytes of a batch. They go back to the sink that filled them, so that their memory is used again:
/// fresh memory costs a page fault for every few kilobytes.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    spare: Spare,
}

impl Buffer {
    fn new(spare: &Spare) -> Self {
        let bytes = spare.lock().ok().and_then(|mut spare| spare.pop());
        Self { bytes: bytes.unwrap_or_default(), spare: Arc::clone(spare) }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut spare) = self.spare.lock()
            && spare.len() < KEPT
            && (1..=KEPT_BYTES).contains(&self.bytes.capacity())
        {
            self.bytes.clear();
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Records and the bytes that they point into.
#[derive(Debug, Default)]
pub struct Batch {
    /// The bytes of all records.
    pub bytes: Buffer,
    /// The records, in input order.
    pub records: Vec<RawRecord>,
    /// Bytes of input files read since the batch before, for the progress.
    pub consumed: u64,
    /// Files passed over since the batch before because they are binary or empty code files.
    pub skipped_files: u64,
}

/// Collects records into batches and sends them on.
pub struct BatchSink<'a> {
    batch: Batch,
    file: u32,
    spare: Spare,
    send: &'a mut dyn FnMut(Batch) -> bool,
}

impl<'a> BatchSink<'a> {
    /// `send` takes a full batch and says whether more is wanted.
    pub fn new(send: &'a mut dyn FnMut(Batch) -> bool) -> Self {
        Self { batch: Batch::default(), file: 0, spare: Spare::default(), send }
    }

    pub(super) fn open(&mut self, file: u32) {
        self.file = file;
    }

    /// The bytes of the batch: append a record's bytes here, then call [`BatchSink::push`].
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.batch.bytes
    }

    pub(super) fn push(&mut self, mut location: Location, body: Body) -> Result<(), DecodeError> {
        location.file = self.file;
        self.batch.records.push(RawRecord { location, body });
        if self.batch.bytes.len() >= BATCH_BYTES || self.batch.records.len() >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn reject(
        &mut self,
        location: Location,
        fault: Fault,
        head: &[u8],
    ) -> Result<(), DecodeError> {
        let head = blake3::hash(&head[..head.len().min(HEAD_BYTES)]);
        self.push(location, Body::Rejected { fault, head })
    }

    pub(super) fn consumed(&mut self, bytes: u64) {
        self.batch.consumed += bytes;
    }

    pub(super) fn skip_file(&mut self) {
        self.batch.skipped_files += 1;
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// If the other side wants no more.
    pub fn flush(&mut self) -> Result<(), DecodeError> {
        let next = Batch { bytes: Buffer::new(&self.spare), ..Batch::default() };
        let batch = std::mem::replace(&mut self.batch, next);
        if (self.send)(batch) { Ok(()) } else { Err(DecodeError::Closed) }
    }
}
