//! Positions of training → rows → masks → batches.
//!
//! Step `s` (from 0) takes the positions `s · global_batch .. (s + 1) · global_batch` of
//! [`coda_shards::Order`], so the whole state of the feed is the number of steps done (and the clocks
//! of schedules that wait for a loss, which the fit loop keeps). What a row looks like depends on its
//! position alone: any split of a global batch into micro-batches gives the same rows with the same
//! masks.

mod held_out;
mod prepare;

pub use held_out::HeldOutRows;
pub use prepare::{Prepared, StepTally};

use crate::engine::Batch;
use coda_curriculum::{Clocks, Context, Settings, SpansNotNoted, SpecialIds};
use coda_manifests::Manifest;
use coda_shards::{Order, OrderError, Position, ShardError, ShardSet, SourceRange};
use coda_stages::Recipe;
use prepare::prepare;
use rayon::prelude::*;
use std::ops::Range;

/// The rows of a run.
pub struct Feed {
    set: ShardSet,
    order: Order,
    recipe: Recipe,
    /// Is told of which steps rows have been made.
    #[cfg(test)]
    pub(crate) made: Option<std::sync::mpsc::Sender<u64>>,
}

/// A feed that cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The shard set is damaged or cannot be read.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// The sources' rows and weights give no order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The shard set is not what the manifest describes.
    #[error("the shard set {set} does not fit the manifest: {problem}")]
    Misfit {
        /// Its directory.
        set: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// Masks are to follow spans that the rows do not have.
    #[error(transparent)]
    NoSpans(#[from] SpansNotNoted),
}

impl FeedError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Shards(error) => error.hint(),
            Self::Order(error) => error.hint(),
            Self::Misfit { .. } => {
                Some("ingest the manifest again, or train with the manifest of the set".to_owned())
            }
            Self::NoSpans(error) => Some(error.hint()),
        }
    }
}

/// The sources' ranges with the manifest's held-out share and weights.
///
/// # Errors
/// If the set has other sources than the manifest, or rows of another length.
pub fn source_ranges(set: &ShardSet, manifest: &Manifest) -> Result<Vec<SourceRange>, FeedError> {
    let misfit = |problem| FeedError::Misfit { set: set.dir().display().to_string(), problem };
    if set.row_length() != manifest.data.row_length {
        return Err(misfit(format!(
            "its rows have {} tokens, data.row_length is {}",
            set.row_length(),
            manifest.data.row_length
        )));
    }
    let mut ranges = set.source_ranges(manifest.data.held_out);
    for (range, source) in ranges.iter_mut().zip(set.sources()) {
        let Some(wanted) = manifest.data.sources.iter().find(|s| s.name == source.name) else {
            return Err(misfit(format!("its source {} is not in the manifest", source.name)));
        };
        range.weight = manifest.data.weight_of(wanted, range.rows - range.held_out_rows);
    }
    if let Some(missing) =
        manifest.data.sources.iter().find(|s| !set.sources().iter().any(|o| o.name == s.name))
    {
        return Err(misfit(format!("the source {} is not in it", missing.name)));
    }
    Ok(ranges)
}

/// What the curriculum says at a step: the same for all parts of its batch.
#[derive(Clone, Debug)]
pub struct StepSettings {
    /// For the rows of each source, by its number.
    of_source: Vec<Settings>,
    context: Context,
    step: u64,
}

impl Feed {
    /// The feed of a recipe over a shard set.
    ///
    /// # Errors
    /// If the set does not fit, or there is nothing to train on.
    pub fn new(set: ShardSet, ranges: &[SourceRange], recipe: &Recipe) -> Result<Self, FeedError> {
        let order = Order::new(recipe.seed, ranges)?;
        if let Some(missing) = recipe.curriculum.lacks(set.index().spans) {
            let set = set.dir().display().to_string();
            return Err(SpansNotNoted { set, missing }.into());
        }
        Ok(Self {
            set,
            order,
            recipe: recipe.clone(),
            #[cfg(test)]
            made: None,
        })
    }

    /// The shard set.
    #[must_use]
    pub const fn set(&self) -> &ShardSet {
        &self.set
    }

    /// The row order.
    #[must_use]
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// Rows per optimizer step.
    #[must_use]
    pub const fn global_batch(&self) -> u32 {
        self.recipe.global_batch
    }

    /// What the curriculum says at step `step`. `clocks` are those of the schedules with a hold.
    #[must_use]
    pub fn settings(&self, step: u64, clocks: &Clocks) -> StepSettings {
        let progress = self.recipe.progress(step);
        let curriculum = self.recipe.curriculum_at(clocks);
        let of = |name: &str| curriculum.of_source(name).settings(progress);
        let settings = self.set.sources().iter().map(|source| of(&source.name));
        StepSettings { of_source: settings.collect(), context: curriculum.context(step), step }
    }

    /// Which rows step `step` reads.
    #[must_use]
    pub fn positions(&self, step: u64) -> Vec<Position> {
        let first = step * u64::from(self.recipe.global_batch);
        (0..u64::from(self.recipe.global_batch)).map(|i| self.order.at(first + i)).collect()
    }

    /// The rows `part` (within `0..global_batch`) of a step, masked.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn prepare(
        &self,
        settings: &StepSettings,
        part: Range<u32>,
    ) -> Result<Vec<Prepared>, FeedError> {
        let StepSettings { of_source, context, step } = settings;
        let first = step * u64::from(self.recipe.global_batch);
        let rows = part
            .into_par_iter()
            .map(|i| {
                let position = self.order.at(first + u64::from(i));
                self.prepare_row(position, |source| &of_source[source], context, Settings::level)
            })
            .collect();
        #[cfg(test)]
        if let Some(made) = &self.made {
            // The test may have ended.
            let _ = made.send(*step);
        }
        rows
    }

    /// `settings` gives those of a source by its number, which the shard set has checked.
    fn prepare_row<'a>(
        &self,
        position: Position,
        settings: impl Fn(usize) -> &'a Settings,
        context: &Context,
        level: impl FnOnce(&Settings, f64) -> f64,
    ) -> Result<Prepared, FeedError> {
        let specials = self.set.specials();
        let ids = SpecialIds { mask: specials.mask, pad: specials.pad };
        let documents = self.recipe.document_attention.then_some(specials.eos);
        let row = self.set.row(position.row)?;
        let settings = settings(usize::from(row.source));
        let level = |u| level(settings, u);
        Ok(prepare(position, &row, settings, context, ids, documents, level))
    }

    /// The batch of some prepared rows.
    #[must_use]
    pub fn batch(&self, rows: &[Prepared]) -> Batch {
        let len = self.set.row_length() as usize;
        let documents = self.recipe.document_attention;
        Batch {
            rows: rows.len(),
            len,
            input_ids: rows.iter().flat_map(|row| row.clean.iter().copied()).collect(),
            noised_ids: rows.iter().flat_map(|row| row.noised.iter().copied()).collect(),
            sigma: rows.iter().map(|row| row.plan.sigma).collect(),
            segment_ids: documents
                .then(|| rows.iter().flat_map(|row| row.segment_ids.iter().copied()).collect()),
        }
    }
}
