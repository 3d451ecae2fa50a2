//! Shard sets in the formats of other trainers.
//!
//! Two kinds: formats of *documents* ([`write_documents`]: Megatron, flat bins, OLMo-core), for which
//! rows are taken apart again, and formats of *rows* ([`write_hf`]; the Parquet writer lives where
//! Parquet does). `docs/export.md` says what each of them keeps and loses. The bytes depend on the
//! set and the choice alone.

mod documents;
mod error;
mod flat;
mod hf;
mod ids;
mod labels;
mod megatron;
mod olmo;
mod select;

pub use documents::{DocumentFormat, DocumentOptions, Piece, pieces, write_documents};
pub use error::ExportError;
pub use hf::write_hf;
pub use ids::IdWidth;
pub use select::{Part, Selected, Selection, by_shard};

use std::ops::ControlFlow;

/// Told after some rows, with their number, that they are written; may ask to stop.
pub type Tick<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Says that rows are written.
///
/// # Errors
/// [`ExportError::Stopped`] if the caller wants to stop.
pub fn step(tick: &mut Tick<'_>, rows: u64) -> Result<(), ExportError> {
    if tick(rows).is_break() { Err(ExportError::Stopped) } else { Ok(()) }
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The files, by name within the folder, in the order of their rows.
    pub files: Vec<String>,
    /// Rows read.
    pub rows: u64,
    /// Tokens written; pads only where rows are written whole.
    pub tokens: u64,
    /// Documents written; 0 where rows are written whole.
    pub documents: u64,
    /// Documents among them that do not end with the end token: cut by the row length, or by the
    /// bounds of the chosen part.
    pub cut_documents: u64,
}
