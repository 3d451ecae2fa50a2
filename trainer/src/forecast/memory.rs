//! Bytes on a card.

use super::{Job, Keep};
use crate::{engine::cuda::tokens_at_once, model::ModelConfig, parallel::lanes};
use serde::Serialize;

/// The driver's context and the libraries' own memory.
const CONTEXT: u64 = 700 << 20;
/// What matrix products and attention may use while they run.
const WORKSPACE: u64 = 128 << 20;
/// Gradients of other cards, before they are added.
const RECEIVED: u64 = 128 << 20;
/// Bytes on each card at the fullest moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// bf16 weights, whole.
    pub weights: u64,
    /// f32 master weights, a share.
    pub master: u64,
    /// The optimizer's state, a share.
    pub optimizer: u64,
    /// f32 gradients, whole: micro-batches add up in them. Two cards keep up to three sums, four up to two.
    pub gradients: u64,
    /// What the backward pass finds of the forward pass.
    pub activations: u64,
    /// One layer while it runs backward: its activations made again, and their gradients.
    pub backward: u64,
    /// A chunk of logits and their gradient.
    pub logits: u64,
    /// Context and workspaces.
    pub other: u64,
    /// All of it.
    pub total: u64,
}

/// bf16 values of a layer for each token that the backward pass needs, by what is kept.
fn values_per_token(model: &ModelConfig, keep: Keep) -> u64 {
    let (d, f) = (model.hidden_size, model.intermediate_size);
    let (q, kv) = (model.query_width(), model.kv_width());
    // Attention keeps an f32 for each head and position, the logarithm of its sum.
    let attention = q + 2 * model.num_attention_heads;
    let values = match keep {
        // The layer's input, normalized; q, k before and after norm and rotation; v; attention's result; the
        // middle of the layer, normalized; gate, up and their product.
        Keep::All => 4 * d + 2 * q + 3 * kv + attention + 3 * f,
        Keep::Products => 2 * d + q + 2 * kv + attention + 2 * f,
        Keep::Inputs => d,
    };
    values as u64
}

impl Job<'_> {
    /// Sums of gradients on a card: cards together add up in the order of [`lanes`].
    fn sums(&self, micro_batch: u32) -> u64 {
        if self.cards == 1 {
            return 1;
        }
        let pieces = (self.global_batch / self.cards).div_ceil(micro_batch.max(1));
        lanes::buffers(pieces as usize, self.cards as usize) as u64
    }

    /// Bytes on each card of `room` bytes with this micro-batch.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of some tokens"
    )]
    pub(super) fn memory(&self, room: u64, keep: Keep, micro_batch: u32) -> Memory {
        let parameters = self.model.parameters();
        let cards = u64::from(self.cards);
        let tokens = u64::from(micro_batch) * u64::from(self.row_length);
        let (d, q) = (self.model.hidden_size as u64, self.model.query_width() as u64);
        let layers = self.model.num_hidden_layers as u64;
        let whole = values_per_token(self.model, Keep::All);
        let kept = values_per_token(self.model, keep);
        // The hidden states before and after the last norm stay as well.
        let activations = 2 * tokens * (layers * kept + 2 * d);
        // What is made again, a gradient of the same size, and attention's f32 sums for the queries.
        let backward = 2 * tokens * ((whole - kept) + whole) + 4 * tokens * q;
        let scored = (tokens as f64 * self.scored).ceil() as u64;
        let logits = scored.min(tokens_at_once(room, self.model.vocab_size) as u64);
        let memory = Memory {
            weights: 2 * parameters,
            master: if self.master { (4 * parameters).div_ceil(cards) } else { 0 },
            optimizer: self.optimizer_state.div_ceil(cards),
            gradients: 4 * parameters * self.sums(micro_batch),
            activations,
            backward,
            logits: logits * self.model.vocab_size as u64 * 6,
            other: CONTEXT + WORKSPACE + if self.cards > 1 { RECEIVED } else { 0 },
            total: 0,
        };
        let Memory { weights, master, optimizer, gradients, logits, other, .. } = memory;
        // The head and the layers are not at work at the same time.
        let passing = backward.max(logits);
        let total = weights + master + optimizer + gradients + activations + passing + other;
        Memory { total, ..memory }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Keep, tests::job},
        RECEIVED,
    };
    use crate::model::config::published;

    const H200: u64 = 141_000_000_000;

    #[test]
    fn by_hand_for_the_published_shape() {
        let model = published();
        let memory = job(&model, 8192, 1).memory(H200, Keep::Inputs, 1);
        let parameters = 2_031_739_904;
        assert_eq!(
            (memory.weights, memory.master, memory.gradients, memory.optimizer),
            (2 * parameters, 4 * parameters, 4 * parameters, 8 * parameters)
        );
        // 28 layers of 2048 values, and twice 2048 at the end, two bytes each.
        assert_eq!(memory.activations, 8192 * 30 * 2048 * 2);
        // The most tokens, in 128s, whose logits take a 32nd of the card.
        assert_eq!(memory.logits, 4736 * 151_936 * 6);
        // A layer: 4 · 2048 + 2 · 2048 + 3 · 1024 + 2048 + 32 + 3 · 6144 values.
        let layer = 8192 + 4096 + 3072 + 2080 + 18432;
        assert_eq!(memory.backward, 8192 * (2 * (2 * layer - 2048) + 4 * 2048));
        let all = job(&model, 8192, 1).memory(H200, Keep::All, 1);
        assert_eq!(all.activations, 8192 * 2 * (28 * layer + 4096));
    }

    #[test]
    fn few_cards_keep_more_sums_of_gradients() {
        let model = published();
        let sums = |cards, rows| {
            job(&model, 1024, cards).memory(H200, Keep::Inputs, rows).gradients
                / (4 * model.parameters())
        };
        assert_eq!([1, 2, 4, 8, 16].map(|cards| sums(cards, 1)), [1, 3, 2, 1, 1]);
        // Two cards with one or two passes each.
        assert_eq!((sums(2, 32), sums(2, 16)), (1, 2));
    }

    #[test]
    fn memory_grows_with_rows_and_falls_with_what_is_made_again() {
        let model = published();
        for length in [1024, 8192] {
            for rows in [1, 2, 8] {
                let at = |keep, rows| job(&model, length, 4).memory(H200, keep, rows).total;
                assert!(at(Keep::Inputs, rows) < at(Keep::Products, rows));
                assert!(at(Keep::Products, rows) < at(Keep::All, rows));
                assert!(Keep::EVERY.iter().all(|&keep| at(keep, rows) < at(keep, rows + 1)));
            }
        }
    }

    #[test]
    fn cards_share_state_and_master_weights_alone() {
        let model = published();
        let (one, four) = (
            job(&model, 1024, 1).memory(H200, Keep::All, 2),
            job(&model, 1024, 4).memory(H200, Keep::All, 2),
        );
        assert_eq!((four.optimizer, four.master), (one.optimizer / 4, one.master / 4));
        let more = four.gradients - one.gradients + RECEIVED;
        assert_eq!(one.total + more - four.total, 3 * (one.optimizer + one.master) / 4);
    }
}
