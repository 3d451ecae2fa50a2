//! Long documents in pieces, without changing a single id.
//!
//! Hugging Face `tokenizers` needs about twenty bytes of memory for a byte of text, so a document of
//! many megabytes is cut first. A cut is safe where no token can reach across it whatever follows.

use serde_json::{Value, json};

/// The Qwen2/Qwen3 pre-tokenizer regex.
pub const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Whether a `tokenizer.json` has the Qwen2 pre-tokenizer: [`QWEN2_PATTERN`], then bytes.
pub(super) fn is_qwen2(pre_tokenizer: &Value) -> bool {
    let steps = pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice);
    matches!(steps, [split, bytes]
        if split["type"] == "Split"
            && split["pattern"] == json!({"Regex": QWEN2_PATTERN})
            && split["behavior"] == "Isolated"
            && split["invert"] == false
            && bytes["type"] == "ByteLevel"
            && bytes["add_prefix_space"] == false
            && bytes["use_regex"] == false)
}

/// Pieces are at least this long before a cut is looked for.
pub const PIECE_BYTES: usize = 128 * 1024;

/// Cuts `text` into pieces of at least `piece_bytes`, between an ASCII letter and an ASCII character
/// that is no letter.
///
/// With [`QWEN2_PATTERN`] a pretoken always ends there: every alternative that holds a letter ends
/// with its last letter. The regex looks back nowhere, so what follows is split as if the text began
/// with it, and NFC composes no ASCII character with the one before.
pub fn pieces(text: &str, piece_bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = cut_from(rest.as_bytes(), piece_bytes).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(cut);
        rest = after;
        Some(piece)
    })
}

fn cut_from(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from.saturating_sub(1)..)?;
    let is_cut = |pair: &[u8]| {
        pair[0].is_ascii_alphabetic() && pair[1].is_ascii() && !pair[1].is_ascii_alphabetic()
    };
    tail.windows(2).position(is_cut).map(|at| from.max(1) + at)
}

#[cfg(test)]
mod tests {
    use super::pieces;
    use proptest::prelude::*;

    #[test]
    fn cuts_only_after_a_letter() {
        let cut: Vec<&str> = pieces("ab\n\ncd\n e\nf", 1).collect();
        assert_eq!(cut, ["ab", "\n\ncd", "\n e", "\nf"]);
        let cut: Vec<&str> = pieces("ab cd ef", 4).collect();
        assert_eq!(cut, ["ab cd", " ef"]);
        assert_eq!(pieces("", 1).count(), 0);
        assert_eq!(pieces("caf\u{e9} 12 e\u{301}", 0).count(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "(\n|a|é|\r| |\u{301}){0,80}", size in 0usize..20) {
            let joined: String = pieces(&text, size).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
