//! What a blob is called.

use crate::decode::Fault;
use std::fmt;

/// The name of a blob in Software Heritage's archive: 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; Self::BYTES]);

impl BlobId {
    /// Bytes of an id.
    pub const BYTES: usize = 20;

    /// The id that this text spells, in either case.
    ///
    /// # Errors
    /// A [`Fault`] when it is not 40 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut id = [0; Self::BYTES];
        let digits = text.as_bytes();
        let fault = || {
            let start: String = text.chars().take(60).collect();
            Fault::new("bad_blob_id", format!("{start:?} is no blob id: 40 hexadecimal digits"))
        };
        if digits.len() != 2 * Self::BYTES {
            return Err(fault());
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16);
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(fault());
            };
            *byte = u8::try_from(16 * high + low).unwrap_or_default();
        }
        Ok(Self(id))
    }

    /// The id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The shard that holds it.
    pub(super) fn shard(&self) -> usize {
        usize::from(self.0[0])
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::BlobId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back(bytes: [u8; BlobId::BYTES]) {
            let id = BlobId::from_bytes(bytes);
            prop_assert_eq!(BlobId::parse(&id.to_string()).expect("valid"), id);
            prop_assert_eq!(BlobId::parse(&id.to_string().to_uppercase()).expect("valid"), id);
        }

        #[test]
        fn other_text_is_refused(text in "\\PC{0,41}") {
            let hex = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(BlobId::parse(&text).is_ok(), hex);
        }
    }

    #[test]
    fn signs_and_wide_digits_are_no_digits() {
        for text in ["+f".repeat(20), "０".repeat(40), format!("{}\n", "0".repeat(39))] {
            assert_eq!(BlobId::parse(&text).expect_err("refused").reason, "bad_blob_id");
        }
    }
}
