//! What a full row looks like, beyond its averages.

use super::{fraction, fraction::Fractions, run_lengths, run_lengths::RunCounts, shares};
use crate::{Context, Settings};

/// How the masks of a full row are distributed at one step, over all its draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Shares of rows by their masked fraction: bin `i` of `n` holds the rows of which `i / n` or more,
    /// but less than `(i + 1) / n`, is masked; the last one also those that are masked all over.
    pub masked_fraction: Vec<f64>,
    /// Expected numbers of masked runs in a row by their length: entry `r` for runs of `r` positions.
    pub masked_runs: Vec<f64>,
}

impl Distribution {
    /// The expected number of masked positions in a row.
    #[must_use]
    pub fn masked_tokens(&self) -> f64 {
        self.masked_runs.iter().enumerate().map(|(r, count)| r as f64 * count).sum()
    }

    /// The same, those in runs of `lengths` alone.
    #[must_use]
    pub fn masked_in_runs(&self, lengths: std::ops::RangeInclusive<u32>) -> f64 {
        let of =
            |r: u32| self.masked_runs.get(r as usize).map_or(0.0, |count| f64::from(r) * count);
        lengths.map(of).sum()
    }
}

/// Works out distributions for full rows of one length: no prompt, no pads, maskable throughout. It
/// keeps what depends on block size and noise alone, so that the settings of a whole run are cheap.
///
/// Single tokens have closed forms. Blocks are integrated over noise levels: their run lengths hold within
/// 1e-3 of the expected number of masked positions, their masked fractions within 1e-3 of the rows. In rows
/// of more than 1024 tokens the latter are approximate: in twentieths of a row within 0.002 of the rows
/// where a row has room for 512 blocks, 0.005 where for 128, 0.01 where for 64, 0.02 where for 32.
#[derive(Debug)]
pub struct Distributions {
    length: u32,
    bins: usize,
    known: Vec<Part>,
}

/// Blocks of one size at one lowest noise level; `k = 1` stands for single tokens too.
struct Part {
    k: u32,
    eps: f64,
    fractions: Fractions,
    runs: RunCounts,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "blocks of {} from noise {} on", self.k, self.eps)
    }
}

impl Distributions {
    /// For rows of `length` tokens, with `bins` bins of masked fractions (at least one).
    #[must_use]
    pub fn new(length: u32, bins: usize) -> Self {
        Self { length, bins: bins.max(1), known: Vec::new() }
    }

    /// The distribution under `settings`; of `context` only the profile counts.
    ///
    /// # Panics
    /// If S3 is on and a block size is 0, as [`crate::plan_row`].
    #[must_use]
    pub fn of(&mut self, settings: &Settings, context: &Context) -> Distribution {
        let [s1, s2, s3] = shares(settings, context, self.length);
        let mut distribution = Distribution {
            masked_fraction: vec![0.0; self.bins],
            masked_runs: vec![0.0; self.length as usize + 1],
        };
        let each = s3 / settings.block_sizes.len().max(1) as f64;
        let blocks = settings.block_sizes.iter().map(|&k| (k, each));
        let cuts = f64::from(self.length.saturating_sub(1).max(1));
        for (k, share) in std::iter::once((1, 1.0 - s3)).chain(blocks) {
            if share <= 0.0 {
                continue;
            }
            let part = self.part(k, settings.sampling_eps);
            let (whole, cut) = (share * (1.0 - s1 - s2), share * (s1 + s2));
            let add = |into: &mut [f64], from: &[f64], weight: f64| {
                for (into, from) in into.iter_mut().zip(from) {
                    *into += weight * from;
                }
            };
            add(&mut distribution.masked_fraction, &part.fractions.whole, whole);
            add(&mut distribution.masked_fraction, &part.fractions.cut, cut);
            add(&mut distribution.masked_runs, &part.runs.whole, whole);
            add(&mut distribution.masked_runs, &part.runs.cut, cut / cuts);
        }
        distribution
    }

    fn part(&mut self, k: u32, eps: f64) -> &Part {
        assert!(k > 0, "a block has at least one token");
        let same = |part: &Part| part.k == k && part.eps.to_bits() == eps.to_bits();
        let found = self.known.iter().position(same);
        let index = found.unwrap_or_else(|| {
            self.known.push(Part {
                k,
                eps,
                fractions: fraction::fractions(k, eps, self.length, self.bins),
                runs: run_lengths::runs(k, eps, self.length),
            });
            self.known.len() - 1
        });
        &self.known[index]
    }
}
