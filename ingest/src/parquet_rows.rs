//! Rows of a shard set as Parquet files, for polars, `DuckDB`, pandas and whatever reads tables.

use coda_shards::{
    Row, ShardSet,
    commit::{AtomicDir, FileError},
    export::{ExportError, Exported, Selected, Tick, by_shard, step},
};
use polars_arrow::{
    array::{Array, FixedSizeListArray, ListArray, PrimitiveArray, StructArray, Utf8Array},
    datatypes::{ArrowDataType, ArrowSchema, Field},
    offset::OffsetsBuffer,
    record_batch::RecordBatchT,
    types::NativeType,
};
use polars_parquet::write::{
    CompressionOptions, Encoding, FileWriter, KeyValue, RowGroupIterator, StatisticsOptions,
    Version, WriteOptions, schema_to_metadata_key,
};
use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::Arc,
};

/// Batches of a shard that make a row group: about 32 MiB of ids before compression.
const BATCHES_PER_GROUP: usize = 4;

/// Writes the chosen rows, whole, into a new folder, one file for each shard; it appears whole or not
/// at all.
///
/// # Errors
/// [`ExportError`]; then nothing is left.
pub fn write_parquet(
    set: &ShardSet,
    selected: &[Selected],
    out: &Path,
    tick: &mut Tick<'_>,
) -> Result<Exported, ExportError> {
    let dir = AtomicDir::create(out)?;
    let names: Vec<&str> = set.sources().iter().map(|source| source.name.as_str()).collect();
    let files = by_shard(set, selected);
    let per_group = set.index().rows_per_batch as usize * BATCHES_PER_GROUP;
    let mut done = Exported::default();
    for (number, ranges) in files.iter().enumerate() {
        let name = format!("rows-{number:05}-of-{:05}.parquet", files.len());
        let path = dir.path().join(&name);
        let error = |action| {
            let path = path.clone();
            move |error| FileError::new(action, &path, error)
        };
        let file = File::create_new(&path).map_err(error("create"))?;
        let mut table = Table::new(BufWriter::new(file), set).map_err(error("write"))?;
        for number in ranges.clone().into_iter().flatten() {
            table.group.push(&set.row(number)?, &names);
            if table.group.row_keys.len() == per_group {
                table.flush().map_err(error("write"))?;
            }
            done.rows += 1;
            step(tick, 1)?;
        }
        table.finish(set).map_err(error("write"))?;
        done.files.push(name);
    }
    done.tokens = done.rows * u64::from(set.row_length());
    dir.commit()?;
    Ok(done)
}

/// One file.
struct Table {
    writer: FileWriter<BufWriter<File>>,
    schema: Arc<ArrowSchema>,
    row_length: usize,
    has_spans: bool,
    group: Group,
}

/// The rows of a group that is being filled.
#[derive(Default)]
struct Group {
    tokens: Vec<u32>,
    segment_ends: Vec<i32>,
    segments: Vec<u32>,
    sources: Vec<String>,
    prefix_lens: Vec<u32>,
    valid_lens: Vec<u32>,
    row_keys: Vec<u64>,
    span_ends: Vec<i32>,
    span_starts: Vec<u32>,
    span_lens: Vec<u32>,
    syntax_ends: Vec<i32>,
    syntax_starts: Vec<u32>,
    syntax_lens: Vec<u32>,
    syntax_kinds: Vec<u8>,
}

const OPTIONS: WriteOptions = WriteOptions {
    statistics: StatisticsOptions {
        min_value: false,
        max_value: false,
        distinct_count: false,
        null_count: true,
        binary_statistics_truncate_length: None,
    },
    version: Version::V1,
    compression: CompressionOptions::Zstd(None),
    data_page_size: None,
};

fn field(name: &'static str, dtype: ArrowDataType) -> Field {
    Field::new(name.into(), dtype, false)
}

fn list_of(item: ArrowDataType) -> ArrowDataType {
    ArrowDataType::List(Box::new(field("item", item)))
}

fn ids_type(row_length: usize) -> ArrowDataType {
    ArrowDataType::FixedSizeList(Box::new(field("item", ArrowDataType::UInt32)), row_length)
}

fn span_type() -> ArrowDataType {
    let part = |name| field(name, ArrowDataType::UInt32);
    ArrowDataType::Struct(vec![part("start"), part("len")])
}

fn syntax_span_type() -> ArrowDataType {
    let part = |name, dtype| field(name, dtype);
    ArrowDataType::Struct(vec![
        part("start", ArrowDataType::UInt32),
        part("len", ArrowDataType::UInt32),
        part("kind", ArrowDataType::UInt8),
    ])
}

impl Group {
    fn push(&mut self, row: &Row<'_>, names: &[&str]) {
        let end = |values: usize| i32::try_from(values).expect("a group has under 2^31 entries");
        self.tokens.extend_from_slice(row.tokens);
        self.segments.extend_from_slice(row.segments);
        self.segment_ends.push(end(self.segments.len()));
        self.sources.push(names[usize::from(row.source)].to_owned());
        self.prefix_lens.push(row.prefix_len);
        self.valid_lens.push(row.valid_len);
        self.row_keys.push(row.row_key);
        self.span_starts.extend_from_slice(row.maskable_starts);
        self.span_lens.extend_from_slice(row.maskable_lens);
        self.span_ends.push(end(self.span_starts.len()));
        self.syntax_starts.extend_from_slice(row.spans.starts);
        self.syntax_lens.extend_from_slice(row.spans.lens);
        self.syntax_kinds.extend_from_slice(row.spans.kinds);
        self.syntax_ends.push(end(self.syntax_starts.len()));
    }

    fn into_arrays(self, row_length: usize, has_spans: bool) -> Vec<Box<dyn Array>> {
        let (rows, spans) = (self.row_keys.len(), self.span_starts.len());
        let parts = vec![plain(self.span_starts), plain(self.span_lens)];
        let spans = StructArray::new(span_type(), spans, parts, None).boxed();
        let ids = plain(self.tokens);
        let mut arrays = vec![
            FixedSizeListArray::new(ids_type(row_length), rows, ids, None).boxed(),
            list(ArrowDataType::UInt32, &self.segment_ends, plain(self.segments)),
            Utf8Array::<i64>::from_slice(&self.sources).boxed(),
            plain(self.prefix_lens),
            plain(self.valid_lens),
            plain(self.row_keys),
            list(span_type(), &self.span_ends, spans),
        ];
        if has_spans {
            let entries = self.syntax_starts.len();
            let parts =
                vec![plain(self.syntax_starts), plain(self.syntax_lens), plain(self.syntax_kinds)];
            let spans = StructArray::new(syntax_span_type(), entries, parts, None).boxed();
            arrays.push(list(syntax_span_type(), &self.syntax_ends, spans));
        }
        arrays
    }
}

fn plain<T: NativeType>(values: Vec<T>) -> Box<dyn Array> {
    PrimitiveArray::from_vec(values).boxed()
}

fn list(item: ArrowDataType, ends: &[i32], values: Box<dyn Array>) -> Box<dyn Array> {
    let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().copied()).collect();
    let offsets = OffsetsBuffer::try_from(offsets).expect("ends ascend");
    ListArray::new(list_of(item), offsets, values, None).boxed()
}

/// Encodings by leaf: names of sources repeat, everything else is left to zstd.
fn encodings(has_spans: bool) -> Vec<Vec<Encoding>> {
    let plain = || vec![Encoding::Plain];
    let parts = |count| vec![Encoding::Plain; count];
    let mut all = vec![plain(), plain(), vec![Encoding::RleDictionary], plain(), plain(), plain()];
    all.push(parts(2));
    all.extend(has_spans.then(|| parts(3)));
    all
}

impl Table {
    fn new(sink: BufWriter<File>, set: &ShardSet) -> io::Result<Self> {
        let row_length = set.row_length() as usize;
        let has_spans = set.index().spans.is_some();
        let spans = has_spans.then(|| field("spans", list_of(syntax_span_type())));
        let schema: ArrowSchema = [
            field("input_ids", ids_type(row_length)),
            field("segments", list_of(ArrowDataType::UInt32)),
            field("source", ArrowDataType::LargeUtf8),
            field("prefix_len", ArrowDataType::UInt32),
            field("valid_len", ArrowDataType::UInt32),
            field("row_key", ArrowDataType::UInt64),
            field("maskable", list_of(span_type())),
        ]
        .into_iter()
        .chain(spans)
        .collect();
        let writer =
            FileWriter::try_new(sink, schema.clone(), OPTIONS).map_err(io::Error::other)?;
        Ok(Self {
            writer,
            schema: Arc::new(schema),
            row_length,
            has_spans,
            group: Group::default(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let group = std::mem::take(&mut self.group);
        let rows = group.row_keys.len();
        let arrays = group.into_arrays(self.row_length, self.has_spans);
        let batch = RecordBatchT::try_new(rows, Arc::clone(&self.schema), arrays);
        let groups = RowGroupIterator::try_new(
            [batch].into_iter(),
            &self.schema,
            OPTIONS,
            encodings(self.has_spans).into(),
        );
        for group in groups.map_err(io::Error::other)? {
            self.writer
                .write(rows as u64, group.map_err(io::Error::other)?)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn finish(mut self, set: &ShardSet) -> io::Result<()> {
        if !self.group.row_keys.is_empty() {
            self.flush()?;
        }
        let index = set.index();
        let said = [
            ("coda.shard_set", index.fingerprint.clone()),
            ("coda.tokenizer", index.tokenizer_fingerprint().to_owned()),
            ("coda.eos", index.specials.eos.to_string()),
            ("coda.pad", index.specials.pad.to_string()),
            ("coda.mask", index.specials.mask.to_string()),
        ];
        let said = said.map(|(key, value)| KeyValue { key: key.to_owned(), value: Some(value) });
        let metadata = std::iter::once(schema_to_metadata_key(&self.schema)).chain(said).collect();
        self.writer.end(Some(metadata)).map_err(io::Error::other)?;
        self.writer.into_inner().flush()
    }
}
