//! Rows as an Arrow IPC *stream*: what Hugging Face `datasets` keeps on disk.

use super::{Columns, io_error, list, list_of, plain, span_type, syntax_span_type, tokens_type};
use crate::{Index, Row};
use arrow2::{
    array::{Array, FixedSizeListArray, StructArray, Utf8Array},
    chunk::Chunk,
    datatypes::{DataType, Field, Schema},
    io::ipc::write::{StreamWriter, WriteOptions},
};
use std::io::{self, Write};

/// Writes rows with the names that trainers expect of their columns.
pub(crate) struct RowStream<'a, W: Write> {
    writer: StreamWriter<W>,
    row_length: u32,
    rows_per_batch: usize,
    has_spans: bool,
    /// Names of sources by number.
    names: &'a [&'a str],
    columns: Columns,
}

impl<'a, W: Write> RowStream<'a, W> {
    pub(crate) fn new(sink: W, index: &Index, names: &'a [&'a str]) -> io::Result<Self> {
        let (row_length, specials) = (index.row_length, index.specials);
        let mut fields = vec![
            Field::new("input_ids", tokens_type(row_length), false),
            Field::new("segments", list_of(DataType::UInt32), false),
            Field::new("source", DataType::Utf8, false),
            Field::new("prefix_len", DataType::UInt32, false),
            Field::new("valid_len", DataType::UInt32, false),
            Field::new("row_key", DataType::UInt64, false),
            Field::new("maskable", list_of(span_type()), false),
        ];
        if index.spans.is_some() {
            fields.push(Field::new("spans", list_of(syntax_span_type()), false));
        }
        let metadata = [("eos", specials.eos), ("pad", specials.pad), ("mask", specials.mask)];
        let metadata = metadata.map(|(key, id)| (format!("coda.{key}"), id.to_string()));
        let schema = Schema { fields, metadata: metadata.into() };
        let mut writer = StreamWriter::new(sink, WriteOptions { compression: None });
        writer.start(&schema, None).map_err(io_error)?;
        let rows_per_batch = index.rows_per_batch as usize;
        let (has_spans, columns) = (index.spans.is_some(), Columns::default());
        Ok(Self { writer, row_length, rows_per_batch, has_spans, names, columns })
    }

    pub(crate) fn push(&mut self, row: &Row<'_>) -> io::Result<()> {
        self.columns.push(&row.to_buf());
        if self.columns.rows() == self.rows_per_batch { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let columns = std::mem::take(&mut self.columns);
        let sources = columns.sources.iter().map(|&source| self.names[usize::from(source)]);
        let sources = Utf8Array::<i32>::from_iter_values(sources);
        let tokens = plain(columns.tokens);
        let spans = vec![plain(columns.span_starts), plain(columns.span_lens)];
        let mut arrays: Vec<Box<dyn Array>> = vec![
            FixedSizeListArray::new(tokens_type(self.row_length), tokens, None).boxed(),
            list(DataType::UInt32, &columns.segment_ends, plain(columns.segments)),
            sources.boxed(),
            plain(columns.prefix_lens),
            plain(columns.valid_lens),
            plain(columns.row_keys),
            list(
                span_type(),
                &columns.span_ends,
                StructArray::new(span_type(), spans, None).boxed(),
            ),
        ];
        if self.has_spans {
            arrays.push(columns.syntax.into_array());
        }
        self.writer.write(&Chunk::new(arrays), None).map_err(io_error)
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        if self.columns.rows() > 0 {
            self.flush()?;
        }
        self.writer.finish().map_err(io_error)?;
        Ok(self.writer.into_inner())
    }
}
