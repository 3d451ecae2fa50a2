//! The bytes of every token of a byte-level tokenizer.

use crate::tokenize::{byte_characters, is_control_text};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Why the tokens of a tokenizer are not bytes of the text.
#[derive(Debug, thiserror::Error)]
#[error("data.spans needs a byte-level tokenizer: {0}")]
pub struct NotByteLevel(String);

impl NotByteLevel {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        "take data.spans away, or use a byte-level BPE tokenizer, such as one of `coda-ingest \
         train-tokenizer`"
            .to_owned()
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: HashMap<String, u32>,
}

/// The highest id that a vocabulary may have; larger ones would be a damage.
const MOST_IDS: u32 = 1 << 24;

const LINE_END: u8 = 1;
const BRACKET: u8 = 2;

/// The bytes of tokens, by id.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `i` ends at `ends[i]` and begins where the one before ends.
    ends: Vec<usize>,
    /// What is in the token.
    holds: Vec<u8>,
}

impl TokenBytes {
    pub(super) fn read(json: &[u8]) -> Result<Self, NotByteLevel> {
        let file: File = serde_json::from_slice(json)
            .map_err(|e| NotByteLevel(format!("tokenizer.json has another layout: {e}")))?;
        if !is_byte_level(&file.pre_tokenizer) && !is_byte_level(&file.decoder) {
            let problem = "neither its pre-tokenizer nor its decoder is ByteLevel";
            return Err(NotByteLevel(problem.to_owned()));
        }
        let of_character: HashMap<char, u8> = byte_characters().zip(0..=u8::MAX).collect();
        let mut tokens: Vec<Vec<u8>> = Vec::new();
        let mut put = |id: u32, bytes: Vec<u8>| {
            if id >= MOST_IDS {
                return Err(NotByteLevel(format!("it has a token with the id {id}")));
            }
            let index = id as usize;
            tokens.resize(tokens.len().max(index + 1), Vec::new());
            tokens[index] = bytes;
            Ok(())
        };
        for (token, id) in file.model.vocab {
            // A token of other characters stands for no bytes, such as one for unknown words.
            let bytes: Option<Vec<u8>> =
                token.chars().map(|character| of_character.get(&character).copied()).collect();
            put(id, bytes.unwrap_or_default())?;
        }
        for token in file.added_tokens {
            let control = token.special || is_control_text(&token.content);
            put(token.id, if control { Vec::new() } else { token.content.into_bytes() })?;
        }
        let mut table = Self { bytes: Vec::new(), ends: Vec::new(), holds: Vec::new() };
        for token in tokens {
            table.bytes.extend_from_slice(&token);
            table.ends.push(table.bytes.len());
            let mut holds = 0;
            for byte in token {
                holds |= match byte {
                    b'\n' => LINE_END,
                    b'(' | b')' | b'[' | b']' | b'{' | b'}' => BRACKET,
                    _ => 0,
                };
            }
            table.holds.push(holds);
        }
        Ok(table)
    }

    /// The bytes of a token; none of a control token and of an id that no token has.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    pub(super) fn has_line_end(&self, id: u32) -> bool {
        self.holds(id) & LINE_END != 0
    }

    pub(super) fn has_bracket(&self, id: u32) -> bool {
        self.holds(id) & BRACKET != 0
    }

    fn holds(&self, id: u32) -> u8 {
        self.holds.get(id as usize).copied().unwrap_or(0)
    }
}

/// Whether a pre-tokenizer or decoder, or a step of it, is that for bytes.
fn is_byte_level(step: &Value) -> bool {
    let within =
        |key: &str| step[key].as_array().is_some_and(|steps| steps.iter().any(is_byte_level));
    step["type"] == "ByteLevel" || within("pretokenizers") || within("decoders")
}

#[cfg(test)]
mod tests {
    use super::TokenBytes;
    use serde_json::json;

    fn read(file: &serde_json::Value) -> Result<TokenBytes, String> {
        TokenBytes::read(file.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_are_bytes_and_control_tokens_are_none() {
        let table = read(&json!({
            "added_tokens": [
                {"id": 5, "content": "<|im_end|>"},
                {"id": 6, "content": "  é(", "special": false},
                {"id": 2, "content": "Ġa", "special": true},
            ],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
            "model": {"type": "BPE", "vocab": {"Ġ{Ċ": 0, "Ã": 1, "Ġa": 2, "a b": 4}},
        }))
        .expect("byte-level");
        assert_eq!(table.of(0), b" {\n");
        assert!(table.has_bracket(0) && table.has_line_end(0));
        assert_eq!(table.of(1), [0xc3]);
        // A blank is no character of the byte-level alphabet.
        for empty in [2, 3, 4, 5, 7, u32::MAX] {
            assert_eq!(table.of(empty), b"", "{empty}");
            assert!(!table.has_bracket(empty) && !table.has_line_end(empty));
        }
        assert_eq!(table.of(6), "  é(".as_bytes());
    }

    #[test]
    fn other_tokenizers_are_refused() {
        let model = json!({"type": "BPE", "vocab": {"a": 0}});
        let metaspace = json!({"pre_tokenizer": {"type": "Metaspace"}, "model": model});
        assert!(read(&metaspace).is_err_and(|error| error.contains("byte-level")));
        let decoder = json!({"decoder": {"type": "ByteLevel"}, "model": model});
        assert!(read(&decoder).is_ok());
        let unigram = json!({"decoder": {"type": "ByteLevel"}, "model": {"vocab": [["a", -1.0]]}});
        assert!(read(&unigram).is_err_and(|error| error.contains("layout")));
        let far = json!({"decoder": {"type": "ByteLevel"}, "model": {"vocab": {"a": u32::MAX}}});
        assert!(read(&far).is_err_and(|error| error.contains("4294967295")));
        assert!(TokenBytes::read(b"{").is_err());
    }
}
