//! Which positions of a row may be masked at all.

use crate::{Context, RowView, Settings};
use std::ops::Range;

/// The limits that strategies move. See [`crate::draws`] for the rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Tokens of the prompt that conditioned-span annealing protects.
    pub(crate) protected: u32,
    /// Nothing below is maskable.
    pub(crate) prefix: u32,
    /// Pads begin here.
    pub(crate) valid: u32,
    /// Pads may be masked.
    pub(crate) pads: bool,
}

impl Bounds {
    /// The limits before S1 and S2 take the row.
    pub(crate) fn of(settings: &Settings, context: &Context, row: &RowView<'_>) -> Self {
        let prompt = row.prefix_len.min(row.length);
        let protected = protected_tokens(settings.span_ratio, prompt);
        Self {
            protected,
            prefix: protected,
            valid: row.valid_len.min(row.length),
            pads: context.score_pads && settings.p2 <= 0.0,
        }
    }
}

/// `floor(r · prompt)`, the part of the prompt that stays unmasked (method §5).
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product lies in 0..=prompt"
)]
fn protected_tokens(ratio: f64, prompt: u32) -> u32 {
    (ratio.clamp(0.0, 1.0) * f64::from(prompt)).floor() as u32
}

/// The maximal runs of maskable positions, ascending. Spans that overlap or stand out of order (a
/// damaged shard) never make a position appear twice.
pub(crate) fn runs(row: &RowView<'_>, bounds: &Bounds) -> Vec<Range<u32>> {
    let prompt = bounds.protected..row.prefix_len;
    let spans = row.maskable_starts.iter().zip(row.maskable_lens);
    let spans = spans.map(|(&start, &len)| start..start.saturating_add(len));
    let mut runs: Vec<Range<u32>> = Vec::new();
    let mut next = bounds.prefix;
    let mut push = |span: Range<u32>, end: u32| {
        let span = span.start.max(next)..span.end.min(end);
        if span.is_empty() {
            return;
        }
        next = span.end;
        match runs.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => runs.push(span),
        }
    };
    for span in std::iter::once(prompt).chain(spans) {
        push(span, bounds.valid);
    }
    if bounds.pads {
        push(bounds.valid..row.length, row.length);
    }
    runs
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one run is meant")]
mod tests {
    use super::{Bounds, runs};
    use crate::{RowView, SyntaxSpans};

    fn row<'a>(starts: &'a [u32], lens: &'a [u32]) -> RowView<'a> {
        RowView {
            length: 20,
            row_key: 1,
            epoch: 0,
            prefix_len: 6,
            valid_len: 16,
            maskable_starts: starts,
            maskable_lens: lens,
            spans: SyntaxSpans::default(),
        }
    }

    fn bounds(protected: u32, prefix: u32, valid: u32, pads: bool) -> Bounds {
        Bounds { protected, prefix, valid, pads }
    }

    #[test]
    fn a_prompt_opens_from_its_end_as_less_of_it_is_protected() {
        let row = row(&[6], &[10]);
        assert_eq!(runs(&row, &bounds(6, 6, 16, false)), [6..16]);
        assert_eq!(runs(&row, &bounds(2, 2, 16, false)), [2..16]);
        assert_eq!(runs(&row, &bounds(0, 0, 16, true)), [0..20]);
    }

    #[test]
    fn cuts_and_pads() {
        let row = row(&[6, 12], &[4, 4]);
        assert_eq!(runs(&row, &bounds(6, 6, 16, true)), [6..10, 12..20]);
        assert_eq!(runs(&row, &bounds(6, 9, 16, false)), [9..10, 12..16]);
        assert_eq!(runs(&row, &bounds(6, 6, 8, false)), [6..8]);
        assert_eq!(runs(&row, &bounds(6, 18, 16, true)), [18..20]);
        assert_eq!(runs(&row, &bounds(6, 20, 16, true)), []);
        assert_eq!(runs(&row, &bounds(6, 6, 3, false)), []);
    }

    #[test]
    fn touching_spans_are_one_run_and_damaged_ones_do_no_harm() {
        assert_eq!(runs(&row(&[6, 9], &[3, 7]), &bounds(6, 6, 16, false)), [6..16]);
        let damaged = row(&[8, 6, 9, 30], &[4, 6, u32::MAX, 2]);
        assert_eq!(runs(&damaged, &bounds(6, 6, 16, false)), [8..16]);
    }
}
