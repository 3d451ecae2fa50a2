//! Where the lines and the brackets of a row's text lie, for masks that follow them.
//!
//! The text of a row is the bytes of its tokens, one after the other, so a row's spans are a function
//! of its tokens and the vocabulary: they need no place in the pipeline before the rows, and anyone
//! who has the rows can find them again. `docs/shard-format.md` has the rules.
//!
//! * `token_bytes`: the bytes of every token;
//! * `brackets`: pairs of brackets in a text;
//! * [`check()`]: whether the spans of a finished set are those of its text.

mod brackets;
mod check;
mod token_bytes;

pub use check::{Checked, check};
pub use token_bytes::NotByteLevel;

use brackets::Brackets;
use coda_manifests::{SpanKind, SpanKinds};
use coda_shards::SyntaxSpan;
use token_bytes::TokenBytes;

/// Finds the spans of rows.
pub struct SpanFinder {
    kinds: SpanKinds,
    tokens: TokenBytes,
}

/// Memory that finding needs, kept between rows.
#[derive(Default)]
pub struct Scratch {
    /// The bytes of the tokens since the last control token…
    text: Vec<u8>,
    /// …and where each of the tokens ends in them.
    ends: Vec<usize>,
    brackets: Brackets,
}

impl SpanFinder {
    /// For rows of a tokenizer, whose `tokenizer.json` this is.
    ///
    /// # Errors
    /// If its tokens are not bytes of the text.
    pub fn new(kinds: SpanKinds, json: &[u8]) -> Result<Self, NotByteLevel> {
        Ok(Self { kinds, tokens: TokenBytes::read(json)? })
    }

    /// The kinds of spans that it finds.
    #[must_use]
    pub const fn kinds(&self) -> SpanKinds {
        self.kinds
    }

    /// The spans of a row, in the order of the shard format. `tokens` are without padding, documents
    /// begin at `segments`. What lies in one document here is looked at alone: a span that a row's
    /// end cuts is what is left of it if it is a line, and no span if it is a pair of brackets.
    #[must_use]
    pub fn find(&self, scratch: &mut Scratch, tokens: &[u32], segments: &[u32]) -> Vec<SyntaxSpan> {
        let mut spans = Vec::new();
        let ends = segments.iter().skip(1).map(|&end| end as usize).chain([tokens.len()]);
        for (&start, end) in segments.iter().zip(ends) {
            let Some(document) = tokens.get(start as usize..end) else { continue };
            if self.kinds.has(SpanKind::Lines) {
                self.lines(document, start, &mut spans);
            }
            if self.kinds.has(SpanKind::Brackets) {
                self.brackets(scratch, document, start, &mut spans);
            }
        }
        // Each kind is in order already: a sort that finds the runs merges them in one pass.
        spans.sort_by_key(|span| (span.start, u32::MAX - span.len, span.kind));
        spans
    }

    /// A token belongs to the line in which its first byte lies.
    fn lines(&self, document: &[u32], first: u32, spans: &mut Vec<SyntaxSpan>) {
        let kind = SpanKind::Lines.code();
        let mut start = first;
        let mut line = |end: u32| {
            push(spans, SyntaxSpan { start, len: end - start, kind });
            start = end;
        };
        let mut end = first;
        for &id in document {
            end += 1;
            if self.tokens.has_line_end(id) {
                line(end);
            }
        }
        line(end);
    }

    /// A pair has the tokens from the one with its first byte to the one with its last. Pairs do not
    /// reach over control tokens.
    fn brackets(
        &self,
        scratch: &mut Scratch,
        document: &[u32],
        first: u32,
        spans: &mut Vec<SyntaxSpan>,
    ) {
        let Scratch { text, ends, brackets } = scratch;
        let kind = SpanKind::Brackets.code();
        let mut from = first;
        for stretch in document.split(|&id| self.tokens.of(id).is_empty()) {
            if stretch.iter().any(|&id| self.tokens.has_bracket(id)) {
                text.clear();
                ends.clear();
                for &id in stretch {
                    text.extend_from_slice(self.tokens.of(id));
                    ends.push(text.len());
                }
                for (open, close) in brackets.pairs(text, ends) {
                    push(spans, SyntaxSpan { start: from + open, len: close - open + 1, kind });
                }
            }
            // The control token too.
            from += length(stretch.len()) + 1;
        }
    }
}

/// A single token is masked by itself in any case, and pairs in the same tokens are one span.
fn push(spans: &mut Vec<SyntaxSpan>, span: SyntaxSpan) {
    if span.len >= 2 && spans.last() != Some(&span) {
        spans.push(span);
    }
}

/// Row lengths fit `u32`.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Scratch, SpanFinder};
    use coda_manifests::{SpanKind, SpanKinds};
    use proptest::prelude::*;
    use serde_json::json;

    /// Tokens by id; the last two are control tokens.
    const TOKENS: [&str; 14] =
        ["a", "b", "\n", "(", ")", "[", "]", ")(", "):\n", "{\n\n}", "x\ny", "\"", "()", "<eos>"];
    const EOS: u32 = 13;

    fn tokenizer() -> Vec<u8> {
        let vocabulary = TOKENS[..13].iter().zip(0..);
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            vocabulary.map(|(token, id)| (token.replace('\n', "Ċ"), json!(id))).collect();
        let added = json!([{"id": EOS, "content": "<eos>", "special": true}]);
        let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
        json!({"added_tokens": added, "decoder": {"type": "ByteLevel"}, "model": model})
            .to_string()
            .into_bytes()
    }

    fn find(kinds: &[SpanKind], tokens: &[u32], segments: &[u32]) -> Vec<(u32, u32, u8)> {
        let kinds = SpanKinds::new(kinds.iter().copied()).expect("some");
        let finder = SpanFinder::new(kinds, &tokenizer()).expect("byte-level");
        let spans = finder.find(&mut Scratch::default(), tokens, segments);
        spans.iter().map(|span| (span.start, span.len, span.kind)).collect()
    }

    fn ids(tokens: &[&str]) -> Vec<u32> {
        let id = |token: &&str| TOKENS.iter().position(|known| known == token).expect("known");
        tokens.iter().map(|token| u32::try_from(id(token)).expect("few")).collect()
    }

    #[test]
    fn lines_end_with_the_token_that_has_the_line_end() {
        let lines = |tokens: &[&str], segments: &[u32]| {
            let spans = find(&[SpanKind::Lines], &ids(tokens), segments);
            spans.iter().map(|&(start, len, _)| (start, len)).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(&["a", "b", "\n", "a", "):\n", "b", "<eos>"], &[0]),
            [(0, 3), (3, 2), (5, 2)]
        );
        // A line of one token is no span, be it blank or the end token alone.
        assert_eq!(lines(&["a", "b", "\n", "\n", "<eos>"], &[0]), [(0, 3)]);
        // What follows a line end within a token belongs to the line before.
        assert_eq!(lines(&["a", "x\ny", "b", "a", "{\n\n}", "b"], &[0]), [(0, 2), (2, 3)]);
        // Documents, and what a row's end has cut, have lines of their own.
        assert_eq!(lines(&["a", "b", "a", "b", "a"], &[0, 2]), [(0, 2), (2, 3)]);
    }

    #[test]
    fn pairs_have_the_tokens_that_their_bytes_lie_in() {
        let brackets = |tokens: &[&str], segments: &[u32]| {
            let spans = find(&[SpanKind::Brackets], &ids(tokens), segments);
            spans.iter().map(|&(start, len, _)| (start, len)).collect::<Vec<_>>()
        };
        assert_eq!(brackets(&["a", "(", "b", "[", "a", "]", "):\n"], &[0]), [(1, 6), (3, 3)]);
        // Neighbours that share a token both have it.
        assert_eq!(brackets(&["(", "a", ")(", "b", ")"], &[0]), [(0, 3), (2, 3)]);
        // Pairs within one token are none, and neither are those across documents or control tokens.
        assert_eq!(brackets(&["()", "a", "{\n\n}"], &[0]), []);
        assert_eq!(brackets(&["(", "a", "b", ")"], &[0, 2]), []);
        assert_eq!(brackets(&["(", "<eos>", "(", "a", ")", ")"], &[0]), [(2, 3)]);
        assert_eq!(brackets(&["a", "\"", "(", "\"", "(", "b", ")"], &[0]), [(4, 3)]);
    }

    #[test]
    fn both_kinds_are_in_one_order() {
        let spans = find(&SpanKind::ALL, &ids(&["(", "a", ")", "\n", "(", "a", "):\n"]), &[0]);
        assert_eq!(spans, [(0, 4, 0), (0, 3, 1), (4, 3, 0), (4, 3, 1)]);
    }

    /// The rules once more, without any cleverness: line numbers and pairs byte by byte.
    fn naive(tokens: &[u32], segments: &[u32]) -> Vec<(u32, u32, u8)> {
        let mut spans = Vec::new();
        for (i, &start) in segments.iter().enumerate() {
            let end = segments.get(i + 1).map_or(tokens.len(), |&end| end as usize);
            let document = &tokens[start as usize..end];
            let text: Vec<(u8, usize)> = document
                .iter()
                .enumerate()
                .flat_map(|(place, &id)| {
                    // A control token is a byte of its own that nothing else is.
                    let token = if id == EOS { "\u{0}" } else { TOKENS[id as usize] };
                    token.bytes().map(move |byte| (byte, place))
                })
                .collect();
            let mut line = 0;
            let mut lines = vec![None; document.len()];
            for &(byte, place) in &text {
                lines[place].get_or_insert(line);
                line += usize::from(byte == b'\n');
            }
            for number in 0..=line {
                let own: Vec<usize> =
                    (0..lines.len()).filter(|&place| lines[place] == Some(number)).collect();
                if let [first, .., last] = own[..] {
                    spans.push((start as usize + first, last - first + 1, 0));
                }
            }
            let mut open: Vec<(u8, usize)> = Vec::new();
            for &(byte, place) in &text {
                match byte {
                    0 => open.clear(),
                    b'(' | b'[' | b'{' => open.push((byte, place)),
                    b')' | b']' | b'}' => {
                        let opener = if byte == b')' { b'(' } else { byte - 2 };
                        if let Some(at) = open.iter().rposition(|&(kind, _)| kind == opener) {
                            let first = open[at].1;
                            open.truncate(at);
                            spans.push((start as usize + first, place - first + 1, 1));
                        }
                    }
                    _ => {}
                }
            }
        }
        spans.retain(|&(_, len, _)| len >= 2);
        spans.sort_unstable_by_key(|&(start, len, kind)| (start, usize::MAX - len, kind));
        spans.dedup();
        let short = |n| u32::try_from(n).expect("short");
        spans.into_iter().map(|(start, len, kind)| (short(start), short(len), kind)).collect()
    }

    proptest! {
        #[test]
        fn the_passes_are_the_rules(
            tokens in prop::collection::vec(
                // Quotes have tests of their own.
                prop::sample::select((0..14).filter(|&id| id != 11).collect::<Vec<u32>>()),
                1..80,
            ),
            cuts in prop::collection::btree_set(1_u32..80, 0..4),
        ) {
            let length = u32::try_from(tokens.len()).expect("short");
            let cuts = cuts.into_iter().filter(|&cut| cut < length);
            let segments: Vec<u32> = std::iter::once(0).chain(cuts).collect();
            let found = find(&SpanKind::ALL, &tokens, &segments);
            prop_assert_eq!(found, naive(&tokens, &segments));
        }

        #[test]
        fn any_ids_do_no_harm(
            tokens in prop::collection::vec(any::<u32>(), 0..20),
            segments in prop::collection::vec(0_u32..30, 0..5),
        ) {
            let _ = find(&SpanKind::ALL, &tokens, &segments);
        }
    }
}
