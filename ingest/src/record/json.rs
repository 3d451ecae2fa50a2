//! The wanted keys of one JSON object, without building the rest of it.

use super::path::{self, FieldPath, walk};
use crate::decode::Fault;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{borrow::Cow, fmt};

/// A value of a wanted field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// The key is not there.
    Missing,
    /// A string, borrowed when it has no escapes.
    Text(Cow<'a, str>),
    /// `null`.
    Null,
    /// A value of another kind, by name.
    Other(&'static str),
    /// A value of any other kind, kept because the caller asked for it.
    Kept(Value),
}

/// The top-level keys that a record's fields come from, worked out once.
#[derive(Clone, Debug)]
pub(super) struct JsonKeys {
    keys: Vec<String>,
    /// Whether values other than text are kept, by key.
    kept: Vec<bool>,
    /// By field: where it may be, in order.
    fields: Vec<Vec<Place>>,
}

/// A field's value is that of a key, or below it.
#[derive(Clone, Debug)]
struct Place {
    key: usize,
    below: Vec<String>,
}

impl JsonKeys {
    /// `columns` with, for each, whether its value may be other than text.
    pub(super) fn new<'p>(columns: impl Iterator<Item = (&'p FieldPath, bool)>) -> Self {
        let mut keys = Self { keys: Vec::new(), kept: Vec::new(), fields: Vec::new() };
        for (path, any) in columns {
            let mut places = Vec::new();
            for choice in path.choices() {
                places.push(Place { key: keys.place(&choice.whole, any), below: Vec::new() });
                if let [first, below @ ..] = choice.parts.as_slice()
                    && !below.is_empty()
                {
                    places.push(Place { key: keys.place(first, true), below: below.to_vec() });
                }
            }
            keys.fields.push(places);
        }
        keys
    }

    fn place(&mut self, name: &str, kept: bool) -> usize {
        let known = self.keys.iter().position(|key| key == name);
        let place = known.unwrap_or_else(|| {
            self.keys.push(name.to_owned());
            self.kept.push(false);
            self.keys.len() - 1
        });
        self.kept[place] |= kept;
        place
    }

    /// Reads the fields from the JSON object in `line`.
    pub(super) fn read<'a>(&self, line: &'a str) -> Result<Vec<Field<'a>>, Fault> {
        let mut json = serde_json::Deserializer::from_str(line);
        let seed = Keys { keys: &self.keys, kept: &self.kept };
        let values = seed.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
        let mut values = values.map_err(|e| fault(&e))?;
        // The common case: every field is a key of its own.
        if self.fields.len() == self.keys.len() && self.fields.iter().all(|p| p.len() == 1) {
            return Ok(values);
        }
        Ok(self.fields.iter().map(|places| pick(places, &mut values)).collect())
    }
}

/// The first place that has a value. What lies at the top is looked at by one field only, or by
/// fields that want the same, so it is copied, not moved.
fn pick<'a>(places: &[Place], values: &mut [Field<'a>]) -> Field<'a> {
    for place in places {
        let value = &values[place.key];
        if place.below.is_empty() {
            if *value != Field::Missing {
                return value.clone();
            }
            continue;
        }
        let found = match value {
            Field::Kept(value) => walk(value, &place.below).map(Cow::into_owned),
            Field::Text(text) => path::parse_text(text)
                .and_then(|value| walk(&value, &place.below).map(Cow::into_owned)),
            _ => None,
        };
        match found {
            Some(Value::String(text)) => return Field::Text(Cow::Owned(text)),
            Some(Value::Null) => return Field::Null,
            Some(other) => return Field::Kept(other),
            None => {}
        }
    }
    Field::Missing
}

/// `serde_json` has one error type: tells apart what the rejects count separately.
fn fault(error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let column = error.column().saturating_sub(1);
    let reason = match &text {
        t if t.contains("surrogate") || t.contains("unexpected end of hex escape") => {
            "lone_surrogate"
        }
        t if t.contains("recursion limit") => "too_deep",
        t if t.starts_with("duplicate key") => "duplicate_key",
        t if t.starts_with("invalid type") => "wrong_type",
        _ => "malformed_json",
    };
    Fault::new(reason, text).at(column)
}

struct Keys<'k> {
    keys: &'k [String],
    kept: &'k [bool],
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Vec<Field<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = vec![Field::Missing; self.keys.len()];
        while let Some(place) = map.next_key_seed(WhichKey(self.keys))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if fields[place] != Field::Missing {
                return Err(de::Error::custom(format!("duplicate key {:?}", self.keys[place])));
            }
            fields[place] = map.next_value_seed(OneField { kept: self.kept[place] })?;
        }
        Ok(fields)
    }
}

/// The place of a key among the wanted ones.
struct WhichKey<'k>(&'k [String]);

impl<'de> DeserializeSeed<'de> for WhichKey<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for WhichKey<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted == key))
    }
}

struct OneField {
    kept: bool,
}

impl<'de> DeserializeSeed<'de> for OneField {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneField {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Owned(text)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.scalar(Value::Bool(value), "a boolean"))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.scalar(Value::from(value), "a number"))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.scalar(Value::from(value), "a number"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.scalar(Value::from(value), "a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if !self.kept {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Field::Other("an array"));
        }
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            values.push(value);
        }
        Ok(Field::Kept(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        if !self.kept {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Field::Other("an object"));
        }
        let mut values = serde_json::Map::new();
        while let Some((key, value)) = map.next_entry()? {
            values.insert(key, value);
        }
        Ok(Field::Kept(Value::Object(values)))
    }
}

impl OneField {
    fn scalar(&self, value: Value, kind: &'static str) -> Field<'static> {
        if self.kept { Field::Kept(value) } else { Field::Other(kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, FieldPath, JsonKeys};
    use serde_json::json;
    use std::borrow::Cow;

    fn keys(names: &[&str], any: bool) -> JsonKeys {
        let paths: Vec<FieldPath> = names.iter().map(|name| FieldPath::new(name)).collect();
        JsonKeys::new(paths.iter().map(|path| (path, any)))
    }

    fn reason(line: &str) -> &'static str {
        keys(&["text"], false).read(line).expect_err("must be refused").reason
    }

    #[test]
    fn only_the_wanted_keys_are_read() {
        let line = r#"{"a":[[[]]],"text":"plain","b":{"text":1},"n":"x\ny"}"#;
        let fields = keys(&["n", "text", "none"], false).read(line).expect("valid");
        assert_eq!(
            fields,
            [
                Field::Text(Cow::Borrowed("x\ny")),
                Field::Text(Cow::Borrowed("plain")),
                Field::Missing
            ]
        );
        assert!(matches!(fields[1], Field::Text(Cow::Borrowed(_))), "no copy without escapes");
    }

    #[test]
    fn kinds_of_damage_are_told_apart() {
        assert_eq!(reason(r#"{"text":"\ud800 alone"}"#), "lone_surrogate");
        assert_eq!(reason(r#"{"text":"\udc00"}"#), "lone_surrogate");
        assert_eq!(reason(r#"{"text":"a","text":"b"}"#), "duplicate_key");
        assert_eq!(reason(r#"{"text":"a""#), "malformed_json");
        assert_eq!(reason(r#"{"text":"a"} x"#), "malformed_json");
        assert_eq!(reason(r#"["text"]"#), "wrong_type");
        let deep = format!(r#"{{"text":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let nested = keys(&["text"], true).read(&deep).expect_err("too deep");
        assert_eq!(nested.reason, "too_deep");
    }

    #[test]
    fn depth_in_a_key_that_nobody_reads_costs_nothing() {
        let deep =
            format!(r#"{{"x":{}{},"text":"t"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        let fields = keys(&["text"], false).read(&deep).expect("valid JSON");
        assert_eq!(fields, [Field::Text(Cow::Borrowed("t"))]);
    }

    #[test]
    fn fields_lie_under_other_names_and_below_keys() {
        let wanted = ["lang|program_lang", "meta.language", "meta.source", "n"];
        let read = |line| keys(&wanted, true).read(line).expect("valid");
        let text = |text: &str| Field::Text(Cow::Owned(text.to_owned()));
        let line = r#"{"meta":{"language":"en","source":["a"]},"program_lang":"c","n":3}"#;
        assert_eq!(
            read(line),
            [text("c"), text("en"), Field::Kept(json!(["a"])), Field::Kept(json!(3))]
        );
        let line = r#"{"meta":"{'language': 'fr'}","lang":null,"program_lang":"c"}"#;
        assert_eq!(read(line), [Field::Null, text("fr"), Field::Missing, Field::Missing]);
    }
}
