//! Documents of a flat file: whatever lies between end tokens.

use super::{
    ImportError,
    ids::{Document, IdFile},
};

/// Hands out the documents, each with its end token; the last one may have none.
pub(super) fn documents(
    mut ids: IdFile,
    (eos, limit): (u32, u32),
    take: &mut dyn FnMut(&mut Document) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut document = Document::default();
    ids.read(0, ids.len, |id| {
        document.push(id, limit);
        if id == i64::from(eos) {
            take(&mut document)?;
            document.clear();
        }
        Ok(())
    })?;
    if document.seen > 0 { take(&mut document) } else { Ok(()) }
}
