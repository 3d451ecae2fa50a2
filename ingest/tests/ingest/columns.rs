//! Writes the same two columns, `number` and `text`, in every column container.

use coda_ingest::source::Container;
use polars_arrow::{
    array::{Array, BinaryViewArray, Int64Array, Utf8Array, Utf8ViewArray},
    datatypes::{ArrowDataType, ArrowSchema, Field},
    io::ipc::write::{FileWriter as IpcFileWriter, StreamWriter, WriteOptions as IpcOptions},
    record_batch::RecordBatchT,
};
use polars_parquet::write::{
    CompressionOptions, Encoding, FileWriter, RowGroupIterator, StatisticsOptions, Version,
    WriteOptions,
};
use std::{fs::File, path::Path, sync::Arc};

/// The writers fill one row group or batch with this many rows.
pub(crate) const CHUNK: usize = 700;

/// The files written, with their containers.
pub(crate) fn write_all(folder: &Path, texts: &[Option<&str>]) -> Vec<(String, Container)> {
    let mut files = Vec::new();
    let layouts: [(&str, Layout); 4] = [
        ("utf8", |t| Box::new(Utf8Array::<i32>::from(t))),
        ("large_utf8", |t| Box::new(Utf8Array::<i64>::from(t))),
        ("utf8_view", |t| Box::new(Utf8ViewArray::from_slice(t))),
        ("binary_view", |t| Box::new(BinaryViewArray::from_slice(t))),
    ];
    for (layout, build) in layouts {
        let name = format!("{layout}.arrow");
        write_ipc_file(&folder.join(&name), texts, build);
        files.push((name, Container::Arrow));
        let name = format!("{layout}.stream.arrow");
        write_ipc_stream(&folder.join(&name), texts, build);
        files.push((name, Container::Arrow));
        if layout == "utf8" {
            // polars writes no parquet from this layout; it reads it as utf8_view.
            continue;
        }
        for (codec, compression) in [
            ("plain", CompressionOptions::Uncompressed),
            ("snappy", CompressionOptions::Snappy),
            ("zstd", CompressionOptions::Zstd(None)),
        ] {
            for (encoding, how) in
                [("plain", Encoding::Plain), ("dictionary", Encoding::RleDictionary)]
            {
                let name = format!("{layout}.{codec}.{encoding}.parquet");
                write_parquet(&folder.join(&name), texts, build, compression, how);
                files.push((name, Container::Parquet));
            }
        }
    }
    files
}

type Layout = fn(&[Option<&str>]) -> Box<dyn Array>;

fn batches(texts: &[Option<&str>], build: Layout) -> Vec<RecordBatchT<Box<dyn Array>>> {
    let schema = Arc::new(schema(build));
    texts
        .chunks(CHUNK)
        .map(|texts| {
            let numbers: Int64Array = (0_i64..).take(texts.len()).map(Some).collect();
            let columns: Vec<Box<dyn Array>> = vec![Box::new(numbers), build(texts)];
            RecordBatchT::new(texts.len(), Arc::clone(&schema), columns)
        })
        .collect()
}

fn schema(build: Layout) -> ArrowSchema {
    let text = build(&[]).dtype().clone();
    [Field::new("number".into(), ArrowDataType::Int64, true), Field::new("text".into(), text, true)]
        .into_iter()
        .map(|field| (field.name.clone(), field))
        .collect()
}

fn write_ipc_file(path: &Path, texts: &[Option<&str>], build: Layout) {
    let file = File::create(path).expect("created");
    let options = IpcOptions { compression: None };
    let mut writer =
        IpcFileWriter::try_new(file, Arc::new(schema(build)), None, options).expect("started");
    for batch in batches(texts, build) {
        writer.write(&batch, None).expect("written");
    }
    writer.finish().expect("finished");
}

fn write_ipc_stream(path: &Path, texts: &[Option<&str>], build: Layout) {
    let file = File::create(path).expect("created");
    let mut writer = StreamWriter::new(file, IpcOptions { compression: None });
    writer.start(&schema(build), None).expect("started");
    for batch in batches(texts, build) {
        writer.write(&batch, None).expect("written");
    }
    writer.finish().expect("finished");
}

fn write_parquet(
    path: &Path,
    texts: &[Option<&str>],
    build: Layout,
    compression: CompressionOptions,
    encoding: Encoding,
) {
    let options = WriteOptions {
        statistics: StatisticsOptions::empty(),
        version: Version::V1,
        compression,
        data_page_size: Some(4096),
    };
    let schema = schema(build);
    let groups = RowGroupIterator::try_new(
        batches(texts, build).into_iter().map(Ok),
        &schema,
        options,
        vec![vec![Encoding::Plain], vec![encoding]].into(),
    )
    .expect("a schema for parquet");
    let file = File::create(path).expect("created");
    let mut writer = FileWriter::try_new(file, schema, options).expect("started");
    for (group, texts) in groups.zip(texts.chunks(CHUNK)) {
        writer.write(texts.len() as u64, group.expect("encodes")).expect("written");
    }
    writer.end(None).expect("finished");
}
