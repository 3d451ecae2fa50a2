//! Text to words, as hashes: what repetition, near duplicates and benchmark texts are found by.
//!
//! A word is a run of letters, digits and `_`, ASCII letters in lower case. The rule works on bytes,
//! so that it costs a fraction of tokenization, and is the same for every language:
//!
//! * ASCII other than letters, digits and `_` separates; so do U+0080–U+00BF (signs), U+2000–U+2FFF
//!   (punctuation, symbols), U+3000–U+303F (punctuation of Chinese and Japanese) and U+F000–U+FFFF;
//! * characters of U+3040–U+9FFF (Chinese, Japanese) and above U+FFFF are each a word;
//! * everything else belongs to words.

/// Multipliers with about as many ones as zeros, from the digits of e and of the golden ratio.
const FOLD: u64 = 0xb7e1_5162_8aed_2a6b;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes 64 bits: the halves of a product, laid on each other.
#[must_use]
pub const fn mix(value: u64, key: u64) -> u64 {
    let product = (value ^ key) as u128 * FOLD as u128;
    #[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let halves = (product as u64, (product >> 64) as u64);
    (halves.0 ^ halves.1).wrapping_add(STEP)
}

/// Mixes 64 bits so well that every part of the result can be used as a number of its own: the last
/// step of `SplitMix64` (Stafford's variant 13).
#[must_use]
pub const fn scatter(value: u64, key: u64) -> u64 {
    let value = value ^ key;
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The hash of some bytes: eight at a time.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(u64::from_le_bytes(*chunk), hash);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(u64::from_le_bytes(last), hash)
}

/// Words for which memory is kept from one text to the next.
const KEEP: usize = 1 << 16;

/// The words of a text, or of a part of it.
#[derive(Default)]
pub struct Words {
    hashes: Vec<u64>,
    /// Where each word lies in the text: its start and its length.
    spans: Vec<(u32, u32)>,
    /// Byte of the text where the next word is looked for.
    next: usize,
}

/// What a byte is to words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Separator,
    Word,
    /// Starts a character of several bytes.
    Lead,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Separator; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'_' {
            kinds[byte] = Kind::Word;
        } else if b >= 0x80 {
            kinds[byte] = Kind::Lead;
        }
        byte += 1;
    }
    kinds
};

impl Words {
    /// Forgets the text before.
    pub fn clear(&mut self) {
        self.keep_last(0);
        self.next = 0;
        // The lists of one long document do not stay in memory.
        self.hashes.shrink_to(KEEP);
        self.spans.shrink_to(KEEP);
    }

    /// Reads on in `text` until `limit` words are held or the text ends.
    pub fn read(&mut self, text: &str, limit: usize) {
        let bytes = text.as_bytes();
        let mut at = self.next;
        while at < bytes.len() && self.hashes.len() < limit {
            match KINDS[usize::from(bytes[at])] {
                Kind::Separator => at += 1,
                Kind::Word => at = self.word(bytes, at),
                Kind::Lead => match character(bytes, at) {
                    (length, Kind::Separator) => at += length,
                    (length, Kind::Lead) => {
                        self.push(bytes, at, at + length);
                        at += length;
                    }
                    (_, Kind::Word) => at = self.word(bytes, at),
                },
            }
        }
        self.next = at;
    }

    /// Whether the whole text was read.
    #[must_use]
    pub fn is_at_end(&self, text: &str) -> bool {
        self.next >= text.len()
    }

    /// Forgets all words but the last `count`, so that n-grams go on over the seam.
    pub fn keep_last(&mut self, count: usize) {
        let from = self.hashes.len().saturating_sub(count);
        self.hashes.drain(..from);
        self.spans.drain(..from);
    }

    /// A hash for each word held.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The start of each word in the text, and its bytes.
    #[must_use]
    pub fn spans(&self) -> &[(u32, u32)] {
        &self.spans
    }

    /// Takes the word that starts at `start`; the byte after it.
    fn word(&mut self, bytes: &[u8], start: usize) -> usize {
        let mut at = start;
        loop {
            while at < bytes.len() && KINDS[usize::from(bytes[at])] == Kind::Word {
                at += 1;
            }
            if at == bytes.len() || bytes[at] < 0x80 {
                break;
            }
            let (length, kind) = character(bytes, at);
            if kind != Kind::Word {
                break;
            }
            at += length;
        }
        self.push(bytes, start, at);
        at
    }

    fn push(&mut self, bytes: &[u8], start: usize, end: usize) {
        self.hashes.push(hash_word(bytes, start, end));
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.spans.push((short(start), short(end - start)));
    }
}

/// Length and kind of the character of several bytes at `at`; `Lead` is a word of its own.
fn character(bytes: &[u8], at: usize) -> (usize, Kind) {
    match bytes[at] {
        0xc2 => (2, Kind::Separator),
        0xc3..=0xdf => (2, Kind::Word),
        0xe2 | 0xef => (3, Kind::Separator),
        0xe3 if bytes[at + 1] == 0x80 => (3, Kind::Separator),
        0xe3..=0xe9 => (3, Kind::Lead),
        0xf0.. => (4, Kind::Lead),
        _ => (3, Kind::Word),
    }
}

/// Eight bytes at a time, ASCII letters in lower case.
fn hash_word(bytes: &[u8], start: usize, end: usize) -> u64 {
    let mut hash = (end - start) as u64;
    let mut at = start;
    loop {
        let left = end - at;
        let eight = bytes[at..].first_chunk::<8>();
        let loaded = eight.map_or_else(
            || {
                let mut last = [0; 8];
                let length = left.min(8);
                last[..length].copy_from_slice(&bytes[at..at + length]);
                u64::from_le_bytes(last)
            },
            |eight| u64::from_le_bytes(*eight),
        );
        let word = if left < 8 { loaded & (u64::MAX >> (64 - 8 * left)) } else { loaded };
        // The bit that tells small ASCII letters from large ones; the other bytes of words that have
        // it not set are `_` alone, which stays different from all of them.
        let ascii = (!word & 0x8080_8080_8080_8080) >> 2;
        hash = mix(word | ascii, hash);
        if left <= 8 {
            return hash;
        }
        at += 8;
    }
}

/// The hashes of all runs of `n` words, in order. The same words give the same hash, whatever text
/// they are in.
pub fn ngrams(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    // A polynomial in STEP, modulo 2^64, of which every step adds a word and takes one away.
    let leave = (0..n).fold(1_u64, |power, _| power.wrapping_mul(STEP));
    let (first, rest) = words.split_at(n.saturating_sub(1).min(words.len()));
    let mut hash =
        first.iter().fold(0_u64, |hash, &word| hash.wrapping_mul(STEP).wrapping_add(word));
    rest.iter().enumerate().map(move |(index, &word)| {
        hash = hash.wrapping_mul(STEP).wrapping_add(word);
        if index > 0 {
            hash = hash.wrapping_sub(words[index - 1].wrapping_mul(leave));
        }
        hash
    })
}

#[cfg(test)]
mod tests {
    use super::{Words, ngrams};
    use proptest::prelude::*;

    fn read(text: &str) -> Words {
        let mut words = Words::default();
        words.read(text, usize::MAX);
        words
    }

    /// The rule of the module, by characters.
    fn naive(text: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for c in text.chars() {
            let separates = match c {
                '\0'..='\x7f' => !c.is_ascii_alphanumeric() && c != '_',
                '\u{80}'..='\u{bf}' | '\u{2000}'..='\u{303f}' | '\u{f000}'..='\u{ffff}' => true,
                _ => false,
            };
            let alone = matches!(c, '\u{3040}'..='\u{9fff}' | '\u{10000}'..);
            if separates || alone {
                words.push(String::new());
            }
            if !separates {
                words.last_mut().expect("one").push(c.to_ascii_lowercase());
            }
            if alone {
                words.push(String::new());
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn words_of_known_texts() {
        let texts = |text: &str| -> Vec<String> {
            let words = read(text);
            let of = |&(start, length): &(u32, u32)| {
                text[start as usize..(start + length) as usize].to_owned()
            };
            words.spans().iter().map(of).collect()
        };
        assert_eq!(texts("let x_1 = it's(\u{201c}Été\u{201d});"), ["let", "x_1", "it", "s", "Été"]);
        assert_eq!(texts("数据，集。a"), ["数", "据", "集", "a"]);
        assert_eq!(read("Hello WORLD_1").hashes(), read("hello world_1").hashes());
        assert_ne!(read("_").hashes(), read("\u{ff}").hashes());
        assert!(read(" \n").hashes().is_empty());
    }

    proptest! {
        #[test]
        fn words_are_those_of_the_rule(text in "(\\PC|[ a-zA-Z_\n.]|[\u{c0}-\u{4ff}]|[\u{3000}-\u{30ff}]){0,60}") {
            let expected = naive(&text);
            let words = read(&text);
            prop_assert_eq!(words.hashes().len(), expected.len());
            for ((word, &(start, length)), &hash) in
                expected.iter().zip(words.spans()).zip(words.hashes())
            {
                let found = &text[start as usize..(start + length) as usize];
                prop_assert_eq!(&found.to_ascii_lowercase(), word);
                // The same hash wherever it stands.
                let alone = read(word);
                prop_assert_eq!(alone.hashes().to_vec(), vec![hash]);
            }
        }

        #[test]
        fn a_text_read_in_parts_gives_the_same_ngrams(
            text in "([a-e]{1,12} ?|é|数){0,50}", n in 1_usize..6, part in 1_usize..9,
        ) {
            let whole: Vec<u64> = ngrams(read(&text).hashes(), n).collect();
            let (mut words, mut parts) = (Words::default(), Vec::new());
            loop {
                words.keep_last(n - 1);
                words.read(&text, n - 1 + part);
                parts.extend(ngrams(words.hashes(), n));
                if words.is_at_end(&text) {
                    break;
                }
            }
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn ngrams_are_equal_when_their_words_are(words in prop::collection::vec(0_u64..3, 0..40), n in 1_usize..5) {
            let hashes: Vec<u64> = ngrams(&words, n).collect();
            prop_assert_eq!(hashes.len(), (words.len() + 1).saturating_sub(n));
            for (i, a) in words.windows(n).enumerate() {
                for (j, b) in words.windows(n).enumerate() {
                    prop_assert_eq!(a == b, hashes[i] == hashes[j]);
                }
            }
        }
    }
}
