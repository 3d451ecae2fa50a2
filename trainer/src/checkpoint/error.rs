//! What can be wrong with a checkpoint.

use coda_cli::{Exit, Failure};
use coda_shards::commit::FileError;
use std::path::{Path, PathBuf};

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such file or directory.
    #[error("{} is not a checkpoint: {missing} is missing", dir.display())]
    NotOne {
        /// The directory.
        dir: PathBuf,
        /// The file that should be there.
        missing: String,
    },
    /// The bytes are not those of a well-formed file, or not those that were written.
    #[error("{} is damaged: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// Whole, but not usable here.
    #[error("{} does not fit: {problem}", file.display())]
    Misfit {
        /// The file.
        file: PathBuf,
        /// What was expected and what was found.
        problem: String,
        /// What to do about it.
        hint: String,
    },
}

impl CheckpointError {
    /// An error of [`CheckpointError::Damaged`].
    pub(crate) fn damaged(file: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_path_buf(), problem: problem.into() }
    }

    /// An error of [`CheckpointError::Misfit`].
    pub(crate) fn misfit(file: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Misfit { file: file.to_path_buf(), problem: problem.into(), hint: hint.into() }
    }

    /// An I/O error with its context.
    pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File(FileError::new(action, path, source))
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            Self::NotOne { .. } => Some(
                "give a directory with config.json and model.safetensors; pickled weights (.bin, \
                 .pt) are not read, convert them to safetensors"
                    .to_owned(),
            ),
            Self::Damaged { .. } => Some(
                "take an earlier checkpoint; `coda-trainer verify` tells which are whole"
                    .to_owned(),
            ),
            Self::Misfit { hint, .. } => Some(hint.clone()),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let exit = match &error {
            CheckpointError::File(_) => Exit::Io,
            _ => Exit::Incompatible,
        };
        Self::from_error(exit, &error).maybe_hint(error.hint())
    }
}
