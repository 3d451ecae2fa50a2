//! Long documents in pieces, without changing a single id.
//!
//! Hugging Face `tokenizers` needs about twenty bytes of memory for a byte of text, so a document of
//! many megabytes is cut first. A cut is safe where no token can reach across it whatever follows.

/// The Qwen2/Qwen3 pre-tokenizer regex.
pub const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Pieces are at least this long before a cut is looked for.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// Cuts `text` after a line feed that an ASCII letter follows.
///
/// With [`QWEN2_PATTERN`] the pretoken before such a place always ends there: only `[\r\n]*` at the
/// end of a punctuation run and `\s*[\r\n]+` can hold a line feed, neither can hold a letter, and the
/// letter's own alternative (`[^\r\n\p{L}\p{N}]?\p{L}+`) refuses a line feed before it. The regex
/// looks back nowhere, and NFC composes neither a line feed nor an ASCII letter with what is before.
pub(super) fn pieces(text: &str, piece_bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = cut_after(rest.as_bytes(), piece_bytes).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(cut);
        rest = after;
        Some(piece)
    })
}

/// The pieces of a document for a tokenizer with [`QWEN2_PATTERN`].
pub fn text_pieces(text: &str) -> impl Iterator<Item = &str> {
    pieces(text, PIECE_BYTES)
}

fn cut_after(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + 1 < bytes.len() {
        let feed = at + memchr::memchr(b'\n', &bytes[at..bytes.len() - 1])?;
        if bytes[feed + 1].is_ascii_alphabetic() {
            return Some(feed + 1);
        }
        at = feed + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::pieces;
    use proptest::prelude::*;

    #[test]
    fn cuts_only_before_a_letter_at_the_start_of_a_line() {
        let cut: Vec<&str> = pieces("ab\n\ncd\n e\nf", 1).collect();
        assert_eq!(cut, ["ab\n\n", "cd\n e\n", "f"]);
        assert_eq!(pieces("", 1).count(), 0);
        assert_eq!(pieces("no feed at all", 1).collect::<Vec<_>>(), ["no feed at all"]);
        assert_eq!(pieces("ends\n", 1).collect::<Vec<_>>(), ["ends\n"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "(\n|a|é|\r| |\u{301}){0,80}", size in 0usize..20) {
            let joined: String = pieces(&text, size).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
