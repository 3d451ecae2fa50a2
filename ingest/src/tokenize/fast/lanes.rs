//! Byte pair encoding of several short pieces side by side.
//!
//! Each merge needs two looks into a table of some megabytes, and the next merge needs their results:
//! one piece alone waits for memory most of the time. Here a few pieces take their steps in turn, so
//! that their looks are under way together.

use super::merges::{Merges, NONE};

/// Pieces under way together.
const LANES: usize = 8;
/// Bytes of the longest piece that can be merged here.
pub(super) const LONGEST: usize = 1 << PLACE_BITS;
/// A possible merge is a number: its result, then its place in this many bits, so that the least one
/// is the next.
const PLACE_BITS: u32 = 6;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// Where a piece stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The ids of some pieces.
#[derive(Default)]
pub(super) struct Merged {
    ids: Vec<u32>,
    /// Of every piece: where its ids begin and end.
    places: Vec<(u32, u32)>,
}

impl Merged {
    /// The ids of piece `n`.
    pub(super) fn ids(&self, n: usize) -> &[u32] {
        let (start, end) = self.places[n];
        &self.ids[start as usize..end as usize]
    }
}

/// A piece of at most `N` bytes under way.
#[derive(Clone, Copy)]
struct Lane<const N: usize> {
    /// Symbols by the place of their first byte.
    symbols: [u32; N],
    /// The merge of the symbol there with the one after it.
    merges: [u32; N],
    /// The places where symbols begin.
    alive: u64,
    /// Which piece it is.
    number: usize,
}

/// What a step of a lane has to look up: two pairs around the symbol that was just made.
#[derive(Clone, Copy, Default)]
struct Looks {
    place: u32,
    made: u32,
    /// Place and symbol before it; without one, the place is this one.
    before: (u32, u32),
    /// The symbol after it, [`NONE`] where there is none.
    after: u32,
    buckets: [usize; 2],
}

/// Merges `pieces` of `bytes`, each of 1 to `N` bytes; `N` is a power of two up to [`LONGEST`].
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
pub(super) fn merge<const N: usize>(
    merges: &Merges,
    bytes: &[u8],
    pieces: &[Piece],
    merged: &mut Merged,
) {
    merged.ids.clear();
    merged.places.clear();
    merged.places.resize(pieces.len(), (0, 0));
    let mut waiting = (0..pieces.len()).map(|number| {
        let piece = pieces[number];
        Lane::new(merges, &bytes[piece.start..piece.end], number)
    });
    let mut lanes = [Lane::<N>::EMPTY; LANES];
    let mut looks = [Looks::default(); LANES];
    let mut count = 0;
    for lane in waiting.by_ref().take(LANES) {
        lanes[count] = lane;
        count += 1;
    }
    while count > 0 {
        let mut n = 0;
        while n < count {
            if let Some(look) = lanes[n].step(merges) {
                looks[n] = look;
                n += 1;
            } else {
                lanes[n].finish(merges, merged);
                if let Some(lane) = waiting.next() {
                    lanes[n] = lane;
                } else {
                    count -= 1;
                    lanes[n] = lanes[count];
                }
            }
        }
        for (lane, look) in lanes[..count].iter_mut().zip(&looks) {
            lane.look(merges, look);
        }
    }
}

impl<const N: usize> Lane<N> {
    const EMPTY: Self = Self { symbols: [0; N], merges: [NONE; N], alive: 0, number: 0 };

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as in merge")]
    fn new(merges: &Merges, piece: &[u8], number: usize) -> Self {
        let mut symbols = [0; N];
        let mut possible = [NONE; N];
        for (symbol, &byte) in symbols.iter_mut().zip(piece) {
            *symbol = u32::from(byte);
        }
        for ((possible, pair), place) in possible.iter_mut().zip(piece.windows(2)).zip(0..) {
            *possible = at(merges.of_bytes(pair[0], pair[1]), place);
        }
        Self { symbols, merges: possible, alive: u64::MAX >> (LONGEST - piece.len()), number }
    }

    /// Does the next merge, if there is one, and says what has to be looked up for it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as in merge")]
    fn step(&mut self, merges: &Merges) -> Option<Looks> {
        let least = self.merges.iter().fold(NONE, |least, &merge| least.min(merge));
        if least == NONE {
            return None;
        }
        let (place, made) = (least & PLACE_MASK, least >> PLACE_BITS);
        // The symbol after it is taken in.
        let taken = next(self.alive, place);
        self.alive &= !(1 << taken);
        self.merges[taken as usize & (N - 1)] = NONE;
        self.symbols[place as usize] = made;
        let following = next(self.alive, place);
        let after =
            if following < u64::BITS { self.symbols[following as usize & (N - 1)] } else { NONE };
        let below = self.alive & ((1 << place) - 1);
        let before = if below == 0 {
            (place, 0)
        } else {
            let before = below.ilog2();
            (before, self.symbols[before as usize & (N - 1)])
        };
        let buckets = [merges.bucket(before.1, made), merges.bucket(made, after & !(NONE << 18))];
        Some(Looks { place, made, before, after, buckets })
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as in merge")]
    fn look(&mut self, merges: &Merges, look: &Looks) {
        let (before, symbol) = look.before;
        if before < look.place {
            self.merges[before as usize & (N - 1)] =
                at(merges.result_from(look.buckets[0], symbol, look.made), before);
        }
        self.merges[look.place as usize & (N - 1)] = if look.after == NONE {
            NONE
        } else {
            at(merges.result_from(look.buckets[1], look.made, look.after), look.place)
        };
    }

    fn finish(&self, merges: &Merges, merged: &mut Merged) {
        let start = length(merged.ids.len());
        let mut alive = self.alive;
        while alive != 0 {
            let place = alive.trailing_zeros() as usize & (N - 1);
            merged.ids.push(merges.id(self.symbols[place]));
            alive &= alive - 1;
        }
        merged.places[self.number] = (start, length(merged.ids.len()));
    }
}

/// A possible merge at a place.
#[inline]
fn at(result: u32, place: u32) -> u32 {
    if result == NONE { NONE } else { result << PLACE_BITS | place }
}

/// The first place after `place` where a symbol begins; 64 if there is none.
#[inline]
fn next(alive: u64, place: u32) -> u32 {
    (alive & (!1 << place)).trailing_zeros()
}

/// Ids of one call are few.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Merged, Piece, merge};
    use crate::tokenize::fast::merges::tests::{by_definition, sample};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_side_by_side_follow_the_definition(
            pieces in prop::collection::vec(prop::collection::vec(97u8..=100, 1..=64), 0..40),
        ) {
            let merges = sample();
            let (mut bytes, mut places) = (Vec::new(), Vec::new());
            for piece in &pieces {
                places.push(Piece { start: bytes.len(), end: bytes.len() + piece.len() });
                bytes.extend_from_slice(piece);
            }
            let mut merged = Merged::default();
            merge::<64>(&merges, &bytes, &places, &mut merged);
            for (n, piece) in pieces.iter().enumerate() {
                prop_assert_eq!(merged.ids(n), by_definition(&merges, piece));
            }
            let short: Vec<Piece> = places.iter().map(|&p| Piece { end: p.end.min(p.start + 16), ..p }).collect();
            merge::<16>(&merges, &bytes, &short, &mut merged);
            for (n, &Piece { start, end }) in short.iter().enumerate() {
                prop_assert_eq!(merged.ids(n), by_definition(&merges, &bytes[start..end]));
            }
        }
    }
}
