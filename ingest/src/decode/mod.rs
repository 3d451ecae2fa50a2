//! Containers to raw records: decompression, lines, columns.
//!
//! A decoder runs on one thread and hands over batches of raw records; everything that costs time per
//! record (JSON, UTF-8, tokenization) happens later, in parallel. Nothing here trusts its input: what
//! decompresses to too much, declares too much memory or ends too early becomes a reject, and the
//! records before it are kept.

mod arrow;
mod batch;
mod columns;
mod fault;
mod lines;
mod parquet;
mod stream;

pub(crate) use batch::HEAD_BYTES;
pub use batch::{Batch, BatchSink, Body, Location, RawRecord, TextRange};
pub use fault::{DecodeError, Fault};
pub use stream::Limits;

use crate::source::{Container, InputFile};

/// What a decoder needs to know about a source.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// The columns to read, in the order in which record extraction wants them. Only column
    /// containers look at it.
    pub columns: Vec<String>,
    /// Longer records are rejected without being held in memory.
    pub max_document_bytes: usize,
    /// Caps on decompression.
    pub limits: Limits,
}

/// Reads one file and hands its records to `sink`, in order.
///
/// Damage in the file becomes a reject in the batch, after the records before it.
///
/// # Errors
/// If the system cannot read the file, or the sink was closed by the other side.
pub fn decode(
    file: &InputFile,
    index: u32,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    sink.open(index);
    let outcome = match file.container {
        Container::Jsonl => lines::decode(file, options, sink),
        Container::Text | Container::Code => stream::decode_whole(file, options, sink),
        Container::Parquet => parquet::decode(file, options, sink),
        Container::Arrow => arrow::decode(file, options, sink),
    };
    match outcome {
        Err(DecodeError::Damaged(fault)) => sink.reject(Location::default(), fault, &[]),
        other => other,
    }
}
