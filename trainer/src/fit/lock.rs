//! One run per folder.

use coda_cli::{Exit, Failure};
use coda_shards::{FileLock, commit::FileError};
use std::{fs, path::Path};

/// An advisory lock on a run's folder, held until dropped. The file stays; only the lock counts.
pub(super) struct RunLock {
    _file: FileLock,
}

impl RunLock {
    pub(super) fn acquire(out: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::from_error(Exit::Io, &error);
        fs::create_dir_all(out).map_err(|error| failed(FileError::new("create", out, error)))?;
        let file = FileLock::acquire(&out.join(".lock")).map_err(failed)?.ok_or_else(|| {
            Failure::usage(format!("another process is training in {}", out.display()))
                .hint("wait for it to end, or choose another --out")
        })?;
        Ok(Self { _file: file })
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
