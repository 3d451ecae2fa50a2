//! Raw records to documents: which field is the text, and what is not usable.

mod extract;
mod json;

pub use extract::{Document, Extractor, RecordShape};
