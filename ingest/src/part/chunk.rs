//! The bytes of a chunk: the results of consecutive records.
//!
//! `CODAPRT1`, then one entry a record, little-endian: the file's number (u32), a kind (u8), marks if the
//! kind is 128 higher, and
//! * 0, a document: bytes of text (u64), ids (u64 count, u32 each);
//! * 1, a conversation: bytes of text (u64), ids of the prompt (u64), ids as above;
//! * 2, a drop: the rule's code (u32 length, UTF-8);
//! * 3, a reject: its line of `rejects.jsonl` (u32 length, JSON).
//!
//! Marks are what deduplication compares a document by: 128 bits of the BLAKE3 of its text, and a u8
//! that says whether a sketch follows (its bands, u64 each, and its bins, u8 each, as many as the
//! manifest says).

use crate::{
    decode::Location,
    dedup::{Marks, Sketch},
    pipeline::Outcome,
    reason::code,
    reject::Reject,
    tokenize::ChatRow,
};

const MAGIC: &[u8; 8] = b"CODAPRT1";
const TEXT: u8 = 0;
const CHAT: u8 = 1;
const DROP: u8 = 2;
const REJECT: u8 = 3;
const MARKED: u8 = 128;

/// A record's file and marks.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) file: u32,
    pub(super) marks: Option<&'a Marks>,
}

/// A chunk that is being filled.
pub(super) struct ChunkBuf {
    bytes: Vec<u8>,
    records: u64,
}

impl ChunkBuf {
    pub(super) fn new() -> Self {
        Self { bytes: MAGIC.to_vec(), records: 0 }
    }

    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    pub(super) const fn bytes(&self) -> &Vec<u8> {
        &self.bytes
    }

    /// Appends a document.
    pub(super) fn text(&mut self, head: Head<'_>, ids: &[u32], bytes: u64) {
        self.start(head, TEXT);
        self.number(bytes);
        self.ids(ids);
    }

    /// Appends a conversation.
    pub(super) fn chat(&mut self, head: Head<'_>, row: &ChatRow, bytes: u64) {
        self.start(head, CHAT);
        self.number(bytes);
        self.number(row.prompt_len as u64);
        self.ids(&row.ids);
    }

    /// Appends a drop.
    pub(super) fn drop(&mut self, head: Head<'_>, reason: &str) {
        self.start(head, DROP);
        self.string(reason.as_bytes());
    }

    /// Appends a reject.
    pub(super) fn reject(&mut self, head: Head<'_>, reject: &Reject) -> serde_json::Result<()> {
        let json = serde_json::to_vec(reject)?;
        self.start(head, REJECT);
        self.string(&json);
        Ok(())
    }

    fn start(&mut self, Head { file, marks }: Head<'_>, kind: u8) {
        self.records += 1;
        self.bytes.extend_from_slice(&file.to_le_bytes());
        let Some(Marks { digest, sketch }) = marks else { return self.bytes.push(kind) };
        self.bytes.push(kind | MARKED);
        for &part in digest {
            self.number(part);
        }
        self.bytes.push(u8::from(sketch.is_some()));
        if let Some(Sketch { bands, bins }) = sketch {
            for &band in bands {
                self.number(band);
            }
            self.bytes.extend_from_slice(bins);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn ids(&mut self, ids: &[u32]) {
        self.number(ids.len() as u64);
        self.bytes.reserve(ids.len() * 4);
        self.bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }

    fn string(&mut self, string: &[u8]) {
        let length = u32::try_from(string.len()).expect("codes and lines of rejects are short");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(string);
    }
}

/// Bands and bins of a sketch, where marks have one.
pub(super) type SketchSize = Option<(usize, usize)>;

/// A record as a chunk has it.
pub(super) type Record = (Location, Option<Marks>, Outcome);

/// Reads the records of a chunk one after the other; an error says what is wrong.
pub(super) struct ChunkReader<'a> {
    rest: &'a [u8],
    sketch: SketchSize,
}

impl<'a> ChunkReader<'a> {
    pub(super) fn new(bytes: &'a [u8], sketch: SketchSize) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a chunk does")?;
        Ok(Self { rest, sketch })
    }

    fn record(&mut self) -> Result<Record, String> {
        let file = u32::from_le_bytes(self.take()?);
        let [kind] = self.take()?;
        let marks = (kind & MARKED > 0).then(|| self.marks()).transpose()?;
        let kind = kind & !MARKED;
        let outcome = match kind {
            TEXT => {
                let bytes = self.number()?;
                Outcome::Text { ids: self.ids()?, bytes }
            }
            CHAT => {
                let bytes = self.number()?;
                let prompt_len = usize::try_from(self.number()?).map_err(|e| e.to_string())?;
                let ids = self.ids()?;
                if prompt_len > ids.len() {
                    return Err(format!("a prompt of {prompt_len} ids in {}", ids.len()));
                }
                Outcome::Chat { row: ChatRow { ids, prompt_len }, bytes }
            }
            DROP => {
                let text = std::str::from_utf8(self.string()?).map_err(|e| e.to_string())?;
                let reason = code(text).ok_or_else(|| format!("{text:?} is no reason code"))?;
                Outcome::Dropped { reason }
            }
            REJECT => {
                let reject = serde_json::from_slice(self.string()?).map_err(|e| e.to_string())?;
                Outcome::Recorded(Box::new(reject))
            }
            other => return Err(format!("a record of the unknown kind {other}")),
        };
        Ok((Location { file, ..Location::default() }, marks, outcome))
    }

    fn marks(&mut self) -> Result<Marks, String> {
        let digest = [self.number()?, self.number()?];
        let sketch = match (self.take()?, self.sketch) {
            ([0], _) => None,
            ([1], Some((bands, bins))) => {
                let bands = (0..bands).map(|_| self.number()).collect::<Result<_, _>>()?;
                Some(Sketch { bands, bins: self.bytes(bins)?.into() })
            }
            ([1], None) => {
                return Err("a sketch, but near duplicates are not looked for".to_owned());
            }
            ([other], _) => return Err(format!("marks of the unknown kind {other}")),
        };
        Ok(Marks { digest, sketch })
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or("it ends within a record")?;
        self.rest = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.rest.split_first_chunk().ok_or("it ends within a record")?;
        self.rest = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn ids(&mut self) -> Result<Vec<u32>, String> {
        let count = usize::try_from(self.number()?).ok().and_then(|count| count.checked_mul(4));
        let bytes = self.bytes(count.ok_or("it has a count that no memory holds")?)?;
        Ok(bytes.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = u32::from_le_bytes(self.take()?);
        self.bytes(length as usize)
    }
}

impl Iterator for ChunkReader<'_> {
    type Item = Result<Record, String>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| {
            let record = self.record();
            if record.is_err() {
                self.rest = &[];
            }
            record
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkBuf, ChunkReader, Head};
    use crate::{
        dedup::{Marks, Sketch},
        pipeline::Outcome,
        reject::Reject,
        tokenize::ChatRow,
    };
    use proptest::prelude::*;

    fn reject() -> Reject {
        Reject {
            source: "docs".to_owned(),
            file: "a.jsonl".to_owned(),
            line: Some(3),
            row: None,
            element: None,
            byte_offset: Some(17),
            at: None,
            reason: "invalid_utf8",
            message: "not UTF-8".to_owned(),
            head_blake3: "00".to_owned(),
        }
    }

    const SIZE: Option<(usize, usize)> = Some((2, 3));

    fn marks() -> [Marks; 2] {
        let sketch = Sketch { bands: [1, u64::MAX].into(), bins: [7, 8, 9].into() };
        [None, Some(sketch)].map(|sketch| Marks { digest: [3, u64::MAX - 3], sketch })
    }

    fn sample() -> ChunkBuf {
        let mut chunk = ChunkBuf::new();
        let [plain, sketched] = marks();
        let head = |file, marks| Head { file, marks };
        chunk.text(head(0, None), &[5, 6, u32::MAX], 11);
        chunk.chat(head(1, Some(&plain)), &ChatRow { ids: vec![1, 2, 3], prompt_len: 2 }, 5);
        chunk.drop(head(1, None), "too_short");
        chunk.reject(head(2, Some(&sketched)), &reject()).expect("JSON");
        chunk
    }

    #[test]
    fn records_come_back() {
        let chunk = sample();
        let records: Vec<_> = ChunkReader::new(chunk.bytes(), SIZE)
            .expect("a chunk")
            .map(|record| record.expect("sound"))
            .collect();
        assert_eq!(chunk.records(), 4);
        assert_eq!(records.iter().map(|(l, ..)| l.file).collect::<Vec<_>>(), [0, 1, 1, 2]);
        let [plain, sketched] = marks().map(Some);
        let found: Vec<_> = records.iter().map(|(_, marks, _)| marks.clone()).collect();
        assert_eq!(found, [None, plain, None, sketched]);
        let outcomes: Vec<&Outcome> = records.iter().map(|(.., outcome)| outcome).collect();
        assert!(
            matches!(outcomes[0], Outcome::Text { ids, bytes: 11 } if *ids == [5, 6, u32::MAX])
        );
        assert!(matches!(outcomes[1], Outcome::Chat { row, bytes: 5 } if row.prompt_len == 2));
        assert!(matches!(outcomes[2], Outcome::Dropped { reason: "too_short" }));
        assert!(matches!(outcomes[3], Outcome::Recorded(found) if **found == reject()));
    }

    #[test]
    fn a_sketch_that_the_manifest_does_not_have_is_an_error() {
        let chunk = sample();
        let mut records = ChunkReader::new(chunk.bytes(), None).expect("a chunk").skip(3);
        let error = records.next().expect("four records").err().expect("a sketch");
        assert!(error.contains("near duplicates"), "{error}");
        assert!(records.next().is_none());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let chunk = sample();
        let whole = chunk.bytes();
        let ends: Vec<usize> = {
            let mut reader = ChunkReader::new(whole, SIZE).expect("a chunk");
            let mut ends = vec![whole.len() - reader.rest.len()];
            while reader.next().is_some() {
                ends.push(whole.len() - reader.rest.len());
            }
            ends
        };
        for length in 0..whole.len() {
            let read = ChunkReader::new(&whole[..length], SIZE)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>);
            assert_eq!(read.is_ok(), ends.contains(&length), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            tail in prop::collection::vec(any::<u8>(), 0..80),
            flip in 0_usize..100,
        ) {
            let mut bytes = sample().bytes().clone();
            let at = 8 + flip % (bytes.len() - 8);
            bytes[at] ^= 0x81;
            bytes.extend(&tail);
            for size in [SIZE, None] {
                let _ = ChunkReader::new(&bytes, size).map(Iterator::count);
            }
            let mut bytes = b"CODAPRT1".to_vec();
            bytes.extend(tail);
            let _ = ChunkReader::new(&bytes, SIZE).map(Iterator::count);
        }
    }
}
