//! What an unfinished set has for sure, so that a stopped build can go on.

use crate::{
    Index, ShardEntry, ShardError,
    blocks::BLOCK,
    commit::{self, FileError},
    index::FileEntry,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

/// The name of the note within the unfinished set; it is gone when the set is finished.
pub(crate) const PROGRESS_FILE: &str = ".progress.json";

/// The state at the end of a finished shard.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// The index so far; its shards are on disk.
    pub(crate) index: Index,
    /// How much of `rejects.jsonl` belongs to them.
    pub(crate) rejects: FileEntry,
    /// Where the producer of the rows stood.
    pub(crate) producer: Value,
}

impl Progress {
    /// Puts the note in place of the one before. Its first line is the BLAKE3 of the rest.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), FileError> {
        let json = serde_json::to_vec(self).expect("the note has string keys only");
        let hash = blake3::hash(&json).to_hex();
        commit::write_atomic(&dir.join(PROGRESS_FILE), |file| {
            writeln!(file, "{hash}")?;
            file.write_all(&json)
        })
    }

    /// The note of a directory, if it has one.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, ShardError> {
        let path = dir.join(PROGRESS_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        let damaged = |problem: String| ShardError::Damaged {
            file: path.clone(),
            place: "its content".to_owned(),
            problem,
        };
        let (hash, json) = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .map(|end| (&bytes[..end], &bytes[end + 1..]))
            .ok_or_else(|| damaged("it has no first line".to_owned()))?;
        if hash != blake3::hash(json).to_hex().as_bytes() {
            return Err(damaged("its BLAKE3 is not the one in its first line".to_owned()));
        }
        serde_json::from_slice(json).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Reads every kept shard once and holds it against its checksums.
    pub(crate) fn check_shards(&self, dir: &Path) -> Result<(), ShardError> {
        self.index.shards.par_iter().try_for_each(|entry| check_shard(dir, entry))
    }
}

fn check_shard(dir: &Path, entry: &ShardEntry) -> Result<(), ShardError> {
    let path = dir.join(&entry.file);
    let damaged = |place: String, problem: String| {
        Err(ShardError::Damaged { file: path.clone(), place, problem })
    };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return damaged("the whole file".to_owned(), "it is missing".to_owned());
        }
        Err(error) => return Err(FileError::new("read", &path, error).into()),
    };
    let read = |error| FileError::new("read", &path, error);
    let bytes = file.metadata().map_err(read)?.len();
    if bytes != entry.bytes {
        let problem = format!("{bytes} bytes, {} were written", entry.bytes);
        return damaged("the whole file".to_owned(), problem);
    }
    let mut block = Vec::with_capacity(BLOCK);
    for (number, &crc) in entry.crc32c.iter().enumerate() {
        block.clear();
        (&mut file).take(BLOCK as u64).read_to_end(&mut block).map_err(read)?;
        if crc32c::crc32c(&block) != crc {
            let problem = "its CRC-32C is not that of what was written".to_owned();
            return damaged(format!("block {number}"), problem);
        }
    }
    Ok(())
}
