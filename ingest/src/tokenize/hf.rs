//! The reference encoder: Hugging Face `tokenizers`.

use super::{Encode, EncodeError, Vocabulary, ids::Ids, split};
use serde_json::{Value, json};
use std::{
    ops::Deref,
    path::{Path, PathBuf},
};
use tokenizers::{AddedToken, Tokenizer};

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read the tokenizer {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a `tokenizer.json`.
    #[error("{} is not a Hugging Face tokenizer.json: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// A token that the manifest names is not in the vocabulary.
    #[error("the tokenizer {} has no token {name:?}, which the manifest names as {role}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The token's text.
        name: String,
        /// Its job: `tokenizer.eos`, `tokenizer.pad`, `tokenizer.mask` or the chat template.
        role: &'static str,
        /// Tokens of this vocabulary that look like control tokens.
        known: Vec<String>,
    },
}

impl TokenizerError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(
                "set tokenizer.path to a tokenizer.json, or make one with `coda-ingest train-tokenizer`"
                    .to_owned(),
            ),
            Self::Parse { .. } => Some(
                "it must be the fast-tokenizer file `tokenizer.json`, not vocab.json or tokenizer_config.json"
                    .to_owned(),
            ),
            Self::Missing { name, role, known, .. } => {
                let known = if known.is_empty() {
                    "it has no control tokens at all".to_owned()
                } else {
                    format!("its control tokens are {}", known.join(" "))
                };
                Some(if *role == "the chat template" {
                    format!("{known}; add {name:?} to its added_tokens")
                } else {
                    format!("{known}; name one of them as {role}, or add {name:?} to its added_tokens")
                })
            }
        }
    }
}

/// A tokenizer file, loaded.
pub struct HfEncoder {
    /// Encodes documents: control tokens spelled in the text stay plain text unless asked otherwise.
    documents: Tokenizer,
    vocabulary: Vocabulary,
    /// Whether long documents may be cut at [`split::pieces`].
    splits: bool,
}

impl HfEncoder {
    /// Loads a `tokenizer.json`.
    ///
    /// `match_special_text: false` makes control tokens that are spelled in a document plain text.
    /// A control token is an added token that is marked special or written in angle brackets
    /// (`<think>` is not marked special in Qwen3's file). Other added tokens are matched as always.
    ///
    /// # Errors
    /// If the file cannot be read or is not a tokenizer.
    pub fn load(path: &Path, match_special_text: bool) -> Result<Self, TokenizerError> {
        let json = std::fs::read(path)
            .map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
        Self::from_json(path, json, match_special_text)
    }

    /// As [`HfEncoder::load`], from the bytes of the file; `path` is only for messages.
    ///
    /// # Errors
    /// If the bytes are not a tokenizer.
    pub fn from_json(
        path: &Path,
        json: Vec<u8>,
        match_special_text: bool,
    ) -> Result<Self, TokenizerError> {
        let parse = |message: String| TokenizerError::Parse { path: path.to_owned(), message };
        let mut documents = Tokenizer::from_bytes(&json).map_err(|e| parse(e.to_string()))?;
        let vocabulary = vocabulary(path, json, &documents);
        documents.with_padding(None);
        documents.with_truncation(None).map_err(|e| parse(e.to_string()))?;
        let splits = !match_special_text && can_split(&documents);
        if !match_special_text {
            let controls: Vec<AddedToken> = documents
                .get_added_tokens_decoder()
                .into_values()
                .filter(is_control)
                .map(|token| token.special(true))
                .collect();
            documents.add_tokens(controls).map_err(|e| parse(e.to_string()))?;
            documents.set_encode_special_tokens(true);
        }
        Ok(Self { documents, vocabulary, splits })
    }

    /// The text of ids, control tokens spelled out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, EncodeError> {
        self.documents.decode(ids, false).map_err(|e| EncodeError(e.to_string()))
    }
}

impl Deref for HfEncoder {
    type Target = Vocabulary;

    fn deref(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl Encode for HfEncoder {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError> {
        let longest = if self.splits { split::PIECE_BYTES } else { usize::MAX };
        for piece in split::pieces(text, longest) {
            let encoding =
                self.documents.encode_fast(piece, false).map_err(|e| EncodeError(e.to_string()))?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(())
    }
}

fn vocabulary(path: &Path, json: Vec<u8>, tokenizer: &Tokenizer) -> Vocabulary {
    let controls = tokenizer.get_added_tokens_decoder().into_iter();
    let controls = controls.filter(|(_, token)| is_control(token));
    let mut ids = Ids::default();
    for (token, id) in tokenizer.get_vocab(true) {
        ids.insert(&token, id);
    }
    Vocabulary::new(path, json, ids, controls.map(|(id, token)| (id, token.content)).collect())
}

fn is_control(token: &AddedToken) -> bool {
    token.special || is_control_text(&token.content)
}

/// Whether a token is written as control tokens are.
pub(crate) fn is_control_text(text: &str) -> bool {
    text.starts_with('<') && text.ends_with('>')
}

/// Whether [`split::pieces`] is proved not to change ids for this tokenizer: the Qwen2 pre-tokenizer,
/// NFC or no normalizer, and no added token that is matched (a cut could go through it).
fn can_split(tokenizer: &Tokenizer) -> bool {
    let as_json = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
    let normalizer = as_json(serde_json::to_value(tokenizer.get_normalizer()));
    let pre = as_json(serde_json::to_value(tokenizer.get_pre_tokenizer()));
    (normalizer.is_null() || normalizer == json!({"type": "NFC"}))
        && split::is_qwen2(&pre)
        && tokenizer.get_added_tokens_decoder().values().all(is_control)
}
