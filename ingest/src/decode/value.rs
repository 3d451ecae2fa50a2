//! Values of Arrow arrays: text in any layout, anything else as JSON, through structs and lists.

use super::Fault;
use crate::record::{Column, ListLayout, Role, rendered, walk};
use polars_arrow::{
    array::{
        Array, BinaryArray, BinaryViewArray, BooleanArray, DictionaryArray, DictionaryKey,
        FixedSizeListArray, ListArray, PrimitiveArray, StructArray, Utf8Array, Utf8ViewArray,
        get_value_display,
    },
    datatypes::{ArrowDataType, ArrowSchema},
    types::NativeType,
};
use serde_json::{Map, Value};
use std::{borrow::Cow, ops::Range};

/// A column that holds text, in any of Arrow's layouts.
pub(super) enum TextColumn<'a> {
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
    pub(super) fn of(array: &'a dyn Array) -> Option<Self> {
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

    pub(super) fn get(&self, row: usize) -> Option<&'a [u8]> {
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

/// A wanted value, bound to the arrays of one chunk.
pub(super) struct Bound<'a> {
    /// Structs on the way, whose nulls hide what lies below.
    above: Vec<&'a dyn Array>,
    leaf: Leaf<'a>,
    /// Keys below a leaf that holds objects written as text.
    below: &'a [String],
    /// Whether it is indexed by the elements of the list.
    pub(super) inside: bool,
    name: &'a str,
    role: Role,
}

enum Leaf<'a> {
    Text(TextColumn<'a>),
    Other(&'a dyn Array),
    /// The file does not have it.
    Absent,
}

impl<'a> Bound<'a> {
    pub(super) fn new(
        column: &'a Column,
        path: Option<&'a [String]>,
        list: Option<&ListLayout>,
        schema: &ArrowSchema,
        arrays: &'a [Box<dyn Array>],
    ) -> Result<Self, Fault> {
        let (name, role) = (column.path.text(), column.role);
        let mut bound =
            Self { above: Vec::new(), leaf: Leaf::Absent, below: &[], inside: false, name, role };
        let Some(path) = path else { return Ok(bound) };
        let Some(place) = schema.index_of(&path[0]) else { return Ok(bound) };
        let mut array = arrays[place].as_ref();
        let mut done = 1;
        loop {
            if list.is_some_and(|list| path[..done] == list.path[..]) && !bound.inside {
                // What is above the list is looked at with the list.
                bound.above.clear();
                bound.inside = true;
                array = elements(array).ok_or_else(|| not_a_list(&path[..done], array))?;
            }
            if done == path.len() {
                break;
            }
            let Some(parent) = array.as_any().downcast_ref::<StructArray>() else { break };
            let Some(child) = parent.fields().iter().position(|f| f.name == path[done].as_str())
            else {
                let has: Vec<&str> = parent.fields().iter().map(|f| f.name.as_str()).collect();
                let message = format!("there is no {name:?}; beside it are {}", has.join(", "));
                return match role {
                    Role::Any => Ok(Self { leaf: Leaf::Absent, ..bound }),
                    Role::Text => Err(Fault::new("missing_field", message)),
                };
            };
            bound.above.push(array);
            array = parent.values()[child].as_ref();
            done += 1;
        }
        bound.below = &path[done..];
        bound.leaf = match TextColumn::of(array) {
            Some(text) => Leaf::Text(text),
            None if role == Role::Any && bound.below.is_empty() => Leaf::Other(array),
            None => {
                let message = format!("column {name:?} is {:?}, expected text", array.dtype());
                return Err(Fault::new("wrong_type", message));
            }
        };
        Ok(bound)
    }

    /// The value at an index; nothing where it is null.
    pub(super) fn get(&self, index: usize) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        if self.above.iter().any(|array| array.is_null(index)) {
            return Ok(None);
        }
        match &self.leaf {
            Leaf::Absent => Ok(None),
            Leaf::Text(text) if self.below.is_empty() => Ok(text.get(index).map(Cow::Borrowed)),
            Leaf::Text(text) => Ok(text.get(index).and_then(|text| self.within(text))),
            Leaf::Other(array) => {
                let json = to_json(*array, index).ok_or_else(|| {
                    let (name, kind) = (self.name, array.dtype());
                    Fault::new("wrong_type", format!("column {name:?} is {kind:?}: not readable"))
                })?;
                Ok(rendered(&json).map(|text| Cow::Owned(text.into_owned().into_bytes())))
            }
        }
    }

    /// A value inside an object that is written as text.
    fn within(&self, text: &[u8]) -> Option<Cow<'a, [u8]>> {
        let text = Value::String(std::str::from_utf8(text).ok()?.to_owned());
        let found = walk(&text, self.below)?;
        if self.role == Role::Text && !found.is_string() {
            return None;
        }
        rendered(&found).map(|text| Cow::Owned(text.into_owned().into_bytes()))
    }
}

/// The list whose elements are taken, bound to the arrays of one chunk.
pub(super) struct Elements<'a> {
    above: Vec<&'a dyn Array>,
    list: &'a dyn Array,
    pub(super) together: bool,
    pub(super) name: String,
}

impl<'a> Elements<'a> {
    pub(super) fn new(
        layout: &ListLayout,
        schema: &ArrowSchema,
        arrays: &'a [Box<dyn Array>],
    ) -> Result<Self, Fault> {
        let name = layout.path.join(".");
        let missing = || Fault::new("missing_field", format!("there is no list {name:?}"));
        let place = schema.index_of(&layout.path[0]).ok_or_else(missing)?;
        let mut list = arrays[place].as_ref();
        let mut above = Vec::new();
        for part in &layout.path[1..] {
            let parent = list.as_any().downcast_ref::<StructArray>().ok_or_else(missing)?;
            let child = parent.fields().iter().position(|field| field.name == part.as_str());
            above.push(list);
            list = parent.values()[child.ok_or_else(missing)?].as_ref();
        }
        elements(list).ok_or_else(|| not_a_list(&layout.path, list))?;
        Ok(Self { above, list, together: layout.together, name })
    }

    /// Where the elements of a row are; nothing when the list is null.
    pub(super) fn of(&self, row: usize) -> Option<Range<usize>> {
        if self.above.iter().any(|array| array.is_null(row)) || self.list.is_null(row) {
            return None;
        }
        range(self.list, row)
    }
}

fn not_a_list(path: &[String], array: &dyn Array) -> Fault {
    let (path, kind) = (path.join("."), array.dtype());
    Fault::new("wrong_type", format!("column {path:?} is {kind:?}, expected a list"))
}

fn elements(array: &dyn Array) -> Option<&dyn Array> {
    let any = array.as_any();
    any.downcast_ref::<ListArray<i64>>()
        .map(|list| list.values().as_ref())
        .or_else(|| any.downcast_ref::<ListArray<i32>>().map(|list| list.values().as_ref()))
}

fn range(array: &dyn Array, row: usize) -> Option<Range<usize>> {
    let any = array.as_any();
    let bounds = |(start, end)| start..end;
    any.downcast_ref::<ListArray<i64>>().map(|list| bounds(list.offsets().start_end(row))).or_else(
        || any.downcast_ref::<ListArray<i32>>().map(|l| bounds(l.offsets().start_end(row))),
    )
}

/// A value as JSON; nothing for kinds that no filter or conversation has (dates, decimals, maps).
fn to_json(array: &dyn Array, index: usize) -> Option<Value> {
    if array.is_null(index) {
        return Some(Value::Null);
    }
    if let Some(text) = TextColumn::of(array) {
        let text = text.get(index).map(|text| String::from_utf8_lossy(text).into_owned());
        return Some(text.map_or(Value::Null, Value::String));
    }
    let any = array.as_any();
    match array.dtype() {
        ArrowDataType::Boolean => any.downcast_ref().map(|a: &BooleanArray| a.value(index).into()),
        ArrowDataType::Int8 => number::<i8>(array, index),
        ArrowDataType::Int16 => number::<i16>(array, index),
        ArrowDataType::Int32 => number::<i32>(array, index),
        ArrowDataType::Int64 => number::<i64>(array, index),
        ArrowDataType::UInt8 => number::<u8>(array, index),
        ArrowDataType::UInt16 => number::<u16>(array, index),
        ArrowDataType::UInt32 => number::<u32>(array, index),
        ArrowDataType::UInt64 => number::<u64>(array, index),
        ArrowDataType::Float32 => number::<f32>(array, index),
        ArrowDataType::Float64 => number::<f64>(array, index),
        ArrowDataType::List(_) | ArrowDataType::LargeList(_) => {
            let values = elements(array)?;
            range(array, index)?
                .map(|at| to_json(values, at))
                .collect::<Option<_>>()
                .map(Value::Array)
        }
        ArrowDataType::FixedSizeList(..) => {
            let list: &FixedSizeListArray = any.downcast_ref()?;
            let values = list.values().as_ref();
            (index * list.size()..(index + 1) * list.size())
                .map(|at| to_json(values, at))
                .collect::<Option<_>>()
                .map(Value::Array)
        }
        ArrowDataType::Struct(_) => {
            let parent: &StructArray = any.downcast_ref()?;
            let mut map = Map::new();
            for (field, values) in parent.fields().iter().zip(parent.values()) {
                map.insert(field.name.to_string(), to_json(values.as_ref(), index)?);
            }
            Some(Value::Object(map))
        }
        _ => None,
    }
}

/// Appends a row as a JSON object, in the order of the columns, whose names are JSON already. A value of a
/// kind that JSON does not have (a date, a decimal, a map) is written as text.
pub(super) fn write_object(
    names: &[String],
    arrays: &[Box<dyn Array>],
    row: usize,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (place, (name, array)) in names.iter().zip(arrays).enumerate() {
        let value = to_json(array.as_ref(), row).unwrap_or_else(|| {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = get_value_display(array.as_ref(), "null")(&mut text, row);
            Value::String(text)
        });
        let separator = if place == 0 { "" } else { "," };
        out.extend_from_slice(format!("{separator}{name}:{value}").as_bytes());
    }
    out.push(b'}');
}

fn number<T: NativeType + Into<Value>>(array: &dyn Array, index: usize) -> Option<Value> {
    array.as_any().downcast_ref::<PrimitiveArray<T>>().map(|values| values.value(index).into())
}
