//! Syntax that masking may follow: which spans ingest notes, and which of them S3 masks as a whole.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IntoDeserializer as _, SeqAccess, Unexpected, Visitor},
};
use std::fmt;

/// A kind of span that a row's text falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// A line with its line end.
    Lines,
    /// A pair of round, square or curly brackets with what stands between them.
    Brackets,
}

impl SpanKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Lines, Self::Brackets];

    /// The number that stands for the kind in a shard.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Lines => 0,
            Self::Brackets => 1,
        }
    }

    /// The name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Brackets => "brackets",
        }
    }
}

/// Some kinds of spans, at least one: `lines`, `brackets` or `[lines, brackets]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanKinds(u8);

impl SpanKinds {
    /// These kinds; nothing when there are none.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = SpanKind>) -> Option<Self> {
        let bits = kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind.code());
        (bits != 0).then_some(Self(bits))
    }

    /// Whether a kind is among them.
    #[must_use]
    pub const fn has(self, kind: SpanKind) -> bool {
        self.has_code(kind.code())
    }

    /// Whether the kind that a number stands for in a shard is among them.
    #[must_use]
    pub const fn has_code(self, code: u8) -> bool {
        code < 8 && self.0 >> code & 1 == 1
    }

    /// The kinds, in the order of their codes.
    pub fn iter(self) -> impl Iterator<Item = SpanKind> {
        SpanKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// The first of these kinds that the others lack.
    #[must_use]
    pub fn missing_in(self, others: Option<Self>) -> Option<SpanKind> {
        self.iter().find(|kind| !others.is_some_and(|others| others.has(*kind)))
    }
}

impl fmt::Display for SpanKinds {
    /// `lines,brackets`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(SpanKind::name).collect();
        formatter.write_str(&names.join(","))
    }
}

impl Serialize for SpanKinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kinds: Vec<SpanKind> = self.iter().collect();
        match kinds.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SpanKinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = SpanKinds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("lines, brackets or [lines, brackets]")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<SpanKinds, E> {
                let kind = SpanKind::ALL.into_iter().find(|kind| kind.name() == name);
                let kinds = kind.and_then(|kind| SpanKinds::new([kind]));
                kinds.ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SpanKinds, A::Error> {
                let mut kinds = Vec::new();
                while let Some(kind) = list.next_element::<SpanKind>()? {
                    kinds.push(kind);
                }
                SpanKinds::new(kinds).ok_or_else(|| A::Error::invalid_length(0, &self))
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}

/// What S3 masks as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskBlocks {
    /// Runs of tokens, wherever they lie (method §3).
    #[default]
    Tokens,
    /// Spans of the text, as the shard set notes them.
    Spans(SpanKinds),
}

impl MaskBlocks {
    /// Whether blocks are runs of tokens.
    #[must_use]
    pub const fn is_tokens(&self) -> bool {
        matches!(self, Self::Tokens)
    }

    /// The kinds of spans that are blocks; nothing when blocks are runs of tokens.
    #[must_use]
    pub const fn spans(self) -> Option<SpanKinds> {
        match self {
            Self::Tokens => None,
            Self::Spans(kinds) => Some(kinds),
        }
    }
}

impl fmt::Display for MaskBlocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens => formatter.write_str("tokens"),
            Self::Spans(kinds) => kinds.fmt(formatter),
        }
    }
}

impl Serialize for MaskBlocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tokens => serializer.serialize_str("tokens"),
            Self::Spans(kinds) => kinds.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MaskBlocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Blocks;
        impl<'de> Visitor<'de> for Blocks {
            type Value = MaskBlocks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens, lines, brackets or [lines, brackets]")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<MaskBlocks, E> {
                if name == "tokens" {
                    return Ok(MaskBlocks::Tokens);
                }
                let kinds = SpanKinds::deserialize(name.into_deserializer());
                let kinds: Result<_, serde::de::value::Error> = kinds;
                let kinds = kinds.map_err(|_| E::invalid_value(Unexpected::Str(name), &self));
                kinds.map(MaskBlocks::Spans)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<MaskBlocks, A::Error> {
                let list = serde::de::value::SeqAccessDeserializer::new(list);
                SpanKinds::deserialize(list).map(MaskBlocks::Spans)
            }
        }
        deserializer.deserialize_any(Blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::{MaskBlocks, SpanKind, SpanKinds};
    use serde_json::{from_str, to_string};

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for text in ["\"lines\"", "\"brackets\"", "[\"lines\",\"brackets\"]"] {
            let kinds: SpanKinds = from_str(text).unwrap();
            assert_eq!(to_string(&kinds).unwrap(), text);
            let blocks: MaskBlocks = from_str(text).unwrap();
            assert_eq!(blocks, MaskBlocks::Spans(kinds));
            assert_eq!(to_string(&blocks).unwrap(), text);
        }
        assert_eq!(from_str::<MaskBlocks>("\"tokens\"").unwrap(), MaskBlocks::Tokens);
        let twice: SpanKinds = from_str("[\"brackets\", \"lines\", \"lines\"]").unwrap();
        assert_eq!(twice.to_string(), "lines,brackets");
        for wrong in ["[]", "\"words\"", "[\"tokens\"]", "3", "[3]"] {
            assert!(from_str::<SpanKinds>(wrong).is_err(), "{wrong}");
            assert!(from_str::<MaskBlocks>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_others_lack_is_named() {
        let of = |kinds: &[SpanKind]| SpanKinds::new(kinds.iter().copied());
        let both = of(&SpanKind::ALL).unwrap();
        assert_eq!(of(&[]), None);
        assert_eq!(both.missing_in(Some(both)), None);
        assert_eq!(both.missing_in(of(&[SpanKind::Lines])), Some(SpanKind::Brackets));
        assert_eq!(both.missing_in(None), Some(SpanKind::Lines));
        assert!(!both.has_code(2) && !both.has_code(255) && both.has_code(1));
    }
}
