//! Holds the spans of a finished set against its text.

use super::{Scratch, SpanFinder};
use coda_shards::{Check, Problem, ShardError, ShardSet};
use rayon::prelude::*;
use std::{fs, path::Path};

/// What is wrong with the spans of a set that is sound otherwise: for each shard the first row whose
/// spans are not those of its text. Nothing in sets without spans.
///
/// # Errors
/// If the set cannot be opened.
pub fn check(dir: &Path) -> Result<Vec<Problem>, ShardError> {
    let set = ShardSet::open_with(dir, Check::Structure)?;
    let Some(kinds) = set.index().spans else { return Ok(Vec::new()) };
    let file = |name: &str, row: Option<u64>, message: String| Problem {
        file: name.to_owned(),
        block: None,
        row,
        message,
    };
    let path = set.tokenizer_path();
    let json = fs::read(&path)
        .map_err(|error| coda_shards::commit::FileError::new("read", &path, error))?;
    let finder = match SpanFinder::new(kinds, &json) {
        Ok(finder) => finder,
        Err(error) => {
            let message = format!("rows have spans, but {error}");
            return Ok(vec![file(coda_shards::TOKENIZER_FILE, None, message)]);
        }
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
                    return Ok(Some(file(&shard.file, Some(number), message)));
                }
            }
            Ok(None)
        })
        .collect::<Result<_, ShardError>>()?;
    Ok(problems.into_iter().flatten().collect())
}
