//! S3 over spans of the text: a line or a pair of brackets is masked as a whole, or not at all.

use crate::{SyntaxSpans, plan::for_each_draw};
use coda_manifests::SpanKinds;
use coda_random::{Stream, bernoulli_threshold};
use std::ops::Range;

/// The blocks of a row, ascending and apart: from the start of the row on, each time the first span
/// of one of the `kinds` that begins behind the block before, has at most `longest` tokens, and lies
/// inside one of the `runs`; of spans with the same start the longest. So of nested spans the
/// outermost that is not too long is the block.
///
/// One pass. Spans out of order (a damaged shard) never make blocks overlap.
pub(crate) fn blocks(
    spans: SyntaxSpans<'_>,
    kinds: SpanKinds,
    longest: u32,
    runs: &[Range<u32>],
) -> Vec<Range<u32>> {
    let mut blocks: Vec<Range<u32>> = Vec::new();
    let (mut free, mut run) = (0, 0);
    let columns = spans.starts.iter().zip(spans.lens).zip(spans.kinds);
    for ((&start, &len), &kind) in columns {
        let end = start.saturating_add(len);
        if start < free || end <= start || len > longest || !kinds.has_code(kind) {
            continue;
        }
        while runs.get(run).is_some_and(|run| run.end <= start) {
            run += 1;
        }
        if runs.get(run).is_some_and(|run| run.start <= start && end <= run.end) {
            blocks.push(start..end);
            free = end;
        }
    }
    blocks
}

/// The masked positions of `runs`, ascending: every block as a whole and every position outside of
/// the blocks by itself, each with probability `sigma`. So every position is masked with probability
/// `sigma`, wherever it lies. A block is decided by the draw of its first position.
pub(crate) fn masked(
    draws: Stream,
    sigma: f64,
    blocks: &[Range<u32>],
    runs: &[Range<u32>],
) -> Vec<u32> {
    let threshold = bernoulli_threshold(sigma);
    let mut masked = Vec::new();
    let mut blocks = blocks.iter().peekable();
    for run in runs {
        let (mut decided, mut hides) = (run.start, false);
        for_each_draw(draws, run.clone(), |position, word| {
            if position >= decided {
                hides = u64::from(word) < threshold;
                let block = blocks.next_if(|block| block.start <= position);
                decided = block.map_or(position + 1, |block| block.end);
            }
            if hides {
                masked.push(position);
            }
        });
    }
    masked
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one run is meant")]
mod tests {
    use super::{blocks, masked};
    use crate::SyntaxSpans;
    use coda_manifests::{SpanKind, SpanKinds};
    use coda_random::{Purpose, Stream, bernoulli_threshold};
    use proptest::prelude::*;
    use std::ops::Range;

    type Columns = (Vec<u32>, Vec<u32>, Vec<u8>);

    fn columns(mut spans: Vec<(u32, u32, u8)>) -> Columns {
        spans.sort_unstable_by_key(|&(start, len, kind)| (start, u32::MAX - len, kind));
        let starts = spans.iter().map(|span| span.0).collect();
        let lens = spans.iter().map(|span| span.1).collect();
        (starts, lens, spans.iter().map(|span| span.2).collect())
    }

    fn view((starts, lens, kinds): &Columns) -> SyntaxSpans<'_> {
        SyntaxSpans { starts, lens, kinds }
    }

    fn both() -> SpanKinds {
        SpanKinds::new(SpanKind::ALL).expect("two")
    }

    #[test]
    fn of_nested_spans_the_outermost_that_fits_is_the_block() {
        // f ( a ( b ) c ) ; and a line of nine.
        let spans = columns(vec![(0, 9, 0), (1, 7, 1), (3, 3, 1), (9, 2, 1)]);
        let brackets = SpanKinds::new([SpanKind::Brackets]).expect("one");
        let runs = [0..12];
        assert_eq!(blocks(view(&spans), both(), 9, &runs), [0..9, 9..11]);
        assert_eq!(blocks(view(&spans), brackets, 9, &runs), [1..8, 9..11]);
        assert_eq!(blocks(view(&spans), brackets, 6, &runs), [3..6, 9..11]);
        assert_eq!(blocks(view(&spans), both(), 2, &runs), [9..11]);
        assert_eq!(blocks(view(&spans), both(), 1, &runs), []);
        // A cut through the line and the outer pair leaves the inner one.
        assert_eq!(blocks(view(&spans), both(), 9, &[2..10]), [3..6]);
        assert_eq!(blocks(view(&spans), both(), 9, &[0..4, 5..12]), [9..11]);
    }

    #[test]
    fn damaged_spans_do_no_harm() {
        let spans = SyntaxSpans {
            starts: &[4, 2, 5, 20, 30, 8],
            lens: &[4, 4, u32::MAX, u32::MAX, 0, 3],
            kinds: &[0, 0, 0, 1, 0, 9],
        };
        assert_eq!(blocks(spans, both(), u32::MAX, &[0..40]), [4..8]);
        let short = SyntaxSpans { starts: &[1, 5], lens: &[2], kinds: &[0, 0] };
        assert_eq!(blocks(short, both(), 8, &[0..40]), [1..3]);
    }

    /// Position by position, straight from the rule.
    fn oracle(
        draws: Stream,
        sigma: f64,
        (starts, lens, kinds): &Columns,
        (wanted, longest): (SpanKinds, u32),
        runs: &[Range<u32>],
    ) -> Vec<u32> {
        let mut first: Vec<u32> = (0..400).collect();
        let mut free = 0;
        for position in 0..400 {
            let fits = |&i: &usize| {
                let span = starts[i]..starts[i] + lens[i];
                starts[i] == position
                    && lens[i] <= longest
                    && wanted.has_code(kinds[i])
                    && runs.iter().any(|run| run.start <= span.start && span.end <= run.end)
            };
            let longest = (0..starts.len()).filter(fits).map(|i| lens[i]).max();
            if let Some(len) = longest.filter(|_| position >= free) {
                free = position + len;
                first[position as usize..free as usize].fill(position);
            }
        }
        let hides = |position: u32| {
            u64::from(draws.u32_at(u64::from(first[position as usize])))
                < bernoulli_threshold(sigma)
        };
        runs.iter().cloned().flatten().filter(|&position| hides(position)).collect()
    }

    proptest! {
        #[test]
        fn the_pass_equals_the_rule(
            seed: u64,
            key: u64,
            sigma in 0.0f64..=1.0,
            longest in 1u32..40,
            wanted in prop::sample::subsequence(SpanKind::ALL.to_vec(), 1..=2),
            spans in prop::collection::vec((0u32..250, 2u32..50, 0u8..2), 0..60),
            gaps in prop::collection::vec((1u32..20, 1u32..90), 0..4),
        ) {
            let draws = Stream::new(seed, key, 0, Purpose::TokenMask);
            let wanted = SpanKinds::new(wanted).expect("one or two");
            let mut at = 0;
            let runs: Vec<_> = gaps
                .into_iter()
                .map(|(gap, len)| {
                    let run = at + gap..at + gap + len;
                    at = run.end;
                    run
                })
                .collect();
            let spans = columns(spans);
            let found = blocks(view(&spans), wanted, longest, &runs);
            prop_assert!(found.is_sorted_by(|a, b| a.end <= b.start));
            let expected = oracle(draws, sigma, &spans, (wanted, longest), &runs);
            prop_assert_eq!(masked(draws, sigma, &found, &runs), expected);
        }
    }
}
