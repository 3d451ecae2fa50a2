//! A flat file of ids, one document after the other, and `meta.json` beside it.

use super::{
    ExportError,
    documents::{About, Boundaries, Ended, Output},
};
use serde_json::json;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// Documents are bounded by their end tokens alone: nothing is noted of them.
pub(super) struct Flat {
    dir: PathBuf,
    stem: String,
}

impl Flat {
    pub(super) fn create(dir: &Path, stem: &str) -> Self {
        Self { dir: dir.to_owned(), stem: stem.to_owned() }
    }
}

impl Boundaries for Flat {
    fn document(&mut self, _: &Ended<'_>) -> Result<(), ExportError> {
        Ok(())
    }

    fn finish(self: Box<Self>, about: &About<'_>) -> Result<Vec<String>, ExportError> {
        let ids = format!("{}.bin", self.stem);
        let meta = write_meta(&self.dir, &self.stem, &ids, about)?;
        Ok(vec![ids, meta])
    }
}

/// What a bare array of ids does not say of itself; `coda-ingest import` reads its `dtype` and `eos`.
pub(super) fn write_meta(
    dir: &Path,
    stem: &str,
    ids: &str,
    about: &About<'_>,
) -> Result<String, ExportError> {
    // nanoGPT's name for such a file; with several arrays in the folder each has its own.
    let name = if stem == "tokens" { "meta.json".to_owned() } else { format!("{stem}.meta.json") };
    let index = about.set.index();
    let mut meta = json!({
        "file": ids,
        "dtype": about.width.dtype(),
        "tokens": about.tokens,
        "documents": about.documents,
        "sources": about.sources,
        "eos": index.specials.eos,
        "pad": index.specials.pad,
        "mask": index.specials.mask,
        "tokenizer": index.tokenizer_fingerprint(),
        "shard_set": index.fingerprint,
    });
    if let Some(mask) = &about.label_mask {
        meta["label_mask"] = json!(mask.file);
        meta["labels"] = json!(mask.labels);
    }
    let mut file = Output::create(dir.join(&name))?;
    file.put(|sink| writeln!(sink, "{meta:#}"))?;
    file.finish()?;
    Ok(name)
}
