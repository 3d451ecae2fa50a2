//! What an Arrow IPC file says about its own sizes, looked at before memory is taken for it: the
//! reader would trust a buffer that claims to be a terabyte.

use super::{DecodeError, Fault, Limits, columns::damaged};
use arrow_format::ipc::{
    MessageHeaderRef, MessageRef, RecordBatchRef,
    planus::{Error, ReadAsRoot as _},
};
use std::io::{self, Read, Seek, SeekFrom};

const WHAT: &str = "Arrow file";
const CONTINUATION: u32 = u32::MAX;
/// A message's own description is at most this long; one batch of a thousand columns takes 50 KiB.
const MAX_MESSAGE: u64 = 64 << 20;

/// A file of so many bytes, and what its compressed parts may come to.
pub(super) struct Claims<'a, R> {
    pub(super) reader: &'a mut R,
    pub(super) bytes: u64,
    pub(super) limits: Limits,
}

enum Problem {
    Read(io::Error),
    Fault(Fault),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match damaged(WHAT, &error) {
            DecodeError::Damaged(fault) => Self::Fault(fault),
            other => Self::Fault(Fault::new("corrupt", other.to_string())),
        }
    }
}

impl<R: Read + Seek> Claims<'_, R> {
    /// Checks the messages of a stream, from its start to the first that is cut off. What is wrong
    /// there is left to the reader.
    pub(super) fn check_stream(&mut self) -> Result<(), DecodeError> {
        let mut at = 0;
        while let Some((start, length)) = self.message_at(at)? {
            if length == 0 {
                break;
            }
            let body = start + length;
            at = body + self.check(start, length)?;
        }
        Ok(())
    }

    /// Checks the messages at these places of a file.
    pub(super) fn check_blocks(
        &mut self,
        places: impl Iterator<Item = i64>,
    ) -> Result<(), DecodeError> {
        for place in places {
            let place = u64::try_from(place).unwrap_or(u64::MAX);
            if let Some((start, length)) = self.message_at(place)? {
                self.check(start, length)?;
            }
        }
        Ok(())
    }

    /// Where the description of the message at a place begins, and its length; nothing where the
    /// file ends first.
    fn message_at(&mut self, place: u64) -> Result<Option<(u64, u64)>, DecodeError> {
        let Some(first) = self.word(place)? else { return Ok(None) };
        let (length, start) = if first == CONTINUATION {
            let Some(length) = self.word(place.saturating_add(4))? else { return Ok(None) };
            (length, place + 8)
        } else {
            (first, place + 4)
        };
        let fits = u64::from(length) <= MAX_MESSAGE && start + u64::from(length) <= self.bytes;
        Ok(fits.then_some((start, u64::from(length))))
    }

    fn word(&mut self, place: u64) -> Result<Option<u32>, DecodeError> {
        if place.checked_add(4).is_none_or(|end| end > self.bytes) {
            return Ok(None);
        }
        let mut word = [0; 4];
        self.read_at(place, &mut word).map_err(|e| damaged(WHAT, &e))?;
        Ok(Some(u32::from_le_bytes(word)))
    }

    fn read_at(&mut self, place: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(place))?;
        self.reader.read_exact(buffer)
    }

    /// Checks one message; gives the length of its body.
    fn check(&mut self, start: u64, length: u64) -> Result<u64, DecodeError> {
        self.try_check(start, length).map_err(|problem| match problem {
            Problem::Read(error) => damaged(WHAT, &error),
            Problem::Fault(fault) => DecodeError::Damaged(fault),
        })
    }

    fn try_check(&mut self, start: u64, length: u64) -> Result<u64, Problem> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read_at(start, &mut bytes)?;
        let message = MessageRef::read_as_root(&bytes)?;
        let batch = match message.header()? {
            Some(MessageHeaderRef::RecordBatch(batch)) => Some(batch),
            Some(MessageHeaderRef::DictionaryBatch(dictionary)) => dictionary.data()?,
            _ => None,
        };
        if let Some(batch) = batch {
            self.check_buffers(batch, start + length)?;
        }
        let body = message.body_length()?;
        u64::try_from(body).map_err(|_| corrupt(&format!("a body of {body} bytes")))
    }

    fn check_buffers(&mut self, batch: RecordBatchRef<'_>, body: u64) -> Result<(), Problem> {
        let compressed = batch.compression()?.is_some();
        let mut unpacked = 0_u64;
        for buffer in batch.buffers()?.into_iter().flatten() {
            let length = u64::try_from(buffer.length()).unwrap_or(u64::MAX);
            let place = u64::try_from(buffer.offset()).ok().and_then(|o| body.checked_add(o));
            let place = place.filter(|place| {
                length == 0 || place.checked_add(length).is_some_and(|end| end <= self.bytes)
            });
            let Some(place) = place else {
                return Err(corrupt(&format!("a buffer of {length} bytes reaches past its end")));
            };
            if !compressed || length < 8 {
                continue;
            }
            let mut claim = [0; 8];
            self.read_at(place, &mut claim)?;
            // -1 says that this buffer is not compressed.
            let claim = u64::try_from(i64::from_le_bytes(claim)).unwrap_or(length);
            unpacked = unpacked.saturating_add(claim);
            let Limits { max_output, max_ratio, ratio_from } = self.limits;
            if unpacked > max_output || (claim > ratio_from && claim / length > max_ratio) {
                let message =
                    format!("a buffer of {length} bytes claims {claim} bytes uncompressed");
                return Err(Problem::Fault(Fault::new("decompression_bomb", message)));
            }
        }
        Ok(())
    }
}

fn corrupt(what: &str) -> Problem {
    Problem::Fault(Fault::new("corrupt", format!("the {WHAT} is damaged: {what}")))
}
