//! JSON lines: one record a line, bounded memory whatever the length of a line.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault, Input, Location, batch::HEAD_BYTES, elements,
};

pub(super) const CHUNK: usize = 256 << 10;
pub(super) const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Splits a stream into lines and appends each to the sink. A byte order mark at the start of the
/// stream is not part of the first line; blank lines are no records. Lines are numbered on from
/// `before`; gives how many there were up to the end, `before` included.
pub(super) fn decode(
    input: &mut Input<'_>,
    before: u64,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<u64, DecodeError> {
    let mut position = input.base;
    let mut line = Line::new(before + 1, position, true);
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match input.read(&mut chunk, sink) {
            Ok(n) => n,
            Err(error) => {
                line.broken(error, options, sink)?;
                return Ok(line.number);
            }
        };
        if n == 0 {
            line.end(options, sink)?;
            return Ok(line.number - u64::from(line.length == 0));
        }
        let mut rest = &chunk[..n];
        while let Some(feed) = memchr::memchr(b'\n', rest) {
            line.append(&rest[..feed], options, sink);
            line.end(options, sink)?;
            position += feed as u64 + 1;
            line = Line::new(line.number + 1, position, false);
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
    first: bool,
    length: usize,
    /// The first bytes of a line that is too long.
    head: Vec<u8>,
}

impl Line {
    fn new(number: u64, offset: u64, first: bool) -> Self {
        Self { number, offset, first, length: 0, head: Vec::new() }
    }

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
        let location = Location { number: self.number, offset: self.offset, ..Location::default() };
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
        if self.first && sink.bytes()[start..].starts_with(UTF8_BOM) {
            start += UTF8_BOM.len();
        }
        if sink.bytes()[start..].trim_ascii().is_empty() {
            sink.bytes().truncate(end - self.length);
            return Ok(());
        }
        elements::push_json(location, start..end, options, sink)
    }

    /// The stream broke inside this line: the lines before it are kept.
    fn broken(
        &self,
        error: DecodeError,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let DecodeError::Damaged(fault) = error else { return Err(error) };
        let location = Location { number: self.number, offset: self.offset, ..Location::default() };
        if self.length > options.max_document_bytes {
            return sink.reject(location, fault, &self.head);
        }
        let start = sink.bytes().len() - self.length;
        let head: Vec<u8> = sink.bytes()[start..].iter().take(HEAD_BYTES).copied().collect();
        sink.bytes().truncate(start);
        sink.reject(location, fault, &head)
    }
}
