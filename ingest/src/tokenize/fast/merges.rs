//! Byte pair encoding of one piece.
//!
//! Symbols are numbered so that the order of merges is the order of numbers: bytes are 0 to 255 and the
//! result of merge `r` is `256 + r`. The merge to do next is then the smallest result there is, and
//! only finished pieces are translated to ids.

use std::{cmp::Reverse, collections::BinaryHeap};

/// No merge.
const NONE: u32 = u32::MAX;
/// Symbols fit so many bits; a pair and its result fit a word of 64.
const SYMBOL_BITS: u32 = 18;
const SYMBOL_MASK: u64 = (1 << SYMBOL_BITS) - 1;
/// How many merges fit.
pub(super) const MOST_MERGES: usize = (1 << SYMBOL_BITS) - 257;
/// Pieces up to this many bytes are merged in fixed arrays…
const SHORT: usize = 16;
/// …up to this many by looking through all pairs for each merge, above it with a heap.
const MEDIUM: usize = 160;

/// The merges of a tokenizer.
pub(super) struct Merges {
    /// Open addressing: two symbols and the result, all ones where free.
    pairs: Vec<u64>,
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
        let slots = (merges.len() * 2).next_power_of_two().max(2);
        let mut table = Self {
            pairs: vec![u64::MAX; slots],
            shift: 64 - slots.ilog2(),
            bytes: Vec::new(),
            ids,
        };
        for (result, &(left, right)) in (256..).zip(merges) {
            let mut slot = table.slot(left, right);
            while table.pairs[slot] != u64::MAX {
                slot = (slot + 1) & (slots - 1);
            }
            table.pairs[slot] = pair(left, right) << SYMBOL_BITS | result;
        }
        table.bytes =
            (0..1 << 16).map(|bytes: u32| table.result(bytes >> 8, bytes & 0xFF)).collect();
        table
    }

    #[inline]
    fn slot(&self, left: u32, right: u32) -> usize {
        // The golden ratio spreads neighbouring pairs over the table.
        let hash = pair(left, right).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        // Below the table's length, which is a usize.
        usize::try_from(hash).unwrap_or(0)
    }

    /// What the two symbols merge to.
    #[inline]
    fn result(&self, left: u32, right: u32) -> u32 {
        let mut slot = self.slot(left, right);
        loop {
            let entry = self.pairs[slot & (self.pairs.len() - 1)];
            if entry >> SYMBOL_BITS == pair(left, right) {
                return (entry & SYMBOL_MASK) as u32;
            }
            if entry == u64::MAX {
                return NONE;
            }
            slot += 1;
        }
    }

    /// Appends the ids of a piece.
    pub(super) fn encode(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        match piece.len() {
            0 => {}
            1..=SHORT => self.short(piece, ids),
            17..=MEDIUM => self.medium(piece, scratch, ids),
            _ => self.long(piece, scratch, ids),
        }
    }

    fn id(&self, symbol: u32) -> u32 {
        self.ids[symbol as usize]
    }

    /// Arrays of a fixed length: the compiler keeps them in wide registers.
    fn short(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let mut count = piece.len();
        let mut symbols = [0u32; SHORT + 1];
        let mut results = [NONE; SHORT + 1];
        for (symbol, &byte) in symbols.iter_mut().zip(piece) {
            *symbol = u32::from(byte);
        }
        for (result, pair) in results.iter_mut().zip(piece.windows(2)) {
            *result = self.bytes[usize::from(pair[0]) << 8 | usize::from(pair[1])];
        }
        loop {
            let least = results[..SHORT].iter().fold(NONE, |least, &result| least.min(result));
            if least == NONE {
                break;
            }
            let is_least = results[..SHORT].iter().rev();
            let equal = is_least.fold(0u32, |bits, &r| bits << 1 | u32::from(r == least));
            let at = equal.trailing_zeros() as usize & (SHORT - 1);
            count -= 1;
            for n in at + 1..SHORT {
                symbols[n] = symbols[n + 1];
                results[n] = results[n + 1];
            }
            symbols[at] = least;
            results[at] = if at + 1 < count { self.result(least, symbols[at + 1]) } else { NONE };
            if at > 0 {
                results[at - 1] = self.result(symbols[at - 1], least);
            }
        }
        ids.extend(symbols[..count].iter().map(|&symbol| self.id(symbol)));
    }

    fn medium(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { symbols, results, .. } = scratch;
        symbols.clear();
        symbols.extend(piece.iter().map(|&byte| u32::from(byte)));
        results.clear();
        results.extend(
            piece.windows(2).map(|p| self.bytes[usize::from(p[0]) << 8 | usize::from(p[1])]),
        );
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
mod tests {
    use super::{Merges, Scratch};
    use proptest::prelude::*;

    /// Merges over the letters a to d, as a training on such words could make them.
    fn sample() -> Merges {
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
    fn by_definition(merges: &Merges, piece: &[u8]) -> Vec<u32> {
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
            let piece = &piece[..piece.len().min(16)];
            let mut ids = Vec::new();
            merges.short(piece, &mut ids);
            prop_assert_eq!(ids, by_definition(&merges, piece));
        }
    }
}
