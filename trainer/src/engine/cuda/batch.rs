//! A batch on its way to a card: what the kernels read, in one piece of page-locked memory.

use super::ops::{Shared, TokensById};
use crate::{
    engine::{Batch, EngineError, Ids},
    ops::segment_ranges,
};
use coda_cuda::{Card, CudaError, Element, PinnedBytes, Sent};
use std::{ops::Range, rc::Rc};

/// What is known of a batch on the host.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    rows: usize,
    len: usize,
    ids: Vec<u32>,
    /// The distinct ids, where the tokens of each begin, and the tokens, in order.
    by_id: [Vec<u32>; 3],
    ranges: Vec<[i32; 2]>,
    /// Outputs that predict a scored token, its id, and the factor of its gradient.
    outputs: Vec<u32>,
    targets: Vec<u32>,
    scales: Vec<f32>,
    /// The row of each scored token and its weight.
    weights: Vec<(usize, f64)>,
}

/// A batch that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    prepared: Prepared,
    starts: Vec<usize>,
    sent: Sent,
}

/// A batch on the card.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) rows: usize,
    pub(super) len: usize,
    pub(super) ids: Shared,
    pub(super) by_id: TokensById,
    pub(super) ranges: Option<Shared>,
    pub(super) outputs: Shared,
    pub(super) targets: Shared,
    pub(super) scales: Shared,
    /// The row of each scored token and its weight.
    pub(super) weights: Vec<(usize, f64)>,
}

fn index(value: usize) -> Result<u32, EngineError> {
    u32::try_from(value).map_err(|_| EngineError::Batch(format!("{value} tokens are too many")))
}

impl Prepared {
    /// Ids to run the model on, without a loss.
    pub(super) fn of_ids(ids: &Ids<'_>, vocabulary: usize) -> Result<Self, EngineError> {
        ids.check(vocabulary)?;
        index(ids.ids.len())?;
        let position = |at: usize| i32::try_from(at).expect("below the number of tokens");
        let pair = |range: &Range<usize>| [position(range.start), position(range.end)];
        let ranges = ids.segment_ids.map(|segments| segment_ranges(segments, ids.len));
        Ok(Self {
            rows: ids.rows,
            len: ids.len,
            ids: ids.ids.to_vec(),
            by_id: tokens_by_id(ids.ids),
            ranges: ranges.iter().flatten().map(pair).collect(),
            ..Self::default()
        })
    }

    /// A batch with its scored tokens (method §2).
    #[allow(clippy::cast_possible_truncation, reason = "weights and gradients are f32")]
    pub(super) fn of_batch(
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        vocabulary: usize,
    ) -> Result<Self, EngineError> {
        batch.check()?;
        let mut prepared = Self::of_ids(&batch.noised(), vocabulary)?;
        for (row, &sigma) in batch.sigma.iter().enumerate() {
            // As the CPU engine has it.
            let weight = f64::from((1.0 / sigma) as f32);
            for token in batch.scored_tokens(row, mask_id) {
                prepared.outputs.push(index(token - 1)?);
                prepared.targets.push(batch.target(token, vocabulary)?);
                prepared.scales.push((weight / denominator) as f32);
                prepared.weights.push((row, weight));
            }
        }
        Ok(prepared)
    }

    /// Begins to send it; `host` is busy until the card has been waited for.
    pub(super) fn send(self, card: &Card, host: &mut PinnedBytes) -> Result<Sending, CudaError> {
        let words =
            |values: &[u32]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
        let ranges = self.ranges.iter().flatten().flat_map(|v| v.to_ne_bytes()).collect();
        let scales = self.scales.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let [distinct, starts, tokens] = &self.by_id;
        let lists: [Vec<u8>; 8] = [
            words(&self.ids),
            words(distinct),
            words(starts),
            words(tokens),
            ranges,
            words(&self.outputs),
            words(&self.targets),
            scales,
        ];
        let starts = host.fill(&lists.each_ref().map(Vec::as_slice))?;
        Ok(Sending { sent: card.send(host)?, starts, prepared: self })
    }
}

impl Sending {
    /// Lets what is queued from now on work on the batch.
    pub(super) fn receive(self, card: &Card) -> Result<Ready, CudaError> {
        card.receive(&self.sent)?;
        let Self { prepared: p, starts, sent } = self;
        let block = Rc::new(sent.block);
        let shared = |list: usize, element: Element, len: usize| Shared {
            block: Rc::clone(&block),
            element,
            from: starts[list] / element.bytes(),
            len,
        };
        let [distinct, first, tokens] = p.by_id.each_ref().map(Vec::len);
        Ok(Ready {
            rows: p.rows,
            len: p.len,
            ids: shared(0, Element::U32, p.ids.len()),
            by_id: TokensById {
                ids: shared(1, Element::U32, distinct),
                starts: shared(2, Element::U32, first),
                tokens: shared(3, Element::U32, tokens),
            },
            ranges: (!p.ranges.is_empty()).then(|| shared(4, Element::Pair, p.ranges.len())),
            outputs: shared(5, Element::U32, p.outputs.len()),
            targets: shared(6, Element::U32, p.targets.len()),
            scales: shared(7, Element::F32, p.scales.len()),
            weights: p.weights,
        })
    }
}

/// The distinct ids, rising; where the tokens of each begin in the third list, and where the last
/// ones end; and the tokens by id, in order.
fn tokens_by_id(ids: &[u32]) -> [Vec<u32>; 3] {
    let place = |at: usize| u32::try_from(at).expect("checked before");
    let mut tokens: Vec<u32> = (0..place(ids.len())).collect();
    tokens.sort_by_key(|&token| ids[token as usize]);
    let (mut distinct, mut starts) = (Vec::new(), Vec::new());
    for (at, &token) in tokens.iter().enumerate() {
        let id = ids[token as usize];
        if distinct.last() != Some(&id) {
            distinct.push(id);
            starts.push(place(at));
        }
    }
    starts.push(place(tokens.len()));
    [distinct, starts, tokens]
}

#[cfg(test)]
mod tests {
    use super::{Prepared, tokens_by_id};
    use crate::engine::Batch;
    use proptest::prelude::*;

    #[test]
    fn scored_tokens_are_those_of_the_method() {
        let batch = Batch {
            rows: 2,
            len: 3,
            input_ids: vec![1, 2, 3, 4, 5, 6],
            noised_ids: vec![9, 9, 3, 4, 9, 9],
            sigma: vec![0.5, 0.25],
            segment_ids: Some(vec![0, 0, 1, 0, 1, 1]),
        };
        let prepared = Prepared::of_batch(&batch, 9, 6.0, 10).unwrap();
        // The first position of a row is never scored; the output before a token predicts it.
        assert_eq!(prepared.outputs, [0, 3, 4]);
        assert_eq!(prepared.targets, [2, 5, 6]);
        assert_eq!(prepared.weights, [(0, 2.0), (1, 4.0), (1, 4.0)]);
        assert_eq!(prepared.scales, [2.0 / 6.0, 4.0 / 6.0, 4.0 / 6.0]);
        assert_eq!(prepared.ranges, [[0, 2], [0, 2], [2, 3], [0, 1], [1, 3], [1, 3]]);
        assert!(Prepared::of_batch(&batch, 9, 6.0, 9).is_err(), "9 is no id of 9");
    }

    proptest! {
        #[test]
        fn every_token_is_listed_under_its_id(ids in proptest::collection::vec(0_u32..20, 1..80)) {
            let [distinct, starts, tokens] = tokens_by_id(&ids);
            prop_assert!(distinct.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(starts.len(), distinct.len() + 1);
            let mut seen = 0;
            for (i, id) in distinct.iter().enumerate() {
                let own = &tokens[starts[i] as usize..starts[i + 1] as usize];
                prop_assert!(own.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(own.iter().all(|&token| ids[token as usize] == *id));
                seen += own.len();
            }
            prop_assert_eq!(seen, ids.len());
        }
    }
}
