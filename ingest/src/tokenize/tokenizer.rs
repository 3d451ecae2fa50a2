//! A tokenizer file with the fastest encoder that covers it.

use super::{Encode, FastEncoder, HfEncoder, NotCovered, TokenizerError, Vocabulary};
use std::{ops::Deref, path::Path};

/// A tokenizer file, ready to encode.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Tokenizer {
    /// Covered by the fast encoder; Hugging Face `tokenizers` is not even loaded.
    Fast(FastEncoder, Vocabulary),
    /// Left to the reference encoder, and why.
    Reference(HfEncoder, NotCovered),
}

impl Tokenizer {
    /// Loads a `tokenizer.json`; `match_special_text` as in [`HfEncoder::load`].
    ///
    /// # Errors
    /// If the file cannot be read or is not a tokenizer.
    pub fn load(path: &Path, match_special_text: bool) -> Result<Self, TokenizerError> {
        let json = std::fs::read(path)
            .map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
        match FastEncoder::with_vocabulary(&json, match_special_text) {
            Ok((encoder, ids, controls)) => {
                Ok(Self::Fast(encoder, Vocabulary::new(path, json, ids, controls)))
            }
            Err(reason) => {
                Ok(Self::Reference(HfEncoder::from_json(path, json, match_special_text)?, reason))
            }
        }
    }

    /// Text to ids.
    #[must_use]
    pub fn encoder(&self) -> &dyn Encode {
        match self {
            Self::Fast(encoder, _) => encoder,
            Self::Reference(encoder, _) => encoder,
        }
    }

    /// Why the slow encoder is used, if it is.
    #[must_use]
    pub const fn slow_because(&self) -> Option<&NotCovered> {
        match self {
            Self::Fast(..) => None,
            Self::Reference(_, reason) => Some(reason),
        }
    }
}

impl Deref for Tokenizer {
    type Target = Vocabulary;

    fn deref(&self) -> &Vocabulary {
        match self {
            Self::Fast(_, vocabulary) => vocabulary,
            Self::Reference(encoder, _) => encoder,
        }
    }
}
