//! What the rules look at: characters, lines, repetition.

use super::counts::Counts;
use crate::words::{Words, hash_bytes, ngrams};

/// Repetition is looked for in this many lines, paragraphs or words from the start of a document, so
/// that the tables stay small whatever its length.
pub(super) const LOOKED_AT: usize = 1 << 20;

/// The characters of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Characters {
    pub(super) all: u64,
    pub(super) alphanumeric: u64,
    pub(super) replacement: u64,
}

impl Characters {
    pub(super) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let all = count(bytes, |b| b & 0xc0 != 0x80);
        if text.is_ascii() {
            let alphanumeric = count(bytes, |b| b.is_ascii_alphanumeric());
            return Self { all, alphanumeric, replacement: 0 };
        }
        let alphanumeric = text.chars().filter(|c| c.is_alphanumeric()).count() as u64;
        let replacement = text.matches(char::REPLACEMENT_CHARACTER).count() as u64;
        Self { all, alphanumeric, replacement }
    }
}

/// How many bytes hold; in blocks whose count fits a byte, which the compiler turns into vectors.
fn count(bytes: &[u8], holds: impl Fn(u8) -> bool) -> u64 {
    bytes
        .chunks(255)
        .map(|block| u64::from(block.iter().fold(0_u8, |sum, &b| sum + u8::from(holds(b)))))
        .sum()
}

/// The lines of a text, without what ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// How many there are; a line feed at the very end starts none.
    pub count: u64,
    /// The characters of the longest.
    pub longest: u64,
    /// The characters of all of them.
    pub chars: u64,
}

impl Lines {
    /// The lines of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        for line in text.lines() {
            let chars = count(line.as_bytes(), |b| b & 0xc0 != 0x80);
            lines.count += 1;
            lines.chars += chars;
            lines.longest = lines.longest.max(chars);
        }
        lines
    }

    /// The characters of a line on average.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.chars as f64 / self.count.max(1) as f64
    }
}

/// How much of a text says again what it has said before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Repeated {
    /// Share of the pieces.
    pub(super) pieces: f64,
    /// Share of their bytes.
    pub(super) bytes: f64,
}

impl Repeated {
    /// Lines that are not blank, compared without blanks around them.
    pub(super) fn lines(text: &str, counts: &mut Counts) -> Self {
        Self::of(text.lines().map(str::trim).filter(|line| !line.is_empty()), counts)
    }

    /// Paragraphs: lines between blank lines.
    pub(super) fn paragraphs(text: &str, counts: &mut Counts) -> Self {
        Self::of(Paragraphs { rest: text }, counts)
    }

    fn of<'a>(pieces: impl Iterator<Item = &'a str> + Clone, counts: &mut Counts) -> Self {
        let pieces = pieces.take(LOOKED_AT);
        counts.reset(pieces.clone().count());
        let (mut all, mut repeated) = ((0_u64, 0_u64), (0_u64, 0_u64));
        for piece in pieces {
            let again = u64::from(counts.add(hash_bytes(piece.as_bytes())) > 0);
            all = (all.0 + 1, all.1 + piece.len() as u64);
            repeated = (repeated.0 + again, repeated.1 + again * piece.len() as u64);
        }
        Self { pieces: share(repeated.0, all.0), bytes: share(repeated.1, all.1) }
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

#[derive(Clone)]
struct Paragraphs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Paragraphs<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in self.rest.split_inclusive('\n') {
            if line.trim().is_empty() {
                break;
            }
            end += line.len();
        }
        let (paragraph, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(paragraph.trim_end())
    }
}

/// Share of the words' bytes that the most frequent n-gram takes, all its occurrences together; of
/// several, the longest. 0 when every n-gram is there once.
pub(super) fn top_ngram(words: &Words, n: usize, counts: &mut Counts) -> f64 {
    counts.reset(words.hashes().len());
    let mut length = Sliding::new(words, n);
    let mut top = (0, 0);
    for (index, hash) in ngrams(words.hashes(), n).enumerate() {
        top = top.max((counts.add(hash) + 1, length.at(index)));
    }
    let (times, bytes) = top;
    if times < 2 { 0.0 } else { share(u64::from(times) * bytes, all_bytes(words)).min(1.0) }
}

/// Share of the words' bytes in n-grams that repeat an earlier one; every word counts once.
pub(super) fn repeated_ngrams(words: &Words, n: usize, counts: &mut Counts) -> f64 {
    counts.reset(words.hashes().len());
    let (mut covered, mut bytes) = (0, 0);
    for (index, hash) in ngrams(words.hashes(), n).enumerate() {
        if counts.add(hash) > 0 {
            let fresh = &words.spans()[covered.max(index)..index + n];
            bytes += fresh.iter().map(|(_, length)| u64::from(*length)).sum::<u64>();
            covered = index + n;
        }
    }
    share(bytes, all_bytes(words))
}

fn all_bytes(words: &Words) -> u64 {
    words.spans().iter().map(|(_, length)| u64::from(*length)).sum()
}

/// The bytes of the words of one n-gram after the other.
struct Sliding<'a> {
    spans: &'a [(u32, u32)],
    n: usize,
    bytes: u64,
}

impl<'a> Sliding<'a> {
    fn new(words: &'a Words, n: usize) -> Self {
        let first = words.spans().iter().take(n - 1).map(|(_, length)| u64::from(*length)).sum();
        Self { spans: words.spans(), n, bytes: first }
    }

    /// The bytes of the n-gram at `index`; ask for every index in order.
    fn at(&mut self, index: usize) -> u64 {
        let whole = self.bytes + u64::from(self.spans[index + self.n - 1].1);
        self.bytes = whole - u64::from(self.spans[index].1);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::{Characters, Counts, Lines, Repeated, repeated_ngrams, top_ngram};
    use crate::words::Words;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    fn naive_repeated(pieces: &[String]) -> (f64, f64) {
        let mut seen = HashSet::new();
        let again: Vec<&String> = pieces.iter().filter(|piece| !seen.insert(*piece)).collect();
        let bytes = |pieces: &[&String]| pieces.iter().map(|p| p.len()).sum::<usize>() as f64;
        let all: Vec<&String> = pieces.iter().collect();
        let whole = bytes(&all).max(1.0);
        (again.len() as f64 / pieces.len().max(1) as f64, bytes(&again) / whole)
    }

    proptest! {
        #[test]
        fn characters_and_lines_are_counted(text in "(\\PC|[a-z0-9 \r\n\u{fffd}]){0,400}") {
            let chars = Characters::of(&text);
            prop_assert_eq!(chars.all, text.chars().count() as u64);
            let alnum = text.chars().filter(|c| c.is_alphanumeric()).count();
            prop_assert_eq!(chars.alphanumeric, alnum as u64);
            let replaced = text.chars().filter(|&c| c == '\u{fffd}').count();
            prop_assert_eq!(chars.replacement, replaced as u64);
            let lengths: Vec<usize> = text.lines().map(|l| l.chars().count()).collect();
            let lines = Lines::of(&text);
            prop_assert_eq!(lines.count, lengths.len() as u64);
            prop_assert_eq!(lines.longest, lengths.iter().copied().max().unwrap_or(0) as u64);
            prop_assert_eq!(lines.chars, lengths.iter().sum::<usize>() as u64);
        }

        #[test]
        fn repeated_lines_and_paragraphs(text in "([ab]{0,2}[ \r]?\n){0,30}[ab]{0,2}") {
            let mut counts = Counts::default();
            let blank = |line: &&str| line.trim().is_empty();
            let lines: Vec<String> = text
                .split('\n').filter(|line| !blank(line)).map(|line| line.trim().to_owned()).collect();
            let found = Repeated::lines(&text, &mut counts);
            let (pieces, bytes) = naive_repeated(&lines);
            prop_assert!(close(found.pieces, pieces) && close(found.bytes, bytes));

            let mut paragraphs = vec![Vec::new()];
            for line in text.split('\n') {
                if blank(&line) {
                    paragraphs.push(Vec::new());
                } else {
                    paragraphs.last_mut().expect("one").push(line);
                }
            }
            let paragraphs: Vec<String> = paragraphs
                .iter().filter(|p| !p.is_empty()).map(|p| p.join("\n").trim().to_owned()).collect();
            let found = Repeated::paragraphs(&text, &mut counts);
            let (pieces, bytes) = naive_repeated(&paragraphs);
            prop_assert!(close(found.pieces, pieces) && close(found.bytes, bytes), "{paragraphs:?}");
        }

        #[test]
        fn repetition_of_ngrams(text in "((a|bb|ccc|dddd|e) ){0,40}", n in 1_usize..6) {
            let mut words = Words::default();
            words.read(&text, usize::MAX);
            let list: Vec<&str> = text.split_whitespace().collect();
            let all = list.iter().map(|word| word.len()).sum::<usize>().max(1) as f64;
            let mut counts = Counts::default();

            let mut times: HashMap<&[&str], usize> = HashMap::new();
            let mut covered = HashSet::new();
            for (index, gram) in list.windows(n).enumerate() {
                let seen = times.entry(gram).or_default();
                if *seen > 0 {
                    covered.extend(index..index + n);
                }
                *seen += 1;
            }
            let size = |gram: &[&str]| gram.iter().map(|word| word.len()).sum::<usize>();
            let top = times.iter().map(|(gram, &times)| (times, size(gram))).max();
            let top = top.filter(|(times, _)| *times > 1).map_or(0.0, |(t, b)| (t * b) as f64 / all);
            prop_assert!(close(top_ngram(&words, n, &mut counts), top.min(1.0)));
            let bytes: usize = covered.iter().map(|&index| list[index].len()).sum();
            prop_assert!(close(repeated_ngrams(&words, n, &mut counts), bytes as f64 / all));
        }
    }
}
