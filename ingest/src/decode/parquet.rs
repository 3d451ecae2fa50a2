//! Parquet: row group by row group, only the wanted columns.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault,
    columns::{damaged, guarded, project, push_rows},
};
use crate::source::InputFile;
use polars_arrow::{array::Array, datatypes::Field};
use polars_parquet::read::{
    BasicDecompressor, PageReader, RowGroupMetadata, column_iter_to_arrays, infer_schema,
    read_metadata,
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
    let wanted = project(&schema, &options.columns).map_err(DecodeError::Damaged)?;
    let fields: Vec<&Field> = wanted
        .iter()
        .filter_map(|&index| schema.get_at_index(index).map(|(_, field)| field))
        .collect();
    let mut first_row = 0;
    let mut reported = 0;
    for group in &metadata.row_groups {
        let arrays = fields
            .iter()
            .map(|field| read_column(&mut reader, file, group, field, options))
            .collect::<Result<Vec<_>, _>>()?;
        for chunk in in_step(arrays) {
            let rows = chunk.first().map_or(0, |array| array.len()) as u64;
            push_rows(&options.columns, &chunk, first_row, options.max_document_bytes, sink)?;
            first_row += rows;
        }
        let read = group.compressed_size() as u64;
        sink.consumed(read);
        reported += read;
    }
    sink.consumed(file.bytes.saturating_sub(reported));
    Ok(())
}

/// One column of one row group.
fn read_column(
    reader: &mut BufReader<File>,
    file: &InputFile,
    group: &RowGroupMetadata,
    field: &Field,
    options: &DecodeOptions,
) -> Result<Vec<Box<dyn Array>>, DecodeError> {
    let columns: Vec<_> =
        group.columns_under_root_iter(&field.name).into_iter().flatten().collect();
    let [column] = columns.as_slice() else {
        return Err(DecodeError::Damaged(Fault::new(
            "wrong_type",
            format!("column {:?} is nested, expected text", field.name.as_str()),
        )));
    };
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
    let rows = group.num_rows();
    guarded(WHAT, || {
        let pages = PageReader::new(Cursor::new(bytes.into()), column, Vec::new(), MAX_PAGE_BYTES);
        let decompressor = BasicDecompressor::new(pages, Vec::new());
        let primitive = &column.descriptor().descriptor.primitive_type;
        let (arrays, _) =
            column_iter_to_arrays(vec![decompressor], vec![primitive], field.clone(), None)
                .map_err(|e| damaged(WHAT, &e))?;
        let read: usize = arrays.iter().map(|array| array.len()).sum();
        if read != rows {
            return Err(damaged(WHAT, &format!("a column has {read} of {rows} rows")));
        }
        Ok(arrays)
    })
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
