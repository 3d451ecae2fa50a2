//! Measurements against the peers that a user would pick instead. Each is a program of its own with
//! a driver beside it that runs both sides in turns; results are recorded in `docs/benchmarks.md`.
//!
//! * `train_step`: one training step on the CPU, against eager PyTorch (`compare_train_step.py`).
//! * `sampling`: ways of sampling from a trained model, against the plain one in the same run.
//! * `windows`: forwards of few positions on the CPU, of a window and of a whole row, the latter against
//!   eager PyTorch (`compare_windows.py`).
//! * `xla_step`: one of the XLA engine, against JAX and PyTorch (`compare_xla_step.py`).

use coda_random::{Purpose, Stream};
use coda_trainer::{engine::Batch, model::ModelConfig};

/// Tokens of a step.
pub const TOKENS: usize = 2048;

/// 4 layers, an FFN of three times the width, heads of 64, two query heads to a key head, a vocabulary of
/// 4096 whose last id is the mask.
#[must_use]
pub fn tiny_model(width: usize, tied: bool) -> ModelConfig {
    ModelConfig {
        hidden_size: width,
        num_hidden_layers: 4,
        intermediate_size: 3 * width,
        num_attention_heads: width / 64,
        num_key_value_heads: width / 128,
        head_dim: 64,
        vocab_size: 4096,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: tied,
        mask_token_id: Some(4095),
    }
}

/// Rows of random tokens, half of them masked.
#[must_use]
pub fn masked_batch(rows: usize, len: usize, mask: u32) -> Batch {
    let draws = Stream::new(9, 0, 0, Purpose::TokenMask);
    let at = |i: usize| draws.u32_at(i as u64);
    let input_ids: Vec<u32> = (0..rows * len).map(|i| at(2 * i) % mask).collect();
    let masked = |(i, &id): (usize, &u32)| if at(2 * i + 1) % 2 == 0 { mask } else { id };
    let noised_ids = input_ids.iter().enumerate().map(masked).collect();
    Batch { rows, len, input_ids, noised_ids, sigma: vec![0.5; rows], segment_ids: None }
}

/// CPU seconds of this process so far, user and system, on all threads.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn cpu_seconds() -> f64 {
    // Fields 14 and 15, counted after the name, which may hold spaces; in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a state").split(' ').collect();
    let hundredths = |at: usize| fields[at].parse::<f64>().expect("a number");
    (hundredths(11) + hundredths(12)) / 100.0
}
