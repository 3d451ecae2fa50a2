//! The tokens of a tokenizer file with their ids.

use super::{SpecialNames, Specials, TokenizerError, ids::Ids};
use std::path::{Path, PathBuf};

/// Control tokens with their ids.
pub(super) type Controls = Vec<(u32, String)>;

/// A tokenizer file and the ids of its tokens, added ones included.
pub struct Vocabulary {
    path: PathBuf,
    json: Vec<u8>,
    ids: Ids,
    /// Control tokens in the order of their ids.
    controls: Vec<String>,
}

impl Vocabulary {
    pub(super) fn new(path: &Path, json: Vec<u8>, ids: Ids, mut controls: Controls) -> Self {
        controls.sort_unstable();
        let controls = controls.into_iter().map(|(_, text)| text).collect();
        Self { path: path.to_owned(), json, ids, controls }
    }

    /// Where the tokenizer was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the tokenizer file.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// BLAKE3 of the tokenizer file, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        blake3::hash(&self.json).to_hex().to_string()
    }

    /// Ids run from 0 to this, exclusive.
    #[must_use]
    pub fn id_limit(&self) -> u32 {
        self.ids.limit()
    }

    /// The id of a token by its text.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token)
    }

    /// The id of a token that must exist; `role` says what for.
    ///
    /// # Errors
    /// If the vocabulary has no such token.
    pub fn require(&self, token: &str, role: &'static str) -> Result<u32, TokenizerError> {
        self.id(token).ok_or_else(|| TokenizerError::Missing {
            path: self.path.clone(),
            name: token.to_owned(),
            role,
            known: self.controls.clone(),
        })
    }

    /// Resolves the ids that the manifest names.
    ///
    /// # Errors
    /// If one of them is not in the vocabulary.
    pub fn specials(&self, names: &SpecialNames) -> Result<Specials, TokenizerError> {
        Ok(Specials {
            eos: self.require(&names.eos, "tokenizer.eos")?,
            pad: self.require(&names.pad, "tokenizer.pad")?,
            mask: self.require(&names.mask, "tokenizer.mask")?,
        })
    }
}
