//! Files whose errors name the path.

use coda_cli::Failure;
use std::{fs, io::ErrorKind, path::Path};

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|e| Failure::io(format!("cannot read {}: {e}", path.display())))
}

/// Writes a file under a temporary name and renames it, so that a half-written file is never taken
/// for a finished one. Makes the directory if it is not there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let temporary = path.with_added_extension("part");
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|e| Failure::io(format!("cannot write {}: {e}", path.display())))
}

/// Removes a file or a directory with all it holds; nothing there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path)
        .map_err(|e| Failure::io(format!("cannot make {}: {e}", path.display())))
}
