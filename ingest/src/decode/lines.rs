//! JSON lines: one record a line, bounded memory whatever the length of a line.

use super::{
    BatchSink, Body, DecodeError, DecodeOptions, Fault, Location, batch::HEAD_BYTES, stream::Stream,
};
use crate::source::InputFile;
use std::io::{self, Read as _};

const CHUNK: usize = 256 << 10;
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Splits a stream into lines and appends each to the sink. A byte order mark at the start of the
/// file is not part of the first line; blank lines are no records.
pub(super) fn decode(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let mut stream = Stream::open(&file.path, options.limits)?;
    let mut line = Line { number: 1, offset: 0, length: 0, head: Vec::new() };
    let mut chunk = vec![0; CHUNK];
    let mut position = 0_u64;
    loop {
        let n = match stream.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let error = DecodeError::from_stream(&file.path, e);
                return line.broken(error, options, sink);
            }
        };
        sink.consumed(stream.newly_read());
        if n == 0 {
            return line.end(options, sink);
        }
        let mut rest = &chunk[..n];
        while let Some(feed) = memchr::memchr(b'\n', rest) {
            line.append(&rest[..feed], options, sink);
            line.end(options, sink)?;
            position += feed as u64 + 1;
            line = Line { number: line.number + 1, offset: position, length: 0, head: Vec::new() };
            rest = &rest[feed + 1..];
        }
        line.append(rest, options, sink);
        position += rest.len() as u64;
    }
}

/// The line at hand. Its bytes are at the end of the sink's batch, until it is too long.
struct Line {
    number: u64,
    offset: u64,
    length: usize,
    /// The first bytes of a line that is too long.
    head: Vec<u8>,
}

impl Line {
    fn append(&mut self, bytes: &[u8], options: &DecodeOptions, sink: &mut BatchSink<'_>) {
        let fits = self.length + bytes.len() <= options.max_document_bytes;
        if fits {
            sink.bytes().extend_from_slice(bytes);
        } else if self.length <= options.max_document_bytes {
            // The line has just become too long: keep its head, give the memory back.
            let start = sink.bytes().len() - self.length;
            let kept = &sink.bytes()[start..];
            self.head = kept.iter().chain(bytes).take(HEAD_BYTES).copied().collect();
            sink.bytes().truncate(start);
        }
        self.length += bytes.len();
    }

    fn end(&self, options: &DecodeOptions, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        let location = Location { file: 0, number: self.number, offset: self.offset };
        if self.length > options.max_document_bytes {
            let fault = Fault::new(
                "too_long",
                format!(
                    "the line has {} bytes, more than data.max_document_bytes ({})",
                    self.length, options.max_document_bytes
                ),
            );
            return sink.reject(location, fault, &self.head);
        }
        let end = sink.bytes().len();
        let mut start = end - self.length;
        if self.offset == 0 && sink.bytes()[start..].starts_with(UTF8_BOM) {
            start += UTF8_BOM.len();
        }
        if sink.bytes()[start..].trim_ascii().is_empty() {
            sink.bytes().truncate(end - self.length);
            return Ok(());
        }
        sink.push(location, Body::Json(start..end))
    }

    /// The stream broke inside this line: the lines before it are kept.
    fn broken(
        &self,
        error: DecodeError,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let DecodeError::Damaged(fault) = error else { return Err(error) };
        let location = Location { file: 0, number: self.number, offset: self.offset };
        if self.length > options.max_document_bytes {
            return sink.reject(location, fault, &self.head);
        }
        let start = sink.bytes().len() - self.length;
        let head: Vec<u8> = sink.bytes()[start..].iter().take(HEAD_BYTES).copied().collect();
        sink.bytes().truncate(start);
        sink.reject(location, fault, &head)
    }
}
