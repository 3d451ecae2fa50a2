//! JSON lines: one record a line, bounded memory whatever the length of a line.

use super::{BatchSink, DecodeError, DecodeOptions, Input, Location, elements, held::Held};

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
                line.broken(error, sink)?;
                return Ok(line.number);
            }
        };
        if n == 0 {
            line.end(options, sink)?;
            return Ok(line.number - u64::from(line.held.length() == 0));
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

/// The line at hand.
struct Line {
    number: u64,
    offset: u64,
    first: bool,
    held: Held,
}

impl Line {
    fn new(number: u64, offset: u64, first: bool) -> Self {
        Self { number, offset, first, held: Held::default() }
    }

    fn location(&self) -> Location {
        Location { number: self.number, offset: self.offset, ..Location::default() }
    }

    fn append(&mut self, bytes: &[u8], options: &DecodeOptions, sink: &mut BatchSink<'_>) {
        self.held.keep(bytes, options, sink);
    }

    fn end(&self, options: &DecodeOptions, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        if let Some(fault) = self.held.too_long("line", options) {
            return self.held.reject(self.location(), fault, sink);
        }
        let mut range = self.held.range(sink);
        if self.first && sink.bytes()[range.clone()].starts_with(UTF8_BOM) {
            range.start += UTF8_BOM.len();
        }
        if sink.bytes()[range.clone()].trim_ascii().is_empty() {
            let start = self.held.range(sink).start;
            sink.bytes().truncate(start);
            return Ok(());
        }
        elements::push_json(self.location(), range, options, sink)
    }

    /// The stream broke inside this line: the lines before it are kept.
    fn broken(&self, error: DecodeError, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        let DecodeError::Damaged(fault) = error else { return Err(error) };
        self.held.reject(self.location(), fault, sink)
    }
}
