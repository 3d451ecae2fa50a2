//! A bounded cache from pieces to ids, one for each thread.
//!
//! Text repeats its words: of the pieces of code and prose, 98 to 99 of a hundred were seen before. A
//! piece of up to 15 bytes is its own key, compared exactly; two of them share a cache line, and the
//! older one goes when a third comes. Longer ones are kept in a map that is emptied when it is full.

use super::merges::{Merges, Scratch};
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
    /// The bytes, zeros, and the length in the last byte.
    key: [u64; 2],
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
    long: HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::FixedState>,
    scratch: Scratch,
    keys: Vec<(u128, usize)>,
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
        Ok(Self { lines, long: HashMap::default(), scratch: Scratch::default(), keys: Vec::new() })
    }

    /// Appends the ids of the pieces of `bytes` that begin at `start` and end at `ends`.
    pub(super) fn encode(
        &mut self,
        merges: &Merges,
        bytes: &[u8],
        start: usize,
        ends: &[usize],
        ids: &mut Vec<u32>,
    ) {
        let Self { lines, long, scratch, keys } = self;
        let lines: &mut [Line] = bytemuck::cast_slice_mut(lines);
        // All lines are asked for before the first is read, so that their memory comes together.
        keys.clear();
        let mut at = start;
        for &end in ends {
            let key = key(bytes, at, end);
            let line = line(key);
            if key != 0 {
                prefetch(&lines[line]);
            }
            keys.push((key, line));
            at = end;
        }
        let mut at = start;
        for (&end, &(key, line)) in ends.iter().zip(&*keys) {
            if key == 0 {
                long_piece(merges, &bytes[at..end], long, scratch, ids);
            } else if !lines[line].look(key, ids) {
                let first = ids.len();
                merges.encode(&bytes[at..end], scratch, ids);
                lines[line].keep(key, &ids[first..]);
            }
            at = end;
        }
    }
}

impl Line {
    #[inline]
    fn look(&self, key: u128, ids: &mut Vec<u32>) -> bool {
        let halves: [u64; 2] = bytemuck::cast(key);
        let Some(entry) = self.0.iter().find(|entry| entry.key == halves) else { return false };
        // All of them, then as many as there are: shorter than a loop.
        let length = ids.len();
        ids.extend_from_slice(&entry.ids);
        ids[length] &= ID_MASK;
        ids.truncate(length + (entry.ids[0] >> COUNT_SHIFT) as usize);
        true
    }

    fn keep(&mut self, key: u128, ids: &[u32]) {
        let Ok(count @ 0..=INLINE_U32) = u32::try_from(ids.len()) else { return };
        let mut entry = Entry { key: bytemuck::cast(key), ids: [0; INLINE] };
        entry.ids[..ids.len()].copy_from_slice(ids);
        entry.ids[0] |= count << COUNT_SHIFT;
        self.0 = [entry, self.0[0]];
    }
}

/// The piece as a number, 0 if it is too long to be one.
#[inline]
fn key(bytes: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    if length > KEY_BYTES {
        return 0;
    }
    let text = if let Some(chunk) = bytes[start..].first_chunk::<16>() {
        u128::from_le_bytes(*chunk) & ((1 << (length * 8)) - 1)
    } else {
        let mut chunk = [0; 16];
        chunk[..length].copy_from_slice(&bytes[start..end]);
        u128::from_le_bytes(chunk)
    };
    text | (length as u128) << 120
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves of products")]
fn line(key: u128) -> usize {
    let [low, high]: [u64; 2] = bytemuck::cast(key);
    let low = low ^ 0x9E37_79B9_7F4A_7C15;
    let high = high ^ 0xC2B2_AE3D_27D4_EB4F;
    let product = u128::from(low).wrapping_mul(u128::from(high));
    let mixed = (product as u64) ^ ((product >> 64) as u64);
    // A product hides one factor where the other is 0.
    let mixed = mixed ^ low.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    (mixed >> (64 - LINES.ilog2())) as usize
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

fn long_piece(
    merges: &Merges,
    piece: &[u8],
    long: &mut HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::FixedState>,
    scratch: &mut Scratch,
    ids: &mut Vec<u32>,
) {
    if let Some(known) = long.get(piece) {
        ids.extend_from_slice(known);
        return;
    }
    let first = ids.len();
    merges.encode(piece, scratch, ids);
    // Runs of a script without spaces hardly come back.
    if piece.len() <= LONGEST && piece.is_ascii() {
        if long.len() >= LONG_PIECES {
            long.clear();
        }
        long.insert(piece.into(), ids[first..].into());
    }
}

#[cfg(test)]
mod tests {
    use super::{KEY_BYTES, Line, Words, key, line};
    use crate::tokenize::fast::merges::Merges;
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
            for piece in pieces.iter().chain(&pieces) {
                merges.encode(piece.as_bytes(), &mut words.scratch, &mut plain);
            }
            prop_assert_eq!(cached, plain);
        }
    }

    #[test]
    fn a_third_piece_pushes_the_oldest_out() {
        let mut entries: Line = bytemuck::Zeroable::zeroed();
        let keys: Vec<u128> = (1..=3).map(|n| key(&[n], 0, 1)).collect();
        for (id, &key) in (7..).zip(&keys) {
            entries.keep(key, &[id, id]);
        }
        let mut ids = Vec::new();
        assert!(!entries.look(keys[0], &mut ids) && ids.is_empty());
        assert!(entries.look(keys[1], &mut ids) && entries.look(keys[2], &mut ids));
        assert_eq!(ids, [8, 8, 9, 9]);
        entries.keep(keys[0], &[1, 2, 3, 4, 5]);
        assert!(!entries.look(keys[0], &mut ids), "five ids do not fit");
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
