//! Reads a whole shard set and names everything that is not as it was written.

use crate::{
    Index, ShardEntry, ShardError,
    blocks::damaged_blocks,
    commit::{FileError, names},
    index::{FileEntry, INDEX_FILE},
    lock::LOCK_FILE,
    progress::PROGRESS_FILE,
    reader::MappedShard,
    row::{Rules, row_key},
};
use rayon::prelude::*;
use serde::Serialize;
use std::{io, path::Path, sync::Arc};

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The set's fingerprint; empty if the index could not be read.
    pub fingerprint: String,
    /// Shards that the index lists.
    pub shards: usize,
    /// Rows that the index lists.
    pub rows: u64,
    /// Bytes that the index lists, without the index itself.
    pub bytes: u64,
    /// Everything that is wrong, by file; empty for a sound set.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file within the set.
    pub file: String,
    /// The damaged block of 1 MiB, if the damage was found by its checksum.
    pub block: Option<usize>,
    /// The row, counted over the whole set, if one row is concerned.
    pub row: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Holds every file of a set against its index, and every row against the rules of the format.
///
/// # Errors
/// If there is no finished set, it is of another version, or reading fails. Damage is no error: it
/// is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport, ShardError> {
    let dir = dir.as_ref();
    let index = match Index::load(dir) {
        Ok(index) => index,
        Err(ShardError::Damaged { place, problem, .. }) => {
            let problem = whole(INDEX_FILE, format!("at {place}: {problem}"));
            return Ok(VerifyReport { problems: vec![problem], ..VerifyReport::default() });
        }
        Err(error) => return Err(error),
    };
    let mut problems = surplus(dir, &index)?;
    for (name, entry) in &index.files {
        problems.extend(check_file(dir, name, entry)?);
    }
    let shards: Vec<_> = index
        .shards
        .par_iter()
        .map(|entry| check_shard(dir, &index, entry))
        .collect::<Result<_, _>>()?;
    let complete = shards.iter().all(|shard| shard.problems.is_empty());
    let mut tokens = vec![0; index.sources.len()];
    for shard in shards {
        problems.extend(shard.problems);
        tokens.iter_mut().zip(shard.tokens).for_each(|(sum, tokens)| *sum += tokens);
    }
    for (source, found) in index.sources.iter().zip(tokens) {
        let pads = (source.rows.wrapping_mul(u64::from(index.row_length))).wrapping_sub(found);
        if complete && (found, pads) != (source.tokens, source.padding_tokens) {
            let message = format!(
                "source {} has {found} tokens and {pads} pads, the index says {} and {}",
                source.name, source.tokens, source.padding_tokens
            );
            problems.push(whole(INDEX_FILE, message));
        }
    }
    Ok(VerifyReport {
        bytes: index.bytes(),
        fingerprint: index.fingerprint,
        shards: index.shards.len(),
        rows: index.rows,
        problems,
    })
}

fn whole(file: &str, message: String) -> Problem {
    Problem { file: file.to_owned(), block: None, row: None, message }
}

/// Files that the index does not know.
fn surplus(dir: &Path, index: &Index) -> Result<Vec<Problem>, ShardError> {
    let known = |name: &str| {
        name == INDEX_FILE
            || name == LOCK_FILE
            || name == PROGRESS_FILE
            || index.files.contains_key(name)
            || index.shards.iter().any(|shard| shard.file == name)
    };
    let names = names(dir)?;
    let surplus = names.iter().filter(|name| !known(name));
    Ok(surplus.map(|name| whole(name, "the index does not list this file".to_owned())).collect())
}

fn check_file(dir: &Path, name: &str, entry: &FileEntry) -> Result<Option<Problem>, ShardError> {
    let path = dir.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(whole(name, "the file is missing".to_owned())));
        }
        Err(error) => return Err(FileError::new("read", &path, error).into()),
    };
    if bytes.len() as u64 != entry.bytes {
        let message = format!("{} bytes, the index says {}", bytes.len(), entry.bytes);
        return Ok(Some(whole(name, message)));
    }
    let sound = blake3::hash(&bytes).to_hex().as_str() == entry.blake3;
    Ok((!sound).then(|| whole(name, "its BLAKE3 is not the one in the index".to_owned())))
}

struct ShardFindings {
    problems: Vec<Problem>,
    /// Tokens before the padding, by source.
    tokens: Vec<u64>,
}

fn check_shard(dir: &Path, index: &Index, entry: &ShardEntry) -> Result<ShardFindings, ShardError> {
    let mut findings = ShardFindings { problems: Vec::new(), tokens: vec![0; index.sources.len()] };
    let map = match MappedShard::map_file(&dir.join(&entry.file), entry.bytes)? {
        Ok(map) => map,
        Err(message) => {
            findings.problems.push(whole(&entry.file, message));
            return Ok(findings);
        }
    };
    findings.problems = checksum_problems(&map, entry);
    if !findings.problems.is_empty() {
        return Ok(findings);
    }
    match MappedShard::read(Arc::new(map), index, entry) {
        Ok(shard) => check_rows(&shard, index, entry, &mut findings),
        Err((place, problem)) => {
            findings.problems.push(whole(&entry.file, format!("at {place}: {problem}")));
        }
    }
    Ok(findings)
}

/// Damaged blocks; or, if every block has its checksum, a differing hash of the whole.
fn checksum_problems(bytes: &[u8], entry: &ShardEntry) -> Vec<Problem> {
    let message = "the block's CRC-32C is not the one in the index";
    let blocks = damaged_blocks(bytes, &entry.crc32c).into_iter();
    let mut problems: Vec<_> = blocks
        .map(|block| Problem { block: Some(block), ..whole(&entry.file, message.to_owned()) })
        .collect();
    if problems.is_empty() && blake3::hash(bytes).to_hex().as_str() != entry.blake3 {
        problems.push(whole(&entry.file, "its BLAKE3 is not the one in the index".to_owned()));
    }
    problems
}

fn check_rows(
    shard: &MappedShard,
    index: &Index,
    entry: &ShardEntry,
    findings: &mut ShardFindings,
) {
    let rules = Rules::of(index);
    for within in 0..entry.rows {
        let row = shard.row(within);
        let number = entry.first_row + within;
        match check_row(&rules, index, &row, number) {
            Ok(()) => findings.tokens[usize::from(row.source)] += u64::from(row.valid_len),
            Err(message) => {
                findings
                    .problems
                    .push(Problem { row: Some(number), ..whole(&entry.file, message) });
            }
        }
    }
}

fn check_row(
    rules: &Rules,
    index: &Index,
    row: &crate::Row<'_>,
    number: u64,
) -> Result<(), String> {
    rules.check_row(row)?;
    let source = &index.sources[usize::from(row.source)];
    let ordinal = number.checked_sub(source.first_row).filter(|&ordinal| ordinal < source.rows);
    let Some(ordinal) = ordinal else {
        return Err(format!("the row says source {}, whose rows are elsewhere", source.name));
    };
    if row.row_key != row_key(&source.name, ordinal) {
        return Err(format!("row_key is not that of row {ordinal} of {}", source.name));
    }
    if row.tokens[row.valid_len as usize..].iter().any(|&id| id != index.specials.pad) {
        return Err("a token after valid_len is not the pad id".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::checksum_problems;
    use crate::{ShardEntry, blocks::Summing};
    use std::io::Write;

    /// Every one of the 524,288 bits of a file of 64 KiB.
    #[test]
    fn every_flipped_bit_of_64_kib_is_found() {
        let mut bytes: Vec<u8> = (0..=250).cycle().take(1 << 16).collect();
        let mut summing = Summing::new(std::io::sink());
        summing.write_all(&bytes).unwrap();
        let (_, sums) = summing.finish();
        let entry = ShardEntry {
            file: "shard-00000.arrow".to_owned(),
            rows: 1,
            first_row: 0,
            bytes: sums.bytes,
            blake3: sums.blake3,
            crc32c: sums.crc32c,
        };
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let problems = checksum_problems(&bytes, &entry);
            assert_eq!(problems.len(), 1, "bit {bit}");
            assert_eq!(problems[0].block, Some(0), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(checksum_problems(&bytes, &entry), []);
    }

    /// What CRC-32C cannot see, the hash of the whole does.
    #[test]
    fn a_forged_checksum_is_found_by_the_hash() {
        let entry = ShardEntry {
            file: "shard-00000.arrow".to_owned(),
            rows: 1,
            first_row: 0,
            bytes: 3,
            blake3: blake3::hash(b"old").to_hex().to_string(),
            crc32c: vec![crc32c::crc32c(b"new")],
        };
        let problems = checksum_problems(b"new", &entry);
        assert_eq!((problems.len(), problems[0].block), (1, None));
    }
}
