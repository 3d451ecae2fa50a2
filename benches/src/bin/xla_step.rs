//! One training step of the XLA engine on the CPU plugin (forward, backward, clipping, `AdamW`): 4 layers,
//! width 256, FFN 768, 4 query and 2 key heads of 64, vocabulary 4096, tied head, 8 rows of 256 tokens, half
//! of them masked, f32.
//!
//!     xla_step PLUGIN [STEPS] [QUERY CHUNK] [LOSS CHUNK]
//!
//! Prints one JSON line per step: wall seconds, CPU seconds, loss, norm; the first has the compilation in
//! it. `jax_step.py` is its twin.

use coda_benches::{cpu_seconds, masked_batch, tiny_model};
use coda_trainer::{
    engine::{
        Learner as _, LearnerSettings, StepInput,
        xla::{XlaEngine, XlaLearner, XlaOptions},
    },
    model::Params,
    optim::{AdamWSettings, Optimizer, OptimizerSettings},
};
use std::time::Instant;

fn main() {
    let word = |at: usize| std::env::args().nth(at);
    let plugin = word(1).expect("the plugin's file").into();
    let number = |at: usize| word(at).map(|word| word.parse::<u32>().expect("a number"));
    let steps = number(2).unwrap_or(12);
    let mut options = XlaOptions::new(plugin);
    (options.xla.query_chunk, options.xla.loss_chunk) = (number(3), number(4));
    let config = tiny_model(256, true);
    let mask = config.mask_token_id.expect("a mask");
    let params = Params::init(&config, 7);
    let settings = OptimizerSettings::AdamW(AdamWSettings {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    });
    let optimizer = Optimizer::new(&settings, params.layout());
    let engine = XlaEngine::open(&config, &options).expect("the engine opens");
    let of_learner = LearnerSettings { grad_clip: Some(1.0), bf16_weights: false };
    let mut learner = XlaLearner::new(engine, params, optimizer, &settings, of_learner, 8)
        .expect("it fits the devices");
    let batches = [masked_batch(8, 256, mask)];
    for step in 0..steps {
        let (clock, cpu) = (Instant::now(), cpu_seconds());
        let input = StepInput { batches: &batches, mask_id: mask, denominator: 2048.0, lr: 1e-3 };
        let output = learner.step(&input).expect("a step");
        let (wall, cpu) = (clock.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!(
            "{}",
            serde_json::json!({
                "step": step, "wall": wall, "cpu": cpu, "loss": output.loss, "norm": output.norm
            })
        );
    }
}
