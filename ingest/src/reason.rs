//! Reason codes that come back from disk.
//!
//! Rejects and drops are counted by codes that stand in the program as `&'static str`. A build that
//! goes on, or one that merges parts, reads them from files.

use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

/// A code. (By this name serde does not take it for something to borrow.)
pub(crate) type Code = &'static str;

/// Codes are short…
const MAX_LENGTH: usize = 64;
/// …and few; a file that has more is damaged.
const MAX_CODES: usize = 1024;

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The code as the program's own strings are, or nothing if it is none: `snake_case`, at most 64
/// letters, and no more than 1024 different ones.
pub(crate) fn code(text: &str) -> Option<Code> {
    let snake = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if text.is_empty() || text.len() > MAX_LENGTH || !text.bytes().all(snake) {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(code) = known.get(text) {
        return Some(code);
    }
    if known.len() == MAX_CODES {
        return None;
    }
    // Bounded by the two limits: at most 64 KiB over the life of the program.
    let code: &'static str = Box::leak(text.into());
    known.insert(code);
    Some(code)
}

/// Reads counts by code.
pub(crate) fn counts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let known = |(text, count): (String, u64)| {
        code(&text)
            .map(|code| (code, count))
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a reason code")))
    };
    counts.into_iter().map(known).collect()
}

/// Reads one code.
pub(crate) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
    let text = String::deserialize(deserializer)?;
    code(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a reason code")))
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn codes_are_short_snake_case() {
        assert_eq!(code("invalid_utf8"), Some("invalid_utf8"));
        let (one, two) = (code("too_long").expect("a code"), code("too_long").expect("a code"));
        assert!(std::ptr::eq(one, two), "one string for each code");
        for wrong in ["", "Upper", "with space", "é", &"x".repeat(65)] {
            assert_eq!(code(wrong), None, "{wrong:?}");
        }
    }
}
