//! One training step on the CPU (forward, backward, AdamW): 4 layers, FFN of three times the width,
//! heads of 64, two query heads to a key head, vocabulary 4096, 2048 tokens, half of them masked, f32.
//!
//!     train_step [STEPS] [THREADS] [WIDTH] [ROW LENGTH] [tied|untied]
//!
//! Prints one JSON line per step: wall seconds, CPU seconds, loss. `torch_step.py` is its twin.

use coda_random::{Purpose, Stream};
use coda_trainer::{
    engine::{Batch, CpuEngine, Engine},
    model::{Grads, ModelConfig, Params, RecomputePolicy},
    optim::{AdamWSettings, Optimizer, OptimizerSettings},
};
use std::time::Instant;

const TOKENS: usize = 2048;
const MASK: u32 = 4095;

fn main() {
    let number = |at: usize, default: usize| {
        std::env::args().nth(at).map_or(default, |a| a.parse().expect("a number"))
    };
    let (steps, threads) = (number(1, 12), number(2, 2));
    let (width, len) = (number(3, 256), number(4, 256));
    let tied = std::env::args().nth(5).is_none_or(|word| word == "tied");
    let rows = (TOKENS / len).max(1);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("a thread pool");
    let config = ModelConfig {
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
        mask_token_id: Some(MASK),
    };
    let mut params = Params::init(&config, 7);
    let mut grads = Grads::zeros(&params);
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = Optimizer::new(&OptimizerSettings::AdamW(settings), params.layout());
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let batch = batch(rows, len);
    let denominator = (rows * len) as f64;
    for step in 0..steps {
        let (clock, cpu) = (Instant::now(), cpu_seconds());
        grads.reset();
        let output = engine
            .loss_and_grads(&params, &batch, MASK, denominator, &mut grads)
            .expect("the batch fits the model");
        optimizer.step(1e-3, &mut params.slices_mut(), &grads.slices());
        let (wall, cpu) = (clock.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!(
            "{}",
            serde_json::json!({"step": step, "wall": wall, "cpu": cpu, "loss": output.loss})
        );
    }
}

fn batch(rows: usize, len: usize) -> Batch {
    let draws = Stream::new(9, 0, 0, Purpose::TokenMask);
    let at = |i: usize| draws.u32_at(i as u64);
    let input_ids: Vec<u32> = (0..rows * len).map(|i| at(2 * i) % MASK).collect();
    let mask = |(i, &id): (usize, &u32)| if at(2 * i + 1) % 2 == 0 { MASK } else { id };
    let noised_ids = input_ids.iter().enumerate().map(mask).collect();
    Batch { rows, len, input_ids, noised_ids, sigma: vec![0.5; rows], segment_ids: None }
}

/// CPU seconds of this process so far, user and system, on all threads.
fn cpu_seconds() -> f64 {
    // Fields 14 and 15, counted after the name, which may hold spaces; in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a state").split(' ').collect();
    let hundredths = |at: usize| fields[at].parse::<f64>().expect("a number");
    (hundredths(11) + hundredths(12)) / 100.0
}
