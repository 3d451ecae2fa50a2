//! How documents become rows, and how often the rows of a source are read.

use crate::{Data, Source};
use serde::{Deserialize, Serialize};

/// How documents are packed into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// One after the other; a document that does not fit goes on in the next row.
    #[default]
    Concat,
    /// Whole, into the row with the least room that takes them; only documents longer than a row
    /// are split.
    BestFit,
}

impl Packing {
    /// Whether this is what a manifest without the key means.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Data {
    /// The mixing weight of a source with so many training rows; nothing when the sources are read
    /// in proportion to their rows. With `epochs` in any source, the weight is rows × epochs.
    #[must_use]
    pub fn weight_of(&self, source: &Source, train_rows: u64) -> Option<f64> {
        if self.counts_epochs() { Some(visits(source, train_rows)) } else { source.weight }
    }

    /// The positions of one pass over the whole: every training row as often as its source's
    /// `epochs` say. `train_rows` gives the training rows of a source by its name.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and `as` saturates"
    )]
    pub fn pass_rows(&self, train_rows: impl Fn(&str) -> u64) -> u64 {
        let rows = |source: &Source| train_rows(&source.name);
        if !self.counts_epochs() {
            return self.sources.iter().map(rows).sum();
        }
        let all = self.sources.iter().map(|source| visits(source, rows(source)));
        all.sum::<f64>().round() as u64
    }

    /// The share of the training positions that each source gets, in their order, given its
    /// training rows.
    #[must_use]
    pub fn shares(&self, train_rows: &[u64]) -> Vec<f64> {
        let weights: Vec<f64> = self
            .sources
            .iter()
            .zip(train_rows)
            .map(|(source, &rows)| self.weight_of(source, rows).unwrap_or(rows as f64))
            .collect();
        let sum = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        weights.iter().map(|weight| weight / sum).collect()
    }

    fn counts_epochs(&self) -> bool {
        self.sources.iter().any(|source| source.epochs.is_some())
    }
}

/// How often rows of the source are read in one pass over the whole.
fn visits(source: &Source, train_rows: u64) -> f64 {
    train_rows as f64 * source.epochs.unwrap_or(1.0)
}
