//! One writer per directory.

use crate::{ShardError, commit::FileError};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

/// The file that a writer keeps locked; it stays after a crash and marks the directory as ours.
pub const LOCK_FILE: &str = ".writing";

/// An advisory lock on a directory, held until dropped.
#[derive(Debug)]
pub struct DirLock {
    path: PathBuf,
    _file: File,
}

impl DirLock {
    /// Takes the lock of a directory.
    ///
    /// # Errors
    /// If another process holds it, or the lock file cannot be made.
    pub fn acquire(dir: &Path) -> Result<Self, ShardError> {
        let path = dir.join(LOCK_FILE);
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|error| FileError::new("lock", &path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(ShardError::Locked { dir: dir.to_path_buf() });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::new("lock", &path, error).into());
                }
            }
            // The writer before may have removed the file between our open and our lock; then the
            // lock is on a file that nobody can find any more.
            if is_at(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// Removes the lock file, then unlocks.
    ///
    /// # Errors
    /// If the lock file cannot be removed.
    pub fn release(self) -> Result<(), ShardError> {
        fs::remove_file(&self.path)
            .map_err(|error| FileError::new("remove", &self.path, error).into())
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
