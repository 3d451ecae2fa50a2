//! The Arrow IPC file of one shard. Only this module and its parts know arrow2.
//!
//! arrow2 maps record batches without validating what it maps, so [`map`] first walks the file's
//! own description (messages, field nodes, buffers, list offsets) and lets arrow2 touch it only when
//! every length is in bounds and every column is exactly what the format says.

mod stream;

pub(crate) use stream::RowStream;

use crate::{RowBuf, SyntaxSpan, SyntaxSpans, index::Index};
use arrow_format::ipc::{MessageHeaderRef, MessageRef, RecordBatchRef, planus::ReadAsRoot as _};
use arrow2::{
    array::{Array, FixedSizeListArray, ListArray, PrimitiveArray, StructArray},
    buffer::Buffer,
    chunk::Chunk,
    datatypes::{DataType, Field, Schema},
    io::ipc::{read, write},
    mmap::mmap_unchecked,
    offset::OffsetsBuffer,
    types::NativeType,
};
use std::{
    io::{self, Cursor, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Where a file is wrong, and how.
pub(crate) type Fault = (String, String);

fn list_of(item: DataType) -> DataType {
    DataType::List(Box::new(Field::new("item", item, false)))
}

fn tokens_type(row_length: u32) -> DataType {
    let item = Field::new("item", DataType::UInt32, false);
    DataType::FixedSizeList(Box::new(item), row_length as usize)
}

fn span_type() -> DataType {
    DataType::Struct(vec![
        Field::new("start", DataType::UInt32, false),
        Field::new("len", DataType::UInt32, false),
    ])
}

fn syntax_span_type() -> DataType {
    DataType::Struct(vec![
        Field::new("start", DataType::UInt32, false),
        Field::new("len", DataType::UInt32, false),
        Field::new("kind", DataType::UInt8, false),
    ])
}

/// The schema of every shard of a set.
fn schema(index: &Index) -> Schema {
    let mut fields = vec![
        Field::new("tokens", tokens_type(index.row_length), false),
        Field::new("segments", list_of(DataType::UInt32), false),
        Field::new("row_key", DataType::UInt64, false),
        Field::new("source", DataType::UInt16, false),
        Field::new("prefix_len", DataType::UInt32, false),
        Field::new("valid_len", DataType::UInt32, false),
        Field::new("maskable", list_of(span_type()), false),
    ];
    if index.spans.is_some() {
        fields.push(Field::new("spans", list_of(syntax_span_type()), false));
    }
    let spans = index.spans.map(|kinds| ("coda.spans", kinds.to_string()));
    let metadata = [
        ("coda.format_version", index.format_version.to_string()),
        ("coda.id_bits", index.id_bits.to_string()),
        ("coda.row_length", index.row_length.to_string()),
        ("coda.tokenizer", index.tokenizer_fingerprint().to_owned()),
        ("coda.eos", index.specials.eos.to_string()),
        ("coda.pad", index.specials.pad.to_string()),
        ("coda.mask", index.specials.mask.to_string()),
        ("coda.manifest_hash", index.manifest_hash.clone()),
    ];
    let metadata = metadata.into_iter().chain(spans);
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).collect();
    Schema { fields, metadata }
}

/// The columns of a record batch that is being filled.
#[derive(Default)]
pub(crate) struct Columns {
    tokens: Vec<u32>,
    segment_ends: Vec<i32>,
    segments: Vec<u32>,
    row_keys: Vec<u64>,
    sources: Vec<u16>,
    prefix_lens: Vec<u32>,
    valid_lens: Vec<u32>,
    span_ends: Vec<i32>,
    span_starts: Vec<u32>,
    span_lens: Vec<u32>,
    syntax: SyntaxColumns,
}

/// The spans of the text of a record batch that is being filled.
#[derive(Default)]
struct SyntaxColumns {
    ends: Vec<i32>,
    starts: Vec<u32>,
    lens: Vec<u32>,
    kinds: Vec<u8>,
}

impl SyntaxColumns {
    fn push(&mut self, spans: &[SyntaxSpan]) {
        self.starts.extend(spans.iter().map(|span| span.start));
        self.lens.extend(spans.iter().map(|span| span.len));
        self.kinds.extend(spans.iter().map(|span| span.kind));
        self.ends.push(end(self.starts.len()));
    }

    fn into_array(self) -> Box<dyn Array> {
        let parts = vec![plain(self.starts), plain(self.lens), plain(self.kinds)];
        let spans = StructArray::new(syntax_span_type(), parts, None).boxed();
        list(syntax_span_type(), &self.ends, spans)
    }
}

fn end(values: usize) -> i32 {
    i32::try_from(values).expect("a batch has under 2^31 entries")
}

impl Columns {
    pub(crate) const fn rows(&self) -> usize {
        self.row_keys.len()
    }

    pub(crate) fn push(&mut self, row: &RowBuf) {
        self.tokens.extend_from_slice(&row.tokens);
        self.segments.extend_from_slice(&row.segments);
        self.segment_ends.push(end(self.segments.len()));
        self.row_keys.push(row.row_key);
        self.sources.push(row.source);
        self.prefix_lens.push(row.prefix_len);
        self.valid_lens.push(row.valid_len);
        self.span_starts.extend(row.maskable.iter().map(|span| span.start));
        self.span_lens.extend(row.maskable.iter().map(|span| span.len));
        self.span_ends.push(end(self.span_starts.len()));
        self.syntax.push(&row.spans);
    }

    /// The columns as arrays, and once more the ids: with [`Columns::restart`] their memory is used
    /// again. Fresh memory of some megabytes costs about as much as filling it.
    fn take_chunk(
        &mut self,
        row_length: u32,
        has_spans: bool,
    ) -> (Chunk<Box<dyn Array>>, Buffer<u32>) {
        let taken = std::mem::take(self);
        let ids = Buffer::from(taken.tokens);
        let tokens = PrimitiveArray::new(DataType::UInt32, ids.clone(), None).boxed();
        let spans = vec![plain(taken.span_starts), plain(taken.span_lens)];
        let spans = StructArray::new(span_type(), spans, None).boxed();
        let mut arrays = vec![
            FixedSizeListArray::new(tokens_type(row_length), tokens, None).boxed(),
            list(DataType::UInt32, &taken.segment_ends, plain(taken.segments)),
            plain(taken.row_keys),
            plain(taken.sources),
            plain(taken.prefix_lens),
            plain(taken.valid_lens),
            list(span_type(), &taken.span_ends, spans),
        ];
        if has_spans {
            arrays.push(taken.syntax.into_array());
        }
        (Chunk::new(arrays), ids)
    }

    /// Takes the memory of a chunk that is gone for the next one.
    fn restart(&mut self, ids: Buffer<u32>) {
        if let Some(mut tokens) = ids.into_mut().right() {
            tokens.clear();
            self.tokens = tokens;
        }
    }
}

fn plain<T: NativeType>(values: Vec<T>) -> Box<dyn Array> {
    PrimitiveArray::from_vec(values).boxed()
}

fn list(item: DataType, ends: &[i32], values: Box<dyn Array>) -> Box<dyn Array> {
    let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().copied()).collect();
    let offsets = OffsetsBuffer::try_from(offsets).expect("ends ascend");
    ListArray::new(list_of(item), offsets, values, None).boxed()
}

/// Writes one shard, batch by batch.
pub(crate) struct Encoder<W: Write> {
    writer: write::FileWriter<W>,
    row_length: u32,
    has_spans: bool,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(sink: W, index: &Index) -> io::Result<Self> {
        let options = write::WriteOptions { compression: None };
        let writer = write::FileWriter::try_new(sink, schema(index), None, options);
        let (row_length, has_spans) = (index.row_length, index.spans.is_some());
        Ok(Self { writer: writer.map_err(io_error)?, row_length, has_spans })
    }

    /// Writes a record batch and empties the columns.
    pub(crate) fn write(&mut self, columns: &mut Columns) -> io::Result<()> {
        let (chunk, ids) = columns.take_chunk(self.row_length, self.has_spans);
        self.writer.write(&chunk, None).map_err(io_error)?;
        drop(chunk);
        columns.restart(ids);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.writer.finish().map_err(io_error)?;
        Ok(self.writer.into_inner())
    }
}

fn io_error(error: arrow2::error::Error) -> io::Error {
    match error {
        arrow2::error::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// A record batch whose buffers lie in the mapped file.
pub(crate) struct Batch {
    row_length: usize,
    tokens: Buffer<u32>,
    segment_offsets: Buffer<i32>,
    segments: Buffer<u32>,
    row_keys: Buffer<u64>,
    sources: Buffer<u16>,
    prefix_lens: Buffer<u32>,
    valid_lens: Buffer<u32>,
    span_offsets: Buffer<i32>,
    span_starts: Buffer<u32>,
    span_lens: Buffer<u32>,
    syntax: Option<SyntaxBuffers>,
}

/// The spans of the text of a record batch.
struct SyntaxBuffers {
    offsets: Buffer<i32>,
    starts: Buffer<u32>,
    lens: Buffer<u32>,
    kinds: Buffer<u8>,
}

impl Batch {
    pub(crate) fn row(&self, i: usize) -> crate::Row<'_> {
        let segments = entries(&self.segment_offsets, i);
        let spans = entries(&self.span_offsets, i);
        crate::Row {
            tokens: &self.tokens[i * self.row_length..(i + 1) * self.row_length],
            segments: &self.segments[segments],
            row_key: self.row_keys[i],
            source: self.sources[i],
            prefix_len: self.prefix_lens[i],
            valid_len: self.valid_lens[i],
            maskable_starts: &self.span_starts[spans.clone()],
            maskable_lens: &self.span_lens[spans],
            spans: self.syntax.as_ref().map(|syntax| syntax.row(i)).unwrap_or_default(),
        }
    }
}

impl SyntaxBuffers {
    fn row(&self, i: usize) -> SyntaxSpans<'_> {
        let entries = entries(&self.offsets, i);
        SyntaxSpans {
            starts: &self.starts[entries.clone()],
            lens: &self.lens[entries.clone()],
            kinds: &self.kinds[entries],
        }
    }
}

/// The entries of list `i`; offsets were found to be ascending and not negative.
fn entries(offsets: &[i32], i: usize) -> std::ops::Range<usize> {
    let at = |i: usize| usize::try_from(offsets[i]).unwrap_or(0);
    at(i)..at(i + 1)
}

/// Maps the record batches of a shard with `rows` rows. No token is copied.
///
/// Whatever the bytes are, this gives either batches in which every row can be read, or a fault.
pub(crate) fn map<T>(data: &Arc<T>, index: &Index, rows: u64) -> Result<Vec<Batch>, Fault>
where
    T: AsRef<[u8]> + Send + Sync + 'static,
{
    // The flatbuffer code returns errors for what it checks; a panic would be a case it missed.
    catch_unwind(AssertUnwindSafe(|| map_checked(data, index, rows)))
        .unwrap_or_else(|_| Err(("its Arrow description".into(), "it cannot be parsed".into())))
}

fn map_checked<T>(data: &Arc<T>, index: &Index, rows: u64) -> Result<Vec<Batch>, Fault>
where
    T: AsRef<[u8]> + Send + Sync + 'static,
{
    let bytes = (**data).as_ref();
    let footer = |problem: String| ("the Arrow footer".to_owned(), problem);
    let metadata = read::read_file_metadata(&mut Cursor::new(bytes))
        .map_err(|error| footer(error.to_string()))?;
    let expected = schema(index);
    if metadata.schema.fields != expected.fields {
        return Err(footer(format!("the columns are {:?}", metadata.schema.fields)));
    }
    if metadata.schema.metadata != expected.metadata {
        return Err(footer(format!(
            "the metadata is {:?}, the index says {:?}",
            metadata.schema.metadata, expected.metadata
        )));
    }
    let per_batch = u64::from(index.rows_per_batch);
    if metadata.blocks.len() as u64 != rows.div_ceil(per_batch) {
        return Err(footer(format!("{} record batches for {rows} rows", metadata.blocks.len())));
    }
    let mut batches = Vec::with_capacity(metadata.blocks.len());
    for (number, block) in metadata.blocks.iter().enumerate() {
        let fault = |problem: String| (format!("record batch {number}"), problem);
        let rows = usize::try_from((rows - number as u64 * per_batch).min(per_batch))
            .map_err(|error| fault(error.to_string()))?;
        let place = (block.offset, i64::from(block.meta_data_length), block.body_length);
        check_batch(bytes, place, rows, index).map_err(fault)?;
        // SAFETY: `check_batch` has found, for this batch of this very schema, that there are no
        // nulls and no compression, that every buffer lies inside the file and holds as many values
        // as its field says, and that list offsets ascend from 0 to the length of their values.
        // Those are all the invariants that arrow2 leaves to its caller; alignment it checks itself.
        // The arrays keep `data` alive.
        let chunk = unsafe { mmap_unchecked(&metadata, &<_>::default(), Arc::clone(data), number) };
        let chunk = chunk.map_err(|error| fault(error.to_string()))?;
        batches.push(
            batch(&chunk, index.row_length as usize, rows)
                .ok_or_else(|| fault("its columns have wrong types or lengths".to_owned()))?,
        );
    }
    Ok(batches)
}

/// Takes the buffers out of the arrays.
fn batch(chunk: &Chunk<Box<dyn Array>>, row_length: usize, rows: usize) -> Option<Batch> {
    fn plain<T: NativeType>(array: &dyn Array, len: usize) -> Option<Buffer<T>> {
        let values = array.as_any().downcast_ref::<PrimitiveArray<T>>()?.values();
        (values.len() == len).then(|| values.clone())
    }
    fn list(array: &dyn Array, rows: usize) -> Option<(Buffer<i32>, &dyn Array)> {
        let list = array.as_any().downcast_ref::<ListArray<i32>>()?;
        let offsets = list.offsets().buffer();
        (offsets.len() == rows + 1).then(|| (offsets.clone(), list.values().as_ref()))
    }
    let [tokens, segments, row_keys, sources, prefix_lens, valid_lens, spans, syntax @ ..] =
        chunk.arrays()
    else {
        return None;
    };
    let syntax = match syntax {
        [] => None,
        [syntax] => {
            let (offsets, spans) = list(syntax.as_ref(), rows)?;
            let [starts, lens, kinds] = spans.as_any().downcast_ref::<StructArray>()?.values()
            else {
                return None;
            };
            Some(SyntaxBuffers {
                offsets,
                starts: plain(starts.as_ref(), spans.len())?,
                lens: plain(lens.as_ref(), spans.len())?,
                kinds: plain(kinds.as_ref(), spans.len())?,
            })
        }
        _ => return None,
    };
    let tokens = tokens.as_any().downcast_ref::<FixedSizeListArray>()?;
    let (segment_offsets, segments) = list(segments.as_ref(), rows)?;
    let (span_offsets, spans) = list(spans.as_ref(), rows)?;
    let [starts, lens] = spans.as_any().downcast_ref::<StructArray>()?.values() else {
        return None;
    };
    Some(Batch {
        row_length,
        tokens: plain(tokens.values().as_ref(), rows * row_length)?,
        segment_offsets,
        segments: plain(segments, segments.len())?,
        row_keys: plain(row_keys.as_ref(), rows)?,
        sources: plain(sources.as_ref(), rows)?,
        prefix_lens: plain(prefix_lens.as_ref(), rows)?,
        valid_lens: plain(valid_lens.as_ref(), rows)?,
        span_offsets,
        span_starts: plain(starts.as_ref(), spans.len())?,
        span_lens: plain(lens.as_ref(), spans.len())?,
        syntax,
    })
}

/// Walks the description of one record batch, in the order in which Arrow lists fields and buffers.
fn check_batch(
    bytes: &[u8],
    (offset, meta, body): (i64, i64, i64),
    rows: usize,
    index: &Index,
) -> Result<(), String> {
    let meta_range = range(offset, meta)?;
    let message = bytes.get(meta_range.clone()).ok_or("its message lies outside the file")?;
    let body = range(meta_range.end.try_into().unwrap_or(i64::MAX), body)?;
    let body = bytes.get(body).ok_or("its body lies outside the file")?;
    let (head, rest) = message.split_first_chunk::<8>().ok_or("its message is too short")?;
    let [0xff, 0xff, 0xff, 0xff, length @ ..] = head else {
        return Err("its message does not begin with the continuation marker".to_owned());
    };
    let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| "negative length")?;
    let message = rest.get(..length).ok_or("its message is longer than the footer says")?;
    let message = MessageRef::read_as_root(message).map_err(|error| error.to_string())?;
    let header = message.header().map_err(|error| error.to_string())?;
    let Some(MessageHeaderRef::RecordBatch(batch)) = header else {
        return Err("its message is not a record batch".to_owned());
    };
    if batch.length().map_err(|error| error.to_string())? != length_of(rows)? {
        return Err(format!("it does not have {rows} rows"));
    }
    let mut walk = Walk::new(&batch, body)?;
    let product = |a: usize, b: usize| a.checked_mul(b).ok_or("a length overflows");
    // tokens
    walk.field(rows)?;
    walk.values(product(rows, index.row_length as usize)?, 4)?;
    // segments
    let segments = walk.list(rows)?;
    walk.values(segments, 4)?;
    // row_key, source, prefix_len, valid_len
    for width in [8, 2, 4, 4] {
        walk.values(rows, width)?;
    }
    // maskable
    let spans = walk.list(rows)?;
    walk.field(spans)?;
    walk.values(spans, 4)?;
    walk.values(spans, 4)?;
    if index.spans.is_some() {
        let spans = walk.list(rows)?;
        walk.field(spans)?;
        for width in [4, 4, 1] {
            walk.values(spans, width)?;
        }
    }
    walk.end()
}

fn length_of(rows: usize) -> Result<i64, String> {
    i64::try_from(rows).map_err(|error| error.to_string())
}

fn range(offset: i64, length: i64) -> Result<std::ops::Range<usize>, String> {
    let start = usize::try_from(offset).map_err(|_| "an offset is negative")?;
    let length = usize::try_from(length).map_err(|_| "a length is negative")?;
    let end = start.checked_add(length).ok_or("an offset overflows")?;
    Ok(start..end)
}

/// Fields and buffers yet to be seen.
struct Walk<'a> {
    nodes: std::vec::IntoIter<(i64, i64)>,
    buffers: std::vec::IntoIter<(i64, i64)>,
    body: &'a [u8],
}

impl<'a> Walk<'a> {
    fn new(batch: &RecordBatchRef<'_>, body: &'a [u8]) -> Result<Self, String> {
        if batch.compression().map_err(|error| error.to_string())?.is_some() {
            return Err("it is compressed".to_owned());
        }
        let nodes = batch.nodes().map_err(|error| error.to_string())?.ok_or("no fields")?;
        let buffers = batch.buffers().map_err(|error| error.to_string())?.ok_or("no buffers")?;
        let nodes: Vec<_> = nodes.iter().map(|node| (node.length(), node.null_count())).collect();
        let buffers: Vec<_> = buffers.iter().map(|b| (b.offset(), b.length())).collect();
        Ok(Self { nodes: nodes.into_iter(), buffers: buffers.into_iter(), body })
    }

    fn node(&mut self) -> Result<usize, String> {
        let (length, nulls) = self.nodes.next().ok_or("a field is missing")?;
        if nulls != 0 {
            return Err(format!("a column claims {nulls} nulls"));
        }
        usize::try_from(length).map_err(|_| "a field's length is negative".to_owned())
    }

    fn buffer(&mut self, at_least: usize) -> Result<&'a [u8], String> {
        let (offset, length) = self.buffers.next().ok_or("a buffer is missing")?;
        let buffer = self.body.get(range(offset, length)?).ok_or("a buffer leaves the body")?;
        if buffer.len() < at_least {
            return Err(format!("a buffer has {} bytes of {at_least}", buffer.len()));
        }
        Ok(buffer)
    }

    /// A field without values of its own: a fixed-size list or a struct.
    fn field(&mut self, length: usize) -> Result<(), String> {
        let found = self.node()?;
        if found != length {
            return Err(format!("a field has {found} entries instead of {length}"));
        }
        self.buffer(0).map(|_| ())
    }

    /// A field of plain values.
    fn values(&mut self, length: usize, width: usize) -> Result<(), String> {
        self.field(length)?;
        self.buffer(length.checked_mul(width).ok_or("a length overflows")?).map(|_| ())
    }

    /// A list field; gives the number of entries in all lists together.
    fn list(&mut self, rows: usize) -> Result<usize, String> {
        self.field(rows)?;
        let offsets = self.buffer((rows + 1) * 4)?;
        let (offsets, _) = offsets[..(rows + 1) * 4].as_chunks::<4>();
        let mut last = 0;
        for (i, offset) in offsets.iter().enumerate() {
            let offset = i32::from_le_bytes(*offset);
            if offset < last || (i == 0 && offset != 0) {
                return Err(format!("list offset {i} is {offset} after {last}"));
            }
            last = offset;
        }
        let values = self.nodes.as_slice().first().map(|&(length, _)| length);
        if values != Some(i64::from(last)) {
            return Err(format!("lists end at {last}, but their values are {values:?}"));
        }
        usize::try_from(last).map_err(|error| error.to_string())
    }

    fn end(self) -> Result<(), String> {
        if self.nodes.len() == 0 && self.buffers.len() == 0 {
            Ok(())
        } else {
            Err("it has fields or buffers too many".to_owned())
        }
    }
}
