//! The order in which the gradients of a batch are added.
//!
//! The batch comes in pieces (`train.micro_batch` rows each). They are halved, and the halves halved,
//! until there are [`LANES`] lanes or lanes of a single piece; a half that cannot be equal is larger in
//! front. Within a lane gradients add up in the order of its pieces, in place; then lanes are added in
//! pairs, back up the tree.
//!
//! So `1, 2, 4, …, LANES` ranks each have a subtree, whose root is all that they exchange, and one rank
//! that has all of it makes the same sums. A rank keeps one more buffer of gradients for every halving
//! of its own: none if there are as many ranks as lanes, three if it is alone with eight pieces.

use super::ParallelError;
use std::ops::Range;

/// The most lanes, and so the most ranks: the cards of a node.
pub const LANES: usize = 8;

/// Where the second half of some pieces begins.
#[must_use]
pub const fn middle(pieces: &Range<usize>) -> usize {
    pieces.start + (pieces.end - pieces.start).div_ceil(2)
}

/// The pieces of every rank.
///
/// # Errors
/// If the number of ranks is no power of two up to [`LANES`], or there are fewer pieces than ranks.
pub fn pieces_of_ranks(pieces: usize, ranks: usize) -> Result<Vec<Range<usize>>, ParallelError> {
    check(ranks)?;
    if pieces < ranks {
        return Err(ParallelError::Pieces { pieces, ranks });
    }
    let mut parts: Vec<_> = std::iter::once(0..pieces).collect();
    while parts.len() < ranks {
        let halves = |part: Range<usize>| {
            let middle = middle(&part);
            [part.start..middle, middle..part.end]
        };
        parts = parts.into_iter().flat_map(halves).collect();
    }
    Ok(parts)
}

/// How many buffers of gradients a rank keeps that has so many pieces, of `ranks` in all.
#[must_use]
pub fn buffers(pieces: usize, ranks: usize) -> usize {
    let halvings = (LANES / ranks.clamp(1, LANES)).ilog2().min(pieces.max(1).ilog2());
    1 + halvings as usize
}

/// Refuses numbers of ranks that are no level of the tree.
///
/// # Errors
/// [`ParallelError::Ranks`].
pub const fn check(ranks: usize) -> Result<(), ParallelError> {
    if ranks.is_power_of_two() && ranks <= LANES {
        Ok(())
    } else {
        Err(ParallelError::Ranks(ranks))
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, buffers, middle, pieces_of_ranks};
    use crate::parallel::ParallelError;
    use proptest::prelude::*;
    use std::ops::Range;

    /// The tree below some pieces, written out.
    fn tree(pieces: Range<usize>, lanes: usize) -> String {
        if lanes == 1 || pieces.len() == 1 {
            return format!("{:?}", pieces.collect::<Vec<_>>());
        }
        let middle = middle(&pieces);
        let halves = [pieces.start..middle, middle..pieces.end];
        let [first, second] = halves.map(|half| tree(half, lanes / 2));
        format!("({first} + {second})")
    }

    #[test]
    fn eleven_pieces() {
        let expected = "((([0, 1] + [2]) + ([3, 4] + [5])) + (([6, 7] + [8]) + ([9] + [10])))";
        assert_eq!(tree(0..11, LANES), expected);
    }

    proptest! {
        #[test]
        fn ranks_have_subtrees(pieces in 8_usize..100) {
            for ranks in [1, 2, 4, 8] {
                let parts = pieces_of_ranks(pieces, ranks).unwrap();
                prop_assert_eq!(parts.len(), ranks);
                let sizes = || parts.iter().map(ExactSizeIterator::len);
                prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
                let mut sums: Vec<String> =
                    parts.into_iter().map(|part| tree(part, LANES / ranks)).collect();
                while sums.len() > 1 {
                    sums = sums.chunks(2).map(|pair| format!("({} + {})", pair[0], pair[1])).collect();
                }
                prop_assert_eq!(&sums[0], &tree(0..pieces, LANES));
            }
        }
    }

    /// How many sums exist at once while the tree is summed.
    fn deepest(pieces: Range<usize>, lanes: usize) -> usize {
        if lanes == 1 || pieces.len() == 1 {
            return 1;
        }
        let middle = middle(&pieces);
        let first = deepest(pieces.start..middle, lanes / 2);
        first.max(1 + deepest(middle..pieces.end, lanes / 2))
    }

    #[test]
    fn buffers_are_counted() {
        for ranks in [1, 2, 4, 8] {
            for pieces in 1..40 {
                assert_eq!(buffers(pieces, ranks), deepest(0..pieces, LANES / ranks), "{pieces}");
            }
        }
    }

    #[test]
    fn what_has_no_place_in_the_tree_is_refused() {
        for ranks in [0, 3, 6, 16] {
            assert_eq!(pieces_of_ranks(64, ranks), Err(ParallelError::Ranks(ranks)));
        }
        assert_eq!(pieces_of_ranks(3, 4), Err(ParallelError::Pieces { pieces: 3, ranks: 4 }));
    }
}
