//! A fast encoder for tokenizers of the Qwen2 and Qwen3 kind, with the ids of Hugging Face
//! `tokenizers`.
//!
//! * [`model`]: which tokenizers are covered; the others stay with [`super::HfEncoder`];
//! * [`classes`]: what a character is to the pre-tokenizer, asked from its own regex engine;
//! * [`pieces`], [`windows`]: where pieces end, one by one and 64 bytes at once;
//! * [`merges`], [`lanes`]: byte pair encoding of a piece, and of several side by side;
//! * [`words`]: the pieces that a thread has seen.

mod classes;
mod lanes;
mod merges;
mod model;
mod pieces;
mod windows;
mod words;

pub use model::NotCovered;
pub(crate) use model::byte_characters;

use super::{Encode, EncodeError, ids::Ids, vocabulary::Controls};
use aho_corasick::{AhoCorasick, MatchKind};
use classes::Classes;
use merges::Merges;
use model::Model;
use std::{borrow::Cow, cell::RefCell};
use thread_local::ThreadLocal;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};
use windows::{Masks, WINDOW, Width};
use words::Words;

/// Pieces whose cache lines are fetched together.
const TOGETHER: usize = 256;
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
        Self::with_vocabulary(json, match_special_text).map(|(encoder, ..)| encoder)
    }

    /// [`FastEncoder::new`], with the ids of all tokens, and the control tokens.
    pub(super) fn with_vocabulary(
        json: &[u8],
        match_special_text: bool,
    ) -> Result<(Self, Ids, Controls), NotCovered> {
        let model = Model::read(json, match_special_text)?;
        let added = if model.added.is_empty() {
            None
        } else {
            let (texts, ids): (Vec<String>, Vec<Option<u32>>) = model.added.into_iter().unzip();
            let found = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
            Some((found.map_err(|e| NotCovered(e.to_string()))?, ids))
        };
        let encoder = Self {
            classes: Classes::new().map_err(|e| NotCovered(e.to_string()))?,
            merges: Merges::new(&model.merges, model.ids),
            nfc: model.nfc,
            added,
            width: Width::detect(),
            threads: ThreadLocal::new(),
        };
        Ok((encoder, model.vocabulary, model.controls))
    }

    /// Text between added tokens.
    fn plain(&self, text: &str, state: &mut State, ids: &mut Vec<u32>) {
        let text = self.normalized(text);
        let bytes = text.as_bytes();
        match self.width {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Width` has this value only where `Width::all` has found the processor's features.
            Width::Avx512 => unsafe { self.plain_avx512(bytes, state, ids) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Avx2 => unsafe { self.plain_avx2(bytes, state, ids) },
            Width::Pieces => self.plain_by(|_| None, bytes, state, ids),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,lzcnt")]
    fn plain_avx512(&self, bytes: &[u8], state: &mut State, ids: &mut Vec<u32>) {
        let masks = |window: &_| Some(windows::x86::masks_avx512(window));
        self.plain_by(masks, bytes, state, ids);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn plain_avx2(&self, bytes: &[u8], state: &mut State, ids: &mut Vec<u32>) {
        let masks = |window: &_| Some(windows::x86::masks_avx2(window));
        self.plain_by(masks, bytes, state, ids);
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
    fn plain_by(
        &self,
        masks: impl Fn(&[u8; WINDOW]) -> Option<Masks> + Copy,
        bytes: &[u8],
        state: &mut State,
        ids: &mut Vec<u32>,
    ) {
        ids.reserve(bytes.len() / BYTES_PER_ID);
        let State { words, ends } = state;
        let mut at = 0;
        while at < bytes.len() {
            ends.clear();
            let end = windows::ends(masks, &self.classes, bytes, at, TOGETHER, ends);
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
