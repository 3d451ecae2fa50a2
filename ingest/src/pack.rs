//! Documents to rows of a fixed length.
//!
//! [`Packer`] takes the documents of one source, each with its end token, in either of two ways.
//! *Concat*: they follow each other, a document that does not fit goes on in the next row, and only
//! the last row is padded. *Best-fit*: a document goes whole into the open row with the least room
//! that takes it (as in "Fewer Truncations Improve Language Modeling", arXiv 2404.10830, but over a
//! stream: so many rows are open at most, and the fullest is closed for a new one); a document longer
//! than a row gives full rows, and its rest is placed like a document. [`chat_row`] is for
//! post-training: one conversation a row, padded.

use crate::tokenize::ChatRow;
use coda_manifests::Packing;
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

/// Rows that are open at once in best-fit packing, at most…
const OPEN_ROWS: usize = 64;
/// …and what they hold together: the state that a build which goes on must have is bounded.
const OPEN_TOKENS: usize = 1 << 19;

/// Packs the documents of one source.
#[derive(Debug)]
pub struct Packer {
    packing: Packing,
    row_length: usize,
    pad: u32,
    /// Rows that are neither full nor empty, the oldest first; concatenation has at most one.
    open: Vec<PackedRow>,
}

impl Packer {
    /// An empty packer for rows of `row_length` tokens, at least one.
    #[must_use]
    pub fn new(packing: Packing, row_length: u32, pad: u32) -> Self {
        let row_length = row_length.max(1) as usize;
        Self { packing, row_length, pad, open: Vec::new() }
    }

    /// Takes some of a document (its end token included), and hands out a row when one is complete
    /// with it. What it has not taken is in `rest`; call it until nothing is.
    ///
    /// Between two calls, [`Packer::open_rows`] and `rest` are the whole state.
    pub fn add(&mut self, rest: &mut &[u32]) -> Option<PackedRow> {
        if rest.is_empty() {
            return None;
        }
        match self.packing {
            Packing::Concat => {
                let mut row = self.open.pop().unwrap_or_else(|| self.empty());
                let room = self.row_length - row.tokens.len();
                append(&mut row, split_off(rest, room));
                self.keep(row)
            }
            Packing::BestFit if rest.len() >= self.row_length => {
                let mut row = self.empty();
                append(&mut row, split_off(rest, self.row_length));
                Some(self.padded(row))
            }
            Packing::BestFit => self.place(std::mem::take(rest)),
        }
    }

    /// Puts a piece that is shorter than a row whole into a row.
    fn place(&mut self, piece: &[u32]) -> Option<PackedRow> {
        let most = self.row_length - piece.len();
        let fullest = |rows: &[PackedRow], most: usize| {
            let fits = rows.iter().enumerate().filter(|(_, row)| row.tokens.len() <= most);
            // Of equally full rows the last of a reversed list is the oldest.
            fits.rev().max_by_key(|(_, row)| row.tokens.len()).map(|(index, _)| index)
        };
        if let Some(index) = fullest(&self.open, most) {
            append(&mut self.open[index], piece);
            let full = self.open[index].tokens.len() == self.row_length;
            return full.then(|| self.open.remove(index)).map(|row| self.padded(row));
        }
        let most_open = (OPEN_TOKENS / self.row_length).clamp(1, OPEN_ROWS);
        let evicted = (self.open.len() == most_open)
            .then(|| fullest(&self.open, self.row_length))
            .flatten()
            .map(|index| self.open.remove(index));
        let mut row = self.empty();
        append(&mut row, piece);
        self.open.push(row);
        evicted.map(|row| self.padded(row))
    }

    /// After the last document: the next of the rows that are not full, padded.
    pub fn end(&mut self) -> Option<PackedRow> {
        let row = (!self.open.is_empty()).then(|| self.open.remove(0))?;
        Some(self.padded(row))
    }

    /// The rows that are not full yet, not padded.
    #[must_use]
    pub fn open_rows(&self) -> &[PackedRow] {
        &self.open
    }

    /// Goes on with the rows that were not full.
    #[must_use]
    pub fn with_open_rows(self, open: Vec<PackedRow>) -> Self {
        Self { open, ..self }
    }

    fn empty(&self) -> PackedRow {
        PackedRow { tokens: Vec::with_capacity(self.row_length), ..PackedRow::default() }
    }

    /// Hands a row out if it is full, and keeps it open if not.
    fn keep(&mut self, row: PackedRow) -> Option<PackedRow> {
        if row.tokens.len() == self.row_length {
            return Some(self.padded(row));
        }
        self.open.push(row);
        None
    }

    fn padded(&self, mut row: PackedRow) -> PackedRow {
        row.valid_len = length(row.tokens.len());
        row.tokens.resize(self.row_length, self.pad);
        row
    }
}

/// Takes up to `most` ids off the front.
fn split_off<'a>(rest: &mut &'a [u32], most: usize) -> &'a [u32] {
    let (now, later) = rest.split_at(rest.len().min(most));
    *rest = later;
    now
}

fn append(row: &mut PackedRow, piece: &[u32]) {
    row.segments.push(length(row.tokens.len()));
    row.tokens.extend_from_slice(piece);
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
    use super::{OPEN_ROWS, Overlong, PackedRow, Packer, chat_row};
    use crate::tokenize::ChatRow;
    use coda_manifests::Packing;
    use proptest::prelude::*;

    const PAD: u32 = 0;
    const EOS: u32 = 1;

    fn pack(packing: Packing, documents: &[Vec<u32>], row_length: u32) -> Vec<PackedRow> {
        let mut packer = Packer::new(packing, row_length, PAD);
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
        let rows = pack(Packing::Concat, &[vec![5, 5, EOS], vec![6, EOS], vec![7, 7, 7, EOS]], 4);
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
    fn best_fit_takes_the_row_with_the_least_room() {
        let row = |tokens: &[u32], segments: &[u32], valid_len| PackedRow {
            tokens: tokens.to_vec(),
            segments: segments.to_vec(),
            prefix_len: 0,
            valid_len,
        };
        let documents = [
            vec![2, 2, EOS],
            vec![3, 3, 3, EOS],
            vec![4, EOS],
            vec![5, 5, 5, 5, 5, 5, 5, EOS],
            vec![EOS],
        ];
        assert_eq!(
            pack(Packing::BestFit, &documents, 6),
            [
                // The third fits both open rows, and the second one exactly.
                row(&[3, 3, 3, EOS, 4, EOS], &[0, 4], 6),
                // The fourth is longer than a row; its rest joins the first.
                row(&[5, 5, 5, 5, 5, 5], &[0], 6),
                row(&[2, 2, EOS, 5, EOS, EOS], &[0, 3, 5], 6),
            ]
        );
    }

    /// The rule of `docs/manifest.md`, written down once more without any cleverness.
    fn naive_best_fit(documents: &[Vec<u32>], l: usize) -> Vec<Vec<u32>> {
        let (mut done, mut open) = (Vec::new(), Vec::<Vec<u32>>::new());
        for document in documents {
            let whole = document.len() / l * l;
            done.extend(document[..whole].chunks(l).map(<[u32]>::to_vec));
            let piece = &document[whole..];
            if piece.is_empty() {
                continue;
            }
            let mut best: Option<usize> = None;
            for (i, row) in open.iter().enumerate() {
                let fits = row.len() + piece.len() <= l;
                if fits && best.is_none_or(|b| row.len() > open[b].len()) {
                    best = Some(i);
                }
            }
            if let Some(i) = best {
                open[i].extend_from_slice(piece);
                if open[i].len() == l {
                    done.push(open.remove(i));
                }
                continue;
            }
            if open.len() == OPEN_ROWS {
                let longest = open.iter().map(Vec::len).max().expect("rows");
                let oldest = open.iter().position(|row| row.len() == longest).expect("one");
                done.push(open.remove(oldest));
            }
            open.push(piece.to_vec());
        }
        done.extend(open);
        done
    }

    /// Lengths as on the web: many short documents, a long tail.
    #[test]
    fn best_fit_pads_little() {
        let mut state = 88_172_645_463_325_252_u64;
        let documents: Vec<Vec<u32>> = (0..20_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
                let length = (40.0 / uniform.powf(0.7)) as usize;
                vec![7; length.clamp(2, 20_000)]
            })
            .collect();
        let rows = pack(Packing::BestFit, &documents, 2048);
        let tokens: usize = rows.iter().map(|row| row.valid_len as usize).sum();
        let share = 1.0 - tokens as f64 / (rows.len() * 2048) as f64;
        assert!(share < 0.01, "{share} of the positions are padding");
        assert_eq!(tokens, documents.iter().map(Vec::len).sum::<usize>());
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
        fn best_fit_is_the_rule(
            lengths in prop::collection::vec(1_usize..90, 0..300),
            row_length in 1_u32..70,
        ) {
            let documents: Vec<Vec<u32>> = (2..)
                .zip(&lengths)
                .map(|(number, &length)| {
                    let mut document = vec![number; length - 1];
                    document.push(EOS);
                    document
                })
                .collect();
            let rows = pack(Packing::BestFit, &documents, row_length);
            let naive = naive_best_fit(&documents, row_length as usize);
            let valid: Vec<&[u32]> =
                rows.iter().map(|row| &row.tokens[..row.valid_len as usize]).collect();
            prop_assert_eq!(valid, naive);
            for row in &rows {
                prop_assert!(row.tokens[row.valid_len as usize..].iter().all(|&t| t == PAD));
                // Every piece ends with its document's end token, or fills its row.
                let starts: Vec<u32> = (0..row.valid_len)
                    .filter(|&p| p == 0 || row.tokens[p as usize - 1] == EOS)
                    .collect();
                prop_assert_eq!(&row.segments, &starts);
            }
        }

        #[test]
        fn no_token_is_lost_and_segments_are_the_starts(
            documents in prop::collection::vec(prop::collection::vec(2u32..9, 0..40), 0..30),
            row_length in 1u32..23,
        ) {
            let documents: Vec<Vec<u32>> =
                documents.into_iter().map(|mut d| { d.push(EOS); d }).collect();
            let rows = pack(Packing::Concat, &documents, row_length);
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
