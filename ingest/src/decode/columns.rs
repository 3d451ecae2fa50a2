//! Column containers: the values of the wanted columns of one chunk of rows, as bytes.

use super::{
    BatchSink, Body, DecodeError, Fault, Location, TextRange,
    value::{Bound, Elements, write_object},
};
use crate::record::{Column, Layout, Role};
use polars_arrow::{
    array::Array,
    datatypes::{ArrowDataType, ArrowSchema, Field},
};
use serde_json::Value;
use std::borrow::Cow;

/// The root columns of a file that hold what is wanted: their places in its schema, ascending, each
/// with its field cut down to the wanted leaves and which leaves those are.
pub(super) struct Root {
    pub(super) place: usize,
    pub(super) field: Field,
    /// Places among the leaves of the whole field; all of them in order when nothing was cut.
    pub(super) leaves: Vec<usize>,
}

/// The path of a wanted value in one file: one of its alternatives.
fn resolve<'l>(schema: &ArrowSchema, column: &'l Column) -> Result<Option<&'l [String]>, Fault> {
    for choice in column.path.choices() {
        if schema.index_of(&choice.whole).is_some() {
            return Ok(Some(std::slice::from_ref(&choice.whole)));
        }
        if choice.parts.len() > 1 && schema.index_of(&choice.parts[0]).is_some() {
            return Ok(Some(&choice.parts));
        }
    }
    if column.role == Role::Any {
        return Ok(None);
    }
    let has: Vec<&str> = schema.iter_names().map(AsRef::as_ref).collect();
    let name = column.path.text();
    let message = format!("the file has no column {name:?}; it has {}", has.join(", "));
    Err(Fault::new("missing_field", message))
}

/// What has to be read of a file for a layout.
pub(super) fn project(schema: &ArrowSchema, layout: &Layout) -> Result<Vec<Root>, Fault> {
    if layout.whole {
        let whole = |(place, field): (usize, &Field)| {
            let mut leaves = Vec::new();
            let field = prune(field, &[&[]], &mut 0, &mut leaves);
            Root { place, field, leaves }
        };
        return Ok(schema.iter_values().enumerate().map(whole).collect());
    }
    let mut paths = Vec::new();
    for column in &layout.columns {
        paths.extend(resolve(schema, column)?);
    }
    if let Some(list) = &layout.list
        && schema.index_of(&list.path[0]).is_none()
    {
        let has: Vec<&str> = schema.iter_names().map(AsRef::as_ref).collect();
        let message = format!("the file has no list {:?}; it has {}", list.path[0], has.join(", "));
        return Err(Fault::new("missing_field", message));
    }
    let mut roots = Vec::new();
    for (place, (name, field)) in schema.iter().enumerate() {
        let wants: Vec<&[String]> =
            paths.iter().filter(|path| path[0] == **name).map(|path| &path[1..]).collect();
        if !wants.is_empty() {
            let mut leaves = Vec::new();
            let field = prune(field, &wants, &mut 0, &mut leaves);
            roots.push(Root { place, field, leaves });
        }
    }
    // The list itself says how many elements there are, though nothing of them were wanted.
    if let Some(list) = &layout.list
        && let Some(place) = schema.index_of(&list.path[0])
        && roots.iter().all(|root| root.place != place)
        && let Some((_, field)) = schema.get_at_index(place)
    {
        let mut leaves = Vec::new();
        let field = prune(field, &[&[]], &mut 0, &mut leaves);
        roots.push(Root { place, field, leaves });
        roots.sort_unstable_by_key(|root| root.place);
    }
    Ok(roots)
}

/// The part of a field that the paths below it lead to. `next` counts the leaves on the way.
fn prune(field: &Field, wants: &[&[String]], next: &mut usize, leaves: &mut Vec<usize>) -> Field {
    let whole = wants.iter().any(|want| want.is_empty());
    let dtype = match &field.dtype {
        ArrowDataType::Struct(children) if !whole => {
            let named = |child: &Field| wants.iter().any(|want| want[0] == *child.name);
            if !children.iter().any(named) {
                return prune(field, &[&[]], next, leaves);
            }
            let mut kept = Vec::new();
            for child in children {
                let below: Vec<&[String]> = wants
                    .iter()
                    .filter(|want| want[0] == *child.name)
                    .map(|want| &want[1..])
                    .collect();
                if below.is_empty() {
                    *next += count_leaves(&child.dtype);
                } else {
                    kept.push(prune(child, &below, next, leaves));
                }
            }
            ArrowDataType::Struct(kept)
        }
        ArrowDataType::List(inner) if !whole => {
            ArrowDataType::List(Box::new(prune(inner, wants, next, leaves)))
        }
        ArrowDataType::LargeList(inner) if !whole => {
            ArrowDataType::LargeList(Box::new(prune(inner, wants, next, leaves)))
        }
        dtype => {
            let count = count_leaves(dtype);
            leaves.extend(*next..*next + count);
            *next += count;
            return field.clone();
        }
    };
    Field { dtype, ..field.clone() }
}

pub(super) fn count_leaves(dtype: &ArrowDataType) -> usize {
    match dtype {
        ArrowDataType::Struct(children) => children.iter().map(|c| count_leaves(&c.dtype)).sum(),
        ArrowDataType::List(inner)
        | ArrowDataType::LargeList(inner)
        | ArrowDataType::FixedSizeList(inner, _)
        | ArrowDataType::Map(inner, _) => count_leaves(&inner.dtype),
        ArrowDataType::Extension(extension) => count_leaves(&extension.inner),
        _ => 1,
    }
}

/// Pushes every row of a chunk. `first_row` counts from 0 over the file; `roots` and `arrays` are
/// what [`project`] asked for.
pub(super) fn push_rows(
    layout: &Layout,
    roots: &[Root],
    arrays: &[Box<dyn Array>],
    first_row: u64,
    max_document_bytes: usize,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    if layout.whole {
        return push_objects(roots, arrays, first_row, max_document_bytes, sink);
    }
    let schema: ArrowSchema =
        roots.iter().map(|root| (root.field.name.clone(), root.field.clone())).collect();
    let mut columns = Vec::with_capacity(layout.columns.len());
    for column in &layout.columns {
        let bound = resolve(&schema, column)
            .and_then(|path| Bound::new(column, path, layout.list.as_ref(), &schema, arrays));
        columns.push(bound.map_err(DecodeError::Damaged)?);
    }
    let list = layout
        .list
        .as_ref()
        .map(|list| Elements::new(list, &schema, arrays))
        .transpose()
        .map_err(DecodeError::Damaged)?;
    let rows = arrays.first().map_or(0, |array| array.len());
    for row in 0..rows {
        let location = Location { number: first_row + row as u64 + 1, ..Location::default() };
        let mut record = Record { columns: &columns, location, most: max_document_bytes };
        match &list {
            None => {
                let values = record.values(row, row)?;
                record.push(values, sink)?;
            }
            Some(list) => record.push_list(list, row, sink)?,
        }
    }
    Ok(())
}

/// Pushes every row of a chunk as a JSON object.
fn push_objects(
    roots: &[Root],
    arrays: &[Box<dyn Array>],
    first_row: u64,
    most: usize,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let name = |root: &Root| Value::String(root.field.name.to_string()).to_string();
    let names: Vec<String> = roots.iter().map(name).collect();
    for row in 0..arrays.first().map_or(0, |array| array.len()) {
        let location = Location { number: first_row + row as u64 + 1, ..Location::default() };
        let start = sink.bytes().len();
        write_object(&names, arrays, row, sink.bytes());
        let range = start..sink.bytes().len();
        if range.len() > most {
            let head = sink.bytes()[range.clone()].to_vec();
            sink.bytes().truncate(start);
            sink.reject(location, too_long(range.len(), most), &head)?;
        } else {
            sink.push(location, Body::Json(range))?;
        }
    }
    Ok(())
}

fn too_long(length: usize, most: usize) -> Fault {
    let message =
        format!("the row has {length} bytes of text, more than data.max_document_bytes ({most})");
    Fault::new("too_long", message)
}

/// One row of the bound columns.
struct Record<'a> {
    columns: &'a [Bound<'a>],
    location: Location,
    most: usize,
}

type Values<'a> = Vec<Option<Cow<'a, [u8]>>>;

impl<'a> Record<'a> {
    fn values(&self, row: usize, element: usize) -> Result<Values<'a>, DecodeError> {
        let value = |column: &'a Bound<'a>| column.get(if column.inside { element } else { row });
        self.columns.iter().map(value).collect::<Result<_, Fault>>().map_err(DecodeError::Damaged)
    }

    fn push(&self, values: Values<'_>, sink: &mut BatchSink<'_>) -> Result<(), DecodeError> {
        let length: usize = values.iter().flatten().map(|value| value.len()).sum();
        if length > self.most {
            let head = values.iter().flatten().next().map_or(&[][..], |value| &value[..]);
            return sink.reject(self.location, too_long(length, self.most), head);
        }
        let ranges = append(values, sink);
        sink.push(self.location, Body::Columns(ranges))
    }

    fn push_list(
        &mut self,
        list: &Elements<'_>,
        row: usize,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let Some(elements) = list.of(row) else {
            let fault = Fault::new("missing_field", format!("the list {:?} is null", list.name));
            return sink.reject(self.location, fault, &[]);
        };
        let mut together = Vec::new();
        let mut length = 0;
        let start = sink.bytes().len();
        for (number, element) in (1..).zip(elements) {
            let values = self.values(row, element)?;
            if list.together {
                length += values.iter().flatten().map(|value| value.len()).sum::<usize>();
                if length > self.most {
                    let head: Vec<u8> = sink.bytes()[start..].to_vec();
                    sink.bytes().truncate(start);
                    return sink.reject(self.location, too_long(length, self.most), &head);
                }
                together.push(append(values, sink));
            } else {
                self.location.element = number;
                self.push(values, sink)?;
            }
        }
        if together.is_empty() {
            return Ok(());
        }
        sink.push(self.location, Body::Elements(together))
    }
}

fn append(values: Values<'_>, sink: &mut BatchSink<'_>) -> Vec<Option<TextRange>> {
    let bytes = sink.bytes();
    let mut one = |value: Cow<'_, [u8]>| {
        let start = bytes.len();
        bytes.extend_from_slice(&value);
        start..bytes.len()
    };
    values.into_iter().map(|value| value.map(&mut one)).collect()
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
    DecodeError::Damaged(Fault::new("corrupt", format!("the {what} is damaged: {text}")))
}
