//! The subcommands.

pub(crate) mod build;
pub(crate) mod card;
pub(crate) mod dry_run;
mod explain;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod merge;
mod outlook;
pub(crate) mod presets;
pub(crate) mod records;
mod survey;
pub(crate) mod train;
pub(crate) mod verify;

use coda_cli::{Exit, Failure};
use coda_ingest::{fetch::FetchError, source::SourceError};
use coda_shards::{ErrorClass, ShardError, commit::FileError};
use std::path::Path;

/// A listing error as the user sees it.
pub(crate) fn source_failure(error: &SourceError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

/// A remote file that cannot be had, as the user sees it.
pub(crate) fn fetch_failure(error: &FetchError) -> Failure {
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

/// Refuses an output folder that is there, but for an empty one.
pub(crate) fn must_be_free(out: &Path) -> Result<(), Failure> {
    let empty =
        |out: &Path| std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.symlink_metadata().is_err() || empty(out) {
        return Ok(());
    }
    Err(Failure::usage(format!("{} is there already", out.display()))
        .hint("nothing is overwritten: name another folder with --out, or remove this one"))
}

/// Refuses an output inside a shard set, whose files are listed in its index.
pub(crate) fn must_lie_outside(set: &Path, out: &Path) -> Result<(), Failure> {
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_path_buf());
    // The nearest folder that is there, with links followed.
    let real = absolute.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
    let inside = real.zip(set.canonicalize().ok()).is_some_and(|(out, set)| out.starts_with(set));
    if !inside {
        return Ok(());
    }
    Err(Failure::usage(format!("{} lies inside the shard set", out.display()))
        .hint("its files are listed in index.json and nothing else may be there; write beside it"))
}

/// Makes the folder that an output folder lies in.
pub(crate) fn make_parent(out: &Path) -> Result<(), Failure> {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), |parent| {
        std::fs::create_dir_all(parent)
            .map_err(|error| file_failure(&FileError::new("create", parent, error)))
    })
}
