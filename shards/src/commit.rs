//! Files and directories that appear whole or not at all.
//!
//! Everything is written under a temporary name in the same directory, forced to disk, renamed, and
//! then the directory entry itself is forced to disk. After a crash at any point the old content or
//! the new one is there, and leftovers are recognised by their names (`.tmp-…`, `.trash-…`) and
//! removed by [`remove_leftovers`].

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};
use tempfile::{NamedTempFile, TempDir};

/// How names of files that are being written begin.
pub const TEMPORARY: &str = ".tmp-";
/// How names of directories that are being removed begin.
pub const TRASH: &str = ".trash-";

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// An error with its context.
    #[must_use]
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_path_buf(), source }
    }
}

/// A file that takes its name only when [`AtomicFile::commit`] is called. Dropped before, it is
/// removed and what was there stays.
pub struct AtomicFile {
    target: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts a file that will be `target`. The directory must exist.
    ///
    /// # Errors
    /// If no file can be created in the directory.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let file = builder(0o666)
            .tempfile_in(parent(target))
            .map_err(|error| FileError::new("create", target, error))?;
        Ok(Self { target: target.to_path_buf(), file: BufWriter::with_capacity(1 << 18, file) })
    }

    /// The file for somebody who forces to disk what has been written, ahead of [`AtomicFile::commit`].
    pub(crate) fn written(&self) -> Result<Written, FileError> {
        Written::new(&self.target, self.file.get_ref().as_file())
    }

    /// Forces the bytes to disk, gives the file its name, and forces the name to disk.
    ///
    /// # Errors
    /// If any of these fails; what was at the target before is then still there.
    pub fn commit(self) -> Result<(), FileError> {
        let target = self.target;
        let error = |error| FileError::new("write", &target, error);
        let file = self.file.into_inner().map_err(|failed| error(failed.into_error()))?;
        file.as_file().sync_all().map_err(error)?;
        file.persist(&target).map_err(|failed| error(failed.error))?;
        sync_dir(parent(&target))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is still growing, for somebody who forces to disk what it has.
pub(crate) struct Written {
    target: PathBuf,
    file: File,
}

impl Written {
    pub(crate) fn new(target: &Path, file: &File) -> Result<Self, FileError> {
        let file = file.try_clone().map_err(|error| FileError::new("write", target, error))?;
        Ok(Self { target: target.to_path_buf(), file })
    }

    /// Forces to disk what has been written until now; what waits in a buffer has not.
    pub(crate) fn force(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|error| FileError::new("force to disk", &self.target, error))
    }
}

/// Writes a whole file through an [`AtomicFile`].
///
/// # Errors
/// If writing fails; what was at `path` before is then still there.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file).map_err(|error| FileError::new("write", path, error))?;
    file.commit()
}

/// A directory that takes its name only when [`AtomicDir::commit`] is called. Dropped before, it is
/// removed and what was there stays.
pub struct AtomicDir {
    target: PathBuf,
    dir: TempDir,
}

impl AtomicDir {
    /// Starts a directory that will be `target`. Its parent must exist.
    ///
    /// # Errors
    /// If no directory can be created beside `target`.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let dir = builder(0o777)
            .tempdir_in(parent(target))
            .map_err(|error| FileError::new("create", target, error))?;
        Ok(Self { target: target.to_path_buf(), dir })
    }

    /// Where to write the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Forces every file to disk, gives the directory its name ([`replace_dir`]).
    ///
    /// # Errors
    /// If any of these fails.
    pub fn commit(self) -> Result<(), FileError> {
        replace_dir(self.dir.path(), &self.target)?;
        let _ = self.dir.keep();
        Ok(())
    }
}

/// Forces every file of the directory `new` to disk, gives it the name `target` beside it, and
/// forces the name to disk.
///
/// A directory of that name is first renamed to `.trash-…` and removed at the end; between the two
/// renames a crash leaves neither, but the old one still under its trash name.
///
/// # Errors
/// If any of these fails.
pub fn replace_dir(new: &Path, target: &Path) -> Result<(), FileError> {
    sync_tree(new)?;
    let old = if target.symlink_metadata().is_ok() { Some(to_trash(target)?) } else { None };
    if let Err(error) = fs::rename(new, target) {
        if let Some(old) = &old {
            // Best effort: the rename that failed is the error to report.
            let _ = fs::rename(old, target);
        }
        return Err(FileError::new("write", target, error));
    }
    sync_dir(parent(target))?;
    old.map_or(Ok(()), |old| remove_tree(&old))
}

/// Removes what [`replace_dir`] and [`remove_dir`] left beside `target` when they were killed: the
/// former directories of that name, under their trash names.
///
/// # Errors
/// If the parent cannot be read or a directory cannot be removed.
pub fn remove_trash_of(target: &Path) -> Result<(), FileError> {
    let (parent, prefix) = (parent(target), format!("{TRASH}{}-", name(target)));
    if !parent.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(parent).map_err(|error| FileError::new("read", parent, error))? {
        let entry = entry.map_err(|error| FileError::new("read", parent, error))?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory so that a crash never leaves half of it under its name.
///
/// # Errors
/// If renaming or removing fails.
pub fn remove_dir(path: &Path) -> Result<(), FileError> {
    let trash = to_trash(path)?;
    sync_dir(parent(path))?;
    remove_tree(&trash)
}

/// Removes what crashed runs left in a directory: entries named `.tmp-…` and `.trash-…`. Call it
/// only while nobody else writes there. Returns how many were removed.
///
/// # Errors
/// If the directory cannot be read or an entry cannot be removed.
pub fn remove_leftovers(dir: &Path) -> Result<usize, FileError> {
    let mut removed = 0;
    let entries = fs::read_dir(dir).map_err(|error| FileError::new("read", dir, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| FileError::new("read", dir, error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(TEMPORARY) || name.starts_with(TRASH) {
            remove_tree(&entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The names in a directory, sorted.
///
/// # Errors
/// If it cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| FileError::new("read", dir, error))? {
        let entry = entry.map_err(|error| FileError::new("read", dir, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Forces the entries of a directory to disk.
///
/// # Errors
/// If the directory cannot be opened or forced to disk.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    // Windows has no handle to a directory that could be synced.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|file| file.sync_all())
            .map_err(|error| FileError::new("force to disk", dir, error))?;
    }
    Ok(())
}

/// Forces every file and directory below `dir`, and `dir` itself, to disk.
fn sync_tree(dir: &Path) -> Result<(), FileError> {
    let error = |path: &Path| {
        let path = path.to_path_buf();
        move |error| FileError::new("force to disk", &path, error)
    };
    for entry in fs::read_dir(dir).map_err(error(dir))? {
        let path = entry.map_err(error(dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(error(&path))?;
        }
    }
    sync_dir(dir)
}

/// Renames to a free `.trash-…` name beside it.
fn to_trash(path: &Path) -> Result<PathBuf, FileError> {
    let error = |error| FileError::new("remove", path, error);
    let prefix = format!("{TRASH}{}-", name(path));
    let slot = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent(path)).map_err(error)?;
    // Renaming a directory over an empty one is allowed, over anything else it is not.
    let trash = slot.keep();
    fs::rename(path, &trash).map_err(|failed| {
        let _ = fs::remove_dir(&trash);
        error(failed)
    })?;
    Ok(trash)
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    let kind = path.symlink_metadata().map_err(|error| FileError::new("remove", path, error))?;
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| FileError::new("remove", path, error))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Names and permissions of temporary entries; as for anything a program makes, the umask takes its
/// part away from `mode`.
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}
