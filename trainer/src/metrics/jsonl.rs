//! `metrics.jsonl`: appended line by line, cut back on resume.

use super::StepMetrics;
use coda_shards::commit::{FileError, write_atomic};
use serde::Deserialize;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The open file.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

#[derive(Deserialize)]
struct OnlyStep {
    step: u64,
}

impl MetricsFile {
    /// Starts a run's file anew, whatever was there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn start(path: &Path) -> Result<Self, FileError> {
        write_atomic(path, |_| Ok(()))?;
        Self::append_to(path)
    }

    /// Goes on after step `step`: later lines, and a last line that a crash cut off, are removed, so
    /// that the file becomes what an uninterrupted run would have written.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<Self, FileError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FileError::new("read", path, error)),
        };
        let keep = |line: &&str| {
            line.ends_with('\n')
                && serde_json::from_str::<OnlyStep>(line).is_ok_and(|line| line.step <= step)
        };
        let kept: String = text.split_inclusive('\n').take_while(keep).collect();
        if kept != text {
            write_atomic(path, |out| out.write_all(kept.as_bytes()))?;
        }
        Self::append_to(path)
    }

    fn append_to(path: &Path) -> Result<Self, FileError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| FileError::new("write", path, error))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends one step in a single write.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<(), FileError> {
        let line = serde_json::to_vec(metrics).map_err(std::io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(|error| FileError::new("write", &self.path, error))
    }

    /// Forces what was appended to disk: before a checkpoint, so that its steps are all there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|error| FileError::new("write", &self.path, error))
    }

    /// Reads all whole lines of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Vec<StepMetrics>, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::new("read", path, error))?;
        Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{MetricsFile, StepMetrics};
    use std::{fs, io::Write as _};

    fn line(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: Some(0.1 + step as f64),
            ..StepMetrics::before_training(None, 0.5)
        }
    }

    #[test]
    fn a_resumed_file_is_that_of_an_uninterrupted_run() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("metrics.jsonl");
        let mut whole = MetricsFile::start(&path).expect("start");
        for step in 0..=6 {
            whole.append(&line(step)).expect("append");
        }
        let expected = fs::read(&path).expect("read");
        // A crash in the middle of the line of step 7.
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"{\"step\":7,\"lo"))
            .expect("write");
        for resumed in [3, 6, 0] {
            let mut file = MetricsFile::resume(&path, resumed).expect("resume");
            for step in resumed + 1..=6 {
                file.append(&line(step)).expect("append");
            }
            assert_eq!(fs::read(&path).expect("read"), expected);
        }
        assert_eq!(MetricsFile::read(&path).expect("read")[4], line(4));
    }
}
