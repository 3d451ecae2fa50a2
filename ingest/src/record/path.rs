//! Where in a record a value is: `text`, `meta.language`, `lang|program_lang`.

use super::python;
use serde_json::Value;
use std::borrow::Cow;

/// The name of a column or key, which may lead through objects by dots, and may give alternatives
/// by bars, the first of which that is there counts. A name that is there as it stands, dots
/// included, counts before its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    text: String,
    choices: Vec<Choice>,
}

/// One alternative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// As it stands.
    pub(crate) whole: String,
    /// Cut at its dots.
    pub(crate) parts: Vec<String>,
}

impl FieldPath {
    /// Reads a name.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let choices = text
            .split('|')
            .map(|whole| Choice {
                whole: whole.to_owned(),
                parts: whole.split('.').map(str::to_owned).collect(),
            })
            .collect();
        Self { text: text.to_owned(), choices }
    }

    /// As the manifest has it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The last part of the last alternative: what is asked about, wherever it is.
    pub(crate) fn last_part(&self) -> &str {
        self.choices.last().and_then(|choice| choice.parts.last()).map_or("", String::as_str)
    }

    /// The value in an object, whose own values may be objects written as text.
    pub(crate) fn find<'v>(&self, record: &'v Value) -> Option<Cow<'v, Value>> {
        self.choices.iter().find_map(|choice| match record.get(&choice.whole) {
            Some(value) => Some(Cow::Borrowed(value)),
            None => walk(record, &choice.parts),
        })
    }
}

/// Follows keys through objects. Text on the way is read as JSON or, failing that, as Python writes
/// a dict.
pub(crate) fn walk<'v>(value: &'v Value, parts: &[String]) -> Option<Cow<'v, Value>> {
    let Some((first, rest)) = parts.split_first() else { return Some(Cow::Borrowed(value)) };
    if let Value::String(text) = value {
        return walk(&parse_text(text)?, parts).map(|found| Cow::Owned(found.into_owned()));
    }
    walk(value.get(first)?, rest)
}

/// An object or list that is written as text.
pub(crate) fn parse_text(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| python::literal(text))
}

/// A value as text: text as it is, all else as JSON; nothing for null.
pub(crate) fn rendered(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::FieldPath;
    use serde_json::{Value, json};

    fn find(path: &str, record: &Value) -> Option<Value> {
        FieldPath::new(path).find(record).map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn dots_bars_and_objects_written_as_text() {
        let record = json!({
            "a": {"b": {"c": 1}}, "a.b": "whole", "program_lang": "python",
            "json": "{\"language\": \"en\", \"deep\": \"{\\\"x\\\": 2}\"}",
            "python": "{'language': 'it\\'s', 'n': None, 'ok': True}",
        });
        assert_eq!(find("a.b", &record), Some(json!("whole")), "a key as it stands comes first");
        assert_eq!(find("a.b.c", &record), Some(json!(1)));
        assert_eq!(find("lang|program_lang", &record), Some(json!("python")));
        assert_eq!(find("json.language", &record), Some(json!("en")));
        assert_eq!(find("json.deep.x", &record), Some(json!(2)));
        assert_eq!(find("python.language", &record), Some(json!("it's")));
        assert_eq!(find("python.n", &record), Some(Value::Null));
        assert_eq!(find("python.ok", &record), Some(json!(true)));
        assert_eq!(find("none", &record), None);
        assert_eq!(find("program_lang.x", &record), None);
    }
}
