//! JSON values one after the other, or in one array, however they are spread over lines. Cut apart
//! byte by byte in bounded memory; what a value holds is looked at later.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault, Input, Location, elements,
    held::Held,
    lines::{CHUNK, UTF8_BOM},
};

/// Splits a stream into its top-level values, or into the elements of its one top-level array, and
/// appends each to the sink. They are numbered on from `before`; gives how many there were up to the
/// end, `before` included.
pub(super) fn decode(
    input: &mut Input<'_>,
    before: u64,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<u64, DecodeError> {
    let mut splitter = Splitter::new(before, input.base);
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match input.read(&mut chunk, sink) {
            Ok(n) => n,
            Err(DecodeError::Damaged(fault)) => {
                splitter.broken(fault, sink)?;
                return Ok(splitter.number);
            }
            Err(error) => return Err(error),
        };
        if n == 0 {
            splitter.end(options, sink)?;
            return Ok(splitter.number);
        }
        let mut bytes = &chunk[..n];
        if splitter.position == input.base && bytes.starts_with(UTF8_BOM) {
            bytes = &bytes[UTF8_BOM.len()..];
            splitter.position += UTF8_BOM.len() as u64;
        }
        for &byte in bytes {
            splitter.take(byte, options, sink)?;
            splitter.position += 1;
        }
    }
}

/// Where the array at the top is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Array {
    /// Nothing but white space was seen yet.
    Unknown,
    /// The values stand in one.
    Open,
    /// It has ended.
    Closed,
    /// The values stand one after the other.
    None,
}

struct Splitter {
    position: u64,
    number: u64,
    array: Array,
    /// Brackets open inside the value at hand.
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The value at hand, its white space outside strings included; empty between values.
    held: Held,
    start: u64,
    /// The first fault between values ends the file: what follows cannot be told apart.
    damaged: bool,
}

impl Splitter {
    fn new(number: u64, position: u64) -> Self {
        Self {
            position,
            number,
            array: Array::Unknown,
            depth: 0,
            in_string: false,
            escaped: false,
            held: Held::default(),
            start: 0,
            damaged: false,
        }
    }

    fn take(
        &mut self,
        byte: u8,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        if self.damaged {
            return Ok(());
        }
        if self.held.length() == 0 {
            return self.between(byte, options, sink);
        }
        let ends_scalar = byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
        if self.depth == 0 && !self.in_string && ends_scalar {
            // A bare word or number; it is no record, and the extraction will say so.
            self.value(options, sink)?;
            return self.between(byte, options, sink);
        }
        self.held.keep(&[byte], options, sink);
        if self.escaped {
            self.escaped = false;
        } else if self.in_string {
            self.escaped = byte == b'\\';
            self.in_string = byte != b'"';
            if !self.in_string && self.depth == 0 {
                return self.value(options, sink);
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return self.value(options, sink);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A byte outside all values.
    fn between(
        &mut self,
        byte: u8,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        match (byte, self.array) {
            (b, _) if b.is_ascii_whitespace() => Ok(()),
            (b'[', Array::Unknown) => {
                self.array = Array::Open;
                Ok(())
            }
            (b']', Array::Open) => {
                self.array = Array::Closed;
                Ok(())
            }
            // Where commas may stand is not checked: no value can be misread for one too many.
            (b',', Array::Open) => Ok(()),
            (b']' | b'}' | b',' | b':', _) | (_, Array::Closed) => {
                self.damaged = true;
                let message = if self.array == Array::Closed {
                    "there is more after the end of the array"
                } else {
                    "a bracket or comma stands where a value or the end is expected"
                };
                let location = Location { number: self.number + 1, ..self.here() };
                sink.reject(location, Fault::new("malformed_json", message), &[byte])
            }
            _ => {
                if self.array == Array::Unknown {
                    self.array = Array::None;
                }
                self.number += 1;
                self.start = self.position;
                self.held.keep(&[byte], options, sink);
                self.in_string = byte == b'"';
                self.depth = u64::from(matches!(byte, b'{' | b'['));
                Ok(())
            }
        }
    }

    fn here(&self) -> Location {
        Location { offset: self.position, ..Location::default() }
    }

    /// The value at hand has ended.
    fn value(
        &mut self,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let held = std::mem::take(&mut self.held);
        self.depth = 0;
        let location = Location { number: self.number, offset: self.start, ..Location::default() };
        if let Some(fault) = held.too_long("value", options) {
            return held.reject(location, fault, sink);
        }
        let range = held.range(sink);
        elements::push_json(location, range, options, sink)
    }

    fn end(
        &mut self,
        options: &DecodeOptions,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let is_scalar = self.held.length() > 0 && self.depth == 0 && !self.in_string;
        if is_scalar {
            self.value(options, sink)?;
        }
        if self.held.length() == 0 && (self.array != Array::Open || self.damaged) {
            return Ok(());
        }
        let fault = Fault::new("truncated", "the file ends inside a JSON value");
        self.broken(fault, sink)
    }

    /// The stream broke here: the values before are kept.
    fn broken(&self, fault: Fault, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        let offset = if self.held.length() > 0 { self.start } else { self.position };
        let number = if self.held.length() > 0 { self.number } else { self.number + 1 };
        self.held.reject(Location { number, offset, ..Location::default() }, fault, sink)
    }
}
