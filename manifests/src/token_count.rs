//! Token amounts as people write them.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A number of tokens: `38220000000`, `38_220_000_000` or `38.22B` (K, M, B and T are powers of
/// 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenCount(pub u64);

/// Text that is no amount of tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of tokens such as 1500000, 1.5M or 60.17B")]
pub struct TokenCountError(String);

impl FromStr for TokenCount {
    type Err = TokenCountError;

    /// Exact: the digits are shifted, never rounded, so `60.17B` is 60,170,000,000.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TokenCountError(text.to_owned());
        let trimmed = text.trim();
        let (digits, zeros) = match trimmed.chars().last().map(|c| c.to_ascii_uppercase()) {
            Some('K') => (&trimmed[..trimmed.len() - 1], 3),
            Some('M') => (&trimmed[..trimmed.len() - 1], 6),
            Some('B') => (&trimmed[..trimmed.len() - 1], 9),
            Some('T') => (&trimmed[..trimmed.len() - 1], 12),
            _ => (trimmed, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let number = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
        let starts_well = whole.starts_with(|c: char| c.is_ascii_digit());
        if !starts_well || !number(whole) || !fraction.chars().all(|c| c.is_ascii_digit()) {
            return Err(error());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > zeros {
            return Err(error());
        }
        let padded = format!("{}{fraction:0<zeros$}", whole.replace('_', ""));
        padded.parse().map(Self).map_err(|_| error())
    }
}

impl fmt::Display for TokenCount {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for TokenCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for TokenCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = TokenCount;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an amount of tokens such as 1500000, 1.5M or 60.17B")
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<TokenCount, E> {
                Ok(TokenCount(count))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenCount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::TokenCount;
    use proptest::prelude::*;

    #[test]
    fn published_amounts_are_exact() {
        let read = |text: &str| text.parse().map(|TokenCount(count)| count).ok();
        assert_eq!(read("60.17B"), Some(60_170_000_000));
        assert_eq!(read("0.20B"), Some(200_000_000));
        assert_eq!(read("1.5k"), Some(1500));
        assert_eq!(read("2T"), Some(2_000_000_000_000));
        assert_eq!(read("1_000"), Some(1000));
        assert_eq!(read("3.000"), Some(3));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "B", "-1", "1.2345K", "0.5", "1e9", "1 B x", "99999999T", ".5B", "_1", "é"]
        {
            assert!(text.parse::<TokenCount>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<TokenCount>();
        }

        #[test]
        fn plain_numbers_round_trip(count: u64) {
            prop_assert_eq!(count.to_string().parse(), Ok(TokenCount(count)));
        }
    }
}
