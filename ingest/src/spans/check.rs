//! Holds the spans of a finished set against its text.

use super::{Scratch, SpanFinder};
use coda_shards::{Check, Problem, ShardError, ShardSet};
use rayon::prelude::*;
use std::{fs, path::Path};

/// What came of holding spans against text.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// For each shard the first row whose spans are not those of its text. Nothing in sets without spans.
    All(Vec<Problem>),
    /// Why the spans could not be found again. They may be right all the same: a set need not have been
    /// made by us.
    Nothing(String),
}

/// Finds the spans of a set, which is sound otherwise, anew.
///
/// # Errors
/// If the set cannot be opened.
pub fn check(dir: &Path) -> Result<Checked, ShardError> {
    let set = ShardSet::open_with(dir, Check::Structure)?;
    let Some(kinds) = set.index().spans else { return Ok(Checked::All(Vec::new())) };
    let path = set.tokenizer_path();
    let json = fs::read(&path)
        .map_err(|error| coda_shards::commit::FileError::new("read", &path, error))?;
    let finder = match SpanFinder::new(kinds, &json) {
        Ok(finder) => finder,
        Err(error) => return Ok(Checked::Nothing(error.to_string())),
    };
    let shards = &set.index().shards;
    let problems: Vec<Option<Problem>> = shards
        .par_iter()
        .map(|shard| {
            let mut scratch = Scratch::default();
            for number in shard.first_row..shard.first_row + shard.rows {
                let row = set.row(number)?;
                let valid = row.tokens.get(..row.valid_len as usize).unwrap_or_default();
                if !finder.find(&mut scratch, valid, row.segments).into_iter().eq(row.spans.iter())
                {
                    let message = "its spans are not those of its text".to_owned();
                    let (file, row) = (shard.file.clone(), Some(number));
                    return Ok(Some(Problem { file, block: None, row, message }));
                }
            }
            Ok(None)
        })
        .collect::<Result<_, ShardError>>()?;
    Ok(Checked::All(problems.into_iter().flatten().collect()))
}
