//! A model for cards: small, with heads that the kernels take.

use coda_trainer::model::ModelConfig;

/// The mask's id, behind 42 others.
pub(crate) const MASK: u32 = 42;

pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        intermediate_size: 24,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 64,
        vocab_size: 48,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        mask_token_id: Some(MASK),
    }
}
