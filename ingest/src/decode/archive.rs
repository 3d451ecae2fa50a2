//! Tar archives, plain or compressed: member by member, as a stream, nothing unpacked to disk.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault, Input, Location, decode_records,
    stream::{Meter, Stream, push_whole},
};
use crate::source::{Container, InputFile, container_of};
use std::{
    io::{self, Read},
    ops::ControlFlow,
    path::Path,
};
use tar::{Archive, Entry, EntryType};

/// Longest path that is read of a header; a longer one is no path.
const MAX_PATH: u64 = 64 << 10;

pub(super) fn decode(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let stream = Stream::open(&file.path, options.limits)?;
    let mut meter = stream.meter();
    let mut archive = Archive::new(stream);
    let broken = |e: io::Error| match DecodeError::from_stream(&file.path, e) {
        DecodeError::Damaged(fault) if fault.reason == "corrupt" => DecodeError::Damaged(
            Fault::new("corrupt", format!("the archive is damaged: {}", fault.message)),
        ),
        other => other,
    };
    // Raw: long names are read here, with a limit, and not by the crate, without one.
    let entries = archive.entries().map_err(&broken)?.raw(true);
    let mut long_path = None;
    let mut number = 0;
    for entry in entries {
        let mut entry = entry.map_err(&broken)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => long_path = Some(gnu_path(&mut entry).map_err(&broken)?),
            EntryType::XHeader => {
                if let Some(path) = pax_path(&mut entry).map_err(&broken)? {
                    long_path = Some(path);
                }
            }
            EntryType::Regular | EntryType::Continuous => {
                let path = long_path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                let path = String::from_utf8_lossy(&path).into_owned();
                let mut reading = Reading { file, options, meter: &mut meter, number };
                number = match reading.member(&path, &mut entry, sink)? {
                    ControlFlow::Continue(number) => number,
                    // What broke inside a member is told there.
                    ControlFlow::Break(()) => return Ok(()),
                };
            }
            // Folders, links and devices hold no text.
            _ => long_path = None,
        }
    }
    sink.consumed(meter.newly_read());
    Ok(())
}

struct Reading<'a> {
    file: &'a InputFile,
    options: &'a DecodeOptions,
    meter: &'a mut Meter,
    /// Lines or records of the members before.
    number: u64,
}

impl Reading<'_> {
    /// Reads one member, if it is wanted; gives the number of the last record so far, unless the
    /// stream broke.
    fn member(
        &mut self,
        name: &str,
        entry: &mut Entry<'_, Stream>,
        sink: &mut BatchSink<'_>,
    ) -> Result<ControlFlow<(), u64>, DecodeError> {
        let (options, members) = (self.options, &self.options.members);
        let path = Path::new(name);
        if members.wanted.as_ref().is_some_and(|wanted| !wanted.is_match(path)) {
            return Ok(ControlFlow::Continue(self.number));
        }
        let Some(container) = members.container.or_else(|| container_of(path)) else {
            return Ok(ControlFlow::Continue(self.number));
        };
        let base = entry.raw_file_position();
        let location = Location { number: self.number + 1, offset: base, ..Location::default() };
        let mut whole = Whole { left: entry.size(), entry, broken: false };
        let mut input =
            Input { reader: &mut whole, meter: self.meter, path: &self.file.path, base };
        let last = match container {
            Container::Jsonl | Container::Json | Container::Pairs => {
                decode_records(&mut input, (container, path), self.number, options, sink)?
            }
            Container::Text | Container::Code => {
                let code = (container == Container::Code).then_some(path);
                push_whole(&mut input, location, code, options, sink)?;
                self.number + 1
            }
            Container::Parquet | Container::Arrow | Container::Tar => {
                let message = format!(
                    "the member {name:?} is a {} file, which cannot be read inside an archive; \
                     unpack it",
                    container.name()
                );
                sink.reject(location, Fault::new("unsupported", message), name.as_bytes())?;
                self.number + 1
            }
        };
        Ok(if whole.broken { ControlFlow::Break(()) } else { ControlFlow::Continue(last) })
    }
}

/// A member that must be there to its end; the crate ends it with the archive.
struct Whole<'a, 'e> {
    entry: &'a mut Entry<'e, Stream>,
    left: u64,
    broken: bool,
}

impl Read for Whole<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.entry.read(buffer).inspect_err(|e| {
            self.broken = e.kind() != io::ErrorKind::Interrupted;
        })?;
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            self.broken = true;
            let message = format!("{} bytes of the member are missing", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn read_short(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_PATH + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PATH {
        return Err(io::Error::other("a header of more than 64 KiB"));
    }
    Ok(bytes)
}

fn gnu_path(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut path = read_short(entry)?;
    path.truncate(memchr::memchr(0, &path).unwrap_or(path.len()));
    Ok(path)
}

/// The path in a pax header, which is lines of `length key=value`.
fn pax_path(entry: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let bytes = read_short(entry)?;
    let mut found = None;
    for line in bytes.split(|&byte| byte == b'\n') {
        let record = line.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
        if let Some(path) = record.strip_prefix(b"path=") {
            found = Some(path.to_vec());
        }
        if record.starts_with(b"size=") {
            return Err(io::Error::other("a member above 8 GiB"));
        }
    }
    Ok(found)
}
