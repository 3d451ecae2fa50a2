//! Ids back to text: a byte-level vocabulary, as `train-tokenizer` makes it.

use coda_cli::Failure;
use serde_json::Value;
use std::{collections::HashMap, path::Path};

/// The texts of the ids of a byte-level `tokenizer.json`.
pub(crate) struct Vocabulary {
    pieces: HashMap<u64, String>,
    letters: HashMap<char, u8>,
}

impl Vocabulary {
    /// Reads the vocabulary of a tokenizer file.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = super::files::read(path)?;
        Self::parse(&text)
            .ok_or_else(|| Failure::incompatible(format!("{} has no vocabulary", path.display())))
    }

    fn parse(text: &str) -> Option<Self> {
        let tokenizer: Value = serde_json::from_str(text).ok()?;
        let vocab = tokenizer.get("model")?.get("vocab")?.as_object()?;
        let mut pieces = HashMap::new();
        for (piece, id) in vocab {
            pieces.insert(id.as_u64()?, piece.clone());
        }
        for added in tokenizer.get("added_tokens")?.as_array()? {
            pieces.insert(added.get("id")?.as_u64()?, added.get("content")?.as_str()?.to_owned());
        }
        Some(Self { pieces, letters: letters() })
    }

    /// The text of one id.
    pub(crate) fn text(&self, id: u64) -> String {
        let Some(piece) = self.pieces.get(&id) else { return format!("<{id}>") };
        let bytes: Option<Vec<u8>> = piece.chars().map(|c| self.letters.get(&c).copied()).collect();
        bytes.map_or_else(|| piece.clone(), |b| String::from_utf8_lossy(&b).into_owned())
    }
}

/// The byte that each letter of a byte-level vocabulary stands for: printable bytes for themselves,
/// the others for the letters from U+0100 on.
fn letters() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            if printable {
                return (char::from(byte), byte);
            }
            let letter = char::from_u32(next).expect("a letter");
            next += 1;
            (letter, byte)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Vocabulary;

    #[test]
    fn pieces_become_the_text_they_stand_for() {
        let vocabulary = Vocabulary::parse(
            r#"{"model": {"vocab": {"fn": 0, "Ġself": 1, "Ċĉ": 2, "Ã©": 3}},
                "added_tokens": [{"id": 4, "content": "<|mask|>"}]}"#,
        )
        .expect("a vocabulary");
        let texts: Vec<String> = (0..6).map(|id| vocabulary.text(id)).collect();
        assert_eq!(texts, ["fn", " self", "\n\t", "é", "<|mask|>", "<5>"]);
    }
}
