//! Containers to raw records: decompression, lines, columns.
//!
//! A decoder runs on one thread and hands over batches of raw records; everything that costs time per
//! record (JSON, UTF-8, tokenization) happens later, in parallel. Nothing here trusts its input: what
//! decompresses to too much, declares too much memory or ends too early becomes a reject, and the
//! records before it are kept.

mod archive;
mod arrow;
mod batch;
mod claims;
mod columns;
mod elements;
mod fault;
mod held;
mod json_values;
mod lines;
mod pairs;
mod parquet;
mod stream;
mod value;

pub(crate) use batch::HEAD_BYTES;
pub use batch::{Batch, BatchSink, Body, Location, RawRecord, TextRange};
pub use fault::{DecodeError, Fault};
pub use stream::Limits;

use crate::{
    record::Layout,
    source::{Container, InputFile, extension},
};
use std::{
    io::{self, Read as _},
    path::Path,
};
use stream::Meter;

/// Bytes looked at to tell an array from lines.
const SNIFFED: usize = 512;

/// What a decoder needs to know about a source.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// The values to read of each record. Containers of whole documents do not look at it.
    pub layout: Layout,
    /// What is read of archives.
    pub members: Members,
    /// Whether code that a program wrote is dropped.
    pub drop_generated: bool,
    /// Longer records are rejected without being held in memory.
    pub max_document_bytes: usize,
    /// Caps on decompression.
    pub limits: Limits,
}

impl Default for DecodeOptions {
    /// Everything is taken, whatever its length.
    fn default() -> Self {
        Self {
            layout: Layout::default(),
            members: Members::default(),
            drop_generated: false,
            max_document_bytes: usize::MAX,
            limits: Limits::default(),
        }
    }
}

/// What is read of archives.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// How to read every member; by extension when absent.
    pub container: Option<Container>,
    /// Only members whose path fits; absent: all.
    pub wanted: Option<globset::GlobSet>,
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
    if file.vendored {
        sink.consumed(file.bytes);
        return sink.push(Location { number: 1, ..Location::default() }, Body::Dropped("vendored"));
    }
    let outcome = match file.container {
        Container::Jsonl | Container::Json | Container::Pairs => decode_stream(file, options, sink),
        Container::Tar => archive::decode(file, options, sink),
        Container::Text | Container::Code => stream::decode_whole(file, options, sink),
        Container::Parquet => parquet::decode(file, options, sink),
        Container::Arrow => arrow::decode(file, options, sink),
    };
    match outcome {
        Err(DecodeError::Damaged(fault)) => sink.reject(Location::default(), fault, &[]),
        other => other,
    }
}

fn decode_stream(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    stream::with_input(&file.path, options.limits, |input| {
        decode_records(input, (file.container, &file.path), 0, options, sink).map(drop)
    })
}

/// The records of a stream, numbered on from `before`; gives how many there were up to its end,
/// `before` included.
fn decode_records(
    input: &mut Input<'_>,
    (container, name): (Container, &Path),
    before: u64,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<u64, DecodeError> {
    match container {
        Container::Json => json_values::decode(input, before, options, sink),
        Container::Pairs => pairs::decode(input, before, options, sink),
        // A file named .json holds lines, or one array.
        _ if extension(name) == "json" => {
            let mut start = [0; SNIFFED];
            let n = input.read(&mut start, sink)?;
            let is_array = start[..n].trim_ascii_start().first() == Some(&b'[');
            let Input { reader, meter, path, base } = input;
            let mut whole = start[..n].chain(reader);
            let mut input = Input { reader: &mut whole, meter, path, base: *base };
            if is_array {
                json_values::decode(&mut input, before, options, sink)
            } else {
                lines::decode(&mut input, before, options, sink)
            }
        }
        _ => lines::decode(input, before, options, sink),
    }
}

/// A stream of records: a file, or a member of an archive.
struct Input<'a> {
    reader: &'a mut dyn io::Read,
    meter: &'a mut Meter,
    path: &'a Path,
    /// Where the stream begins in the decompressed file.
    base: u64,
}

impl Input<'_> {
    /// Fills as much of `buffer` as comes at once; 0 at the end.
    fn read(&mut self, buffer: &mut [u8], sink: &mut BatchSink<'_>) -> Result<usize, DecodeError> {
        loop {
            match self.reader.read(buffer) {
                Ok(n) => {
                    sink.consumed(self.meter.newly_read());
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(DecodeError::from_stream(self.path, e)),
            }
        }
    }
}
