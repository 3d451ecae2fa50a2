//! Rows: what one line of the shard set says, and the rules it keeps.

use coda_manifests::{SpanKind, SpanKinds};

/// A run of positions within a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first position.
    pub start: u32,
    /// How many positions, at least 1.
    pub len: u32,
}

/// A run of positions that the row's text makes one: a line, or what stands in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SyntaxSpan {
    /// The first position.
    pub start: u32,
    /// How many positions, at least 2.
    pub len: u32,
    /// [`SpanKind::code`](coda_manifests::SpanKind::code) of its kind.
    pub kind: u8,
}

/// The spans of a row's text, one entry of each slice for a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyntaxSpans<'a> {
    /// First positions, ascending.
    pub starts: &'a [u32],
    /// Lengths; of spans with the same start the longest comes first.
    pub lens: &'a [u32],
    /// Kinds, as in [`SyntaxSpan::kind`].
    pub kinds: &'a [u8],
}

impl SyntaxSpans<'_> {
    /// The spans one by one.
    pub fn iter(&self) -> impl Iterator<Item = SyntaxSpan> {
        let columns = self.starts.iter().zip(self.lens).zip(self.kinds);
        columns.map(|((&start, &len), &kind)| SyntaxSpan { start, len, kind })
    }
}

/// A row to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBuf {
    /// The token ids, exactly as many as the row length; pads at the end.
    pub tokens: Vec<u32>,
    /// Where each document starts, ascending; the first is 0 and may continue the row before.
    pub segments: Vec<u32>,
    /// The key of every random draw for this row: [`row_key`] of its source and place.
    pub row_key: u64,
    /// The index of its source; rows of one source are contiguous, sources ascend.
    pub source: u16,
    /// Tokens of the prompt (post-training rows); 0 when there is none.
    pub prefix_len: u32,
    /// Tokens before the padding, at least 1.
    pub valid_len: u32,
    /// Where S3 may place blocks: ascending spans that do not overlap.
    pub maskable: Vec<Span>,
    /// The spans of its text, in sets that note them: by start, the longest first.
    pub spans: Vec<SyntaxSpan>,
}

/// A row of a shard set; the slices lie inside the memory-mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The token ids, row length many.
    pub tokens: &'a [u32],
    /// Where each document starts; the first is 0 and may continue the row before.
    pub segments: &'a [u32],
    /// The key of every random draw for this row.
    pub row_key: u64,
    /// The index of its source in the set's index.
    pub source: u16,
    /// Tokens of the prompt; 0 when there is none.
    pub prefix_len: u32,
    /// Tokens before the padding.
    pub valid_len: u32,
    /// First positions of the spans in which S3 may place blocks.
    pub maskable_starts: &'a [u32],
    /// Lengths of those spans.
    pub maskable_lens: &'a [u32],
    /// The spans of its text; none in sets that do not note them.
    pub spans: SyntaxSpans<'a>,
}

impl Row<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_buf(&self) -> RowBuf {
        let spans = self.maskable_starts.iter().zip(self.maskable_lens);
        RowBuf {
            tokens: self.tokens.to_vec(),
            segments: self.segments.to_vec(),
            row_key: self.row_key,
            source: self.source,
            prefix_len: self.prefix_len,
            valid_len: self.valid_len,
            maskable: spans.map(|(&start, &len)| Span { start, len }).collect(),
            spans: self.spans.iter().collect(),
        }
    }
}

/// The key of a row: the first eight bytes (little-endian) of
/// BLAKE3(`"coda row 1\0"`, name, `"\0"`, ordinal as u64 little-endian).
///
/// It depends on nothing but the source's name and the row's place within the source, so adding,
/// dropping or reordering sources changes no other row's draws.
#[must_use]
pub fn row_key(source_name: &str, ordinal_in_source: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"coda row 1\0");
    hasher.update(source_name.as_bytes());
    hasher.update(b"\0");
    hasher.update(&ordinal_in_source.to_le_bytes());
    let hash = hasher.finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(key)
}

/// The rules that every row keeps, checked when it is written and each time it is read.
pub(crate) struct Rules {
    pub(crate) row_length: u32,
    pub(crate) sources: usize,
    /// The kinds of spans that rows have.
    pub(crate) kinds: Option<SpanKinds>,
}

impl Rules {
    /// Names the first broken rule.
    pub(crate) fn check(
        &self,
        source: u16,
        lengths: (u32, u32),
        segments: &[u32],
        spans: impl Iterator<Item = (u32, u32)>,
    ) -> Result<(), String> {
        let (prefix_len, valid_len) = lengths;
        if usize::from(source) >= self.sources {
            return Err(format!("source {source} is not one of the {} sources", self.sources));
        }
        if valid_len == 0 || valid_len > self.row_length {
            return Err(format!("valid_len {valid_len} is not in 1..={}", self.row_length));
        }
        if prefix_len > valid_len {
            return Err(format!("prefix_len {prefix_len} is above valid_len {valid_len}"));
        }
        check_segments(valid_len, segments)?;
        let mut free = 0u64;
        for (start, len) in spans {
            let end = u64::from(start) + u64::from(len);
            if len == 0 || u64::from(start) < free || end > u64::from(self.row_length) {
                return Err(format!(
                    "the maskable span of {len} from {start} is empty, overlaps the one before, or \
                     passes the row length {}",
                    self.row_length
                ));
            }
            free = end;
        }
        Ok(())
    }

    /// Names the first span of the text that breaks a rule; segments have been checked.
    pub(crate) fn check_spans(
        &self,
        valid_len: u32,
        segments: &[u32],
        spans: impl Iterator<Item = SyntaxSpan>,
    ) -> Result<(), String> {
        let mut before: Option<SyntaxSpan> = None;
        // Where the last line ends: lines do not overlap.
        let mut line_end = 0;
        let mut later = segments.iter().copied().skip(1).peekable();
        for span in spans {
            let SyntaxSpan { start, len, kind } = span;
            let broken = |rule: &str| {
                Err(format!("the span of {len} from {start} of kind {kind} of the text {rule}"))
            };
            if !self.kinds.is_some_and(|kinds| kinds.has_code(kind)) {
                return broken("is of a kind that the set does not note");
            }
            let Some(end) = start.checked_add(len).filter(|&end| len >= 2 && end <= valid_len)
            else {
                return broken(&format!("has under 2 tokens or passes valid_len {valid_len}"));
            };
            let order = |span: SyntaxSpan| (span.start, u32::MAX - span.len, span.kind);
            if before.is_some_and(|before| order(before) >= order(span)) {
                return broken("is there twice or out of order");
            }
            before = Some(span);
            while later.next_if(|&segment| segment <= start).is_some() {}
            if later.peek().is_some_and(|&segment| segment < end) {
                return broken("reaches over the start of a document");
            }
            if kind == SpanKind::Lines.code() {
                if start < line_end {
                    return broken("is a line within a line");
                }
                line_end = end;
            }
        }
        Ok(())
    }
}

fn check_segments(valid_len: u32, segments: &[u32]) -> Result<(), String> {
    if segments.first() != Some(&0) {
        return Err(format!("the first segment starts at {:?}, not at 0", segments.first()));
    }
    let next = segments.iter().skip(1).zip(segments);
    if let Some((next, start)) = next.into_iter().find(|(next, start)| next <= start) {
        return Err(format!("segment starts do not ascend: {start} then {next}"));
    }
    match segments.last() {
        Some(&last) if last >= valid_len => {
            Err(format!("a segment starts at {last}, at or after valid_len {valid_len}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Rules, SyntaxSpan, row_key};
    use coda_manifests::{SpanKind, SpanKinds};

    #[test]
    fn keys_depend_on_name_and_place_alone() {
        // Frozen: a change here changes every mask that was ever drawn.
        assert_eq!(row_key("dclm", 0), 8_852_187_238_498_030_633);
        assert_ne!(row_key("dclm", 1), row_key("dclm", 0));
        assert_ne!(row_key("dclM", 0), row_key("dclm", 0));
    }

    #[test]
    fn each_rule_is_named() {
        let rules = Rules { row_length: 8, sources: 1, kinds: None };
        let check = |source, lengths, segments: &[u32], spans: &[(u32, u32)]| {
            rules.check(source, lengths, segments, spans.iter().copied())
        };
        assert_eq!(check(0, (2, 8), &[0, 3, 7], &[(0, 4), (4, 4)]), Ok(()));
        assert_eq!(check(0, (8, 8), &[0], &[]), Ok(()));
        for (broken, word) in [
            (check(1, (0, 8), &[0], &[]), "sources"),
            (check(0, (0, 0), &[0], &[]), "valid_len"),
            (check(0, (0, 9), &[0], &[]), "valid_len"),
            (check(0, (5, 4), &[0], &[]), "prefix_len"),
            (check(0, (0, 8), &[], &[]), "first segment"),
            (check(0, (0, 8), &[1], &[]), "first segment"),
            (check(0, (0, 8), &[0, 3, 3], &[]), "ascend"),
            (check(0, (0, 4), &[0, 4], &[]), "at or after"),
            (check(0, (0, 8), &[0], &[(0, 0)]), "maskable"),
            (check(0, (0, 8), &[0], &[(0, 4), (3, 2)]), "maskable"),
            (check(0, (0, 8), &[0], &[(7, 2)]), "maskable"),
            (check(0, (0, 8), &[0], &[(7, u32::MAX)]), "maskable"),
        ] {
            let message = broken.expect_err(word);
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn each_rule_of_spans_is_named() {
        let kinds = SpanKinds::new([SpanKind::Lines, SpanKind::Brackets]);
        let rules = Rules { row_length: 12, sources: 1, kinds };
        let check = |rules: &Rules, spans: &[(u32, u32, u8)]| {
            let spans = spans.iter().map(|&(start, len, kind)| SyntaxSpan { start, len, kind });
            rules.check_spans(10, &[0, 4], spans)
        };
        let sound = [(0, 4, 0), (0, 4, 1), (0, 2, 1), (4, 6, 1), (4, 2, 0), (5, 3, 1), (6, 4, 0)];
        assert_eq!(check(&rules, &sound), Ok(()));
        assert_eq!(check(&rules, &[]), Ok(()));
        let lines = Rules { kinds: SpanKinds::new([SpanKind::Lines]), ..rules };
        let none = Rules { row_length: 12, sources: 1, kinds: None };
        for (broken, word) in [
            (check(&lines, &[(0, 2, 1)]), "kind"),
            (check(&lines, &[(0, 2, 255)]), "kind"),
            (check(&none, &[(0, 2, 0)]), "kind"),
            (check(&rules, &[(0, 1, 0)]), "under 2"),
            (check(&rules, &[(4, 7, 1)]), "valid_len"),
            (check(&rules, &[(4, u32::MAX, 1)]), "valid_len"),
            (check(&rules, &[(0, 2, 1), (0, 2, 1)]), "twice"),
            (check(&rules, &[(0, 2, 1), (0, 3, 1)]), "order"),
            (check(&rules, &[(2, 2, 1), (0, 2, 1)]), "order"),
            (check(&rules, &[(3, 2, 1)]), "document"),
            (check(&rules, &[(0, 3, 0), (2, 2, 0)]), "line"),
        ] {
            let message = broken.expect_err(word);
            assert!(message.contains(word), "{message}");
        }
    }
}
