//! The subcommands.

pub(crate) mod train;

use coda_cli::{Exit, Failure};
use coda_ingest::source::SourceError;
use std::{fs, io::Write as _, path::Path};

/// A listing error as the user sees it.
pub(crate) fn source_failure(error: SourceError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, &error).maybe_hint(error.hint())
}

/// Writes a file so that a crash leaves the old one or the new one, never a part.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| Failure::io(format!("cannot write {}: {e}", path.display())))
}
