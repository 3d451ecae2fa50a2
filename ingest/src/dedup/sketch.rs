//! A document's word n-grams as a short sketch, from which the similarity of two documents can be
//! estimated and by whose bands similar ones are found.
//!
//! The sketch is that of Dahlgaard, Knudsen and Thorup ("Fast similarity sketching", 2017): in every
//! round, each n-gram falls by its hash into one of k bins, and a bin keeps its smallest value of the
//! first round that reached it. A long document fills all bins in the first round, so that an n-gram
//! costs one hash instead of k; a short one takes a few rounds. The share of bins in which two sketches
//! agree is an unbiased estimate of the Jaccard similarity of the two sets of n-grams, whatever their
//! sizes.

use crate::words::{Words, mix, ngrams, scatter};
use coda_manifests::Near;

/// Words hashed at a time: their hashes stay in the cache.
const CHUNK: usize = 1 << 15;
/// Above this many n-grams those that are there twice are taken out before the second round.
const DISTINCT_ABOVE: usize = 1 << 12;
const SEED_STEP: u64 = 0xa076_1d64_78bd_642f;
const BAND_STEP: u64 = 0xe703_7ed1_a0b4_28db;
const BYTE_KEY: u64 = 0x8ebc_6af0_9c88_c6e3;

/// What near duplicates are found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// One hash a band.
    pub bands: Box<[u64]>,
    /// One byte a bin.
    pub bins: Box<[u8]>,
}

/// Makes sketches.
#[derive(Clone, Debug)]
pub struct Sketcher {
    ngram: usize,
    bands: usize,
    rows: usize,
    seed: u64,
}

impl Sketcher {
    /// A maker of sketches with these parameters.
    #[must_use]
    pub fn new(near: &Near) -> Self {
        Self {
            ngram: near.ngram as usize,
            bands: near.bands as usize,
            rows: near.rows as usize,
            seed: mix(near.seed, SEED_STEP),
        }
    }

    /// Bands of a sketch.
    #[must_use]
    pub const fn bands(&self) -> usize {
        self.bands
    }

    /// Bins of a sketch.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.bands * self.rows
    }

    /// The sketch of a text; none when the text has no words. A text of fewer words than an n-gram
    /// counts as one n-gram. `words` may have read the start of the text.
    #[must_use]
    pub fn sketch(&self, text: &str, words: &mut Words) -> Option<Sketch> {
        let mut bins = Bins { values: vec![u64::MAX; self.bins()], seed: self.seed };
        let mut whole = true;
        loop {
            words.read(text, CHUNK);
            bins.round(0, ngrams(words.hashes(), self.ngram));
            if words.is_at_end(text) {
                break;
            }
            whole = false;
            words.keep_last(self.ngram - 1);
        }
        if words.hashes().is_empty() {
            return None;
        }
        if bins.are_open() {
            let grams = if whole { self.few(words.hashes()) } else { self.distinct(text, words) };
            // In the second k rounds every bin is met in turn.
            for round in 1..=2 * bins.values.len() as u64 {
                bins.round(round, grams.iter().copied());
                if !bins.are_open() {
                    break;
                }
            }
        }
        Some(self.pack(&bins.values))
    }

    /// The n-grams of a text that was read as a whole.
    fn few(&self, words: &[u64]) -> Vec<u64> {
        let mut grams: Vec<u64> = ngrams(words, self.ngram.min(words.len())).collect();
        if grams.len() > DISTINCT_ABOVE {
            grams.sort_unstable();
            grams.dedup();
        }
        grams
    }

    /// The distinct n-grams of a long text. There are not many, or all bins would have been filled.
    fn distinct(&self, text: &str, words: &mut Words) -> Vec<u64> {
        let mut grams = Vec::new();
        words.clear();
        loop {
            words.read(text, CHUNK);
            grams.extend(ngrams(words.hashes(), self.ngram));
            grams.sort_unstable();
            grams.dedup();
            if words.is_at_end(text) {
                return grams;
            }
            words.keep_last(self.ngram - 1);
        }
    }

    fn pack(&self, values: &[u64]) -> Sketch {
        let band = |rows: &[u64]| rows.iter().fold(BAND_STEP, |hash, &value| mix(value, hash));
        let bands = values.chunks(self.rows).zip(0_u64..);
        #[allow(clippy::cast_possible_truncation, reason = "one byte is what is kept")]
        let byte = |&value: &u64| mix(value, BYTE_KEY) as u8;
        Sketch {
            bands: bands.map(|(rows, number)| mix(band(rows), number)).collect(),
            bins: values.iter().map(byte).collect(),
        }
    }
}

struct Bins {
    /// Round and smallest value; the largest number while a bin is open.
    values: Vec<u64>,
    seed: u64,
}

impl Bins {
    fn round(&mut self, round: u64, grams: impl Iterator<Item = u64>) {
        let bins = self.values.len() as u64;
        let key = mix(self.seed, round);
        for gram in grams {
            let hash = scatter(gram, key);
            let (high, low) = (hash >> 32, hash & 0xffff_ffff);
            let bin = if round <= bins { (high * bins) >> 32 } else { round - bins - 1 };
            #[allow(clippy::cast_possible_truncation, reason = "below the number of bins")]
            let value = &mut self.values[bin as usize];
            // Values of earlier rounds are smaller, so a bin keeps its first round.
            *value = (*value).min(round << 32 | low);
        }
    }

    fn are_open(&self) -> bool {
        self.values.contains(&u64::MAX)
    }
}

/// The estimated Jaccard similarity of two documents: the share of bins that agree, without those
/// that agree by chance because only a byte of each was kept.
#[must_use]
pub fn similarity(a: &[u8], b: &[u8]) -> f64 {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(1) as f64;
    let by_chance = 1.0 / 256.0;
    ((same - by_chance) / (1.0 - by_chance)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Sketch, Sketcher, similarity};
    use crate::words::{Words, scatter};
    use coda_manifests::Near;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    const NEAR: Near = Near { threshold: 0.8, ngram: 1, bands: 16, rows: 8, seed: 0 };

    fn of(near: &Near, text: &str) -> Sketch {
        Sketcher::new(near).sketch(text, &mut Words::default()).expect("words")
    }

    /// Two sets of words of which `common` are in both, and `own` more in each.
    fn pair(common: usize, own: usize, salt: u64) -> (String, String) {
        let mut texts = [String::new(), String::new()];
        for number in 0..common + 2 * own {
            let word = scatter(number as u64, salt << 32);
            for (side, text) in texts.iter_mut().enumerate() {
                let mine = number < common || (number - common) % 2 == side;
                let _ = if mine { write!(text, "w{word} ") } else { Ok(()) };
            }
        }
        let [a, b] = texts;
        (a, b)
    }

    /// Mean and spread of the estimates over many pairs, for short, middling and long documents; and
    /// the share of pairs that agree in a band, against the curve of the documentation.
    #[test]
    fn estimates_are_unbiased_and_bands_follow_their_curve() {
        for (common, own) in [(6, 1), (40, 20), (400, 50), (400, 400), (1200, 150)] {
            let truth = common as f64 / (common + 2 * own) as f64;
            let pairs = 600;
            let (mut sum, mut squares, mut met) = (0.0, 0.0, 0);
            for salt in 0..pairs {
                let (a, b) = pair(common, own, salt);
                let (a, b) = (of(&NEAR, &a), of(&NEAR, &b));
                let error = similarity(&a.bins, &b.bins) - truth;
                sum += error;
                squares += error * error;
                met += u32::from(a.bands.iter().zip(&b.bands).any(|(a, b)| a == b));
            }
            let pairs = pairs as f64;
            let spread = (truth * (1.0 - truth) / 128.0).sqrt();
            // Four standard errors of the mean; the spread of independent bins with a tenth on top.
            assert!((sum / pairs).abs() < 4.0 * spread / pairs.sqrt() + 1e-3, "bias at {truth}");
            assert!((squares / pairs).sqrt() < 1.1 * spread + 2e-3, "spread at {truth}");
            let curve = 1.0 - (1.0 - truth.powi(8)).powi(16);
            let met = f64::from(met) / pairs;
            let standard = (curve * (1.0 - curve) / pairs).sqrt();
            assert!((met - curve).abs() < 4.0 * standard + 0.02, "{met} met, {curve} expected");
        }
    }

    #[test]
    fn the_order_of_reading_and_repetition_do_not_matter() {
        let near = Near { ngram: 3, ..NEAR };
        let text: String = (0..CHUNK * 2 + 7).fold(String::new(), |mut text, number| {
            let _ = write!(text, "{} ", number % 1009);
            text
        });
        let whole = of(&near, &text);
        let mut ahead = Words::default();
        ahead.read(&text, CHUNK * 3 / 2);
        assert_eq!(Sketcher::new(&near).sketch(&text, &mut ahead), Some(whole.clone()));
        // The same set of n-grams, each once.
        let once =
            &text[..text.char_indices().filter(|(_, c)| *c == ' ').nth(1010).expect("many").0];
        assert_eq!(of(&near, once), whole);
        // Two n-grams alone, many times: the rounds after the first run over the distinct ones.
        let two = "a b ".repeat(CHUNK);
        assert_eq!(of(&Near { ngram: 2, ..NEAR }, &two), of(&Near { ngram: 2, ..NEAR }, "a b a"));
    }

    #[test]
    fn short_texts_are_one_ngram_and_seeds_differ() {
        let near = Near { ngram: 5, ..NEAR };
        assert_eq!(of(&near, "a B"), of(&near, "A, b!"));
        assert_ne!(of(&near, "a b"), of(&near, "a c"));
        assert_ne!(of(&near, "a b"), of(&Near { seed: 1, ..near.clone() }, "a b"));
        assert!(Sketcher::new(&near).sketch(" ... ", &mut Words::default()).is_none());
    }

    proptest! {
        #[test]
        fn any_parameters_give_a_whole_sketch(
            text in "[a-z]{1,3}( [a-z]{1,2}){0,30}",
            ngram in 1_u32..8, bands in 1_u32..20, rows in 1_u32..10, seed: u64,
        ) {
            let near = Near { threshold: 0.5, ngram, bands, rows, seed };
            let sketch = of(&near, &text);
            prop_assert_eq!(sketch.bands.len(), bands as usize);
            prop_assert_eq!(sketch.bins.len(), (bands * rows) as usize);
            prop_assert!(similarity(&sketch.bins, &sketch.bins) >= 1.0);
        }
    }
}
