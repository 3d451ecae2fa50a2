//! What OLMo-core trains on: raw arrays of ids (called `.npy`, but without a header, for `numpy.memmap`)
//! and, beside each, a gzipped table of its documents: start, end, id, source, place.

use super::{
    ExportError,
    documents::{About, Boundaries, Ended, plain},
    flat::write_meta,
};
use crate::commit::FileError;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

pub(super) struct Olmo {
    dir: PathBuf,
    path: PathBuf,
    stem: String,
    /// Tokens before the next document.
    start: u64,
    /// Its header holds no time, so the bytes are the same at any.
    table: GzEncoder<BufWriter<File>>,
}

impl Olmo {
    pub(super) fn create(dir: &Path, stem: &str) -> Result<Self, FileError> {
        let path = dir.join(format!("{stem}.csv.gz"));
        let file = File::create_new(&path).map_err(|e| FileError::new("create", &path, e))?;
        let table = GzEncoder::new(BufWriter::new(file), Compression::default());
        Ok(Self { dir: dir.to_owned(), path, stem: stem.to_owned(), start: 0, table })
    }
}

impl Boundaries for Olmo {
    fn document(&mut self, ended: &Ended<'_>) -> Result<(), ExportError> {
        let (start, end) = (self.start, self.start + ended.tokens);
        let (source, number) = (plain(ended.source), ended.number);
        let line = writeln!(self.table, "{start},{end},{source}:{number},{source},{number}");
        line.map_err(|e| FileError::new("write", &self.path, e))?;
        self.start = end;
        Ok(())
    }

    fn finish(self: Box<Self>, about: &About<'_>) -> Result<Vec<String>, ExportError> {
        let finished = self.table.finish().and_then(|mut file| file.flush());
        finished.map_err(|e| FileError::new("write", &self.path, e))?;
        let ids = format!("{}.npy", self.stem);
        let meta = write_meta(&self.dir, &self.stem, &ids, about)?;
        Ok(vec![ids, format!("{}.csv.gz", self.stem), meta])
    }
}
