//! Parquet: row group by row group, only the wanted columns.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault,
    columns::{Root, count_leaves, damaged, guarded, project, push_rows},
};
use crate::source::InputFile;
use polars_arrow::array::Array;
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, PageReader, RowGroupMetadata, column_iter_to_arrays,
    infer_schema, read_metadata,
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Cursor, Read as _, Seek as _, SeekFrom},
};

const WHAT: &str = "parquet file";
/// Largest page, compressed or not, that is read.
const MAX_PAGE_BYTES: usize = 1 << 30;

pub(super) fn decode(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let failed = |source: io::Error| DecodeError::Read { path: file.path.clone(), source };
    let mut reader = BufReader::new(File::open(&file.path).map_err(failed)?);
    let (metadata, schema) = guarded(WHAT, || {
        let metadata = read_metadata(&mut reader).map_err(|e| damaged(WHAT, &e))?;
        let schema = infer_schema(&metadata).map_err(|e| damaged(WHAT, &e))?;
        Ok((metadata, schema))
    })?;
    let roots = project(&schema, &options.layout).map_err(DecodeError::Damaged)?;
    let wholes: Vec<usize> = roots
        .iter()
        .filter_map(|root| schema.get_at_index(root.place))
        .map(|(_, field)| count_leaves(&field.dtype))
        .collect();
    let mut first_row = 0;
    let mut reported = 0;
    for group in &metadata.row_groups {
        let arrays = roots
            .iter()
            .zip(&wholes)
            .map(|(root, whole)| read_column(&mut reader, file, group, (root, *whole), options))
            .collect::<Result<Vec<_>, _>>()?;
        for chunk in in_step(arrays) {
            let rows = chunk.first().map_or(0, |array| array.len()) as u64;
            let most = options.max_document_bytes;
            push_rows(&options.layout, &roots, &chunk, first_row, most, sink)?;
            first_row += rows;
        }
        let read = group.compressed_size() as u64;
        sink.consumed(read);
        reported += read;
    }
    sink.consumed(file.bytes.saturating_sub(reported));
    Ok(())
}

/// One root column of one row group, of which only the wanted leaves are read; `whole` is how many
/// it has.
fn read_column(
    reader: &mut BufReader<File>,
    file: &InputFile,
    group: &RowGroupMetadata,
    (root, whole): (&Root, usize),
    options: &DecodeOptions,
) -> Result<Vec<Box<dyn Array>>, DecodeError> {
    let name = &root.field.name;
    let columns: Vec<_> = group.columns_under_root_iter(name).into_iter().flatten().collect();
    if columns.len() != whole {
        return Err(damaged(WHAT, &format!("column {name:?} has other leaves than its schema")));
    }
    let columns: Vec<_> = root.leaves.iter().map(|&leaf| columns[leaf]).collect();
    let mut pages = Vec::with_capacity(columns.len());
    for column in &columns {
        let bytes = read_chunk(reader, file, column, options)?;
        pages.push(bytes);
    }
    let rows = group.num_rows();
    guarded(WHAT, || {
        let decompressors = columns.iter().zip(pages).map(|(column, bytes)| {
            let bytes = Cursor::new(bytes.into());
            let pages = PageReader::new(bytes, column, Vec::new(), MAX_PAGE_BYTES);
            BasicDecompressor::new(pages, Vec::new())
        });
        let types = columns.iter().map(|c| &c.descriptor().descriptor.primitive_type).collect();
        let (arrays, _) =
            column_iter_to_arrays(decompressors.collect(), types, root.field.clone(), None)
                .map_err(|e| damaged(WHAT, &e))?;
        let read: usize = arrays.iter().map(|array| array.len()).sum();
        if read != rows {
            return Err(damaged(WHAT, &format!("a column has {read} of {rows} rows")));
        }
        Ok(arrays)
    })
}

/// The bytes of one column chunk.
fn read_chunk(
    reader: &mut BufReader<File>,
    file: &InputFile,
    column: &ColumnChunkMetadata,
    options: &DecodeOptions,
) -> Result<Vec<u8>, DecodeError> {
    let range = guarded(WHAT, || Ok(column.byte_range()))?;
    let length = range.end.saturating_sub(range.start);
    let unpacked = u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX);
    if range.end > file.bytes {
        return Err(damaged(WHAT, &"a column reaches past the end of the file"));
    }
    if unpacked > options.limits.max_output
        || (unpacked > options.limits.ratio_from
            && unpacked / length.max(1) > options.limits.max_ratio)
    {
        return Err(DecodeError::Damaged(Fault::new(
            "decompression_bomb",
            format!("a column chunk of {length} bytes claims {unpacked} bytes uncompressed"),
        )));
    }
    let failed = |source: io::Error| DecodeError::Read { path: file.path.clone(), source };
    reader.seek(SeekFrom::Start(range.start)).map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    reader.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Columns come in arrays of their own lengths: cuts them so that each chunk has all columns.
/// All columns have the same number of rows ([`read_column`] sees to it).
fn in_step(columns: Vec<Vec<Box<dyn Array>>>) -> Vec<Vec<Box<dyn Array>>> {
    let mut rest: Vec<VecDeque<Box<dyn Array>>> = columns.into_iter().map(Into::into).collect();
    let mut chunks = Vec::new();
    loop {
        for column in &mut rest {
            while column.front().is_some_and(|array| array.is_empty()) {
                column.pop_front();
            }
        }
        let Some(rows) = rest.iter().map(|c| c.front().map(|a| a.len())).min().flatten() else {
            return chunks;
        };
        let cut = |column: &mut VecDeque<Box<dyn Array>>| {
            let mut first = column.pop_front()?;
            if first.len() > rows {
                column.push_front(first.sliced(rows, first.len() - rows));
                first = first.sliced(0, rows);
            }
            Some(first)
        };
        chunks.push(rest.iter_mut().filter_map(cut).collect());
    }
}
