//! A file that grows over several runs and takes its name when it is complete.

use crate::{
    ShardError,
    blocks::Summing,
    commit::{FileError, Written, sync_dir},
    index::FileEntry,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, Write},
    path::{Path, PathBuf},
};

/// How names of files begin that a stopped run left and the next one goes on with.
pub(crate) const PARTIAL: &str = ".partial-";

/// A file under a partial name. What was there at the last [`GrowingFile::save`] survives a crash;
/// what came after it is cut off when the next run goes on.
pub(crate) struct GrowingFile {
    target: PathBuf,
    partial: PathBuf,
    file: Summing<BufWriter<File>>,
    saved: u64,
}

impl GrowingFile {
    /// Starts an empty file that will be `target`.
    pub(crate) fn create(target: &Path) -> Result<Self, FileError> {
        let partial = partial(target);
        let file =
            File::create(&partial).map_err(|error| FileError::new("create", &partial, error))?;
        Ok(Self::over(target, partial, Summing::new(BufWriter::new(file)), 0))
    }

    /// Goes on behind what was saved, which must still be there as it was: under the partial name,
    /// or under its own if the run was stopped after [`GrowingFile::commit`].
    pub(crate) fn reopen(target: &Path, saved: &FileEntry) -> Result<Self, ShardError> {
        let partial = partial(target);
        let error = |error| FileError::new("read", &partial, error);
        let damaged = |problem: String| ShardError::Damaged {
            file: partial.clone(),
            place: format!("its first {} bytes", saved.bytes),
            problem,
        };
        if !partial.exists() && target.exists() {
            fs::rename(target, &partial).map_err(error)?;
        }
        let mut file = match OpenOptions::new().read(true).write(true).open(&partial) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".to_owned()));
            }
            Err(e) => return Err(error(e).into()),
        };
        // The sums of the whole file go on from those of its saved part.
        let mut sums = Summing::new(io::sink());
        let read = io::copy(&mut (&mut file).take(saved.bytes), &mut sums).map_err(error)?;
        if read < saved.bytes {
            return Err(damaged(format!("it has only {read} bytes")));
        }
        if sums.so_far() != *saved {
            return Err(damaged("its BLAKE3 is not the one that was noted".to_owned()));
        }
        file.set_len(saved.bytes).map_err(|e| FileError::new("write", &partial, e))?;
        file.seek(io::SeekFrom::Start(saved.bytes)).map_err(error)?;
        let file = sums.into(BufWriter::new(file));
        Ok(Self::over(target, partial, file, saved.bytes))
    }

    fn over(target: &Path, partial: PathBuf, file: Summing<BufWriter<File>>, saved: u64) -> Self {
        Self { target: target.to_path_buf(), partial, file, saved }
    }

    /// Says what was written, and gives what is still to be forced to disk of it.
    pub(crate) fn save(&mut self) -> Result<(FileEntry, Option<Written>), FileError> {
        let entry = self.file.so_far();
        if entry.bytes == self.saved {
            return Ok((entry, None));
        }
        let error = |error| FileError::new("write", &self.partial, error);
        self.file.flush().map_err(error)?;
        self.saved = entry.bytes;
        let written = Written::new(&self.partial, self.file.get_ref().get_ref())?;
        Ok((entry, Some(written)))
    }

    /// Gives the complete file its name.
    pub(crate) fn commit(mut self) -> Result<FileEntry, FileError> {
        let (entry, _) = self.save()?;
        let error = |error| FileError::new("write", &self.target, error);
        self.file.get_ref().get_ref().sync_all().map_err(error)?;
        fs::rename(&self.partial, &self.target).map_err(error)?;
        sync_dir(self.target.parent().unwrap_or(Path::new(".")))?;
        Ok(entry)
    }
}

impl Write for GrowingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn partial(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{PARTIAL}{name}"))
}

#[cfg(test)]
mod tests {
    use super::GrowingFile;
    use std::{fs, io::Write as _};

    #[test]
    fn what_was_saved_stays_and_the_rest_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("lines");
        let mut file = GrowingFile::create(&target).unwrap();
        file.write_all(b"one\n").unwrap();
        let (saved, written) = file.save().unwrap();
        written.expect("new bytes").force().unwrap();
        assert!(file.save().unwrap().1.is_none(), "nothing is forced twice");
        file.write_all(b"torn").unwrap();
        file.flush().unwrap();
        drop(file);
        let mut file = GrowingFile::reopen(&target, &saved).unwrap();
        file.write_all(b"two\n").unwrap();
        let entry = file.commit().unwrap();
        let bytes = fs::read(&target).unwrap();
        assert_eq!(bytes, b"one\ntwo\n");
        assert_eq!(entry.bytes, 8);
        assert_eq!(entry.blake3, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        // Complete, but the run was stopped before it had noted so.
        let file = GrowingFile::reopen(&target, &saved).unwrap();
        assert_eq!(file.commit().unwrap(), saved);
        assert_eq!(fs::read(&target).unwrap(), b"one\n");
    }

    #[test]
    fn damage_to_what_was_saved_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("lines");
        let mut file = GrowingFile::create(&target).unwrap();
        file.write_all(b"one\n").unwrap();
        let (saved, _) = file.save().unwrap();
        drop(file);
        let partial = folder.path().join(".partial-lines");
        for (content, word) in [(b"oNe\n".as_slice(), "BLAKE3"), (b"on", "2 bytes")] {
            fs::write(&partial, content).unwrap();
            let error = GrowingFile::reopen(&target, &saved).err().expect("damaged").to_string();
            assert!(error.contains(word) && error.contains(".partial-lines"), "{error}");
        }
        fs::remove_file(&partial).unwrap();
        let error = GrowingFile::reopen(&target, &saved).err().expect("missing").to_string();
        assert!(error.contains("missing"), "{error}");
    }
}
