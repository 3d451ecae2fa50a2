//! Column containers: the values of the wanted columns of one chunk of rows, as bytes.

use super::{BatchSink, Body, DecodeError, Fault, Location};
use polars_arrow::{
    array::{
        Array, BinaryArray, BinaryViewArray, DictionaryArray, DictionaryKey, Utf8Array,
        Utf8ViewArray,
    },
    datatypes::{ArrowDataType, ArrowSchema},
};

/// A column that holds text, in any of Arrow's layouts.
enum TextColumn<'a> {
    Utf8(&'a Utf8Array<i32>),
    LargeUtf8(&'a Utf8Array<i64>),
    Utf8View(&'a Utf8ViewArray),
    Binary(&'a BinaryArray<i32>),
    LargeBinary(&'a BinaryArray<i64>),
    BinaryView(&'a BinaryViewArray),
    /// Any key type; the place of a row's value, and the values.
    Dictionary(Box<dyn Fn(usize) -> Option<usize> + 'a>, Box<TextColumn<'a>>),
    Null,
}

impl<'a> TextColumn<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        let any = array.as_any();
        Some(match array.dtype() {
            ArrowDataType::Utf8 => Self::Utf8(any.downcast_ref()?),
            ArrowDataType::LargeUtf8 => Self::LargeUtf8(any.downcast_ref()?),
            ArrowDataType::Utf8View => Self::Utf8View(any.downcast_ref()?),
            ArrowDataType::Binary => Self::Binary(any.downcast_ref()?),
            ArrowDataType::LargeBinary => Self::LargeBinary(any.downcast_ref()?),
            ArrowDataType::BinaryView => Self::BinaryView(any.downcast_ref()?),
            ArrowDataType::Dictionary(..) => {
                return dictionary::<u8>(array)
                    .or_else(|| dictionary::<u16>(array))
                    .or_else(|| dictionary::<u32>(array))
                    .or_else(|| dictionary::<u64>(array))
                    .or_else(|| dictionary::<i8>(array))
                    .or_else(|| dictionary::<i16>(array))
                    .or_else(|| dictionary::<i32>(array))
                    .or_else(|| dictionary::<i64>(array));
            }
            ArrowDataType::Null => Self::Null,
            _ => return None,
        })
    }

    fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Utf8(a) => a.get(row).map(str::as_bytes),
            Self::LargeUtf8(a) => a.get(row).map(str::as_bytes),
            Self::Utf8View(a) => a.get(row).map(str::as_bytes),
            Self::Binary(a) => a.get(row),
            Self::LargeBinary(a) => a.get(row),
            Self::BinaryView(a) => a.get(row),
            Self::Dictionary(key, values) => key(row).and_then(|key| values.get(key)),
            Self::Null => None,
        }
    }
}

fn dictionary<K: DictionaryKey>(array: &dyn Array) -> Option<TextColumn<'_>> {
    let dictionary: &DictionaryArray<K> = array.as_any().downcast_ref()?;
    let values = TextColumn::of(dictionary.values().as_ref())?;
    let key = |row| (!dictionary.is_null(row)).then(|| dictionary.key_value(row));
    Some(TextColumn::Dictionary(Box::new(key), Box::new(values)))
}

/// The positions of the wanted columns in a file's schema.
pub(super) fn project(schema: &ArrowSchema, wanted: &[String]) -> Result<Vec<usize>, Fault> {
    wanted
        .iter()
        .map(|name| {
            schema.index_of(name).ok_or_else(|| {
                let has: Vec<&str> = schema.iter_names().map(AsRef::as_ref).collect();
                Fault::new(
                    "missing_field",
                    format!("the file has no column {name:?}; it has {}", has.join(", ")),
                )
            })
        })
        .collect()
}

/// Pushes every row of a chunk. `first_row` counts from 0 over the file; `arrays` are the wanted
/// columns in their order.
pub(super) fn push_rows(
    names: &[String],
    arrays: &[Box<dyn Array>],
    first_row: u64,
    max_document_bytes: usize,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let columns = names
        .iter()
        .zip(arrays)
        .map(|(name, array)| {
            TextColumn::of(array.as_ref()).ok_or_else(|| {
                DecodeError::Damaged(Fault::new(
                    "wrong_type",
                    format!("column {name:?} is {:?}, expected text", array.dtype()),
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rows = arrays.first().map_or(0, |array| array.len());
    for row in 0..rows {
        let location = Location { number: first_row + row as u64 + 1, ..Location::default() };
        let values: Vec<Option<&[u8]>> = columns.iter().map(|column| column.get(row)).collect();
        let length: usize = values.iter().flatten().map(|value| value.len()).sum();
        if length > max_document_bytes {
            let fault = Fault::new(
                "too_long",
                format!(
                    "the row has {length} bytes of text, more than data.max_document_bytes \
                     ({max_document_bytes})"
                ),
            );
            sink.reject(location, fault, values.iter().flatten().next().unwrap_or(&&b""[..]))?;
            continue;
        }
        let ranges = values
            .into_iter()
            .map(|value| {
                let bytes = sink.bytes();
                let start = bytes.len();
                bytes.extend_from_slice(value?);
                Some(start..bytes.len())
            })
            .collect();
        sink.push(location, Body::Columns(ranges))?;
    }
    Ok(())
}

/// Runs a reader of the polars family, whose panics on damaged files become faults.
pub(super) fn guarded<T>(
    what: &str,
    read: impl FnOnce() -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it panicked");
        Err(damaged(what, &text))
    })
}

/// A fault of the container itself.
pub(super) fn damaged(what: &str, error: &dyn std::fmt::Display) -> DecodeError {
    let text = error.to_string();
    DecodeError::Damaged(if text.contains("without IPC compression") {
        Fault::new("unsupported", format!("the {what} is compressed inside; write it uncompressed"))
    } else {
        Fault::new("corrupt", format!("the {what} is damaged: {text}"))
    })
}
