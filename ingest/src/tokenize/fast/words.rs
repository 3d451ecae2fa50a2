//! A bounded cache from pieces to ids, one for each thread.
//!
//! Text repeats its words: of the pieces of code and prose, 98 to 99 of a hundred were seen before. A
//! piece of up to 15 bytes is its own key, compared exactly; two of them share a cache line, and the
//! older one goes when a third comes. Longer ones are kept in a map that is emptied when it is full.

use super::{
    lanes::{self, Merged, Piece},
    merges::{Merges, Scratch},
};
use memmap2::MmapMut;
use std::{collections::HashMap, io};

/// Cache lines: 32 MiB.
const LINES: usize = 1 << 19;
/// Bytes of a piece that is its own key.
const KEY_BYTES: usize = 15;
/// Ids that fit beside a key.
const INLINE: usize = INLINE_U32 as usize;
const INLINE_U32: u32 = 4;
/// Pieces of these lengths are worth keeping in the map.
const LONGEST: usize = 128;
/// How many of them.
const LONG_PIECES: usize = 1 << 15;

/// A piece and its ids. All zero: free (no piece is empty).
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
struct Entry {
    key: Key,
    /// The number of ids is in the upper byte of the first.
    ids: [u32; INLINE],
}

/// One cache line, the younger entry first.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
struct Line([Entry; 2]);

const COUNT_SHIFT: u32 = 24;
const ID_MASK: u32 = (1 << COUNT_SHIFT) - 1;

/// The ids that the cache can hold.
pub(super) const MOST_IDS: u32 = 1 << COUNT_SHIFT;

/// Pieces seen by a thread.
pub(super) struct Words {
    lines: MmapMut,
    long: LongPieces,
    batch: Batch,
}

/// What is kept between batches only for its memory.
#[derive(Default)]
struct Batch {
    keys: Vec<(Key, usize)>,
    /// The ids of the pieces that the cache has, and behind them room for one more.
    known: Vec<u32>,
    missing: Vec<Missing>,
    /// The missing pieces that are their own key, and longer ones that can be merged side by side.
    short: Vec<Piece>,
    middle: Vec<Piece>,
    merged_short: Merged,
    merged_middle: Merged,
}

/// A piece that is not in the cache.
struct Missing {
    /// Where its ids belong among the known ones.
    at: usize,
    key: Key,
    line: usize,
    piece: Piece,
}

impl Words {
    /// An empty cache.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub(super) fn new() -> io::Result<Self> {
        let lines = MmapMut::map_anon(LINES * size_of::<Line>())?;
        // Random access over 32 MiB: with small pages nearly every look costs a page walk. Asked for
        // before the first touch; where the system has no large pages, nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = lines.advise(memmap2::Advice::HugePage);
        Ok(Self { lines, long: LongPieces::default(), batch: Batch::default() })
    }

    /// Appends the ids of the pieces of `bytes` that begin at `start` and end at `ends`.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
    pub(super) fn encode(
        &mut self,
        merges: &Merges,
        bytes: &[u8],
        start: usize,
        ends: &[usize],
        ids: &mut Vec<u32>,
    ) {
        let Self { lines, long, batch } = self;
        let lines: &mut [Line] = bytemuck::cast_slice_mut(lines);
        let count = batch.look(lines, long, bytes, start, ends);
        let Batch { known, missing, short, middle, merged_short, merged_middle, .. } = batch;
        lanes::merge::<{ KEY_BYTES + 1 }>(merges, bytes, short, merged_short);
        lanes::merge::<{ lanes::LONGEST }>(merges, bytes, middle, merged_middle);
        ids.reserve(count + missing.len() * INLINE);
        let (mut done, mut n_short, mut n_middle) = (0, 0, 0);
        for &Missing { at, key, line, piece } in &*missing {
            ids.extend_from_slice(&known[done..at]);
            done = at;
            if key != NO_KEY {
                let merged = merged_short.ids(n_short);
                n_short += 1;
                lines[line].keep(key, merged);
                ids.extend_from_slice(merged);
            } else if piece.end - piece.start <= lanes::LONGEST {
                let merged = merged_middle.ids(n_middle);
                n_middle += 1;
                long.keep(&bytes[piece.start..piece.end], merged);
                ids.extend_from_slice(merged);
            } else {
                long.encode(merges, &bytes[piece.start..piece.end], ids);
            }
        }
        ids.extend_from_slice(&known[done..count]);
    }
}

impl Batch {
    /// Finds the ids of known pieces and lists the missing ones. Returns the number of known ids.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as in encode")]
    fn look(
        &mut self,
        lines: &[Line],
        long: &LongPieces,
        bytes: &[u8],
        mut start: usize,
        ends: &[usize],
    ) -> usize {
        let Self { keys, known, missing, short, middle, .. } = self;
        // All lines are asked for before the first is read, so that their memory comes together.
        keys.clear();
        keys.resize(ends.len(), (NO_KEY, 0));
        let mut before = start;
        for (&end, place) in ends.iter().zip(&mut *keys) {
            let key = key(bytes, before, end);
            let line = line(key);
            prefetch(&lines[line]);
            *place = (key, line);
            before = end;
        }
        missing.clear();
        short.clear();
        middle.clear();
        let mut room = ends.len() * INLINE + INLINE;
        known.resize(room.max(known.len()), 0);
        let mut count = 0;
        for (&end, &(key, line)) in ends.iter().zip(&*keys) {
            let piece = Piece { start, end };
            start = end;
            let mut miss = || missing.push(Missing { at: count, key, line, piece });
            if key == NO_KEY {
                let text = &bytes[piece.start..piece.end];
                if let Some(ids) = long.find(text) {
                    room += ids.len();
                    known.resize(room.max(known.len()), 0);
                    known[count..count + ids.len()].copy_from_slice(ids);
                    count += ids.len();
                    continue;
                }
                miss();
                if text.len() <= lanes::LONGEST {
                    middle.push(piece);
                }
            } else if let Some(entry) = lines[line].find(key) {
                // All of them, of which so many count: shorter than a loop.
                let room = &mut known[count..count + INLINE];
                room.copy_from_slice(&entry.ids);
                room[0] &= ID_MASK;
                count += (entry.ids[0] >> COUNT_SHIFT) as usize;
            } else {
                miss();
                short.push(piece);
            }
        }
        count
    }
}

impl Line {
    #[inline]
    fn find(&self, key: Key) -> Option<&Entry> {
        let is = |entry: &Entry| (entry.key[0] ^ key[0]) | (entry.key[1] ^ key[1]) == 0;
        let (first, second) = (is(&self.0[0]), is(&self.0[1]));
        // Which of the two it is cannot be foreseen: an index instead of a branch.
        let entry = &self.0[usize::from(!first & second)];
        (first | second).then_some(entry)
    }

    fn keep(&mut self, key: Key, ids: &[u32]) {
        let Ok(count @ 0..=INLINE_U32) = u32::try_from(ids.len()) else { return };
        let mut entry = Entry { key, ids: [0; INLINE] };
        entry.ids[..ids.len()].copy_from_slice(ids);
        entry.ids[0] |= count << COUNT_SHIFT;
        self.0 = [entry, self.0[0]];
    }
}

/// A short piece as numbers: its bytes, zeros, and its length in the last byte.
type Key = [u64; 2];

/// The key of pieces that are too long to have one.
const NO_KEY: Key = [0; 2];

/// Which bits of 16 bytes belong to a piece of so many.
const MASKS: [Key; KEY_BYTES + 1] = {
    let mut masks = [NO_KEY; KEY_BYTES + 1];
    let mut byte = 0;
    while byte < KEY_BYTES {
        let mut longer = byte + 1;
        while longer <= KEY_BYTES {
            masks[longer][byte / 8] |= 0xFF << (byte % 8 * 8);
            longer += 1;
        }
        byte += 1;
    }
    masks
};

#[inline]
fn key(bytes: &[u8], start: usize, end: usize) -> Key {
    let length = end - start;
    let Some(mask) = MASKS.get(length) else { return NO_KEY };
    let chunk = bytes[start..].first_chunk().copied().unwrap_or_else(|| {
        let mut chunk = [0; 16];
        chunk[..length].copy_from_slice(&bytes[start..end]);
        chunk
    });
    let text = u128::from_le_bytes(chunk);
    let [low, high] = halves(text);
    [low & mask[0], high & mask[1] | (length as u64) << 56]
}

#[allow(clippy::cast_possible_truncation, reason = "the halves")]
#[inline]
const fn halves(text: u128) -> [u64; 2] {
    [text as u64, (text >> 64) as u64]
}

#[inline]
fn line(key: Key) -> usize {
    // The upper bits of a product depend on all bits of both factors.
    let low = key[0].wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let high = key[1].wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    // Below the number of lines, which is a usize.
    usize::try_from((low ^ high) >> (64 - LINES.ilog2())).unwrap_or(0)
}

#[inline]
fn prefetch(line: &Line) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint on the address of a reference; every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Longer pieces that come back, such as runs of spaces.
#[derive(Default)]
struct LongPieces {
    known: HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::FixedState>,
    scratch: Scratch,
}

impl LongPieces {
    #[inline]
    fn find(&self, piece: &[u8]) -> Option<&[u32]> {
        self.known.get(piece).map(AsRef::as_ref)
    }

    fn encode(&mut self, merges: &Merges, piece: &[u8], ids: &mut Vec<u32>) {
        let first = ids.len();
        merges.encode(piece, &mut self.scratch, ids);
        self.keep(piece, &ids[first..]);
    }

    fn keep(&mut self, piece: &[u8], ids: &[u32]) {
        // Runs of a script without spaces hardly come back.
        if piece.len() <= LONGEST && piece.is_ascii() {
            if self.known.len() >= LONG_PIECES {
                self.known.clear();
            }
            self.known.insert(piece.into(), ids.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEY_BYTES, Key, Line, Words, key, line};
    use crate::tokenize::fast::merges::{Merges, Scratch};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_the_pieces(
            text in prop::collection::vec(any::<u8>(), 1..40),
            a in 0usize..20, b in 1usize..=KEY_BYTES, c in 0usize..20, d in 1usize..=KEY_BYTES,
        ) {
            let clip = |start: usize, length: usize| {
                let start = start.min(text.len() - 1);
                (start, (start + length).min(text.len()))
            };
            let ((a, b), (c, d)) = (clip(a, b), clip(c, d));
            prop_assert_eq!(key(&text, a, b) == key(&text, c, d), text[a..b] == text[c..d]);
        }

        /// Few lines, so that entries push each other out.
        #[test]
        fn the_cache_changes_no_id(pieces in prop::collection::vec("[a-d]{1,18}|ab", 1..200)) {
            let ids: Vec<u32> = (0..=257).collect();
            let merges = Merges::new(&[(97, 98), (256, 97)], ids);
            let text = pieces.concat();
            let mut end = 0;
            let ends: Vec<usize> = pieces.iter().map(|p| { end += p.len(); end }).collect();
            let mut words = Words::new().expect("memory");
            let (mut cached, mut plain) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                words.encode(&merges, text.as_bytes(), 0, &ends, &mut cached);
            }
            let mut scratch = Scratch::default();
            for piece in pieces.iter().chain(&pieces) {
                merges.encode(piece.as_bytes(), &mut scratch, &mut plain);
            }
            prop_assert_eq!(cached, plain);
        }
    }

    #[test]
    fn a_third_piece_pushes_the_oldest_out() {
        let mut entries: Line = bytemuck::Zeroable::zeroed();
        let keys: Vec<Key> = (1..=3).map(|n| key(&[n], 0, 1)).collect();
        for (id, &key) in (7..).zip(&keys) {
            entries.keep(key, &[id, id]);
        }
        let ids = |entries: &Line, key| entries.find(key).map(|entry| entry.ids);
        assert_eq!(ids(&entries, keys[0]), None);
        assert_eq!(ids(&entries, keys[1]), Some([2 << 24 | 8, 8, 0, 0]));
        assert_eq!(ids(&entries, keys[2]), Some([2 << 24 | 9, 9, 0, 0]));
        entries.keep(keys[0], &[1, 2, 3, 4, 5]);
        assert_eq!(ids(&entries, keys[0]), None, "five ids do not fit");
    }

    #[test]
    fn short_words_spread_over_the_lines() {
        let words: Vec<String> =
            (b'a'..=b'z').flat_map(|a| (0..99).map(move |n| format!("{}{n}", a as char))).collect();
        let lines: std::collections::HashSet<usize> =
            words.iter().map(|word| line(key(word.as_bytes(), 0, word.len()))).collect();
        assert!(lines.len() * 100 > words.len() * 98, "{} of {}", lines.len(), words.len());
    }
}
