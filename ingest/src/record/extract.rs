//! From a raw record to a document.

use super::json::{Field, read_keys};
use crate::{
    blobs::{BlobId, BlobStore},
    decode::{Body, Fault, TextRange},
    tokenize::{Message, Role},
};
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

/// Turns raw records into documents of one shape.
#[derive(Clone, Debug)]
pub struct Extractor {
    shape: RecordShape,
    keys: Vec<String>,
}

impl Extractor {
    /// An extractor for records of this shape.
    #[must_use]
    pub fn new(shape: RecordShape) -> Self {
        let keys = match &shape {
            RecordShape::Text { field } | RecordShape::Messages { field } => vec![field.clone()],
            RecordShape::Pair { instruction, output } => vec![instruction.clone(), output.clone()],
            RecordShape::Blob { id, encoding, .. } => {
                std::iter::once(id).chain(encoding).cloned().collect()
            }
        };
        Self { shape, keys }
    }

    /// The fields that are read, in the order in which column containers deliver them.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.keys
    }

    /// The document in a raw record.
    ///
    /// # Errors
    /// A [`Fault`] when the record is not usable: invalid UTF-8 or JSON, a missing field, a value of
    /// the wrong type, an empty text.
    pub fn document<'a>(&self, bytes: &'a [u8], body: &Body) -> Result<Document<'a>, Fault> {
        self.shape_fields(self.fields(bytes, body)?)
    }

    /// The blob that a raw record names; nothing when records hold their text themselves.
    ///
    /// # Errors
    /// As [`Extractor::document`], but without looking into the store.
    pub fn blob(&self, bytes: &[u8], body: &Body) -> Result<Option<BlobId>, Fault> {
        let RecordShape::Blob { id, .. } = &self.shape else { return Ok(None) };
        let field = self.fields(bytes, body)?.into_iter().next().unwrap_or(Field::Missing);
        BlobId::parse(&full_text(field, id)?).map(Some)
    }

    fn fields<'a>(&self, bytes: &'a [u8], body: &Body) -> Result<Vec<Field<'a>>, Fault> {
        Ok(match body {
            Body::Json(range) => {
                let nested = matches!(self.shape, RecordShape::Messages { .. });
                read_keys(utf8(bytes, range)?, &self.keys, nested)?
            }
            Body::Text(range) => vec![Field::Text(Cow::Borrowed(utf8(bytes, range)?))],
            Body::Columns(ranges) => ranges
                .iter()
                .map(|range| match range {
                    Some(range) => Ok(Field::Text(Cow::Borrowed(utf8(bytes, range)?))),
                    None => Ok(Field::Null),
                })
                .collect::<Result<_, Fault>>()?,
            Body::Rejected { fault, .. } => return Err(fault.clone()),
        })
    }

    fn shape_fields<'a>(&self, fields: Vec<Field<'a>>) -> Result<Document<'a>, Fault> {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or(Field::Missing);
        match &self.shape {
            RecordShape::Text { field } => Ok(Document::Text(full_text(next(), field)?)),
            RecordShape::Pair { instruction, output } => {
                let question = message(Role::User, full_text(next(), instruction)?);
                let answer = message(Role::Assistant, full_text(next(), output)?);
                Ok(Document::Chat(vec![question, answer]))
            }
            RecordShape::Blob { id, encoding, store, max_bytes } => {
                let name = full_text(next(), id)?;
                let encoding = match encoding.as_ref().map(|field| (field, next())) {
                    None | Some((_, Field::Missing | Field::Null)) => None,
                    Some((field, value)) => Some(text_of(value, field)?),
                };
                let text = store.text(&name, encoding.as_deref(), *max_bytes)?;
                Ok(Document::Text(Cow::Owned(text)))
            }
            RecordShape::Messages { field } => {
                let turns = match next() {
                    Field::Nested(value) => value,
                    // Columns and some data sets hold the list as JSON text.
                    Field::Text(text) => serde_json::from_str(&text)
                        .map_err(|e| Fault::new("malformed_json", format!("{field:?}: {e}")))?,
                    other => return Err(not_text(&other, field, "a list of turns")),
                };
                Ok(Document::Chat(turns_of(&turns, field)?))
            }
        }
    }
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

fn full_text<'a>(field: Field<'a>, name: &str) -> Result<Cow<'a, str>, Fault> {
    match text_of(field, name)? {
        text if text.is_empty() => {
            Err(Fault::new("empty_text", format!("field {name:?} is empty")))
        }
        text => Ok(text),
    }
}

fn not_text(field: &Field<'_>, name: &str, expected: &str) -> Fault {
    match field {
        Field::Missing => Fault::new("missing_field", format!("the record has no field {name:?}")),
        Field::Null => Fault::new("missing_field", format!("field {name:?} is null")),
        Field::Other(kind) => {
            Fault::new("wrong_type", format!("field {name:?} is {kind}, expected {expected}"))
        }
        Field::Nested(_) | Field::Text(_) => {
            Fault::new("wrong_type", format!("field {name:?} is not {expected}"))
        }
    }
}

fn message(role: Role, content: Cow<'_, str>) -> Message {
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
            let role = Role::parse(name).ok_or_else(|| {
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
