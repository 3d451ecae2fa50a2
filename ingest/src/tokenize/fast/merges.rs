//! Byte pair encoding of one piece.
//!
//! Symbols are numbered so that the order of merges is the order of numbers: bytes are 0 to 255 and the
//! result of merge `r` is `256 + r`. The merge to do next is then the smallest result there is, and
//! only finished pieces are translated to ids.

use std::{cmp::Reverse, collections::BinaryHeap};

/// No merge.
pub(super) const NONE: u32 = u32::MAX;
/// Symbols fit so many bits; a pair and its result fit a word of 64.
const SYMBOL_BITS: u32 = 18;
const SYMBOL_MASK: u32 = (1 << SYMBOL_BITS) - 1;
/// How many merges fit.
pub(super) const MOST_MERGES: usize = (1 << SYMBOL_BITS) - 257;
/// Pieces up to this many bytes are merged by looking through all pairs for each merge, longer ones with
/// a heap.
const MEDIUM: usize = 160;

/// A cache line of merges: two symbols and the result in each. The free places are at the end.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([u64; 8]);

/// No pair of symbols has all bits set.
const FREE: u64 = u64::MAX;

/// The merges of a tokenizer.
pub(super) struct Merges {
    pairs: Vec<Bucket>,
    shift: u32,
    /// The results for pairs of bytes.
    bytes: Vec<u32>,
    /// The id of every symbol.
    ids: Vec<u32>,
}

/// Memory that merging needs, kept between pieces.
#[derive(Default)]
pub(super) struct Scratch {
    symbols: Vec<u32>,
    results: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Merges {
    /// `merges[r]` are the symbols of merge `r`, `ids` the ids of all symbols. There are at most
    /// [`MOST_MERGES`].
    pub(super) fn new(merges: &[(u32, u32)], ids: Vec<u32>) -> Self {
        assert!(merges.len() <= MOST_MERGES && ids.len() == merges.len() + 256);
        // Five of eight places taken on average: few buckets overflow into the next.
        let buckets = (merges.len() / 5).next_power_of_two().max(2);
        let shift = u64::BITS - buckets.ilog2();
        let mut table =
            Self { pairs: vec![Bucket([FREE; 8]); buckets], shift, bytes: Vec::new(), ids };
        for (result, &(left, right)) in (256..).zip(merges) {
            let mut bucket = table.bucket(left, right);
            while table.pairs[bucket].0[7] != FREE {
                bucket = (bucket + 1) & (buckets - 1);
            }
            let free = table.pairs[bucket].0.iter_mut().find(|entry| **entry == FREE);
            *free.expect("the last place is free") = pair(left, right) << SYMBOL_BITS | result;
        }
        table.bytes =
            (0..1 << 16).map(|bytes: u32| table.result(bytes >> 8, bytes & 0xFF)).collect();
        table
    }

    /// Where the search for a pair begins.
    #[inline]
    pub(super) fn bucket(&self, left: u32, right: u32) -> usize {
        // The golden ratio spreads neighbouring pairs over the table.
        let hash = pair(left, right).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        // Below the table's length, which is a usize.
        usize::try_from(hash).unwrap_or(0)
    }

    /// What the two symbols merge to.
    #[inline]
    pub(super) fn result(&self, left: u32, right: u32) -> u32 {
        self.result_from(self.bucket(left, right), left, right)
    }

    /// [`Merges::result`] with the bucket known.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
    pub(super) fn result_from(&self, mut bucket: usize, left: u32, right: u32) -> u32 {
        let pair = pair(left, right) << SYMBOL_BITS;
        loop {
            let entries = &self.pairs[bucket & (self.pairs.len() - 1)].0;
            // Only the pair's own entry differs from it in nothing but the result.
            let least = entries.iter().fold(u64::MAX, |least, entry| least.min(entry ^ pair));
            if let Ok(result @ ..=SYMBOL_MASK) = u32::try_from(least) {
                return result;
            }
            if entries[7] == FREE {
                return NONE;
            }
            bucket += 1;
        }
    }

    /// What two bytes merge to.
    #[inline]
    pub(super) fn of_bytes(&self, left: u8, right: u8) -> u32 {
        self.bytes[usize::from(left) << 8 | usize::from(right)]
    }

    /// Appends the ids of a piece, which is not empty.
    pub(super) fn encode(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if piece.len() <= MEDIUM {
            self.medium(piece, scratch, ids);
        } else {
            self.long(piece, scratch, ids);
        }
    }

    #[inline]
    pub(super) fn id(&self, symbol: u32) -> u32 {
        self.ids[symbol as usize]
    }

    fn medium(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { symbols, results, .. } = scratch;
        symbols.clear();
        symbols.extend(piece.iter().map(|&byte| u32::from(byte)));
        results.clear();
        results.extend(piece.windows(2).map(|pair| self.of_bytes(pair[0], pair[1])));
        results.push(NONE);
        loop {
            let least = results.iter().fold(NONE, |least, &result| least.min(result));
            let Some(at) = results.iter().position(|&result| result == least && least != NONE)
            else {
                break;
            };
            symbols[at] = least;
            symbols.remove(at + 1);
            results.remove(at + 1);
            let after = symbols.get(at + 1);
            results[at] = after.map_or(NONE, |&after| self.result(least, after));
            if at > 0 {
                results[at - 1] = self.result(symbols[at - 1], least);
            }
        }
        ids.extend(symbols.iter().map(|&symbol| self.id(symbol)));
    }

    /// A linked list and a heap of merges: n log n for pieces of any length.
    fn long(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { symbols, next, previous, heap, .. } = scratch;
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX - 1);
        symbols.clear();
        symbols.extend(piece.iter().map(|&byte| u32::from(byte)));
        next.clear();
        next.extend(1..=count);
        previous.clear();
        previous.extend((0..count).map(|at| at.wrapping_sub(1)));
        heap.clear();
        let symbol = |symbols: &[u32], at: u32| symbols[at as usize];
        for at in 0..count - 1 {
            let result = self.result(symbol(symbols, at), symbol(symbols, at + 1));
            if result != NONE {
                heap.push(Reverse((result, at)));
            }
        }
        while let Some(Reverse((result, at))) = heap.pop() {
            // Entries are not removed when a merge makes them void.
            let right = next[at as usize];
            let left = symbol(symbols, at);
            if left == NONE || right >= count || self.result(left, symbol(symbols, right)) != result
            {
                continue;
            }
            symbols[at as usize] = result;
            symbols[right as usize] = NONE;
            let after = next[right as usize];
            next[at as usize] = after;
            if after < count {
                previous[after as usize] = at;
                let result = self.result(result, symbol(symbols, after));
                if result != NONE {
                    heap.push(Reverse((result, at)));
                }
            }
            let before = previous[at as usize];
            if before < count {
                let result = self.result(symbol(symbols, before), result);
                if result != NONE {
                    heap.push(Reverse((result, before)));
                }
            }
        }
        let mut at = 0;
        while at < count {
            ids.push(self.id(symbol(symbols, at)));
            at = next[at as usize];
        }
    }
}

const fn pair(left: u32, right: u32) -> u64 {
    (left as u64) << SYMBOL_BITS | right as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Merges, Scratch};
    use proptest::prelude::*;

    /// Merges over the letters a to d, as a training on such words could make them.
    pub(crate) fn sample() -> Merges {
        let merges = [
            (97, 98),
            (99, 100),
            (256, 257),
            (97, 97),
            (259, 259),
            (260, 260),
            (98, 99),
            (261, 261),
            (258, 258),
            (100, 97),
            (256, 99),
            (98, 98),
            (257, 97),
            (264, 98),
        ];
        Merges::new(&merges, (1000..1000 + 256 + 14).collect())
    }

    /// As the definition says: the lowest merge anywhere, the leftmost first, until there is none.
    pub(crate) fn by_definition(merges: &Merges, piece: &[u8]) -> Vec<u32> {
        let mut symbols: Vec<u32> = piece.iter().map(|&byte| u32::from(byte)).collect();
        while let Some((result, at)) = symbols
            .windows(2)
            .zip(0..)
            .map(|(pair, at)| (merges.result(pair[0], pair[1]), at))
            .min()
            .filter(|(result, _)| *result != super::NONE)
        {
            symbols.splice(at..at + 2, [result]);
        }
        symbols.into_iter().map(|symbol| merges.id(symbol)).collect()
    }

    proptest! {
        #[test]
        fn every_way_follows_the_definition(piece in prop::collection::vec(97u8..=100, 1..300)) {
            let merges = sample();
            let expected = by_definition(&merges, &piece);
            let mut scratch = Scratch::default();
            let ways = [Merges::medium, Merges::long, Merges::encode];
            for way in ways {
                let mut ids = Vec::new();
                way(&merges, &piece, &mut scratch, &mut ids);
                prop_assert_eq!(&ids, &expected);
            }
        }
    }
}
