//! From a raw record to a document.

use super::{
    json::{Field, JsonKeys},
    keep::Filter,
    layout::{Column, Layout, ListLayout, Role},
    mend::mend,
    path::{FieldPath, rendered},
    template::Template,
};
use crate::{
    blobs::{BlobId, BlobStore},
    decode::{Body, Fault, TextRange},
    tokenize::{Message, Role as Speaker},
};
use coda_manifests::{Transform, Unnest, UnnestInto};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};

/// Where the text of a record is.
#[derive(Clone, Debug)]
pub enum RecordShape {
    /// One field holds the document.
    Text {
        /// The field.
        field: String,
    },
    /// Several fields make the document.
    Template(Template),
    /// A question and an answer.
    Pair {
        /// The field with the question.
        instruction: String,
        /// The field with the answer.
        output: String,
    },
    /// The text is a blob of a store, which the record names.
    Blob {
        /// The field with its id.
        id: String,
        /// The field that names its encoding.
        encoding: Option<String>,
        /// The store.
        store: Arc<BlobStore>,
        /// Longer texts are rejected.
        max_bytes: usize,
    },
    /// A list of turns, each `{role, content}` or `{from, value}`.
    Messages {
        /// The field.
        field: String,
    },
}

/// A record that can be tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document<'a> {
    /// Text as it is.
    Text(Cow<'a, str>),
    /// A conversation for the chat template.
    Chat(Vec<Message>),
}

impl Document<'_> {
    /// What cleaning and deduplication look at: the text, or all turns with blank lines between.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Chat(messages) => {
                let turns: Vec<&str> = messages.iter().map(|turn| turn.content.as_str()).collect();
                Cow::Owned(turns.join("\n\n"))
            }
        }
    }
}

/// What became of a usable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extracted<'a> {
    /// It is a document.
    Document(Document<'a>),
    /// A filter leaves it out, counted under this reason.
    Dropped(&'static str),
}

/// Turns raw records into documents of one shape.
#[derive(Clone, Debug)]
pub struct Extractor {
    shape: RecordShape,
    filters: Vec<Filter>,
    transforms: Vec<Transform>,
    separator: String,
    layout: Layout,
    json: JsonKeys,
    /// The columns of the shape come first, then those of the filters.
    texts: usize,
}

impl Extractor {
    /// An extractor for records of this shape.
    #[must_use]
    pub fn new(shape: RecordShape) -> Self {
        let column = |name: &str, role| Column { path: FieldPath::new(name), role };
        let columns = match &shape {
            RecordShape::Text { field } => vec![column(field, Role::Text)],
            RecordShape::Messages { field } => vec![column(field, Role::Any)],
            RecordShape::Pair { instruction, output } => {
                vec![column(instruction, Role::Text), column(output, Role::Text)]
            }
            RecordShape::Blob { id, encoding, .. } => {
                let encoding = encoding.as_ref().map(|name| column(name, Role::Any));
                std::iter::once(column(id, Role::Text)).chain(encoding).collect()
            }
            RecordShape::Template(template) => {
                let role = |optional| if optional { Role::Any } else { Role::Text };
                template.fields().iter().map(|f| column(&f.name, role(f.optional))).collect()
            }
        };
        let mut extractor = Self {
            shape,
            filters: Vec::new(),
            transforms: Vec::new(),
            separator: String::new(),
            texts: columns.len(),
            layout: Layout { columns, ..Layout::default() },
            json: JsonKeys::new(std::iter::empty()),
        };
        extractor.index();
        extractor
    }

    /// Only records that all of these keep.
    #[must_use]
    pub fn with_filters(mut self, filters: Vec<Filter>) -> Self {
        self.layout.columns.truncate(self.texts);
        for filter in &filters {
            self.layout.columns.push(Column { path: filter.column.clone(), role: Role::Any });
        }
        self.filters = filters;
        self.index();
        self
    }

    /// Mends every text so.
    #[must_use]
    pub fn with_transforms(mut self, transforms: Vec<Transform>) -> Self {
        self.transforms = transforms;
        self
    }

    /// Takes the elements of a list inside the record.
    #[must_use]
    pub fn with_list(mut self, unnest: &Unnest) -> Self {
        self.layout.list = Some(ListLayout {
            path: unnest.list.split('.').map(str::to_owned).collect(),
            together: unnest.into == UnnestInto::Document,
        });
        self.separator.clone_from(&unnest.separator);
        self
    }

    fn index(&mut self) {
        let columns = self.layout.columns.iter();
        self.json = JsonKeys::new(columns.map(|c| (&c.path, c.role == Role::Any)));
    }

    /// The values that are read, in the order in which decoders deliver them.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The document in a raw record, or the rule that leaves it out.
    ///
    /// # Errors
    /// A [`Fault`] when the record is not usable: invalid UTF-8 or JSON, a missing field, a value of
    /// the wrong type, an empty text.
    pub fn document<'a>(&self, bytes: &'a [u8], body: &Body) -> Result<Extracted<'a>, Fault> {
        if let Body::Elements(elements) = body {
            return self.joined(bytes, elements);
        }
        if let Body::Dropped(reason) = body {
            return Ok(Extracted::Dropped(reason));
        }
        let fields = self.fields(bytes, body)?;
        match self.left_out(&fields[self.texts..]) {
            Some(reason) => Ok(Extracted::Dropped(reason)),
            None => self.shape_fields(fields).map(Extracted::Document),
        }
    }

    /// The blobs that a raw record names and no filter leaves out; none when records hold their text
    /// themselves.
    ///
    /// # Errors
    /// As [`Extractor::document`], but without looking into the store.
    pub fn blobs(&self, bytes: &[u8], body: &Body) -> Result<Vec<BlobId>, Fault> {
        let RecordShape::Blob { id, .. } = &self.shape else { return Ok(Vec::new()) };
        let records = match body {
            Body::Dropped(_) => Vec::new(),
            Body::Elements(elements) => {
                elements.iter().map(|e| columns(bytes, e)).collect::<Result<_, _>>()?
            }
            one => vec![self.fields(bytes, one)?],
        };
        records
            .into_iter()
            .filter(|fields| self.left_out(&fields[self.texts..]).is_none())
            .map(|fields| {
                let field = fields.into_iter().next().unwrap_or(Field::Missing);
                BlobId::parse(&text_of(field, id)?)
            })
            .collect()
    }

    /// The wanted values of a record that is one.
    fn fields<'a>(&self, bytes: &'a [u8], body: &Body) -> Result<Vec<Field<'a>>, Fault> {
        Ok(match body {
            Body::Json(range) => self.json.read(utf8(bytes, range)?)?,
            Body::Columns(ranges) => columns(bytes, ranges)?,
            Body::Rejected { fault, .. } => return Err(fault.clone()),
            Body::Text(range) => {
                let mut fields = vec![Field::Missing; self.layout.columns.len()];
                fields[0] = Field::Text(Cow::Borrowed(utf8(bytes, range)?));
                fields
            }
            Body::Elements(_) | Body::Dropped(_) => {
                vec![Field::Missing; self.layout.columns.len()]
            }
        })
    }

    /// The filter that leaves a record with these values out.
    fn left_out(&self, values: &[Field<'_>]) -> Option<&'static str> {
        let keeps = |filter: &Filter, value: &Field<'_>| match value {
            Field::Text(text) => filter.keeps(Some(text)),
            Field::Kept(value) => filter.keeps(rendered(value).as_deref()),
            Field::Missing | Field::Null | Field::Other(_) => filter.keeps(None),
        };
        let mut both = self.filters.iter().zip(values);
        both.find(|(filter, value)| !keeps(filter, value)).map(|(filter, _)| filter.reason())
    }

    /// The texts of the elements that the filters keep, one after the other.
    fn joined<'a>(
        &self,
        bytes: &'a [u8],
        elements: &[Vec<Option<TextRange>>],
    ) -> Result<Extracted<'a>, Fault> {
        let mut whole = String::new();
        let mut dropped = None;
        for element in elements {
            let fields = columns(bytes, element)?;
            if let Some(reason) = self.left_out(&fields[self.texts..]) {
                dropped.get_or_insert(reason);
                continue;
            }
            match self.shape_fields(fields) {
                Ok(Document::Text(text)) => {
                    if !whole.is_empty() {
                        whole.push_str(&self.separator);
                    }
                    whole.push_str(&text);
                }
                Ok(Document::Chat(_)) => {
                    let message = "the elements of a list are conversations, which do not join";
                    return Err(Fault::new("wrong_type", message));
                }
                // An empty file in a repository is no fault of the repository.
                Err(fault) if fault.reason == "empty_text" => {}
                Err(fault) => return Err(fault),
            }
        }
        match (whole.is_empty(), dropped) {
            (false, _) => Ok(Extracted::Document(Document::Text(Cow::Owned(whole)))),
            (true, Some(reason)) => Ok(Extracted::Dropped(reason)),
            (true, None) => Err(Fault::new("empty_text", "the list holds no text")),
        }
    }

    fn full_text<'a>(&self, field: Field<'a>, name: &str) -> Result<Cow<'a, str>, Fault> {
        let text = mend(text_of(field, name)?, &self.transforms)?;
        if text.is_empty() {
            return Err(Fault::new("empty_text", format!("field {name:?} is empty")));
        }
        Ok(text)
    }

    fn shape_fields<'a>(&self, fields: Vec<Field<'a>>) -> Result<Document<'a>, Fault> {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or(Field::Missing);
        match &self.shape {
            RecordShape::Text { field } => Ok(Document::Text(self.full_text(next(), field)?)),
            RecordShape::Template(template) => {
                let value = |field: &super::template::TemplateField| match next() {
                    Field::Missing | Field::Null if field.optional => Ok(Cow::Borrowed("")),
                    Field::Text(text) => mend(text, &self.transforms),
                    other => Err(not_text(&other, &field.name, "a string")),
                };
                let values = template.fields().iter().map(value).collect::<Result<Vec<_>, _>>()?;
                if values.iter().all(|value| value.is_empty()) {
                    return Err(Fault::new("empty_text", "all fields of the template are empty"));
                }
                Ok(Document::Text(Cow::Owned(template.fill(&values))))
            }
            RecordShape::Pair { instruction, output } => {
                let question = message(Speaker::User, self.full_text(next(), instruction)?);
                let answer = message(Speaker::Assistant, self.full_text(next(), output)?);
                Ok(Document::Chat(vec![question, answer]))
            }
            RecordShape::Blob { id, encoding, store, max_bytes } => {
                let name = text_of(next(), id)?;
                let encoding = match encoding.as_ref().map(|field| (field, next())) {
                    None | Some((_, Field::Missing | Field::Null)) => None,
                    Some((field, value)) => Some(text_of(value, field)?),
                };
                let text = store.text(&name, encoding.as_deref(), *max_bytes)?;
                Ok(Document::Text(mend(Cow::Owned(text), &self.transforms)?))
            }
            RecordShape::Messages { field } => {
                let turns = match next() {
                    Field::Kept(value @ Value::Array(_)) => value,
                    // Columns and some data sets hold the list as JSON text.
                    Field::Text(text) => serde_json::from_str(&text)
                        .map_err(|e| Fault::new("malformed_json", format!("{field:?}: {e}")))?,
                    other => return Err(not_text(&other, field, "a list of turns")),
                };
                let mut turns = turns_of(&turns, field)?;
                for turn in &mut turns {
                    let content = std::mem::take(&mut turn.content);
                    turn.content = mend(Cow::Owned(content), &self.transforms)?.into_owned();
                }
                Ok(Document::Chat(turns))
            }
        }
    }
}

fn columns<'a>(bytes: &'a [u8], ranges: &[Option<TextRange>]) -> Result<Vec<Field<'a>>, Fault> {
    let field = |range: &Option<TextRange>| match range {
        Some(range) => Ok(Field::Text(Cow::Borrowed(utf8(bytes, range)?))),
        None => Ok(Field::Null),
    };
    ranges.iter().map(field).collect()
}

fn utf8<'a>(bytes: &'a [u8], range: &TextRange) -> Result<&'a str, Fault> {
    std::str::from_utf8(&bytes[range.clone()])
        .map_err(|e| Fault::new("invalid_utf8", format!("not UTF-8: {e}")).at(e.valid_up_to()))
}

fn text_of<'a>(field: Field<'a>, name: &str) -> Result<Cow<'a, str>, Fault> {
    match field {
        Field::Text(text) => Ok(text),
        other => Err(not_text(&other, name, "a string")),
    }
}

fn not_text(field: &Field<'_>, name: &str, expected: &str) -> Fault {
    match field {
        Field::Missing => Fault::new("missing_field", format!("the record has no field {name:?}")),
        Field::Null => Fault::new("missing_field", format!("field {name:?} is null")),
        Field::Other(kind) => {
            Fault::new("wrong_type", format!("field {name:?} is {kind}, expected {expected}"))
        }
        Field::Kept(value) => {
            let kind = kind_of(value);
            Fault::new("wrong_type", format!("field {name:?} is {kind}, expected {expected}"))
        }
        Field::Text(_) => Fault::new("wrong_type", format!("field {name:?} is not {expected}")),
    }
}

/// The kind of a JSON value in a message.
pub(crate) const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn message(role: Speaker, content: Cow<'_, str>) -> Message {
    Message { role, content: content.into_owned() }
}

fn turns_of(turns: &Value, field: &str) -> Result<Vec<Message>, Fault> {
    let wrong = |what: String| Fault::new("wrong_type", format!("field {field:?}: {what}"));
    let turns = turns.as_array().ok_or_else(|| wrong("expected a list of turns".to_owned()))?;
    if turns.is_empty() {
        return Err(Fault::new("empty_text", format!("field {field:?} has no turns")));
    }
    turns
        .iter()
        .enumerate()
        .map(|(index, turn)| {
            let pick =
                |a: &str, b: &str| turn.get(a).or_else(|| turn.get(b)).and_then(Value::as_str);
            let name =
                pick("role", "from").ok_or_else(|| wrong(format!("turn {index} has no role")))?;
            let role = Speaker::parse(name).ok_or_else(|| {
                Fault::new(
                    "unknown_role",
                    format!("field {field:?}: turn {index} has role {name:?}"),
                )
            })?;
            let content = pick("content", "value")
                .ok_or_else(|| wrong(format!("turn {index} has no text content")))?;
            Ok(message(role, Cow::Borrowed(content)))
        })
        .collect()
}
