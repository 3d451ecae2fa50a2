//! Decompressed bytes, with caps.

use super::{
    BatchSink, Body, DecodeError, DecodeOptions, Fault, Input, Location, fault::CapExceeded,
};
use crate::source::{Container, InputFile, is_generated};
use flate2::bufread::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const READ_BYTES: usize = 256 << 10;
/// A zstd frame may ask for a window of at most 2^27 bytes (128 MiB).
const WINDOW_LOG_MAX: u32 = 27;
/// Git's rule: a file with a NUL byte in its first 8000 bytes is binary.
const BINARY_PROBE: usize = 8000;

/// Caps on what a compressed file may decompress to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Decompressed bytes of one file.
    pub max_output: u64,
    /// Decompressed bytes for one compressed byte…
    pub max_ratio: u64,
    /// …counted only after this many decompressed bytes.
    pub ratio_from: u64,
}

impl Default for Limits {
    /// 64 GiB; 1000 to 1 after 64 MiB.
    fn default() -> Self {
        Self { max_output: 64 << 30, max_ratio: 1000, ratio_from: 64 << 20 }
    }
}

/// A file, decompressed by what its first bytes say it is.
pub(super) struct Stream {
    inner: Box<dyn Read + Send>,
    /// Bytes read from the file.
    read: Arc<AtomicU64>,
    produced: u64,
    compressed: bool,
    limits: Limits,
}

impl Stream {
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, DecodeError> {
        let failed = |source| DecodeError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { file, read: Arc::clone(&read) };
        let mut reader = BufReader::with_capacity(READ_BYTES, counted);
        let head = reader.fill_buf().map_err(failed)?;
        let zstd_frame = |head: &[u8]| {
            // A frame, or one of the sixteen kinds of skippable frames.
            head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                || matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
        };
        let (is_gzip, is_zstd) = (head.starts_with(&[0x1f, 0x8b]), zstd_frame(head));
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let promised = match extension {
            "gz" => !is_gzip,
            "zst" => !is_zstd,
            _ => false,
        };
        if promised && !head.is_empty() {
            return Err(DecodeError::Damaged(Fault::new(
                "corrupt",
                format!("the name ends in .{extension}, but the file does not begin as one"),
            )));
        }
        let inner: Box<dyn Read + Send> = if is_gzip {
            Box::new(MultiGzDecoder::new(reader))
        } else if is_zstd {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(failed)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
            Box::new(decoder)
        } else {
            Box::new(reader)
        };
        let compressed = is_gzip || is_zstd;
        Ok(Self { inner, read, produced: 0, compressed, limits })
    }

    /// Tells how far the file has been read while somebody else holds the stream.
    pub(super) fn meter(&self) -> Meter {
        Meter { read: Arc::clone(&self.read), reported: 0 }
    }

    fn check_caps(&self) -> Result<(), CapExceeded> {
        let Limits { max_output, max_ratio, ratio_from } = self.limits;
        if !self.compressed {
            return Ok(());
        }
        if self.produced > max_output {
            return Err(CapExceeded::Output { cap: max_output });
        }
        let input = self.read.load(Ordering::Relaxed).max(1);
        if self.produced > ratio_from && self.produced / input > max_ratio {
            return Err(CapExceeded::Ratio { cap: max_ratio, output: self.produced, input });
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.produced += n as u64;
        self.check_caps().map_err(io::Error::other)?;
        Ok(n)
    }
}

/// How far a file has been read, for the progress.
pub(super) struct Meter {
    read: Arc<AtomicU64>,
    reported: u64,
}

impl Meter {
    /// Bytes read from the file since the last call.
    pub(super) fn newly_read(&mut self) -> u64 {
        let total = self.read.load(Ordering::Relaxed);
        let fresh = total - self.reported;
        self.reported = total;
        fresh
    }
}

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// One document per file: plain text and code.
pub(super) fn decode_whole(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let location = Location { number: 1, ..Location::default() };
    let is_code = file.container == Container::Code;
    let code = is_code.then_some(Path::new(&file.name));
    with_input(&file.path, options.limits, |input| push_whole(input, location, code, options, sink))
}

/// Reads a file from its start.
pub(super) fn with_input<T>(
    path: &Path,
    limits: Limits,
    read: impl FnOnce(&mut Input<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut stream = Stream::open(path, limits)?;
    let mut meter = stream.meter();
    read(&mut Input { reader: &mut stream, meter: &mut meter, path, base: 0 })
}

/// The whole of a stream as one document; `code` is its path when it is code.
pub(super) fn push_whole(
    input: &mut Input<'_>,
    location: Location,
    code: Option<&Path>,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let start = sink.bytes().len();
    let most = options.max_document_bytes as u64;
    let outcome = input.reader.take(most.saturating_add(1)).read_to_end(sink.bytes());
    sink.consumed(input.meter.newly_read());
    let length = sink.bytes().len() - start;
    let fault = match outcome {
        Err(e) => match DecodeError::from_stream(input.path, e) {
            DecodeError::Damaged(fault) => Some(fault),
            other => return Err(other),
        },
        Ok(_) if length > options.max_document_bytes => Some(Fault::new(
            "too_long",
            format!("the document is longer than data.max_document_bytes ({most})"),
        )),
        Ok(_) => None,
    };
    if let Some(fault) = fault {
        let end = start + length.min(super::batch::HEAD_BYTES);
        let head = sink.bytes()[start..end].to_vec();
        sink.bytes().truncate(start);
        return sink.reject(location, fault, &head);
    }
    if let Some(path) = code {
        let text = &sink.bytes()[start..];
        let probe = &text[..length.min(BINARY_PROBE)];
        // Empty files are common in code (`__init__.py`) and no fault.
        if probe.is_empty() || memchr::memchr(0, probe).is_some() {
            sink.bytes().truncate(start);
            sink.skip_file();
            return Ok(());
        }
        if options.drop_generated && is_generated(path, text) {
            sink.bytes().truncate(start);
            return sink.push(location, Body::Dropped("generated"));
        }
    }
    sink.push(location, Body::Text(start..start + length))
}
