//! Pairs of brackets in a text of any language.
//!
//! There is no grammar here, so what stands in strings is told by a rule that holds in most
//! languages and does little harm in prose:
//!
//! * A byte after a backslash is nothing but text.
//! * `"`, `'` and `` ` `` begin a string when another of the same kind ends it on the same line;
//!   otherwise they are text. A `'` between letters is an apostrophe, one before a letter ends no
//!   string (`&'a str`). What is in a string is no bracket.
//! * A closing bracket ends the pair of the last open bracket of its kind; brackets of other kinds
//!   that were opened in between stay without a pair. Where there is none, it is text.
//!
//! Comments are text like any other: their brackets count.

/// The open brackets, and memory that is kept between texts.
#[derive(Default)]
pub(super) struct Brackets {
    /// Pairs by the order of their opening brackets: the tokens of both; without the second one as
    /// long as they are open.
    found: Vec<(u32, Option<u32>)>,
    /// The open brackets: their kinds, and their places in `found`.
    open: Vec<(u8, usize)>,
}

impl Brackets {
    /// The pairs of `text`, by their opening brackets: the numbers of the tokens that the two lie in.
    /// Token `i` ends at `ends[i]`.
    pub(super) fn pairs(
        &mut self,
        text: &[u8],
        ends: &[usize],
    ) -> impl Iterator<Item = (u32, u32)> {
        let Self { found, open } = self;
        found.clear();
        open.clear();
        // Open brackets by kind, so that a closing one knows whether to look.
        let mut count = [0_u32; 3];
        let (mut token, mut next) = (0, 0);
        scan(text, |place, byte| {
            while ends.get(next).is_some_and(|&end| end <= place) {
                (token, next) = (token + 1, next + 1);
            }
            let (kind, opens) = match byte {
                b'(' => (0, true),
                b')' => (0, false),
                b'[' => (1, true),
                b']' => (1, false),
                b'{' => (2, true),
                _ => (2, false),
            };
            let of_kind = &mut count[usize::from(kind)];
            if opens {
                *of_kind += 1;
                open.push((kind, found.len()));
                found.push((token, None));
            } else if *of_kind > 0 {
                // The last of its kind is there; each bracket is taken off once.
                while let Some((other, pair)) = open.pop() {
                    count[usize::from(other)] -= 1;
                    if other == kind {
                        found[pair].1 = Some(token);
                        break;
                    }
                }
            }
        });
        found.iter().filter_map(|&(first, last)| Some((first, last?)))
    }
}

/// Calls `bracket` with every bracket that is in no string. Every byte is looked at twice at most: a
/// quote that finds no other of its kind on its line says so for all of the line.
fn scan(text: &[u8], mut bracket: impl FnMut(usize, u8)) {
    // By kind of quote: before this place there is none that ends a string.
    let mut none_before = [0; 3];
    let mut at = 0;
    while let Some(skipped) = text.get(at..).and_then(|rest| rest.iter().position(|&b| tells(b))) {
        at += skipped;
        let byte = text[at];
        let quote = match byte {
            b'\\' => {
                at = after_backslash(text, at);
                continue;
            }
            b'"' => 0,
            b'\'' => 1,
            b'`' => 2,
            _ => {
                bracket(at, byte);
                at += 1;
                continue;
            }
        };
        at = if at < none_before[quote] || !begins(text, at) {
            at + 1
        } else {
            match string_end(text, at) {
                Ok(end) => end + 1,
                Err(line_end) => {
                    none_before[quote] = line_end;
                    at + 1
                }
            }
        };
    }
}

/// Whether a byte is a bracket, a quote or a backslash. Few are: a table passes over the others quickest.
fn tells(byte: u8) -> bool {
    const TELLS: [bool; 256] = {
        let (mut table, mut i) = ([false; 256], 0);
        let telling = *b"()[]{}\"'`\\";
        while i < telling.len() {
            table[telling[i] as usize] = true;
            i += 1;
        }
        table
    };
    TELLS[usize::from(byte)]
}

/// A backslash at the end of a line leaves the line end what it is.
fn after_backslash(text: &[u8], at: usize) -> usize {
    if text.get(at + 1).is_none_or(|&next| next == b'\n') { at + 1 } else { at + 2 }
}

/// Whether a quote may begin a string: a `'` not right after a word, unless the word is one of the
/// letters that stand before strings in some languages.
fn begins(text: &[u8], at: usize) -> bool {
    let word_before = |at: usize| at.checked_sub(1).is_some_and(|before| is_word(text[before]));
    text[at] != b'\''
        || !word_before(at)
        || (b"bfruBFRUL".contains(&text[at - 1]) && !word_before(at - 1))
}

/// Where the string that begins at `at` ends; or, if nothing ends it, where its line does.
fn string_end(text: &[u8], at: usize) -> Result<usize, usize> {
    let quote = text[at];
    let mut end = at + 1;
    while let Some(&byte) = text.get(end) {
        match byte {
            b'\n' => return Err(end),
            b'\\' => end = after_backslash(text, end),
            byte if byte == quote => {
                let ends = quote != b'\'' || !text.get(end + 1).is_some_and(|&next| is_word(next));
                if ends {
                    return Ok(end);
                }
                end += 1;
            }
            _ => end += 1,
        }
    }
    Err(text.len())
}

/// Letters, digits, `_`, and all of what is not ASCII.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::Brackets;
    use proptest::prelude::*;

    /// The pairs of a text as texts, every byte a token.
    fn pairs(text: &str) -> Vec<&str> {
        let ends: Vec<usize> = (1..=text.len()).collect();
        let mut brackets = Brackets::default();
        let found = brackets.pairs(text.as_bytes(), &ends);
        found.map(|(first, last)| &text[first as usize..=last as usize]).collect()
    }

    #[test]
    fn pairs_nest() {
        assert_eq!(pairs("f(a[i], {b: (c)});"), ["(a[i], {b: (c)})", "[i]", "{b: (c)}", "(c)"]);
        assert_eq!(pairs("()[]{}"), ["()", "[]", "{}"]);
        assert_eq!(pairs("no brackets"), [""; 0]);
    }

    #[test]
    fn what_has_no_partner_is_text() {
        assert_eq!(pairs(") a ] (b) }"), ["(b)"]);
        assert_eq!(pairs("(a [b) c]"), ["(a [b)"]);
        assert_eq!(pairs("{ (a [b }"), ["{ (a [b }"]);
        assert_eq!(pairs("((a)"), ["(a)"]);
        assert_eq!(pairs("a :) b (c)"), ["(c)"]);
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert_eq!(pairs(r#"f("(", x)"#), [r#"("(", x)"#]);
        assert_eq!(pairs(r#"f("\"(", x)"#), [r#"("\"(", x)"#]);
        assert_eq!(pairs("f('(', `[`, x)"), ["('(', `[`, x)"]);
        assert_eq!(pairs("f(b'(', L'[')"), ["(b'(', L'[')"]);
        assert_eq!(pairs(r"f('\'', '{')"), [r"('\'', '{')"]);
        assert_eq!(pairs(r"\( a (b\) c)"), [r"(b\) c)"]);
    }

    #[test]
    fn quotes_that_begin_no_string_are_text() {
        assert_eq!(pairs("don't (a) isn't"), ["(a)"]);
        assert_eq!(
            pairs("fn f<'a>(x: &'a str, y: &'a [u8])"),
            ["(x: &'a str, y: &'a [u8])", "[u8]"]
        );
        // Over lines, a string is not seen as one.
        assert_eq!(pairs("\"\"\"(a)\n(b)\"\"\""), ["(a)", "(b)"]);
        assert_eq!(pairs("say \"(a)\nb (c)"), ["(a)", "(c)"]);
        assert_eq!(pairs("it's (a 'b(' c)"), ["(a 'b(' c)"]);
        assert_eq!(pairs("x \\\n\"(\" (a)"), ["(a)"]);
    }

    #[test]
    fn tokens_are_told_by_their_ends() {
        let mut brackets = Brackets::default();
        let found: Vec<_> = brackets.pairs(b"f((ab))\n()", &[2, 5, 8, 10]).collect();
        assert_eq!(found, [(0, 2), (1, 2), (3, 3)]);
        assert_eq!(brackets.pairs(b"", &[]).count(), 0);
    }

    /// The rule of strings from its words alone: every byte asks anew.
    fn naive(text: &[u8]) -> Vec<usize> {
        let word = |at: Option<usize>| {
            at.and_then(|at| text.get(at))
                .is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_' || b > 127)
        };
        let (mut found, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let step = |at: usize| {
                1 + usize::from(
                    text[at] == b'\\' && !matches!(text.get(at + 1), None | Some(b'\n')),
                )
            };
            let byte = text[at];
            if b"()[]{}".contains(&byte) {
                found.push(at);
            }
            let prefix = at > 0 && b"bfruBFRUL".contains(&text[at - 1]) && !word(at.checked_sub(2));
            let begins =
                b"\"`".contains(&byte) || (byte == b'\'' && (!word(at.checked_sub(1)) || prefix));
            let mut end = at + 1;
            while begins && end < text.len() && text[end] != b'\n' {
                if text[end] == byte && !(byte == b'\'' && word(Some(end + 1))) {
                    break;
                }
                end += step(end);
            }
            let ended = begins && text.get(end) == Some(&byte);
            at = if ended { end + 1 } else { at + step(at) };
        }
        found
    }

    proptest! {
        #[test]
        fn strings_are_told_as_the_rule_says(text in "('|\"|`|\\\\|\n|a|b|é|\\(|\\)|\\[|\\}| ){0,60}") {
            let mut found = Vec::new();
            super::scan(text.as_bytes(), |place, _| found.push(place));
            prop_assert_eq!(found, naive(text.as_bytes()));
        }

        #[test]
        fn pairs_are_sound(text in "('|\"|a|\n|[(){}\\[\\]]){0,60}") {
            let ends: Vec<usize> = (1..=text.len()).collect();
            let mut brackets = Brackets::default();
            let mut before = None;
            for (first, last) in brackets.pairs(text.as_bytes(), &ends) {
                let ends = (text.as_bytes()[first as usize], text.as_bytes()[last as usize]);
                let of_a_kind = matches!(ends, (b'(', b')') | (b'[', b']') | (b'{', b'}'));
                prop_assert!(of_a_kind, "{:?}", ends);
                prop_assert!(before.is_none_or(|before| before < first));
                before = Some(first);
            }
        }
    }

    /// Some megabytes of what is worst for the matcher and for the search of string ends.
    #[test]
    fn hostile_text_takes_linear_time() {
        let n = 1 << 20;
        for text in
            ["(".repeat(n) + &"]".repeat(n), "&'a ".repeat(n), "([".repeat(n) + &")".repeat(n)]
        {
            let ends = [text.len()];
            let mut brackets = Brackets::default();
            assert!(brackets.pairs(text.as_bytes(), &ends).count() <= n);
        }
    }
}
