//! Where a document stands in a finished shard set: its ids are looked for.

use coda_shards::{Check, ShardError, ShardSet};
use rayon::prelude::*;
use serde::Serialize;
use std::path::Path;

/// Where a document begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The row of the set, from 0, as `inspect --row` takes it.
    pub row: u64,
    /// The position in the row.
    pub token: u32,
}

/// All places in the rows of a source at which a document with these ids begins, in order: more than
/// one where its text is there more than once. What does not fit its first row is not compared.
///
/// # Errors
/// If the set cannot be opened or read.
pub fn placed(dir: &Path, source: &str, ids: &[u32]) -> Result<Vec<Placed>, ShardError> {
    let set = ShardSet::open_with(dir, Check::Structure)?;
    let Some(source) = set.sources().iter().find(|known| known.name == source) else {
        return Ok(Vec::new());
    };
    let rows = source.first_row..source.first_row + source.rows;
    let found: Vec<Vec<Placed>> = rows
        .into_par_iter()
        .map(|number| {
            let row = set.row(number)?;
            let ends = row.segments.iter().skip(1).copied().chain([row.valid_len]);
            let here = row.segments.iter().zip(ends).filter(|&(&start, end)| {
                let there = &row.tokens[start as usize..end as usize];
                let cut = end == set.row_length() && there.len() < ids.len();
                there == ids || (cut && ids.starts_with(there))
            });
            Ok(here.map(|(&token, _)| Placed { row: number, token }).collect())
        })
        .collect::<Result<_, ShardError>>()?;
    Ok(found.concat())
}
