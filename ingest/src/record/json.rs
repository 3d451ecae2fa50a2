//! The wanted keys of one JSON object, without building the rest of it.

use crate::decode::Fault;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{borrow::Cow, fmt};

/// A value of a wanted key.
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
    /// An array or object, kept because the caller asked for it.
    Nested(Value),
}

/// Reads `keys` from the JSON object in `line`; arrays and objects are kept only when `nested`.
pub(super) fn read_keys<'a>(
    line: &'a str,
    keys: &[String],
    nested: bool,
) -> Result<Vec<Field<'a>>, Fault> {
    let mut json = serde_json::Deserializer::from_str(line);
    let seed = Keys { keys, nested };
    let fields = seed.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
    fields.map_err(|e| fault(&e))
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
    nested: bool,
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
            fields[place] = map.next_value_seed(OneField { nested: self.nested })?;
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
    nested: bool,
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

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if !self.nested {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Field::Other("an array"));
        }
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            values.push(value);
        }
        Ok(Field::Nested(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, read_keys};
    use std::borrow::Cow;

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn reason(line: &str) -> &'static str {
        read_keys(line, &keys(&["text"]), false).expect_err("must be refused").reason
    }

    #[test]
    fn only_the_wanted_keys_are_read() {
        let line = r#"{"a":[[[]]],"text":"plain","b":{"text":1},"n":"x\ny"}"#;
        let fields = read_keys(line, &keys(&["n", "text", "none"]), false).expect("valid");
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
        let nested = read_keys(&deep, &keys(&["text"]), true).expect_err("too deep");
        assert_eq!(nested.reason, "too_deep");
    }

    #[test]
    fn depth_in_a_key_that_nobody_reads_costs_nothing() {
        let deep =
            format!(r#"{{"x":{}{},"text":"t"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        let fields = read_keys(&deep, &keys(&["text"]), false).expect("valid JSON");
        assert_eq!(fields, [Field::Text(Cow::Borrowed("t"))]);
    }
}
