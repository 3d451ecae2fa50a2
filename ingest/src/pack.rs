//! Documents to rows of a fixed length.
//!
//! [`Packer`] concatenates: documents follow each other, each with its end token, and a document that
//! does not fit goes on in the next row. Only the last row of a source is padded. [`chat_row`] is for
//! post-training: one conversation a row, padded.

use crate::tokenize::ChatRow;
use serde::{Deserialize, Serialize};

/// One row of `row_length` tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedRow {
    /// The ids, padding included.
    pub tokens: Vec<u32>,
    /// Where documents start. The first is always 0, also when the row begins in the middle of a
    /// document.
    pub segments: Vec<u32>,
    /// Ids of the prompt, at the start; 0 for packed documents.
    pub prefix_len: u32,
    /// Ids before the padding.
    pub valid_len: u32,
}

/// Packs the documents of one source by concatenation.
#[derive(Debug)]
pub struct Packer {
    row_length: usize,
    pad: u32,
    /// The row that is not full yet; without tokens there is none.
    row: PackedRow,
}

impl Packer {
    /// An empty packer for rows of `row_length` tokens, at least one.
    #[must_use]
    pub fn new(row_length: u32, pad: u32) -> Self {
        Self { row_length: row_length.max(1) as usize, pad, row: PackedRow::default() }
    }

    /// Takes as much of a document (its end token included) as belongs to rows up to the next one
    /// that is full, and hands that out. What it has not taken is in `rest`; call it until nothing
    /// is.
    ///
    /// Between two calls, [`Packer::open_rows`] and `rest` are the whole state.
    pub fn add(&mut self, rest: &mut &[u32]) -> Option<PackedRow> {
        if rest.is_empty() {
            return None;
        }
        if self.row.tokens.capacity() == 0 {
            self.row.tokens.reserve_exact(self.row_length);
        }
        self.row.segments.push(length(self.row.tokens.len()));
        let room = self.row_length - self.row.tokens.len();
        let (now, later) = rest.split_at(rest.len().min(room));
        self.row.tokens.extend_from_slice(now);
        *rest = later;
        let full = self.row.tokens.len() == self.row_length;
        full.then(|| padded(std::mem::take(&mut self.row), self.row_length, self.pad))
    }

    /// After the last document: the next of the rows that are not full, padded.
    pub fn end(&mut self) -> Option<PackedRow> {
        let left = !self.row.tokens.is_empty();
        left.then(|| padded(std::mem::take(&mut self.row), self.row_length, self.pad))
    }

    /// The rows that are not full yet, not padded.
    #[must_use]
    pub fn open_rows(&self) -> Vec<PackedRow> {
        if self.row.tokens.is_empty() { Vec::new() } else { vec![self.row.clone()] }
    }

    /// Goes on with the rows that were not full.
    #[must_use]
    pub fn with_open_rows(mut self, rows: Vec<PackedRow>) -> Self {
        self.row = rows.into_iter().next().unwrap_or_default();
        self
    }
}

fn padded(mut row: PackedRow, row_length: usize, pad: u32) -> PackedRow {
    row.valid_len = length(row.tokens.len());
    row.tokens.resize(row_length, pad);
    row
}

/// What happens to a conversation that is longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlong {
    /// It is left out.
    Drop,
    /// Its end is cut off.
    Truncate,
}

/// A conversation as one padded row; nothing when it is too long to be kept, or when nothing of the
/// answer would be left.
#[must_use]
pub fn chat_row(
    mut chat: ChatRow,
    row_length: u32,
    pad: u32,
    overlong: Overlong,
) -> Option<PackedRow> {
    let row_length = row_length as usize;
    if chat.ids.len() > row_length {
        if overlong == Overlong::Drop || chat.prompt_len >= row_length {
            return None;
        }
        chat.ids.truncate(row_length);
    }
    let valid_len = length(chat.ids.len());
    chat.ids.resize(row_length, pad);
    let prefix_len = length(chat.prompt_len);
    Some(PackedRow { tokens: chat.ids, segments: vec![0], prefix_len, valid_len })
}

/// Lengths inside a row fit `u32`, as the row length does.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Overlong, PackedRow, Packer, chat_row};
    use crate::tokenize::ChatRow;
    use proptest::prelude::*;

    const PAD: u32 = 0;
    const EOS: u32 = 1;

    fn pack(documents: &[Vec<u32>], row_length: u32) -> Vec<PackedRow> {
        let mut packer = Packer::new(row_length, PAD);
        let mut rows = Vec::new();
        for document in documents {
            let mut rest = document.as_slice();
            while !rest.is_empty() {
                rows.extend(packer.add(&mut rest));
            }
        }
        rows.extend(std::iter::from_fn(|| packer.end()));
        rows
    }

    #[test]
    fn a_document_goes_on_in_the_next_row() {
        let rows = pack(&[vec![5, 5, EOS], vec![6, EOS], vec![7, 7, 7, EOS]], 4);
        let row = |tokens: &[u32], segments: &[u32], valid_len| PackedRow {
            tokens: tokens.to_vec(),
            segments: segments.to_vec(),
            prefix_len: 0,
            valid_len,
        };
        assert_eq!(
            rows,
            [
                row(&[5, 5, EOS, 6], &[0, 3], 4),
                row(&[EOS, 7, 7, 7], &[0, 1], 4),
                row(&[EOS, PAD, PAD, PAD], &[0], 1),
            ]
        );
    }

    #[test]
    fn a_conversation_that_does_not_fit() {
        let chat = || ChatRow { ids: vec![9; 6], prompt_len: 3 };
        assert_eq!(chat_row(chat(), 5, PAD, Overlong::Drop), None);
        assert_eq!(chat_row(chat(), 3, PAD, Overlong::Truncate), None, "no answer would be left");
        let cut = chat_row(chat(), 5, PAD, Overlong::Truncate).expect("kept");
        assert_eq!((cut.tokens.len(), cut.valid_len, cut.prefix_len), (5, 5, 3));
        let whole = chat_row(chat(), 8, PAD, Overlong::Drop).expect("fits");
        assert_eq!(whole.tokens, [9, 9, 9, 9, 9, 9, PAD, PAD]);
        assert_eq!((whole.valid_len, whole.segments), (6, vec![0]));
    }

    proptest! {
        #[test]
        fn no_token_is_lost_and_segments_are_the_starts(
            documents in prop::collection::vec(prop::collection::vec(2u32..9, 0..40), 0..30),
            row_length in 1u32..23,
        ) {
            let documents: Vec<Vec<u32>> =
                documents.into_iter().map(|mut d| { d.push(EOS); d }).collect();
            let rows = pack(&documents, row_length);
            let stream: Vec<u32> = documents.concat();
            let joined: Vec<u32> = rows
                .iter()
                .flat_map(|row| row.tokens[..row.valid_len as usize].iter().copied())
                .collect();
            prop_assert_eq!(&joined, &stream);

            let l = row_length as usize;
            let mut starts = std::collections::BTreeSet::new();
            let mut at = 0;
            for document in &documents {
                starts.insert(at);
                at += document.len();
            }
            for (index, row) in rows.iter().enumerate() {
                prop_assert_eq!(row.tokens.len(), l);
                let last = index + 1 == rows.len();
                prop_assert!(last || row.valid_len == row_length, "only the last row is padded");
                prop_assert!(row.tokens[row.valid_len as usize..].iter().all(|&t| t == PAD));
                let expected: Vec<u32> = (0..row.valid_len)
                    .filter(|&p| p == 0 || starts.contains(&(index * l + p as usize)))
                    .collect();
                prop_assert_eq!(&row.segments, &expected);
            }
        }
    }
}
