//! Which rows of a set are exported.

use super::ExportError;
use crate::{ShardSet, held_out_rows};
use std::ops::Range;

/// Which side of the held-out boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Every row.
    #[default]
    All,
    /// The rows that training reads.
    Train,
    /// The last rows of every source, which training never reads.
    HeldOut,
}

/// What somebody wants of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Names of sources; empty: all of them.
    pub sources: Vec<String>,
    /// Which side of the held-out boundary.
    pub part: Part,
    /// The share that is held out, `data.held_out` of the manifest.
    pub held_out: f64,
}

/// Rows of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The source's number in the set.
    pub source: u16,
    /// Its name.
    pub name: String,
    /// Its chosen rows, counted over the whole set; at least one.
    pub rows: Range<u64>,
}

impl Selection {
    /// The chosen rows, by source, in the order of the set; sources without any are left out.
    ///
    /// # Errors
    /// If a named source is not in the set, the share is none, or no row is chosen.
    pub fn of(&self, set: &ShardSet) -> Result<Vec<Selected>, ExportError> {
        let known = || set.sources().iter().map(|source| source.name.clone()).collect();
        let missing = |name: &&String| !set.sources().iter().any(|source| source.name == **name);
        if let Some(name) = self.sources.iter().find(missing) {
            return Err(ExportError::NoSource { name: name.clone(), known: known() });
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return Err(ExportError::HeldOut { share: self.held_out });
        }
        let mut selected = Vec::new();
        for (number, source) in (0..).zip(set.sources()) {
            if !self.sources.is_empty() && !self.sources.contains(&source.name) {
                continue;
            }
            let end = source.first_row + source.rows;
            let boundary = end - held_out_rows(source.rows, self.held_out);
            let rows = match self.part {
                Part::All => source.first_row..end,
                Part::Train => source.first_row..boundary,
                Part::HeldOut => boundary..end,
            };
            if !rows.is_empty() {
                selected.push(Selected { source: number, name: source.name.clone(), rows });
            }
        }
        if selected.is_empty() { Err(ExportError::Empty) } else { Ok(selected) }
    }
}

/// The chosen rows shard by shard, as far as a shard holds any: formats of rows get a file for each.
#[must_use]
pub fn by_shard(set: &ShardSet, selected: &[Selected]) -> Vec<Vec<Range<u64>>> {
    let shards = set.index().shards.iter().map(|shard| {
        let shard = shard.first_row..shard.first_row + shard.rows;
        let within = selected
            .iter()
            .map(|chosen| chosen.rows.start.max(shard.start)..chosen.rows.end.min(shard.end));
        within.filter(|rows| !rows.is_empty()).collect::<Vec<_>>()
    });
    shards.filter(|rows| !rows.is_empty()).collect()
}
