//! One training step on the CPU (forward, backward, AdamW): 4 layers, FFN of three times the width,
//! heads of 64, two query heads to a key head, vocabulary 4096, 2048 tokens, half of them masked, f32.
//!
//!     train_step [STEPS] [THREADS] [WIDTH] [ROW LENGTH] [tied|untied]
//!
//! Prints one JSON line per step: wall seconds, CPU seconds, loss. `torch_step.py` is its twin.

use coda_benches::{TOKENS, cpu_seconds, masked_batch, tiny_model};
use coda_trainer::{
    engine::{CpuEngine, Engine},
    model::{Grads, Params, RecomputePolicy},
    optim::{AdamWSettings, Optimizer, OptimizerSettings},
};
use std::time::Instant;

fn main() {
    let number = |at: usize, default: usize| {
        std::env::args().nth(at).map_or(default, |a| a.parse().expect("a number"))
    };
    let (steps, threads) = (number(1, 12), number(2, 2));
    let (width, len) = (number(3, 256), number(4, 256));
    let tied = std::env::args().nth(5).is_none_or(|word| word == "tied");
    let rows = (TOKENS / len).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    pool.build_global().expect("a thread pool");
    let config = tiny_model(width, tied);
    let mask = config.mask_token_id.expect("a mask");
    let mut params = Params::init(&config, 7);
    let mut grads = Grads::zeros(&params);
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = Optimizer::new(&OptimizerSettings::AdamW(settings), params.layout());
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let batch = masked_batch(rows, len, mask);
    let denominator = (rows * len) as f64;
    for step in 0..steps {
        let (clock, cpu) = (Instant::now(), cpu_seconds());
        grads.reset();
        let output = engine
            .loss_and_grads(&params, &batch, mask, denominator, &mut grads)
            .expect("the batch fits the model");
        optimizer.step(1e-3, &mut params.slices_mut(), &grads.slices());
        let (wall, cpu) = (clock.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!(
            "{}",
            serde_json::json!({"step": step, "wall": wall, "cpu": cpu, "loss": output.loss})
        );
    }
}
