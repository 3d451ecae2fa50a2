//! What the pre-tokenizer and the normalizer need to know about a character, asked from the very
//! engines that Hugging Face `tokenizers` uses.
//!
//! Unicode versions differ between libraries, and a single reassigned character would change ids. So
//! the table is filled at run time: `\p{L}`, `\p{N}` and `\s` by Oniguruma, stability under NFC by the
//! normalization crate of `tokenizers`. Asking about all of Unicode takes a tenth of a second, and most
//! texts use a few hundred characters: the engines are asked about 256 neighbours at a time, when the
//! first of them is met.

use onig::Regex;
use std::sync::OnceLock;
use unicode_normalization_alignments::{
    IsNormalized, char::canonical_combining_class, is_nfc_quick,
};

/// What a character is to the pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Neither of the others: punctuation, symbols, control characters, unassigned ones.
    Other = 0,
    /// `\p{L}`
    Letter = 1,
    /// `\p{N}`
    Number = 2,
    /// `\s` but no line end.
    Space = 3,
    /// `\r` or `\n`
    LineEnd = 4,
}

const CODE_POINTS: usize = 0x11_0000;
/// Code points that are asked about together.
const BLOCK: usize = 256;
const CLASS: u8 = 7;
/// Set where NFC may change the character or its neighbourhood.
const UNSTABLE: u8 = 8;

/// One byte for each code point of a block.
type Block = [u8; BLOCK];

/// What is known of the characters so far, and whom to ask about the others.
pub(super) struct Classes {
    patterns: [(Regex, Class); 3],
    blocks: Box<[OnceLock<Box<Block>>]>,
}

impl Classes {
    pub(super) fn new() -> Result<Self, onig::Error> {
        let pattern = |pattern, class| Regex::new(pattern).map(|regex| (regex, class));
        let patterns = [
            pattern(r"\p{L}+", Class::Letter)?,
            pattern(r"\p{N}+", Class::Number)?,
            pattern(r"\s+", Class::Space)?,
        ];
        let blocks = (0..CODE_POINTS / BLOCK).map(|_| OnceLock::new()).collect();
        Ok(Self { patterns, blocks })
    }

    #[inline]
    fn of(&self, code: usize) -> u8 {
        let block = self.blocks[code / BLOCK].get_or_init(|| self.ask(code / BLOCK));
        block[code % BLOCK]
    }

    /// Asks the engines about a block.
    #[cold]
    fn ask(&self, block: usize) -> Box<Block> {
        let codes = block * BLOCK..(block + 1) * BLOCK;
        let character = |code| u32::try_from(code).ok().and_then(char::from_u32);
        let all: String = codes.filter_map(character).collect();
        let mut table = Box::new([Class::Other as u8; BLOCK]);
        for (pattern, class) in &self.patterns {
            for (start, end) in pattern.find_iter(&all) {
                for character in all[start..end].chars() {
                    table[character as usize % BLOCK] = *class as u8;
                }
            }
        }
        for character in all.chars() {
            let own = &mut table[character as usize % BLOCK];
            if matches!(character, '\n' | '\r') {
                *own = Class::LineEnd as u8;
            }
            let stable = character < FIRST_UNSTABLE
                || (is_nfc_quick(std::iter::once(character)) == IsNormalized::Yes
                    && canonical_combining_class(character) == 0);
            if !stable {
                *own |= UNSTABLE;
            }
        }
        table
    }

    /// The class of the character that begins at `at`, and its length in bytes. `bytes` is UTF-8.
    #[inline]
    pub(super) fn at(&self, bytes: &[u8], at: usize) -> (Class, usize) {
        let (code, width) = decode(bytes, at);
        let class = match self.of(code) & CLASS {
            1 => Class::Letter,
            2 => Class::Number,
            3 => Class::Space,
            4 => Class::LineEnd,
            _ => Class::Other,
        };
        (class, width)
    }

    /// Whether every character of `text` is one that NFC leaves alone wherever it stands.
    pub(super) fn is_stable(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            // The compiler makes wide compares of this.
            let chunk: Option<&[u8; 64]> = bytes[at..].first_chunk();
            if chunk.is_some_and(|c| c.iter().fold(0, |high, &byte| high.max(byte)) < FIRST_LEAD) {
                at += 64;
                continue;
            }
            let end = bytes.len().min(at + 64);
            while at < end {
                if bytes[at] < FIRST_LEAD {
                    at += 1;
                    continue;
                }
                let (code, width) = decode(bytes, at);
                if self.of(code) & UNSTABLE != 0 {
                    return false;
                }
                at += width;
            }
        }
        true
    }
}

/// Below this every character is stable…
const FIRST_UNSTABLE: char = '\u{300}';
/// …and so is a text without a byte from here on: continuation bytes are smaller.
const FIRST_LEAD: u8 = 0xCC;

/// The code point at `at` and its length in bytes. `bytes` is UTF-8 and `at` a boundary.
#[inline]
fn decode(bytes: &[u8], at: usize) -> (usize, usize) {
    let lead = usize::from(bytes[at]);
    let next = |n: usize| usize::from(bytes[at + n]) & 0x3F;
    match lead {
        0..0x80 => (lead, 1),
        0x80..0xE0 => ((lead & 0x1F) << 6 | next(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | next(1) << 6 | next(2), 3),
        _ => ((lead & 0x07) << 18 | next(1) << 12 | next(2) << 6 | next(3), 4),
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Classes, FIRST_UNSTABLE};
    use unicode_normalization_alignments::UnicodeNormalization as _;

    #[test]
    fn ascii_is_as_the_windows_take_it() {
        let classes = Classes::new().expect("the patterns are valid");
        for byte in 0..0x80u8 {
            let expected = match byte {
                b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
                b'0'..=b'9' => Class::Number,
                b'\n' | b'\r' => Class::LineEnd,
                b'\t' | 0x0B | 0x0C | b' ' => Class::Space,
                _ => Class::Other,
            };
            assert_eq!(classes.at(&[byte], 0), (expected, 1), "{byte:#x}");
        }
    }

    #[test]
    fn stable_characters_are_untouched_by_nfc() {
        let classes = Classes::new().expect("the patterns are valid");
        let mut stable = 0;
        for character in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let text = format!("e{character}\u{301}");
            if classes.is_stable(&character.to_string()) {
                stable += 1;
                let alone: String = character.to_string().nfc().map(|(c, _)| c).collect();
                assert_eq!(alone, character.to_string());
                // It does not join with what stands before it.
                let joined: String = text.nfc().map(|(c, _)| c).collect();
                assert!(joined.starts_with('e'), "{character:?}");
            }
        }
        assert!(stable > 1_000_000);
        assert!(!classes.is_stable("e\u{301}") && !classes.is_stable("\u{1161}"));
        assert!((0..FIRST_UNSTABLE as u32).filter_map(char::from_u32).all(|c| {
            let mut nfc = c.to_string().nfc().map(|(c, _)| c).collect::<Vec<_>>();
            nfc.pop() == Some(c) && nfc.is_empty()
        }));
    }
}
