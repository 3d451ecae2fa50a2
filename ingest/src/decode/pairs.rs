//! Alternating lines: a question, its answer, the next question.

use super::{
    BatchSink, Body, DecodeError, DecodeOptions, Fault, Input, Location, TextRange,
    held::Held,
    lines::{CHUNK, UTF8_BOM},
};

/// The fields of a pair.
const FIELDS: [&str; 2] = ["question", "answer"];

/// Splits a stream into pairs of lines and appends each to the sink. Lines end in LF or CR LF, the
/// last may have no end. Lines are numbered on from `before`; gives how many there were up to the
/// end, `before` included.
pub(super) fn decode(
    input: &mut Input<'_>,
    before: u64,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<u64, DecodeError> {
    let places = places(options).map_err(DecodeError::Damaged)?;
    let first = Location { number: before + 1, offset: input.base, ..Location::default() };
    let mut pair = Pair::new(first, true);
    let mut number = before;
    let mut position = input.base;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match input.read(&mut chunk, sink) {
            Ok(n) => n,
            Err(DecodeError::Damaged(fault)) => {
                pair.reject(fault, sink)?;
                return Ok(number + 1);
            }
            Err(error) => return Err(error),
        };
        let ended = n == 0;
        if ended && !pair.in_line && pair.lines.is_empty() {
            return Ok(number);
        }
        let mut rest = &chunk[..n];
        loop {
            let feed = memchr::memchr(b'\n', rest);
            let line = &rest[..feed.unwrap_or(rest.len())];
            pair.append(line, options, sink);
            position += line.len() as u64;
            if feed.is_none() && !(ended && pair.in_line) {
                break;
            }
            number += 1;
            pair.end_line(options, sink);
            if let Some(feed) = feed {
                position += 1;
                rest = &rest[feed + 1..];
            }
            if pair.lines.len() == FIELDS.len() {
                pair.push(&places, options, sink)?;
                let next = Location { number: number + 1, offset: position, ..Location::default() };
                pair = Pair::new(next, false);
            }
        }
        if ended {
            // Blank lines at the end are no questions.
            if pair.held.length() > 0 {
                let fault = Fault::new("no_answer", "the last question has no line after it");
                pair.reject(fault, sink)?;
            }
            return Ok(number);
        }
    }
}

/// For each wanted column, which line it is; absent where a value that may be missing is.
fn places(options: &DecodeOptions) -> Result<Vec<Option<usize>>, Fault> {
    let layout = &options.layout;
    layout
        .columns
        .iter()
        .map(|column| {
            let place = FIELDS.iter().position(|field| column.path.text() == *field);
            if place.is_none() && column.role == crate::record::Role::Text {
                let message = format!(
                    "pairs of lines have no field {:?}; they have question and answer",
                    column.path.text()
                );
                return Err(Fault::new("missing_field", message));
            }
            Ok(place)
        })
        .collect()
}

/// The pair at hand.
struct Pair {
    location: Location,
    /// Whether it begins the stream.
    first: bool,
    /// The lines that have ended.
    lines: Vec<TextRange>,
    /// Whether the line at hand has begun.
    in_line: bool,
    /// Bytes of the line at hand.
    open: usize,
    held: Held,
}

impl Pair {
    fn new(location: Location, first: bool) -> Self {
        Self { location, first, lines: Vec::new(), in_line: false, open: 0, held: Held::default() }
    }

    fn append(&mut self, bytes: &[u8], options: &DecodeOptions, sink: &mut BatchSink<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.in_line = true;
        self.open += bytes.len();
        self.held.keep(bytes, options, sink);
    }

    fn end_line(&mut self, options: &DecodeOptions, sink: &mut BatchSink<'_>) {
        let end = sink.bytes().len();
        // Of a pair that is too long no line is whole, nor needed.
        let whole = self.held.too_long("pair", options).is_none();
        let mut line = if whole { end - self.open..end } else { end..end };
        if self.first && self.lines.is_empty() {
            let bom = sink.bytes()[line.clone()].starts_with(UTF8_BOM);
            line.start += if bom { UTF8_BOM.len() } else { 0 };
        }
        if sink.bytes()[line.clone()].ends_with(b"\r") {
            line.end -= 1;
        }
        self.lines.push(line);
        self.in_line = false;
        self.open = 0;
    }

    fn push(
        &self,
        places: &[Option<usize>],
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        if let Some(fault) = self.held.too_long("pair", options) {
            return self.reject(fault, sink);
        }
        let values = places.iter().map(|place| place.map(|place| self.lines[place].clone()));
        sink.push(self.location, Body::Columns(values.collect()))
    }

    fn reject(&self, fault: Fault, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        self.held.reject(self.location, fault, sink)
    }
}
