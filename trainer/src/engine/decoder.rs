//! Forwards for sampling: parts of rows, over keys and values that are kept (method §6).

use super::{Engine, EngineError, Ids};
use crate::model::Params;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// What a forward computes of one row.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Which keys and values belong to the row: any number, one for each row that is being sampled.
    pub slot: usize,
    /// All ids of the row.
    pub row: &'a [u32],
    /// The positions that are computed. Their keys and values overwrite what the slot holds, those of
    /// all other positions are read as they are.
    pub window: Range<usize>,
    /// The positions in the window whose logits are wanted, ascending.
    pub outputs: &'a [usize],
}

/// Runs a model on rows of different lengths, and keeps their keys and values.
///
/// A window over a whole row needs nothing kept, and fills the slot. A window over a part needs a slot
/// that was filled by a row of the same length; what it reads of the other positions is as old as the
/// forward that computed them.
///
/// A row's logits do not depend on the rows beside it; on a card they may, by rounding.
pub trait Decoder {
    /// The logits of all `outputs`, span after span: `[outputs, V]`, unshifted as
    /// [`Engine::logits`] gives them. A slot may occur once.
    ///
    /// # Errors
    /// If a span does not fit its row, the model or its slot; nothing has been computed then.
    fn decode(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, EngineError>;

    /// Forgets what a slot holds.
    fn forget(&mut self, slot: usize);
}

/// Refuses spans that do not fit; `filled` tells the length of the row that a slot holds.
pub(crate) fn check_spans(
    spans: &[Span<'_>],
    vocab: usize,
    filled: impl Fn(usize) -> Option<usize>,
) -> Result<(), EngineError> {
    let mut slots = BTreeSet::new();
    for Span { slot, row, window, outputs } in spans {
        let refuse = |why: String| Err(EngineError::Batch(format!("slot {slot}: {why}")));
        if window.is_empty() || window.end > row.len() {
            return refuse(format!("the window {window:?} is not in a row of {}", row.len()));
        }
        if let Some(at) = outputs.iter().find(|at| !window.contains(at)) {
            return refuse(format!("output {at} is not in the window {window:?}"));
        }
        if let Some(&id) = row.iter().find(|&&id| id as usize >= vocab) {
            return refuse(format!("id {id} is not below the vocabulary's {vocab}"));
        }
        if window.len() < row.len() && filled(*slot) != Some(row.len()) {
            return refuse("a part of a row needs a forward of the whole row before".to_owned());
        }
        if !slots.insert(*slot) {
            return refuse("the slot occurs twice".to_owned());
        }
    }
    Ok(())
}

/// A decoder over an engine that keeps nothing: every window is computed with its whole row, so keys
/// and values are never old. Rows of the same length go through together.
pub struct Uncached<'a> {
    engine: &'a mut dyn Engine,
    params: &'a Params,
    vocab: usize,
}

impl<'a> Uncached<'a> {
    /// A decoder of `vocab` logits over an engine.
    #[must_use]
    pub fn new(engine: &'a mut dyn Engine, params: &'a Params, vocab: usize) -> Self {
        Self { engine, params, vocab }
    }
}

/// The engine's own decoder, or one that keeps nothing.
///
/// # Errors
/// If there is no memory for it.
pub fn decoder_of<'a>(
    engine: &'a mut dyn Engine,
    params: &'a Params,
    vocab: usize,
) -> Result<Box<dyn Decoder + 'a>, EngineError> {
    match engine.decoder(params)? {
        Some(own) => Ok(own),
        None => Ok(Box::new(Uncached::new(engine, params, vocab))),
    }
}

impl Decoder for Uncached<'_> {
    fn decode(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, EngineError> {
        check_spans(spans, self.vocab, |slot| {
            spans.iter().find(|span| span.slot == slot).map(|span| span.row.len())
        })?;
        let mut of_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, span) in spans.iter().enumerate() {
            of_length.entry(span.row.len()).or_default().push(index);
        }
        let mut parts: Vec<Vec<f32>> = vec![Vec::new(); spans.len()];
        for (len, members) in of_length {
            let ids: Vec<u32> = members.iter().flat_map(|&i| spans[i].row).copied().collect();
            let positions: Vec<usize> = members
                .iter()
                .enumerate()
                .flat_map(|(row, &i)| spans[i].outputs.iter().map(move |at| row * len + at))
                .collect();
            let input = Ids { rows: members.len(), len, ids: &ids, segment_ids: None };
            let logits = self.engine.logits(self.params, &input, Some(&positions))?;
            let mut rest = logits.as_slice();
            for index in members {
                let (own, others) = rest.split_at(spans[index].outputs.len() * self.vocab);
                parts[index] = own.to_vec();
                rest = others;
            }
        }
        Ok(parts.concat())
    }

    fn forget(&mut self, _: usize) {}
}
