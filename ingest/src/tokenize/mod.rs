//! Text to ids: exactly what Hugging Face `tokenizers` gives, with control tokens under our hand.
//!
//! The pipeline knows only [`Encode`]. [`HfEncoder`] is the reference; [`FastEncoder`] gives the same ids
//! many times faster, for the tokenizers that it covers; [`Tokenizer`] chooses.

mod chat;
mod fast;
mod hf;
mod ids;
mod specials;
mod split;
mod tokenizer;
mod vocabulary;

pub use chat::{ChatEncoder, ChatError, ChatRow, Message, Role};
pub(crate) use fast::byte_characters;
pub use fast::{FastEncoder, NotCovered};
pub(crate) use hf::is_control_text;
pub use hf::{HfEncoder, TokenizerError};
pub use specials::{SpecialNames, Specials};
pub use split::{PIECE_BYTES, QWEN2_PATTERN, pieces};
pub use tokenizer::Tokenizer;
pub use vocabulary::Vocabulary;

/// A document that the tokenizer cannot encode (for instance an unknown word and no `unk` token).
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer failed: {0}")]
pub struct EncodeError(pub String);

/// Turns text into token ids.
pub trait Encode: Send + Sync {
    /// Appends the ids of `text` to `ids`. No token is added at the start or at the end.
    ///
    /// # Errors
    /// If the tokenizer's model has no ids for the text.
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError>;

    /// The ids of `text`.
    ///
    /// # Errors
    /// As [`Encode::encode_into`].
    fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }
}
