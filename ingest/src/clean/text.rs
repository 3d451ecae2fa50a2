//! What is changed in a text.

use coda_manifests::{Clean, ControlCharacters, KeepOrStrip, Newlines};
use std::borrow::Cow;

const BOM: char = '\u{feff}';

/// What is changed; all off by default.
#[allow(clippy::struct_excessive_bools, reason = "four independent choices")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    strip_bom: bool,
    line_feeds: bool,
    strip_control: bool,
    strip_trailing: bool,
}

impl Changes {
    pub(super) fn new(clean: &Clean) -> Self {
        Self {
            strip_bom: clean.bom == Some(KeepOrStrip::Strip),
            line_feeds: clean.newlines == Some(Newlines::Lf),
            strip_control: clean.control == Some(ControlCharacters::Strip),
            strip_trailing: clean.trailing_whitespace == Some(KeepOrStrip::Strip),
        }
    }

    /// The text with its changes; most texts need none and are not copied.
    pub(super) fn apply(self, text: Cow<'_, str>) -> Cow<'_, str> {
        if self.changes(&text) { Cow::Owned(self.rewrite(&text)) } else { text }
    }

    /// Whether any change may be needed.
    fn changes(self, text: &str) -> bool {
        let bytes = text.as_bytes();
        (self.strip_bom && text.starts_with(BOM))
            || (self.line_feeds && memchr::memchr(b'\r', bytes).is_some())
            || (self.strip_control && has_control(text))
            || (self.strip_trailing && has_trailing(bytes))
    }

    fn rewrite(self, text: &str) -> String {
        let text = if self.strip_bom { text.strip_prefix(BOM).unwrap_or(text) } else { text };
        let mut out = String::with_capacity(text.len());
        let trim = |out: &mut String| {
            if self.strip_trailing {
                out.truncate(out.trim_end_matches([' ', '\t']).len());
            }
        };
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' if self.line_feeds => {
                    chars.next_if_eq(&'\n');
                    trim(&mut out);
                    out.push('\n');
                }
                '\n' => {
                    // What stood between the two may be gone: only `out` knows whether they touch.
                    let end = if out.ends_with('\r') { "\r\n" } else { "\n" };
                    out.truncate(out.len() + 1 - end.len());
                    trim(&mut out);
                    out.push_str(end);
                }
                c if self.strip_control && is_control(c) => {}
                c => out.push(c),
            }
        }
        trim(&mut out);
        out
    }
}

/// A control character, other than those that lay out text.
pub(super) const fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f'..='\u{9f}')
}

/// Whether any character of the text [`is_control`].
pub(super) fn has_control(text: &str) -> bool {
    // Blocks without an early end are compared many bytes at once.
    let suspicious = |b: u8| matches!(b, 0..=8 | 0x0b | 0x0e..=0x1f | 0x7f);
    let ascii = text
        .as_bytes()
        .chunks(256)
        .any(|block| block.iter().fold(false, |found, &b| found | suspicious(b)));
    // U+0080 to U+009F are C2 80 to C2 9F.
    ascii
        || memchr::memchr_iter(0xc2, text.as_bytes())
            .any(|at| text.as_bytes().get(at + 1).is_some_and(|&b| b < 0xa0))
}

fn has_trailing(bytes: &[u8]) -> bool {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let before = |at: usize| {
        let line = &bytes[..at];
        line.strip_suffix(b"\r").unwrap_or(line).last().is_some_and(blank)
    };
    bytes.last().is_some_and(blank) || memchr::memchr2_iter(b'\n', b'\r', bytes).any(before)
}

#[cfg(test)]
mod tests {
    use super::{Changes, has_control, is_control};
    use proptest::prelude::*;
    use std::borrow::Cow;

    fn naive(changes: Changes, text: &str) -> String {
        let mut text = text.to_owned();
        if changes.strip_bom && text.starts_with('\u{feff}') {
            text = text.chars().skip(1).collect();
        }
        if changes.line_feeds {
            text = text.replace("\r\n", "\n").replace('\r', "\n");
        }
        if changes.strip_control {
            text.retain(|c| !is_control(c));
        }
        if changes.strip_trailing {
            let trim = |s: &str| s.trim_end_matches([' ', '\t']).to_owned();
            let line = |line: &str| match line.strip_suffix('\r') {
                Some(line) => trim(line) + "\r",
                None => trim(line),
            };
            let mut lines: Vec<String> = text.split('\n').map(line).collect();
            // A `\r` at the end of the text is followed by no line feed: no line ends there.
            if let (Some(last), Some(raw)) = (lines.last_mut(), text.rsplit('\n').next()) {
                *last = trim(raw);
            }
            text = lines.join("\n");
        }
        text
    }

    proptest! {
        #[test]
        fn changes_are_those_of_the_naive_replacements(
            text in "[\u{feff}a \t\r\n\0\x1b\u{85}\u{a0}é]{0,24}",
            strip_bom: bool, line_feeds: bool, strip_control: bool, strip_trailing: bool,
        ) {
            let changes = Changes { strip_bom, line_feeds, strip_control, strip_trailing };
            let changed = changes.apply(Cow::Borrowed(&text)).into_owned();
            prop_assert_eq!(&changed, &naive(changes, &text));
            // A second mark is text, and `x \r \n` has two line ends only for those who read `\r`.
            if line_feeds && !(strip_bom && changed.starts_with('\u{feff}')) {
                let again = changes.apply(Cow::Borrowed(&changed)).into_owned();
                prop_assert_eq!(again, changed, "cleaning twice is cleaning once");
            }
        }

        #[test]
        fn control_characters_are_found(text in "[a\t\n\x0c\r\0\x7f\u{80}\u{9f}\u{a0}é]{0,300}") {
            prop_assert_eq!(has_control(&text), text.chars().any(is_control));
        }
    }

    #[test]
    fn a_line_end_that_comes_together_is_one() {
        let changes = Changes { strip_control: true, strip_trailing: true, ..Changes::default() };
        assert_eq!(changes.apply("a\t\r\0\n".into()), "a\r\n");
    }

    #[test]
    fn a_text_that_needs_no_change_is_not_copied() {
        let changes = Changes {
            strip_bom: true,
            line_feeds: true,
            strip_control: true,
            strip_trailing: true,
        };
        assert!(matches!(changes.apply("a b\n\tc é\n".into()), Cow::Borrowed(_)));
    }
}
