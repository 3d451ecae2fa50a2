//! One run per folder.

use coda_cli::{Exit, Failure};
use coda_shards::commit::FileError;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::Path,
};

/// An advisory lock on a run's folder, held until dropped. The file stays; only the lock counts.
pub(super) struct RunLock {
    _file: File,
}

impl RunLock {
    pub(super) fn acquire(out: &Path) -> Result<Self, Failure> {
        let failed = |action, path: &Path, error| {
            Failure::from_error(Exit::Io, &FileError::new(action, path, error))
        };
        fs::create_dir_all(out).map_err(|error| failed("create", out, error))?;
        let path = out.join(".lock");
        let mut open = OpenOptions::new();
        let file = open.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| failed("lock", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::usage(format!("another process is training in {}", out.display()))
                    .hint("wait for it to end, or choose another --out"))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunLock;

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let dir = tempfile::tempdir().expect("dir");
        let first = RunLock::acquire(dir.path()).expect("free");
        assert!(RunLock::acquire(dir.path()).is_err());
        drop(first);
        assert!(RunLock::acquire(dir.path()).is_ok());
    }
}
