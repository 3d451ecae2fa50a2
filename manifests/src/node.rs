//! A YAML document as a tree in which every key and value knows its place.
//!
//! The tree stands between the parser and the types: overrides are written into it, and the types
//! are read from it by [`Node::read`], whose errors carry the key's whole path and its place.

use crate::Place;
use serde::de::{
    self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_saphyr::Spanned;
use std::fmt;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

/// Why a type could not be read from a tree.
#[derive(Debug)]
pub(crate) struct ReadError {
    /// The path from the root, outermost first; empty until it is known.
    pub(crate) path: Vec<String>,
    pub(crate) place: Option<Place>,
    pub(crate) kind: ReadErrorKind,
}

#[derive(Debug)]
pub(crate) enum ReadErrorKind {
    Unknown { name: String, known: &'static [&'static str] },
    Missing(&'static str),
    Other(String),
}

impl Node {
    /// Reads `T` from the tree.
    pub(crate) fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, ReadError> {
        T::deserialize(self)
    }

    /// Gives this node and all below it one place.
    pub(crate) fn relocate(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.relocate(place)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_place = place.clone();
                    entry.node.relocate(place);
                }
            }
            _ => {}
        }
    }

    /// The place of the deepest part of `path` that the tree has.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        for part in path.split('.') {
            let next = match &node.value {
                Value::Map(entries) => entries.iter().find(|e| e.key == part).map(|e| &e.node),
                Value::List(nodes) => part.parse::<usize>().ok().and_then(|i| nodes.get(i)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place.clone()
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    let at = spanned.referenced;
    Place::File { line: at.line(), column: at.column() }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: place(&spanned), value: spanned.value }
    }
}

/// From the YAML parser.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                Value::deserialize(inner)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Unsigned(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = list.next_element::<Spanned<Value>>()? {
                    nodes.push(node.into());
                }
                Ok(Value::List(nodes))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let node = map.next_value::<Spanned<Value>>()?.into();
                    entries.push(Entry { key_place: place(&key), key: key.value, node });
                }
                Ok(Value::Map(entries))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl ReadError {
    fn new(kind: ReadErrorKind) -> Self {
        Self { path: Vec::new(), place: None, kind }
    }

    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn below(mut self, part: impl Into<String>) -> Self {
        self.path.insert(0, part.into());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match &self.kind {
            ReadErrorKind::Unknown { name, .. } => write!(formatter, "unknown name `{name}`"),
            ReadErrorKind::Missing(key) => write!(formatter, "the key `{key}` is missing"),
            ReadErrorKind::Other(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ReadErrorKind::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected, expected: &dyn de::Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "u32" | "u64" => "a whole number from 0 on".to_owned(),
            "f64" => "a number".to_owned(),
            "a sequence" => "a list".to_owned(),
            "a tuple of size 2" => "a list of 2".to_owned(),
            "a boolean" => "true or false".to_owned(),
            other => other.to_owned(),
        };
        Self::custom(format_args!("invalid type: {found}, expected {expected}"))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(ReadErrorKind::Unknown { name: name.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(ReadErrorKind::Missing(key))
    }
}

/// From the tree to the types.
impl<'de> Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(nodes) => {
                let mut elements = Elements { nodes, next: 0 };
                visitor.visit_seq(&mut elements).and_then(|value| {
                    if elements.next == nodes.len() {
                        Ok(value)
                    } else {
                        Err(de::Error::custom(format!(
                            "{} values where {} were expected",
                            nodes.len(),
                            elements.next
                        )))
                    }
                })
            }
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        };
        result.map_err(|error| error.at(&self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        // serde would fill a struct from a list too.
        if matches!(self.value, Value::Map(_)) {
            return self.deserialize_any(visitor);
        }
        let message = format!("expected keys, of {}", fields.join(", "));
        Err(<ReadError as de::Error>::custom(message).at(&self.place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let unexpected = |found: Unexpected| {
            let expected = format!("one of {}", variants.join(", "));
            Err(de::Error::invalid_value(found, &expected.as_str()))
        };
        let result = match &self.value {
            Value::Text(name) if variants.contains(&name.as_str()) => {
                visitor.visit_enum(name.as_str().into_deserializer())
            }
            Value::Text(name) => unexpected(Unexpected::Str(name)),
            Value::Map(entries) if entries.len() == 1 => {
                let map = Entries { entries, next: 0 };
                visitor.visit_enum(de::value::MapAccessDeserializer::new(map))
            }
            Value::Bool(value) => unexpected(Unexpected::Bool(*value)),
            Value::Unsigned(value) => unexpected(Unexpected::Unsigned(*value)),
            Value::Signed(value) => unexpected(Unexpected::Signed(*value)),
            Value::Float(value) => unexpected(Unexpected::Float(*value)),
            Value::Null => unexpected(Unexpected::Unit),
            Value::List(_) => unexpected(Unexpected::Seq),
            Value::Map(_) => unexpected(Unexpected::Map),
        };
        result.map_err(|error: ReadError| error.at(&self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Elements<'de> {
    nodes: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.nodes.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(node).map(Some).map_err(|error| error.below(index.to_string()))
    }
}

struct Entries<'de> {
    entries: &'de [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let key = seed.deserialize(entry.key.as_str().into_deserializer());
        key.map(Some).map_err(|error: ReadError| error.at(&entry.key_place).below(&entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let entry = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(&entry.node).map_err(|error| error.at(&entry.node.place).below(&entry.key))
    }
}
