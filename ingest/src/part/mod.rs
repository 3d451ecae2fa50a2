//! A build in parts: each task tokenizes its share of the input, and a merge packs all of it.
//!
//! What decides the rows beyond a single record (duplicates, budgets, packing, the places of rejects) is
//! decided by the merge, over all records in the order of the input; tasks note by what documents are
//! compared. So the bytes of the merged set are those
//! that one process writes.
//!
//! A part is a folder: `part.json`, `tokenizer.json`, and *chunks*, files with the results of
//! consecutive records. It is written chunk by chunk; `part.json` is replaced after each, and says at
//! which record a stopped task goes on.

mod chunk;
mod merge;
mod share;
mod write;

pub use merge::{MergeOptions, Parts};
pub use share::{Task, TaskError};
pub use write::{CHUNK_BYTES, TaskOptions, TaskReport, run_task};

use crate::pipeline::Place;
use coda_manifests::Data;
use coda_shards::{FileEntry, Specials, commit::FileError};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The name of the index within a part.
pub const PART_FILE: &str = "part.json";
const FORMAT: &str = "coda-part";
/// Of parts whose records have marks of their texts, for the merge to deduplicate; others are version 1.
const FORMAT_VERSION_MARKS: u32 = 2;

/// What `part.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartIndex {
    format: String,
    format_version: u32,
    /// BLAKE3 of this file with this value left empty.
    fingerprint: String,
    /// What the whole build is; the same in all of its parts.
    recipe: String,
    task: Task,
    /// What the merge must know of the manifest.
    data: Data,
    specials: Specials,
    /// Where the files of each source come from, for the index of the set.
    origins: Vec<Vec<String>>,
    tokenizer: FileEntry,
    /// Files passed over because they are binary or empty, by source.
    skipped: Vec<u64>,
    /// Ids so far, by source: a task stops at the budget, since the merge needs no more of it.
    tokens: Vec<u64>,
    chunks: Vec<ChunkEntry>,
    /// Where the task goes on; nothing when it is complete.
    next: Option<Next>,
}

/// The record that comes next: of which source, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    source: u16,
    place: Place,
}

/// One chunk: the results of consecutive records of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkEntry {
    file: String,
    source: u16,
    /// Its first record.
    start: Place,
    records: u64,
    bytes: u64,
    blake3: String,
}

/// Why a part could not be written, or parts not be merged.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds no part.
    #[error("{} holds no part: part.json is missing", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A part whose task has not come to its end.
    #[error("the part in {} is not complete", dir.display())]
    Unfinished {
        /// The folder.
        dir: PathBuf,
    },
    /// The bytes are not what was written.
    #[error("{} is damaged: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The part is whole, but not of this build.
    #[error("the part in {} does not belong here: {problem}", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The parts do not make up a whole.
    #[error("{0}")]
    Incomplete(String),
    /// The folder for a part holds something else.
    #[error("{} cannot take a part: {problem}", dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// What is there.
        problem: String,
    },
}

impl PartError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File(_) => return None,
            Self::Missing { .. } => "`coda-ingest --task I/N --out DIR` writes a part",
            Self::Unfinished { .. } => "run its task again; it goes on where it stopped",
            Self::Damaged { .. } => "copy the part again, or remove it and run its task again",
            Self::Foreign { .. } => {
                "parts are merged that were made with the same manifest, inputs, version and N"
            }
            Self::Incomplete(_) => "name each of the N parts once",
            Self::Occupied { .. } => "choose another folder with --out, or start anew with --force",
        };
        Some(hint.to_owned())
    }

    /// Whether the command line is wrong (as opposed to the disk or an artefact).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Incomplete(_) | Self::Occupied { .. })
    }

    /// Whether a part is damaged, missing or of another build.
    #[must_use]
    pub const fn is_artefact(&self) -> bool {
        !self.is_usage() && !matches!(self, Self::File(_))
    }
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    format_version: u32,
}

impl PartIndex {
    const fn version(data: &Data) -> u32 {
        if data.dedup.is_some() { FORMAT_VERSION_MARKS } else { 1 }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("it has string keys only");
        bytes.push(b'\n');
        bytes
    }

    fn compute_fingerprint(&self) -> String {
        let unsigned = Self { fingerprint: String::new(), ..self.clone() };
        blake3::hash(&unsigned.to_bytes()).to_hex().to_string()
    }

    /// Reads `part.json` of a folder, complete or not.
    fn load(dir: &Path) -> Result<Self, PartError> {
        let path = dir.join(PART_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PartError::Missing { dir: dir.to_owned() });
            }
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        let damaged = |problem: String| PartError::Damaged { file: path.clone(), problem };
        let json = |error: serde_json::Error| damaged(error.to_string());
        let head: Head = serde_json::from_slice(&bytes).map_err(json)?;
        if head.format != FORMAT || !(1..=FORMAT_VERSION_MARKS).contains(&head.format_version) {
            let problem = format!(
                "it is {} version {}, this program reads {FORMAT} versions 1 to {FORMAT_VERSION_MARKS}",
                head.format, head.format_version
            );
            return Err(PartError::Foreign { dir: dir.to_owned(), problem });
        }
        let index: Self = serde_json::from_slice(&bytes).map_err(json)?;
        if index.fingerprint != index.compute_fingerprint() {
            return Err(damaged("its content does not fit its fingerprint".to_owned()));
        }
        Ok(index)
    }
}
