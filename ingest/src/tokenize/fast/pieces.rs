//! The Qwen2/Qwen3 pre-tokenizer by hand, one piece at a time.
//!
//! What [`super::super::QWEN2_PATTERN`] matches from a position on depends on the characters from there
//! on only, so a text is cut by asking for the end of one piece after the other. The pattern's
//! alternatives, in its order:
//!
//! 1. `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
//! 2. `[^\r\n\p{L}\p{N}]?\p{L}+`
//! 3. `\p{N}`
//! 4. ` ?[^\s\p{L}\p{N}]+[\r\n]*`
//! 5. `\s*[\r\n]+`
//! 6. `\s+(?!\S)`
//! 7. `\s+`

use super::classes::{Class, Classes};

/// The end of the piece that begins at `at`, which must be a piece's beginning and not the end.
pub(super) fn piece_end(classes: &Classes, bytes: &[u8], at: usize) -> usize {
    let (class, width) = classes.at(bytes, at);
    let after = at + width;
    let next = (after < bytes.len()).then(|| classes.at(bytes, after));
    match class {
        Class::Letter => run_end(classes, bytes, after, Class::Letter),
        Class::Number => after,
        Class::LineEnd => space_end(classes, bytes, at),
        Class::Space => match next {
            Some((Class::Letter, width)) => run_end(classes, bytes, after + width, Class::Letter),
            Some((Class::Other, _)) if bytes[at] == b' ' => symbols_end(classes, bytes, after),
            Some((Class::Number | Class::Other, _)) | None => after,
            Some(_) => space_end(classes, bytes, at),
        },
        Class::Other => {
            let contraction = contraction(bytes, at);
            if contraction > 0 {
                return at + contraction as usize;
            }
            match next {
                Some((Class::Letter, width)) => {
                    run_end(classes, bytes, after + width, Class::Letter)
                }
                _ => symbols_end(classes, bytes, after),
            }
        }
    }
}

/// The length of the first alternative at `at`, 0 if it does not match. Without regard to case, `s` is
/// also the long s (U+017F); the other letters have no such relatives.
pub(super) fn contraction(bytes: &[u8], at: usize) -> u32 {
    match &bytes[at..] {
        [b'\'', b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => 2,
        [b'\'', b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..]
        | [b'\'', b'l' | b'L', b'l' | b'L', ..]
        | [b'\'', 0xC5, 0xBF, ..] => 3,
        _ => 0,
    }
}

fn run_end(classes: &Classes, bytes: &[u8], mut at: usize, class: Class) -> usize {
    while at < bytes.len() {
        let (next, width) = classes.at(bytes, at);
        if next != class {
            break;
        }
        at += width;
    }
    at
}

/// The rest of alternative 4, after its first symbol.
fn symbols_end(classes: &Classes, bytes: &[u8], at: usize) -> usize {
    let end = run_end(classes, bytes, at, Class::Other);
    run_end(classes, bytes, end, Class::LineEnd)
}

/// Alternatives 5 to 7: to the last line end of the white space; else all of it at the end of the
/// text; else all but its last character, which goes to what follows; else that character.
fn space_end(classes: &Classes, bytes: &[u8], at: usize) -> usize {
    let (mut end, mut last, mut after_line_end) = (at, at, at);
    while end < bytes.len() {
        let (class, width) = classes.at(bytes, end);
        if class != Class::Space && class != Class::LineEnd {
            break;
        }
        last = end;
        end += width;
        if class == Class::LineEnd {
            after_line_end = end;
        }
    }
    if after_line_end > at {
        after_line_end
    } else if end == bytes.len() || last == at {
        end
    } else {
        last
    }
}

#[cfg(test)]
mod tests {
    use super::{Classes, piece_end};
    use crate::tokenize::QWEN2_PATTERN;
    use onig::Regex;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn judge() -> &'static (Classes, Regex) {
        static JUDGE: OnceLock<(Classes, Regex)> = OnceLock::new();
        JUDGE.get_or_init(|| {
            (Classes::new().expect("valid"), Regex::new(QWEN2_PATTERN).expect("valid"))
        })
    }

    pub(super) fn ends(text: &str) -> Vec<usize> {
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < text.len() {
            at = piece_end(&judge().0, text.as_bytes(), at);
            ends.push(at);
        }
        ends
    }

    fn judged(text: &str) -> Vec<usize> {
        judge().1.find_iter(text).map(|(_, end)| end).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn pieces_are_those_of_the_regex(
            text in "('|[sStTmMdDrRvVeElL]|ſ|ll|re|[a-c]|é|漢|e\u{301}|[0-9]|٣|Ⅷ|²| {1,3}|\t|\u{a0}|\u{3000}|\u{85}|\r|\n|[.,(=\u{0}]|—|😀|\u{200d}){0,24}",
        ) {
            prop_assert_eq!(ends(&text), judged(&text));
        }

        #[test]
        fn any_text_at_all(text in any::<String>()) {
            prop_assert_eq!(ends(&text), judged(&text));
        }
    }

    #[test]
    fn every_character_between_its_neighbours() {
        for character in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let text = format!("a{character}b {character}1 \u{a0}{character}\n'{character} ");
            assert_eq!(ends(&text), judged(&text), "{character:?}");
        }
    }
}
