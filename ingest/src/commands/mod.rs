//! The subcommands.

pub(crate) mod build;
pub(crate) mod dry_run;
mod explain;
pub(crate) mod fetch;
pub(crate) mod inspect;
pub(crate) mod merge;
mod outlook;
pub(crate) mod presets;
mod survey;
pub(crate) mod train;
pub(crate) mod verify;

use coda_cli::{Exit, Failure};
use coda_ingest::source::SourceError;
use coda_shards::{ErrorClass, ShardError, commit::FileError};

/// A listing error as the user sees it.
pub(crate) fn source_failure(error: &SourceError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

/// An error of the shard set as the user sees it.
pub(crate) fn shard_failure(error: &ShardError) -> Failure {
    let exit = match error.class() {
        ErrorClass::Usage => Exit::Usage,
        ErrorClass::Io => Exit::Io,
        ErrorClass::Artefact => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

/// A file that could not be read or written.
pub(crate) fn file_failure(error: &FileError) -> Failure {
    Failure::from_error(Exit::Io, error)
}
