//! A fast encoder for tokenizers of the Qwen2 and Qwen3 kind, with the ids of Hugging Face
//! `tokenizers`.
//!
//! * [`model`]: which tokenizers are covered; the others stay with [`super::HfEncoder`];
//! * [`classes`]: what a character is to the pre-tokenizer, asked from its own regex engine;
//! * [`pieces`], [`windows`]: where pieces end, one by one and 64 bytes at once;
//! * [`merges`]: byte pair encoding of a piece;
//! * [`words`]: the pieces that a thread has seen.

mod classes;
mod merges;
mod model;
mod pieces;
mod windows;
mod words;

pub use model::NotCovered;

use super::{Encode, EncodeError};
use aho_corasick::{AhoCorasick, MatchKind};
use classes::Classes;
use merges::Merges;
use model::Model;
use std::{borrow::Cow, cell::RefCell};
use thread_local::ThreadLocal;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};
use windows::Width;
use words::Words;

/// Pieces whose cache lines are fetched together.
const TOGETHER: usize = 64;
/// Bytes of text for which ids are reserved at a time.
const BYTES_PER_ID: usize = 3;

/// Text to ids, many times as fast as [`super::HfEncoder`]. Each thread that uses it has a cache of
/// 32 MiB.
pub struct FastEncoder {
    classes: Classes,
    merges: Merges,
    nfc: bool,
    /// Added tokens with their ids; without an id, a token is found but stays text, as in `tokenizers`.
    added: Option<(AhoCorasick, Vec<Option<u32>>)>,
    width: Width,
    threads: ThreadLocal<RefCell<State>>,
}

struct State {
    words: Words,
    ends: Vec<usize>,
}

impl FastEncoder {
    /// An encoder with the ids of `tokenizer.json`, whose bytes these are; `match_special_text` as in
    /// [`super::HfEncoder::load`].
    ///
    /// # Errors
    /// If this kind of tokenizer is not covered.
    pub fn new(json: &[u8], match_special_text: bool) -> Result<Self, NotCovered> {
        let model = Model::read(json, match_special_text)?;
        let added = if model.added.is_empty() {
            None
        } else {
            let (texts, ids): (Vec<String>, Vec<Option<u32>>) = model.added.into_iter().unzip();
            let found = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
            Some((found.map_err(|e| NotCovered(e.to_string()))?, ids))
        };
        Ok(Self {
            classes: Classes::ask().map_err(|e| NotCovered(e.to_string()))?,
            merges: Merges::new(&model.merges, model.ids),
            nfc: model.nfc,
            added,
            width: Width::detect(),
            threads: ThreadLocal::new(),
        })
    }

    /// Text between added tokens.
    fn plain(&self, text: &str, state: &mut State, ids: &mut Vec<u32>) {
        let text = self.normalized(text);
        let bytes = text.as_bytes();
        ids.reserve(bytes.len() / BYTES_PER_ID);
        let State { words, ends } = state;
        let mut at = 0;
        while at < bytes.len() {
            ends.clear();
            let end = windows::ends(self.width, &self.classes, bytes, at, TOGETHER, ends);
            words.encode(&self.merges, bytes, at, ends, ids);
            at = end;
        }
    }

    fn normalized<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_nfc = !self.nfc
            || self.classes.is_stable(text)
            || is_nfc_quick(text.chars()) == IsNormalized::Yes;
        if is_nfc {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.nfc().map(|(character, _)| character).collect())
        }
    }
}

impl Encode for FastEncoder {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError> {
        let state = self.threads.get_or_try(|| {
            let words = Words::new().map_err(|e| EncodeError(format!("no memory: {e}")))?;
            let ends = Vec::with_capacity(TOGETHER + windows::MOST);
            Ok::<_, EncodeError>(RefCell::new(State { words, ends }))
        })?;
        let state = &mut *state.borrow_mut();
        let mut at = 0;
        if let Some((found, tokens)) = &self.added {
            for token in found.find_iter(text) {
                if let Some(id) = tokens[token.pattern().as_usize()] {
                    self.plain(&text[at..token.start()], state, ids);
                    ids.push(id);
                    at = token.end();
                }
            }
        }
        self.plain(&text[at..], state, ids);
        Ok(())
    }
}
