//! The keys of a source that say what of a record becomes a document: nested lists, filters on
//! columns, and what is mended in a text.

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A list inside a record whose elements hold the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unnest {
    /// Column or key of the list.
    pub list: String,
    /// What its elements become.
    #[serde(default)]
    pub into: UnnestInto,
    /// What stands between two elements that are joined.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub separator: String,
}

/// What the elements of a list become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnnestInto {
    /// Each a document of its own.
    #[default]
    Documents,
    /// One document, in the order of the list.
    Document,
}

/// What is mended in every text that is read, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// `b'…'`, as Python writes bytes, becomes the text that it stands for.
    PythonBytes,
    /// Line ends become single line feeds.
    Lf,
    /// White space at both ends is taken away.
    Trim,
}

/// The values of a column with which a record is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Keep {
    /// One of these.
    OneOf(Vec<Scalar>),
    /// A number from `min` to `max`.
    Range {
        /// The lowest; absent: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        /// The highest; absent: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
    },
}

/// A value that a column is compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, compared as a number.
    Number(f64),
    /// Text, compared letter by letter.
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneScalar;
        impl Visitor<'_> for OneScalar {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("text, a number, true, false or null")
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(OneScalar)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKeep;
        impl<'de> Visitor<'de> for OneKeep {
            type Value = Keep;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of values, or {min: …, max: …}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Keep, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Keep::OneOf(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keep, A::Error> {
                let (mut min, mut max) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "min" => min = map.next_value()?,
                        "max" => max = map.next_value()?,
                        other => return Err(de::Error::unknown_field(other, &["min", "max"])),
                    }
                }
                Ok(Keep::Range { min, max })
            }
        }
        deserializer.deserialize_any(OneKeep)
    }
}

#[cfg(test)]
mod tests {
    use super::{Keep, Scalar};

    #[test]
    fn filters_are_read_and_written_alike() {
        for yaml in ["[Python, 1.5, false, null]", "{min: 3.0}", "{min: 0.5, max: 2.0}", "[]"] {
            let keep: Keep = serde_saphyr::from_str(yaml).expect(yaml);
            let written = serde_saphyr::to_string(&keep).expect("plain values");
            assert_eq!(serde_saphyr::from_str::<Keep>(&written).expect("ours"), keep, "{written}");
        }
        let keep: Keep = serde_saphyr::from_str("[a, true, 2, null]").expect("a list");
        let values =
            vec![Scalar::Text("a".into()), Scalar::Bool(true), Scalar::Number(2.0), Scalar::Null];
        assert_eq!(keep, Keep::OneOf(values));
        assert!(serde_saphyr::from_str::<Keep>("{least: 3}").is_err());
        assert!(serde_saphyr::from_str::<Keep>("Python").is_err());
        assert!(serde_saphyr::from_str::<Keep>("[[a]]").is_err());
    }
}
