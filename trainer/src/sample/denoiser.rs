//! One row on its way from masks to tokens, a step at a time.

use super::{
    Accept, Algorithm, Cache, Choice, Decoding, FITTED, Sampler, Step, accept,
    reveal::{order_draws, quota, reveal_confident, reveal_origin, token_draws},
};
use crate::engine::Span;
use rayon::prelude::*;
use serde::Serialize;
use std::ops::Range;

/// Logits that are not worth a second thread.
const ALONE: usize = 1 << 14;

/// A row that is being sampled. It asks for a forward ([`Denoiser::ask`], [`Denoiser::span`]), takes
/// its logits ([`Denoiser::take`]), and so on until it is done. What becomes of it does not depend on
/// the rows beside it.
///
/// A block begins at the first position that is still masked, or as far before it as the row's end
/// demands: with a block length of the row's length or more, the row is the one block. A block that is
/// fitted to what is masked, since no length is given, ends with its last mask, and its windows narrow
/// with it. Windows begin one position early, because the output there predicts the first token.
#[derive(Clone, Debug)]
pub struct Denoiser {
    ids: Vec<u32>,
    mask_id: u32,
    decoding: Decoding,
    sample: u64,
    ends: Vec<u32>,
    /// The first mask, when an end token behind it makes the rest of the row worthless.
    open_from: Option<usize>,
    masks: usize,
    step: u32,
    block: Option<Block>,
    asked: Option<Asked>,
    tally: Tally,
}

#[derive(Clone, Debug)]
struct Block {
    range: Range<usize>,
    /// The block's share of the steps.
    steps: u32,
    taken: u32,
    /// Whether a forward of the whole row has filled the cache.
    filled: bool,
    /// From the first to the last token of the last step. The cache has them as masks yet.
    fresh: Range<usize>,
}

/// The forward that the row waits for.
#[derive(Clone, Debug)]
struct Asked {
    window: Range<usize>,
    candidates: Vec<usize>,
    outputs: Vec<usize>,
    /// How many candidates are revealed, when that is given.
    count: usize,
}

/// What sampling a row has taken, and how sure the model was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Forwards that the row took part in.
    pub forwards: u64,
    /// Positions that these forwards computed.
    pub computed: u64,
    /// Tokens revealed.
    pub revealed: u64,
    /// The sum of the logarithms of the tokens' probabilities when they were chosen, in nats.
    pub log_probability: f64,
}

impl Tally {
    /// The mean logarithm of a token's probability; 0 when there was none.
    #[must_use]
    pub fn mean_log_probability(&self) -> f64 {
        if self.revealed == 0 { 0.0 } else { self.log_probability / self.revealed as f64 }
    }
}

impl Denoiser {
    /// A row to fill. `sample` numbers the rows of one seed. `ends` are the tokens behind which an
    /// open-ended row, one whose masks reach to its end, is worth nothing: it is done when one of them
    /// stands there with nothing masked before it. Without them every mask is filled.
    ///
    /// The settings are taken as they are: [`Decoding::check`] refuses those that mean nothing.
    #[must_use]
    pub fn new(ids: Vec<u32>, mask_id: u32, decoding: Decoding, sample: u64, ends: &[u32]) -> Self {
        let masks = ids.iter().filter(|&&id| id == mask_id).count();
        let open_from = ids
            .iter()
            .position(|&id| id == mask_id)
            .filter(|&first| !ends.is_empty() && ids[first..].iter().all(|&id| id == mask_id));
        Self {
            ids,
            mask_id,
            decoding,
            sample,
            ends: ends.to_vec(),
            open_from,
            masks,
            step: 0,
            block: None,
            asked: None,
            tally: Tally::default(),
        }
    }

    /// All ids; the mask id where nothing is revealed yet.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What it has taken so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The length of the row's final part so far: nothing before this position changes any more.
    #[must_use]
    pub fn settled(&self) -> usize {
        let first = self.ids.iter().position(|&id| id == self.mask_id);
        first.unwrap_or(self.ids.len())
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn done(&self) -> bool {
        let settled = self.settled();
        settled == self.ids.len()
            || self.open_from.is_some_and(|from| {
                self.ids[from.min(settled)..settled].iter().any(|id| self.ends.contains(id))
            })
    }

    /// Decides on the next forward; `false` when the row is done. `seen` is told of steps that reveal
    /// nothing and need no forward.
    pub fn ask(&mut self, mut seen: impl FnMut(&Step)) -> bool {
        while self.asked.is_none() && !self.done() {
            let block = self.current_block();
            let masked: Vec<usize> =
                block.range.clone().filter(|&at| self.ids[at] == self.mask_id).collect();
            let Sampler { algorithm, eps, seed, .. } = self.decoding.sampler;
            let (candidates, count) = match (self.decoding.accept, algorithm) {
                // `origin` does not look at confidences, so only what it reveals needs logits at all.
                (Accept::Schedule, Algorithm::Origin) => {
                    let draws = order_draws(seed, self.sample, self.step);
                    let indices = reveal_origin(&masked, block.taken, block.steps, eps, draws);
                    let drawn: Vec<usize> = indices.into_iter().map(|i| masked[i]).collect();
                    let count = drawn.len();
                    (drawn, count)
                }
                (Accept::Schedule, _) => {
                    let count = quota(masked.len(), block.taken, block.steps, eps);
                    (masked, count)
                }
                (Accept::Threshold(_) | Accept::Factor(_), _) => {
                    let count = masked.len();
                    (masked, count)
                }
            };
            if count == 0 {
                self.pass(Vec::new(), Vec::new(), &mut seen);
                continue;
            }
            let window = self.window(&block);
            let outputs = candidates.iter().map(|at| at.saturating_sub(1)).collect();
            self.asked = Some(Asked { window, candidates, outputs, count });
        }
        self.asked.is_some()
    }

    /// The forward that the row waits for.
    ///
    /// # Panics
    /// If [`Denoiser::ask`] has not said that there is one.
    #[must_use]
    pub fn span(&self, slot: usize) -> Span<'_> {
        let asked = self.asked.as_ref().expect("a forward was asked for");
        Span { slot, row: &self.ids, window: asked.window.clone(), outputs: &asked.outputs }
    }

    /// Takes the logits of that forward, `[outputs, V]`, and reveals what they decide.
    ///
    /// # Panics
    /// If no forward was asked for, or there are not as many logits.
    pub fn take(&mut self, logits: &mut [f32], mut seen: impl FnMut(&Step)) {
        let Asked { window, candidates, count, .. } =
            self.asked.take().expect("a forward was asked for");
        let vocabulary = logits.len() / candidates.len();
        let choices = self.choices(&candidates, logits, vocabulary);
        let Sampler { algorithm, alg_temp, seed, .. } = self.decoding.sampler;
        let chosen = match (self.decoding.accept, algorithm) {
            (Accept::Schedule, Algorithm::Origin) => (0..choices.len()).collect(),
            (Accept::Schedule, _) => {
                let draws = order_draws(seed, self.sample, self.step);
                reveal_confident(&candidates, &choices, count, alg_temp, draws)
            }
            (rule, _) => accept(rule, &choices),
        };
        self.tally.forwards += 1;
        self.tally.computed += window.len() as u64;
        let (mut revealed, mut probabilities) = (Vec::new(), Vec::new());
        for index in chosen {
            let Choice { token, probability, .. } = choices[index];
            self.ids[candidates[index]] = token;
            revealed.push(candidates[index]);
            probabilities.push(probability);
            self.tally.revealed += 1;
            self.tally.log_probability += f64::from(probability).ln();
        }
        if let Some(block) = &mut self.block {
            block.filled |= window.len() == self.ids.len();
            block.fresh = match (revealed.first(), revealed.last()) {
                (Some(&first), Some(&last)) => first..last + 1,
                _ => 0..0,
            };
        }
        self.pass(revealed, probabilities, &mut seen);
    }

    fn choices(&self, candidates: &[usize], logits: &mut [f32], vocabulary: usize) -> Vec<Choice> {
        let sampler = &self.decoding.sampler;
        let draws = token_draws(sampler.seed, self.sample, self.step);
        let one = |(&at, row): (&usize, &mut [f32])| {
            sampler.choice(row, self.mask_id, draws.unit_at(at as u64))
        };
        if logits.len() <= ALONE {
            return candidates.iter().zip(logits.chunks_exact_mut(vocabulary)).map(one).collect();
        }
        candidates.par_iter().zip(logits.par_chunks_exact_mut(vocabulary)).map(one).collect()
    }

    /// Ends a step.
    fn pass(
        &mut self,
        revealed: Vec<usize>,
        probabilities: Vec<f32>,
        seen: &mut impl FnMut(&Step),
    ) {
        seen(&Step { step: self.step, tokens: self.ids.clone(), revealed, probabilities });
        self.step += 1;
        if let Some(block) = &mut self.block {
            block.taken += 1;
        }
    }

    /// The block that is being filled; a new one when it has no masks left.
    fn current_block(&mut self) -> Block {
        let masked = |range: &Range<usize>| {
            self.ids[range.clone()].iter().filter(|&&id| id == self.mask_id).count()
        };
        match self.block.take() {
            Some(block) if masked(&block.range) > 0 => self.block = Some(block.clone()),
            _ => {
                let (len, settled) = (self.ids.len(), self.settled());
                let range = match (self.decoding.block_length, self.decoding.cache) {
                    (None, Cache::None) => 0..len,
                    (None, _) => {
                        let widest = settled..(settled + FITTED).min(len);
                        let last = widest.rev().find(|&at| self.ids[at] == self.mask_id);
                        settled..last.map_or(len, |last| last + 1)
                    }
                    (Some(length), _) => {
                        let start = settled.min(len - length.min(len));
                        start..start + length.min(len)
                    }
                };
                let (own, left) = (masked(&range), masked(&(0..len)));
                // The steps are shared out by masks, so that the blocks' shares add up to all of them.
                let share = |filled: usize| {
                    u64::from(self.decoding.sampler.steps) * filled as u64 / self.masks as u64
                };
                let filled = self.masks - left;
                let steps = share(filled + own) - share(filled);
                let steps = u32::try_from(steps.max(1)).unwrap_or(u32::MAX);
                self.block = Some(Block { range, steps, taken: 0, filled: false, fresh: 0..0 });
            }
        }
        self.block.clone().expect("a block was begun")
    }

    fn window(&self, block: &Block) -> Range<usize> {
        let all = 0..self.ids.len();
        if !block.filled || self.decoding.cache == Cache::None {
            return all;
        }
        let range = match self.decoding.block_length {
            Some(_) => block.range.clone(),
            None => self.unsettled(block),
        };
        let end = if self.decoding.cache == Cache::Dual { range.end } else { all.end };
        range.start.saturating_sub(1)..end
    }

    /// From the first to the last position of a block that is masked, or was when its keys and values
    /// were computed.
    fn unsettled(&self, block: &Block) -> Range<usize> {
        let open = |&at: &usize| self.ids[at] == self.mask_id || block.fresh.contains(&at);
        let mut positions = block.range.clone().filter(open);
        let first = positions.next().unwrap_or(block.range.start);
        first..positions.next_back().unwrap_or(first) + 1
    }
}
