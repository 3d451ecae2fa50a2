//! The sketches of the documents that were taken in, on disk: candidates for a near duplicate are
//! held against them.

use super::DedupError;
use coda_shards::commit::FileError;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Records wait in memory until they are this many bytes.
const BUFFER: usize = 1 << 20;

/// Records of one size, counted from 0. The file only grows; what a crash left of a record at its end
/// is cut off when it is opened.
pub(crate) struct Store {
    path: PathBuf,
    file: File,
    record_bytes: usize,
    /// Records in the file.
    written: u64,
    waiting: Vec<u8>,
}

impl Store {
    pub(crate) fn open(path: &Path, record_bytes: usize) -> Result<Self, DedupError> {
        let error = |e| FileError::new("open", path, e);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(error)?;
        let written = file.metadata().map_err(error)?.len() / record_bytes as u64;
        let waiting = Vec::new();
        let mut store = Self { path: path.to_owned(), file, record_bytes, written, waiting };
        store.truncate(written)?;
        Ok(store)
    }

    pub(crate) fn len(&self) -> u64 {
        self.written + (self.waiting.len() / self.record_bytes) as u64
    }

    pub(crate) fn push(&mut self, parts: [&[u8]; 2]) -> Result<(), DedupError> {
        for part in parts {
            self.waiting.extend_from_slice(part);
        }
        if self.waiting.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    pub(crate) fn get(&mut self, number: u64, record: &mut Vec<u8>) -> Result<(), DedupError> {
        record.clear();
        if let Some(waiting) = number.checked_sub(self.written) {
            let start = usize::try_from(waiting).unwrap_or(usize::MAX) * self.record_bytes;
            record.extend_from_slice(&self.waiting[start..start + self.record_bytes]);
            return Ok(());
        }
        record.resize(self.record_bytes, 0);
        let read: io::Result<()> = self
            .file
            .seek(SeekFrom::Start(number * self.record_bytes as u64))
            .and_then(|_| self.file.read_exact(record));
        Ok(read.map_err(|e| FileError::new("read", &self.path, e))?)
    }

    /// Keeps the first `records`.
    pub(crate) fn truncate(&mut self, records: u64) -> Result<(), DedupError> {
        if let Some(waiting) = records.checked_sub(self.written) {
            let bytes = usize::try_from(waiting).unwrap_or(usize::MAX);
            self.waiting.truncate(bytes.saturating_mul(self.record_bytes));
            if waiting > 0 {
                return Ok(());
            }
        }
        self.waiting.clear();
        self.written = self.written.min(records);
        let cut = self.file.set_len(self.written * self.record_bytes as u64);
        Ok(cut.map_err(|e| FileError::new("write", &self.path, e))?)
    }

    /// What was pushed until now is there after a crash.
    pub(crate) fn flush(&mut self) -> Result<(), DedupError> {
        self.write()?;
        Ok(self.file.sync_all().map_err(|e| FileError::new("force to disk", &self.path, e))?)
    }

    fn write(&mut self) -> Result<(), DedupError> {
        let end = SeekFrom::Start(self.written * self.record_bytes as u64);
        let written = self.file.seek(end).and_then(|_| self.file.write_all(&self.waiting));
        written.map_err(|e| FileError::new("write", &self.path, e))?;
        self.written += (self.waiting.len() / self.record_bytes) as u64;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER, Store};

    #[test]
    fn records_come_back_from_memory_from_disk_and_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let mut store = Store::open(&path, 16).unwrap();
        let count = (BUFFER / 16) as u64 + 100;
        let mut record = Vec::new();
        for number in 0..count {
            store.push([&number.to_le_bytes(), &(!number).to_le_bytes()]).unwrap();
        }
        let mut check = |store: &mut Store, count: u64| {
            assert_eq!(store.len(), count);
            for number in (0..count).rev().step_by(7) {
                store.get(number, &mut record).unwrap();
                assert_eq!(record[..8], number.to_le_bytes());
                assert_eq!(record[8..], (!number).to_le_bytes());
            }
        };
        check(&mut store, count);
        store.truncate(count - 3).unwrap();
        check(&mut store, count - 3);
        store.flush().unwrap();
        drop(store);
        // A torn record at the end.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"torn");
        std::fs::write(&path, bytes).unwrap();
        let mut store = Store::open(&path, 16).unwrap();
        check(&mut store, count - 3);
        store.truncate(10).unwrap();
        check(&mut store, 10);
        store.push([&10_u64.to_le_bytes(), &(!10_u64).to_le_bytes()]).unwrap();
        check(&mut store, 11);
        store.truncate(10).unwrap();
        check(&mut store, 10);
    }
}
