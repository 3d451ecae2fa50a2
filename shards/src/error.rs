//! What can go wrong with a shard set.

use crate::commit::FileError;
use std::{io::ErrorKind, path::PathBuf};

/// Why a shard set could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// A file or directory could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory has no `index.json`: no shard set was ever finished there.
    #[error("{} holds no finished shard set: index.json is missing", dir.display())]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// The bytes are not what was written.
    #[error("{} is damaged at {place}: {problem}", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it: a block, a record batch, a row, a key.
        place: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The artefact is whole, but this version cannot use it.
    #[error("{} cannot be used: {problem}", file.display())]
    Incompatible {
        /// The file that says so.
        file: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The output directory holds something that must not be overwritten.
    #[error("{} cannot take a new shard set: {problem}", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        problem: String,
    },
    /// An unfinished set of another build is there.
    #[error(
        "{} holds an unfinished shard set of another manifest or of other inputs",
        dir.display()
    )]
    OtherBuild {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process is writing there.
    #[error("another process is writing a shard set into {}", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A row that breaks a rule of the format was to be written.
    #[error("row {row} cannot be written: {problem}")]
    BadRow {
        /// The row's number in the set.
        row: u64,
        /// The broken rule.
        problem: String,
    },
    /// The writer was given contradictory settings.
    #[error("a shard set cannot be written: {problem}")]
    Settings {
        /// The contradiction.
        problem: String,
    },
    /// A row number at or above the number of rows.
    #[error("row {row} was asked for, but the shard set has {rows} rows")]
    OutOfRange {
        /// The number asked for.
        row: u64,
        /// How many there are.
        rows: u64,
    },
}

/// What kind of error it is; binaries choose their exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The caller asked for something impossible (exit code 2).
    Usage,
    /// Reading or writing failed (exit code 3).
    Io,
    /// The artefact is damaged, unfinished or of another version (exit code 4).
    Artefact,
}

impl ShardError {
    /// The kind of error, for the exit code.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::File(_) => ErrorClass::Io,
            Self::Unfinished { .. } | Self::Damaged { .. } | Self::Incompatible { .. } => {
                ErrorClass::Artefact
            }
            Self::Occupied { .. }
            | Self::OtherBuild { .. }
            | Self::Locked { .. }
            | Self::BadRow { .. }
            | Self::Settings { .. }
            | Self::OutOfRange { .. } => ErrorClass::Usage,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unfinished { .. } => {
                "run coda-ingest to the end; index.json is the last file it writes"
            }
            Self::Damaged { .. } => {
                "copy the file again or ingest again; `coda-ingest verify` lists every damage"
            }
            Self::Incompatible { .. } => {
                "read the set with the CODA version that wrote it, or ingest again"
            }
            Self::File(error)
                if error.source.kind() == ErrorKind::NotFound
                    && error.path.ends_with(crate::index::INDEX_FILE) =>
            {
                "no shard set is there; build it with `coda-ingest --manifest …`, or check the path"
            }
            Self::Occupied { .. } => "choose another directory with --out",
            Self::OtherBuild { .. } => {
                "--force removes it and starts anew; --out writes elsewhere; the manifest that began \
                 it goes on with it"
            }
            Self::Locked { .. } => "wait for the other run to end, or choose another --out",
            Self::File(_)
            | Self::BadRow { .. }
            | Self::Settings { .. }
            | Self::OutOfRange { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
