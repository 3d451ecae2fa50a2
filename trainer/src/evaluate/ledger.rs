//! Lines that are added while an evaluation runs, so that a stopped one goes on.

use super::EvaluateError;
use coda_shards::commit::{FileError, write_atomic};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

/// A file of JSON lines of one kind.
#[derive(Debug)]
pub struct Ledger<T> {
    path: PathBuf,
    file: File,
    lines: PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned> Ledger<T> {
    /// Opens or begins a file; gives the lines that are there. A last line that a crash cut off is removed.
    ///
    /// # Errors
    /// If it cannot be read or written, or a whole line is not of this kind.
    pub fn open(path: &Path) -> Result<(Self, Vec<T>), EvaluateError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FileError::new("read", path, error).into()),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        if whole != text {
            write_atomic(path, |out| out.write_all(whole.as_bytes()))?;
        }
        let lines = whole.lines().enumerate().map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| EvaluateError::Format {
                path: path.display().to_string(),
                line: index + 1,
                problem: error.to_string(),
            })
        });
        let lines = lines.collect::<Result<_, _>>()?;
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let file = opened.map_err(|error| FileError::new("write", path, error))?;
        Ok((Self { path: path.to_path_buf(), file, lines: PhantomData }, lines))
    }

    /// Adds a line and forces it to disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, line: &T) -> Result<(), EvaluateError> {
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)?;
            self.file.sync_data()
        });
        Ok(written.map_err(|error| FileError::new("write", &self.path, error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use std::{fs::OpenOptions, io::Write as _};

    #[test]
    fn what_was_whole_is_kept_and_what_was_cut_off_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines.jsonl");
        let (mut ledger, lines) = Ledger::<u32>::open(&path).expect("a ledger");
        assert!(lines.is_empty());
        ledger.add(&1).and_then(|()| ledger.add(&2)).expect("lines");
        drop(ledger);
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(b"3").expect("half a line");
        let (mut ledger, lines) = Ledger::<u32>::open(&path).expect("a ledger");
        assert_eq!(lines, [1, 2]);
        ledger.add(&4).expect("a line");
        assert_eq!(Ledger::<u32>::open(&path).expect("a ledger").1, [1, 2, 4]);
    }
}
