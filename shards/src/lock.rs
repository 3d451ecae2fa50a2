//! One writer per directory.

use crate::{ShardError, commit::FileError};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

/// The file that a writer keeps locked; it stays after a crash and marks the directory as ours.
pub const LOCK_FILE: &str = ".writing";

/// An advisory lock on a file, held until dropped.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Takes the lock of a file, which is made if it is not there; `None` if somebody holds it.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn acquire(path: &Path) -> Result<Option<Self>, FileError> {
        let failed = |error| FileError::new("lock", path, error);
        let mut open = OpenOptions::new();
        let file = open.create(true).truncate(false).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for FileLock {
    /// Closing the file is not enough: a child that another thread starts in this moment has it too, until
    /// it runs its own program.
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked when the last of them closes it.
        let _ = self.0.unlock();
    }
}

/// An advisory lock on a directory, held until dropped.
#[derive(Debug)]
pub struct DirLock {
    path: PathBuf,
    _file: FileLock,
}

impl DirLock {
    /// Takes the lock of a directory.
    ///
    /// # Errors
    /// If another process holds it, or the lock file cannot be made.
    pub fn acquire(dir: &Path) -> Result<Self, ShardError> {
        let path = dir.join(LOCK_FILE);
        loop {
            let Some(file) = FileLock::acquire(&path)? else {
                return Err(ShardError::Locked { dir: dir.to_path_buf() });
            };
            // The writer before may have removed the file between our open and our lock; then the
            // lock is on a file that nobody can find any more.
            if is_at(&file.0, &path) {
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

#[cfg(test)]
mod tests {
    use super::FileLock;

    #[test]
    fn a_dropped_lock_is_free_while_somebody_else_has_the_file_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(&path).expect("a file").expect("free");
        // As a child has it that was just started.
        let shared = lock.0.try_clone().expect("a second handle");
        assert!(FileLock::acquire(&path).expect("a file").is_none());
        drop(lock);
        assert!(FileLock::acquire(&path).expect("a file").is_some());
        drop(shared);
    }
}
