//! Ids that another program has tokenized, into a shard set of packed rows.
//!
//! * [`files`]: which files are meant, and how wide their ids are;
//! * `megatron`, `flat`, `olmo`: where the documents of a file lie;
//! * [`import()`]: documents to rows, and rows to a set.
//!
//! A file that is not what it claims to be ends the import with its name and the place; a document
//! that does not fit the tokenizer is one reject.

pub mod files;
mod flat;
mod ids;
mod megatron;
mod olmo;
mod run;

pub use files::{ImportFormat, Input, inputs};
pub use ids::Width;
pub use run::{ImportOptions, Imported, import};

use crate::build::BuildError;
use coda_shards::commit::FileError;
use std::path::{Path, PathBuf};

/// The longest document that is taken, in tokens: it is held in memory whole.
pub const MAX_DOCUMENT_TOKENS: u64 = 1 << 26;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file is not what it claims to be.
    #[error("{} is damaged at {place}: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        place: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// Nothing of the format is at a path.
    #[error("{} holds no {wanted}", path.display())]
    NoFiles {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Nothing says how wide the ids of a file are.
    #[error("nothing says how many bits the ids of {} have", file.display())]
    NoWidth {
        /// The file.
        file: PathBuf,
    },
    /// What is said of a file contradicts itself.
    #[error("{} says {said}, the command line says {asked}", file.display())]
    Contradiction {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        said: String,
        /// What was asked for.
        asked: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The set could not be written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A signal came.
    #[error("stopped")]
    Stopped,
}

impl ImportError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Damaged { .. } => "copy or make the file again; nothing was written",
            Self::NoFiles { .. } => {
                "give the files themselves, the folder that holds them, or Megatron's prefix"
            }
            Self::NoWidth { .. } => {
                "nanoGPT writes 16 bits, Dolma 16 or 32 by its vocabulary: give --id-bits"
            }
            Self::Contradiction { .. } => "leave the option away, or remove the meta.json",
            Self::File(_) | Self::Build(_) | Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }

    fn damaged(file: &Path, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), place: place.into(), problem: problem.into() }
    }
}
