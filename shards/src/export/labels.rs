//! Label masks as OLMo-core reads them: a raw array of one byte for each id, 1 where a model is to learn
//! the token and 0 where it only reads it.

use super::documents::{LabelMask, Output};
use crate::{Row, commit::FileError};
use std::{io::Write as _, path::Path};

/// The mask of a file of ids, in the order of its ids.
pub(super) struct Labels {
    file: Output,
    name: String,
    /// Tokens that are labels.
    set: u64,
    mask: Vec<u8>,
}

impl Labels {
    /// Its name does not end like that of an array of ids: readers of folders take those by their ends.
    pub(super) fn create(dir: &Path, stem: &str) -> Result<Self, FileError> {
        let name = format!("{stem}.label_mask");
        Ok(Self { file: Output::create(dir.join(&name))?, name, set: 0, mask: Vec::new() })
    }

    /// The mask of `count` tokens of a row from `start` on. A token is a label where CODA would mask it
    /// with the whole prompt protected: behind the prompt, in a maskable span. Pads have been left out.
    pub(super) fn piece(
        &mut self,
        row: &Row<'_>,
        start: usize,
        count: usize,
    ) -> Result<(), FileError> {
        self.mask.clear();
        self.mask.resize(count, 0);
        let first = start.max(row.prefix_len as usize);
        for (&from, &len) in row.maskable_starts.iter().zip(row.maskable_lens) {
            let (from, to) = (from as usize, from as usize + len as usize);
            let (from, to) = (from.max(first), to.min(start + count));
            if from < to {
                self.mask[from - start..to - start].fill(1);
            }
        }
        self.set += self.mask.iter().map(|&label| u64::from(label)).sum::<u64>();
        self.file.put(|sink| sink.write_all(&self.mask))
    }

    pub(super) fn finish(self) -> Result<LabelMask, FileError> {
        self.file.finish()?;
        Ok(LabelMask { file: self.name, labels: self.set })
    }
}
