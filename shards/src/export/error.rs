//! Why an export ended.

use crate::{ErrorClass, ShardError, commit::FileError};

/// Why an export ended without a result. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The shard set cannot be read.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A source was named that the set does not have.
    #[error("the shard set has no source {name:?}, only {}", known.join(", "))]
    NoSource {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Nothing was chosen.
    #[error("the choice holds no rows")]
    Empty,
    /// The share of held-out rows is no share.
    #[error("the held-out share is {share}, not a number from 0 up to 1")]
    HeldOut {
        /// The share.
        share: f64,
    },
    /// An id does not fit the width.
    #[error("id {id} in row {row} does not fit {width}")]
    TooWide {
        /// The id.
        id: u32,
        /// The row of the set.
        row: u64,
        /// The width.
        width: &'static str,
    },
    /// A document is longer than the format can say.
    #[error("the document that ends in row {row} has {tokens} tokens; {format} ends at {most}")]
    TooLong {
        /// The row of the set.
        row: u64,
        /// Its tokens.
        tokens: u64,
        /// The format.
        format: &'static str,
        /// The most that it can say.
        most: u64,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

impl ExportError {
    /// The kind of error, for the exit code.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Shards(error) => error.class(),
            Self::File(_) => ErrorClass::Io,
            _ => ErrorClass::Usage,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Shards(error) => return error.hint(),
            Self::Empty => {
                "with few rows a held-out share leaves nothing on one side; `coda-ingest inspect` \
                 lists the sources with their rows"
            }
            Self::HeldOut { .. } => "give the value of data.held_out of the manifest, such as 0.01",
            Self::TooWide { .. } => "export with --id-bits 32",
            Self::TooLong { .. } => "export to parquet or hf, which keep rows as they are",
            Self::File(_) | Self::NoSource { .. } | Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }
}
