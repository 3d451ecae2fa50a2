//! Records as JSON lines, as they stand in their files: to look at a corpus before a manifest names it, and
//! to hand small files of a hub to programs that read no columns.

use crate::{
    decode::{Batch, BatchSink, Body, DecodeError, DecodeOptions, Location, RawRecord, decode},
    fetch::{FetchError, Fetcher},
    record::{Column, FieldPath, Layout, Role},
    source::{Container, InputFile},
};
use coda_cli::{Progress, signals::Stop};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    sync::Arc,
};

/// The fields of a container of alternating lines.
const PAIR: [&str; 2] = ["question", "answer"];

/// Why writing records ended.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A remote file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The system could not read a file.
    #[error(transparent)]
    Read(DecodeError),
    /// The records cannot be written.
    #[error("cannot write records")]
    Write(#[source] io::Error),
    /// A signal came.
    #[error("stopped")]
    Stopped,
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records, or whole files, that are not usable.
    pub rejected: u64,
}

/// A record that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut<'a> {
    /// Its file.
    pub file: &'a str,
    /// Line, row or number of the value, from 1; 0 when the file as a whole is meant.
    pub number: u64,
    /// What is wrong with it.
    pub problem: &'a str,
}

/// Where records go, and what is told on the way.
pub struct Sink<'a> {
    /// Gets a line of JSON for every record.
    pub out: &'a mut dyn Write,
    /// Hears of what is left out.
    pub left_out: &'a mut dyn FnMut(LeftOut<'_>),
    /// Advanced by the bytes that are fetched and read.
    pub progress: &'a Arc<Progress>,
    /// Signals.
    pub stop: &'a Stop,
}

/// Writes the records of files, in order, the first `head` of them where it is given.
///
/// A record of a JSON container is copied as it stands (line breaks between its values become spaces), a row
/// of columns becomes an object of all its columns, a pair of lines one of `question` and `answer`, a text one
/// of `text`. `fetcher` brings the remote files.
///
/// # Errors
/// [`RecordsError`]. A damaged record or file is left out, and the rest goes on.
pub fn write_records(
    files: &[InputFile],
    fetcher: Option<&Fetcher>,
    head: Option<u64>,
    sink: Sink<'_>,
) -> Result<Written, RecordsError> {
    let Sink { out, left_out, progress, stop } = sink;
    let mut ahead = fetcher.map(|fetcher| {
        let counted = Arc::clone(progress);
        fetcher.ahead(files, Arc::new(move |bytes| counted.advance(bytes)))
    });
    let mut writer = Writer { out, head, written: Written::default(), failed: None };
    for (number, file) in (0..).zip(files) {
        if writer.is_full() {
            break;
        }
        progress.note(file.name.clone());
        if let Some(ahead) = &mut ahead {
            ahead.next(&|| stop.requested().is_some())?;
        }
        let options = DecodeOptions { layout: layout(file.container), ..DecodeOptions::default() };
        let mut send = |batch: Batch| {
            progress.advance(batch.consumed);
            writer.take(&batch, &file.name, left_out) && stop.requested().is_none()
        };
        let mut sink = BatchSink::new(&mut send);
        let read = decode(file, number, &options, &mut sink).and_then(|()| sink.flush());
        if let Some(error) = writer.failed.take() {
            return Err(RecordsError::Write(error));
        }
        if stop.requested().is_some() {
            return Err(RecordsError::Stopped);
        }
        match read {
            Ok(()) | Err(DecodeError::Closed) => {}
            Err(error) => return Err(RecordsError::Read(error)),
        }
    }
    Ok(writer.written)
}

/// What is wanted of the records of a container.
fn layout(container: Container) -> Layout {
    let pair = PAIR.map(|name| Column { path: FieldPath::new(name), role: Role::Text });
    match container {
        Container::Pairs => Layout { columns: pair.into(), ..Layout::default() },
        _ => Layout { whole: true, ..Layout::default() },
    }
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    head: Option<u64>,
    written: Written,
    failed: Option<io::Error>,
}

impl Writer<'_> {
    fn is_full(&self) -> bool {
        self.head.is_some_and(|head| self.written.records >= head)
    }

    /// Writes the records of a batch; says whether more are wanted.
    fn take(&mut self, batch: &Batch, file: &str, left_out: &mut dyn FnMut(LeftOut<'_>)) -> bool {
        for RawRecord { location: Location { number, .. }, body } in &batch.records {
            if self.is_full() {
                return false;
            }
            match line(&batch.bytes, body) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    self.written.records += 1;
                    self.written.bytes += line.len() as u64;
                    if let Err(error) = self.out.write_all(&line) {
                        self.failed = Some(error);
                        return false;
                    }
                }
                Err(problem) => {
                    self.written.rejected += 1;
                    left_out(LeftOut { file, number: *number, problem: &problem });
                }
            }
        }
        !self.is_full()
    }
}

/// A record as a line; nothing for files that a folder of code has beside its code.
fn line(bytes: &[u8], body: &Body) -> Result<Option<Vec<u8>>, String> {
    let text = |range: &std::ops::Range<usize>| {
        std::str::from_utf8(&bytes[range.clone()]).map_err(|error| error.to_string())
    };
    let object: Value = match body {
        Body::Json(range) => {
            let record = text(range)?.trim();
            // What lies between the braces is the reader's matter: Python writes numbers that JSON has not.
            if !(record.starts_with('{') && record.ends_with('}')) {
                return Err("the record is not a JSON object".to_owned());
            }
            // In a string they would have to be escaped.
            let mut line = record.replace(['\n', '\r'], " ").into_bytes();
            line.push(b'\n');
            return Ok(Some(line));
        }
        Body::Text(range) => json!({ "text": text(range)? }),
        Body::Columns(ranges) => {
            let value = |range: &Option<_>| range.as_ref().map(text).transpose();
            let values = ranges.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            PAIR.iter()
                .zip(values)
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect()
        }
        Body::Rejected { fault, .. } => return Err(fault.message.clone()),
        Body::Elements(_) | Body::Dropped(_) => return Ok(None),
    };
    Ok(Some(format!("{object}\n").into_bytes()))
}
