//! Lists inside JSON records: their elements, taken one by one or together.

use super::{BatchSink, Body, DecodeError, DecodeOptions, Fault, Location, TextRange};
use crate::record::{Column, Layout, ListLayout, Role, kind_of, parse_text, rendered, walk};
use serde_json::Value;
use std::borrow::Cow;

/// Pushes the JSON record whose bytes end the batch: as it is, or the elements of its list.
pub(super) fn push_json(
    location: Location,
    range: TextRange,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let Some(list) = &options.layout.list else { return sink.push(location, Body::Json(range)) };
    let parsed = serde_json::from_slice::<Value>(&sink.bytes()[range.clone()]);
    let Ok(record @ Value::Object(_)) = parsed else {
        // The extraction says what is wrong with it.
        return sink.push(location, Body::Json(range));
    };
    let mut found = walk(&record, &list.path);
    if let Some(Value::String(text)) = found.as_deref() {
        found = parse_text(text).map(Cow::Owned).or(found);
    }
    let elements = match found.as_deref() {
        Some(Value::Array(elements)) => elements.as_slice(),
        other => {
            let path = list.path.join(".");
            let fault = match other {
                None => Fault::new("missing_field", format!("the record has no list {path:?}")),
                Some(other) => Fault::new(
                    "wrong_type",
                    format!("field {path:?} is {}, expected a list", kind_of(other)),
                ),
            };
            let head = sink.bytes()[range].to_vec();
            return sink.reject(location, fault, &head);
        }
    };
    sink.bytes().truncate(range.start);
    let scope = Scope { layout: &options.layout, list, record: &record };
    let mut together = Vec::new();
    for (number, element) in (1..).zip(elements) {
        let location = Location { element: number, ..location };
        let start = sink.bytes().len();
        match scope.values(element, sink.bytes()) {
            Ok(values) if list.together => together.push(values),
            Ok(values) => sink.push(location, Body::Columns(values))?,
            Err(fault) => {
                sink.bytes().truncate(start);
                let head = element.to_string();
                sink.reject(location, fault, head.as_bytes())?;
            }
        }
    }
    if together.is_empty() { Ok(()) } else { sink.push(location, Body::Elements(together)) }
}

struct Scope<'a> {
    layout: &'a Layout,
    list: &'a ListLayout,
    record: &'a Value,
}

impl Scope<'_> {
    /// The wanted values of one element, appended to `bytes`.
    fn values(
        &self,
        element: &Value,
        bytes: &mut Vec<u8>,
    ) -> Result<Vec<Option<TextRange>>, Fault> {
        self.layout.columns.iter().map(|column| self.value(column, element, bytes)).collect()
    }

    fn value(
        &self,
        column: &Column,
        element: &Value,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<TextRange>, Fault> {
        let inside = column.path.choices().iter().find_map(|choice| {
            let below = choice.parts.strip_prefix(self.list.path.as_slice())?;
            walk(element, below)
        });
        let Some(value) = inside.or_else(|| column.path.find(self.record)) else {
            let name = column.path.text();
            return match column.role {
                Role::Any => Ok(None),
                Role::Text => {
                    Err(Fault::new("missing_field", format!("the element has no field {name:?}")))
                }
            };
        };
        if column.role == Role::Text && !matches!(*value, Value::String(_) | Value::Null) {
            let (name, kind) = (column.path.text(), kind_of(&value));
            let message = format!("field {name:?} is {kind}, expected a string");
            return Err(Fault::new("wrong_type", message));
        }
        let start = bytes.len();
        Ok(rendered(&value).map(|text| {
            bytes.extend_from_slice(text.as_bytes());
            start..bytes.len()
        }))
    }
}
