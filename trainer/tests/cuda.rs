//! The CUDA engine against the CPU engine. No card is here: the kernels' own text runs on the
//! emulator (`trainer/cuda/emulator`), behind the same calls of driver, NVRTC and cuBLASLt.
//!
//! The engine stores activations in bf16, so it is held to what bf16 allows: 1e-3 for the loss, 2e-2
//! in the relative Euclidean norm for each gradient. What is left is rounding, which averages out: over
//! some hundred tokens gradients come within that, over a handful those of the norms of queries and
//! keys do not.

#[path = "common/batches.rs"]
mod batches;

use batches::made_up;
use coda_trainer::{
    engine::{
        Batch, CpuDecoder, CpuEngine, Decoder, Engine, HostLearner, Ids, Learner, LearnerSettings,
        Span, StepInput,
        cuda::{CudaEngine, CudaLearner},
    },
    model::{Grads, ModelConfig, Params, RecomputePolicy},
    optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings},
};

const MASK: u32 = 95;

fn config(tied: bool) -> ModelConfig {
    ModelConfig {
        hidden_size: 64,
        num_hidden_layers: 2,
        intermediate_size: 96,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 64,
        vocab_size: 104,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: tied,
        mask_token_id: Some(MASK),
    }
}

/// Weights far from their start, of the size that trained ones have, rounded to bf16: what both
/// engines begin with is the same.
fn params(config: &ModelConfig) -> Params {
    let mut params = Params::init(config, 5);
    for (at, values) in params.slices_mut().into_iter().enumerate() {
        for (i, value) in values.iter_mut().enumerate() {
            *value += 0.05 * ((at * 31 + i * 7) as f32).sin();
            *value = half::bf16::from_f32(*value).to_f32();
        }
    }
    params
}

fn index(value: usize) -> u32 {
    u32::try_from(value).expect("a small number")
}

fn batch(rows: usize, len: usize, documents: bool, seed: usize) -> Batch {
    made_up(rows, len, documents, seed, MASK)
}

fn open(config: &ModelConfig, recompute: RecomputePolicy) -> CudaEngine {
    if std::env::var_os("CODA_TEST_CARD").is_none() {
        coda_cuda::look_in(coda_cuda_emulator::folder());
    }
    CudaEngine::open(config, recompute).expect("a card")
}

fn distance(ours: &[f32], right: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let apart = norm(&mut ours.iter().zip(right).map(|(a, b)| f64::from(a - b)));
    apart / norm(&mut right.iter().map(|&v| f64::from(v))).max(1e-30)
}

#[test]
fn loss_gradients_and_logits_are_those_of_the_cpu_engine() {
    // In rows of two tokens the gradient of the scores is a difference of two products that are
    // nearly alike, so that more of the rounding is left in what lies before them.
    for (tied, documents, rows, len, seed, limit) in
        [(true, false, 2, 70, 1, 2e-2), (false, true, 6, 29, 1, 2e-2), (true, true, 80, 2, 6, 4e-2)]
    {
        let config = config(tied);
        let params = params(&config);
        let batch = batch(rows, len, documents, seed);
        let denominator = (rows * len) as f64;
        let mut cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
        let mut right = Grads::zeros(&params);
        let expected =
            cpu.loss_and_grads(&params, &batch, MASK, denominator, &mut right).expect("cpu");
        let run = |recompute| {
            let mut cuda = open(&config, recompute);
            let mut ours = Grads::zeros(&params);
            let found =
                cuda.loss_and_grads(&params, &batch, MASK, denominator, &mut ours).expect("cuda");
            (cuda, ours, found)
        };
        let (mut cuda, ours, found) = run(RecomputePolicy::None);
        let apart = (found.loss / expected.loss - 1.0).abs();
        assert!(apart < 1e-3, "{found:?} {expected:?}");
        assert!(found.scored > 0 && found.scored == expected.scored);
        for (index, (name, ..)) in params.iter().enumerate() {
            let apart = distance(ours.get(index), right.get(index));
            assert!(apart < limit, "{name}: {apart}");
        }
        for policy in [RecomputePolicy::Layer, RecomputePolicy::Pointwise] {
            let (_, again, found_again) = run(policy);
            assert_eq!(found_again, found, "recomputation changes nothing");
            assert!(again == ours, "recomputation changes no bit of a gradient");
        }

        let alone = cuda.loss(&params, &batch, MASK, denominator).expect("cuda");
        assert_eq!(alone, found);
        let logits = cuda.logits(&params, &batch.noised(), None).expect("cuda");
        let right = cpu.logits(&params, &batch.noised(), None).expect("cpu");
        assert!(distance(&logits, &right) < 1e-2);
        let some = cuda.logits(&params, &batch.noised(), Some(&[1, 0])).expect("cuda");
        let v = config.vocab_size;
        assert_eq!(some, [&logits[v..2 * v], &logits[..v]].concat());
    }
}

#[test]
fn gradients_of_parts_add_up_and_no_token_scored_is_no_loss() {
    let config = config(true);
    let params = params(&config);
    let whole = batch(2, 20, false, 3);
    let mut cuda = open(&config, RecomputePolicy::None);
    let mut once = Grads::zeros(&params);
    let loss = cuda.loss_and_grads(&params, &whole, MASK, 40.0, &mut once).expect("cuda").loss;
    let mut twice = once.clone();
    let again = cuda.loss_and_grads(&params, &whole, MASK, 40.0, &mut twice).expect("cuda").loss;
    assert_eq!(loss.to_bits(), again.to_bits());
    for (once, twice) in once.slices_mut().iter().zip(twice.slices_mut()) {
        assert!(once.iter().zip(twice).all(|(a, b)| (2.0 * a).to_bits() == b.to_bits()));
    }
    let unmasked = Batch { noised_ids: whole.input_ids.clone(), ..whole };
    let mut none = Grads::zeros(&params);
    let output = cuda.loss_and_grads(&params, &unmasked, MASK, 40.0, &mut none).expect("cuda");
    assert_eq!((output.scored, output.loss.to_bits()), (0, 0.0_f64.to_bits()));
    assert!(none == Grads::zeros(&params));
    let wrong = Batch { input_ids: vec![200; 40], noised_ids: vec![200; 40], ..unmasked };
    let error = cuda.loss(&params, &wrong, MASK, 40.0).unwrap_err().to_string();
    assert!(error.contains("id 200"), "{error}");
}

fn settings(kind: &str) -> OptimizerSettings {
    match kind {
        "adamw" => OptimizerSettings::AdamW(AdamWSettings {
            weight_decay: 0.1,
            // Without it the direction of a tiny gradient would be one of rounding.
            eps: 1e-3,
            ..AdamWSettings::default()
        }),
        _ => OptimizerSettings::Adafactor(AdafactorSettings {
            weight_decay: 0.01,
            ..AdafactorSettings::default()
        }),
    }
}

/// A learning rate at which two runs that differ by rounding stay together for some steps.
const LR: f64 = 3e-4;

/// Losses and norms of some steps.
fn train(learner: &mut dyn Learner, passes: usize, steps: usize) -> Vec<[f64; 2]> {
    let mut seen = Vec::new();
    for step in 0..steps {
        let batches: Vec<Batch> =
            (0..passes).map(|pass| batch(8 / passes, 48, true, step * 3 + pass)).collect();
        let input = StepInput { batches: &batches, mask_id: MASK, denominator: 384.0, lr: LR };
        let output = learner.step(&input).expect("a step");
        assert!(output.applied);
        assert_eq!(output.row_sums.len(), 8);
        seen.push([output.loss, output.norm]);
    }
    seen
}

#[test]
fn steps_are_those_of_the_cpu_engine() {
    // Adafactor moves every weight by about as much, however small its gradient, so that rounding in a
    // gradient near zero turns a whole step of its weight: two steps stay together, the third does not.
    for (kind, passes, bf16_weights, steps) in
        [("adamw", 1, false, 6), ("adafactor", 2, false, 2), ("adamw", 2, true, 6)]
    {
        let config = config(kind == "adamw");
        let of_optimizer = settings(kind);
        let start = params(&config);
        let fresh = || Optimizer::new(&of_optimizer, start.layout());
        let settings = LearnerSettings { grad_clip: Some(1.0), bf16_weights };
        let cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
        let mut host = HostLearner::new(cpu, start.clone(), fresh(), settings, 8 / passes);
        let expected = train(&mut host, passes, steps);
        let engine = open(&config, RecomputePolicy::None);
        let mut learner =
            CudaLearner::new(engine, start.clone(), fresh(), &of_optimizer, settings, 8 / passes)
                .expect("a learner");
        let found = train(&mut learner, passes, steps);
        for ([loss, norm], [right_loss, right_norm]) in found.iter().zip(&expected) {
            assert!((loss / right_loss - 1.0).abs() < 2e-3, "{kind}: {found:?} {expected:?}");
            assert!((norm / right_norm - 1.0).abs() < 2e-2, "{kind}: {found:?} {expected:?}");
        }
        let (params, optimizer) = learner.state().expect("the state").expect("it is here");
        let (right, right_state) = host.state().expect("the state").expect("it is here");
        for ((name, _, ours), ((_, _, right), (_, _, start))) in
            params.iter().zip(right.iter().zip(start.iter()))
        {
            let moved = distance(start, right);
            let apart = distance(ours, right);
            assert!(apart < 0.1 * moved + 1e-3, "{kind} {name}: {apart} of {moved}");
            if bf16_weights {
                let rounded = |v: &f32| half::bf16::from_f32(*v).to_f32().to_bits() == v.to_bits();
                assert!(ours.iter().all(rounded), "{name} is bf16");
            }
        }
        assert_eq!(optimizer.steps(), steps as u64);
        for (ours, right) in optimizer.state().iter().zip(right_state.state()) {
            assert_eq!(ours.name, right.name);
            // A square is off by twice what its gradient is.
            let first = ours.name.rsplit('.').next() == Some("first");
            let limit = if first { 5e-2 } else { 1e-1 };
            let apart = distance(ours.values, right.values);
            assert!(apart < limit, "{kind} {}: {apart}", ours.name);
        }
    }
}

fn decoded(decoder: &mut dyn Decoder, spans: &[Span<'_>]) -> Vec<f32> {
    decoder.decode(spans).expect("runs")
}

#[test]
fn windows_read_what_earlier_forwards_left() {
    let config = config(false);
    let params = params(&config);
    let mut engine = open(&config, RecomputePolicy::None);
    let mut ours = engine.decoder(&params).expect("memory").expect("a card has one");
    let mut right = CpuDecoder::new(&config, &params);
    let mut rows =
        [(23, 1), (140, 2), (9, 3)].map(|(len, seed)| batch(1, len, false, seed).noised_ids);
    // All rows whole, then parts of them in other company; ids change between the forwards, inside and
    // outside of what is computed next.
    let steps: [&[(usize, std::ops::Range<usize>)]; 4] = [
        &[(0, 0..23), (1, 0..140), (2, 0..9)],
        &[(1, 130..140), (0, 7..15)],
        &[(2, 4..5)],
        &[(0, 12..23), (2, 0..9), (1, 3..139)],
    ];
    for (number, windows) in steps.into_iter().enumerate() {
        let outputs: Vec<Vec<usize>> = windows
            .iter()
            .map(|(_, window)| window.clone().step_by(number + 1).collect())
            .collect();
        let spans: Vec<Span<'_>> = windows
            .iter()
            .zip(&outputs)
            .map(|((row, window), outputs)| Span {
                slot: 10 + row,
                row: &rows[*row],
                window: window.clone(),
                outputs,
            })
            .collect();
        let (found, wanted) = (decoded(ours.as_mut(), &spans), decoded(&mut right, &spans));
        assert_eq!(found.len(), wanted.len());
        let apart = distance(&found, &wanted);
        assert!(apart < 1e-2, "forward {number}: {apart}");
        for row in &mut rows {
            for id in row.iter_mut().step_by(5) {
                *id = (*id + index(number) + 1) % MASK;
            }
        }
    }
    // The whole row again is the plain forward.
    let row = &rows[1];
    let all: Vec<usize> = (0..row.len()).collect();
    let span = Span { slot: 11, row, window: 0..row.len(), outputs: &all };
    let found = decoded(ours.as_mut(), std::slice::from_ref(&span));
    let ids = Ids { rows: 1, len: row.len(), ids: row, segment_ids: None };
    let plain = engine.logits(&params, &ids, None).expect("runs");
    assert!(distance(&found, &plain) < 1e-6);
    // What was forgotten, or never was, is refused.
    ours.forget(11);
    let part = Span { window: 0..3, outputs: &[], ..span };
    let error = ours.decode(&[part]).unwrap_err().to_string();
    assert!(error.contains("a forward of the whole row before"), "{error}");
    assert!(decoded(ours.as_mut(), &[]).is_empty());
}

/// Rows in which every token follows from the one before it, so that there is something to learn.
fn lesson(rows: usize, len: usize, seed: u64) -> Batch {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 33
    };
    let mut made = Batch { rows, len, ..Batch::default() };
    for _ in 0..rows {
        let (mut id, step) = (draw() % 95, 1 + draw() % 3);
        let level = 0.2 + 0.6 * (draw() % 1000) as f64 / 1000.0;
        made.sigma.push(level);
        for _ in 0..len {
            id = (id + step) % 95;
            let id = u32::try_from(id).expect("below 95");
            made.input_ids.push(id);
            let masked = ((draw() % 1000) as f64) < 1000.0 * level;
            made.noised_ids.push(if masked { MASK } else { id });
        }
    }
    made
}

/// The mean loss of the last 20 of 200 steps.
fn lesson_learned(learner: &mut dyn Learner, seed: u64) -> f64 {
    let mut last = 0.0;
    for step in 0..200 {
        let batches = [lesson(16, 64, 1000 * seed + step)];
        let input = StepInput { batches: &batches, mask_id: MASK, denominator: 1024.0, lr: 2e-3 };
        let output = learner.step(&input).expect("a step");
        assert!(output.applied);
        last += if step < 180 { 0.0 } else { output.loss / 20.0 };
    }
    last
}

#[test]
#[ignore = "on a card alone: the emulator would take hours (benches/gpu/run.py)"]
fn two_hundred_steps_are_those_of_the_cpu_engine_in_distribution() {
    let config = config(false);
    let of_optimizer = OptimizerSettings::AdamW(AdamWSettings::default());
    let settings = LearnerSettings { grad_clip: Some(1.0), bf16_weights: false };
    let (mut of_cpu, mut of_cuda) = (Vec::new(), Vec::new());
    for seed in 0..8 {
        let start = Params::init(&config, 40 + seed);
        let fresh = || Optimizer::new(&of_optimizer, start.layout());
        let cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
        let mut host = HostLearner::new(cpu, start.clone(), fresh(), settings, 16);
        of_cpu.push(lesson_learned(&mut host, seed));
        let engine = open(&config, RecomputePolicy::None);
        let mut card =
            CudaLearner::new(engine, start.clone(), fresh(), &of_optimizer, settings, 16)
                .expect("a learner");
        of_cuda.push(lesson_learned(&mut card, seed));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (cpu, cuda) = (mean(&of_cpu), mean(&of_cuda));
    let spread = mean(&of_cpu.iter().map(|v| (v - cpu).powi(2)).collect::<Vec<_>>()).sqrt();
    println!("last losses: cpu {of_cpu:.4?}, cuda {of_cuda:.4?}, spread {spread:.4}");
    let untrained = (95.0_f64).ln();
    assert!(cpu < 0.7 * untrained, "there was something to learn: {cpu} of {untrained}");
    // Paired by seed: start, rows and masks are the same, so that rounding alone sets them apart.
    let error = spread / (of_cpu.len() as f64).sqrt();
    assert!((cpu - cuda).abs() < error.max(0.01 * cpu), "{cpu} and {cuda}, spread {spread}");
}

#[test]
fn what_is_made_again_takes_no_memory_until_then() {
    let config = config(false);
    let params = params(&config);
    let batch = batch(8, 64, false, 1);
    let peak = |policy| {
        let mut cuda = open(&config, policy);
        let mut grads = Grads::zeros(&params);
        cuda.loss_and_grads(&params, &batch, MASK, 512.0, &mut grads).expect("cuda");
        cuda.usage().peak
    };
    let [all, pointwise, layer] =
        [RecomputePolicy::None, RecomputePolicy::Pointwise, RecomputePolicy::Layer].map(peak);
    // Two layers; of each, two norms, rotated queries and keys, and the product of SwiGLU.
    let forgotten = 2 * 512 * (2 * 64 + 128 + 64 + 96) * 2;
    assert!(pointwise + forgotten / 2 < all, "{pointwise} and {all}, {forgotten} were forgotten");
    assert!(layer < pointwise, "{layer} and {pointwise}");
}

#[test]
fn a_step_like_the_one_before_allocates_nothing() {
    let config = config(false);
    let of_optimizer = settings("adafactor");
    let start = params(&config);
    let optimizer = Optimizer::new(&of_optimizer, start.layout());
    let settings = LearnerSettings { grad_clip: Some(1.0), bf16_weights: false };
    let engine = open(&config, RecomputePolicy::Layer);
    let mut learner =
        CudaLearner::new(engine, start, optimizer, &of_optimizer, settings, 2).expect("a learner");
    let batches = [batch(2, 24, true, 1), batch(2, 24, true, 2)];
    let mut step = || {
        let input = StepInput { batches: &batches, mask_id: MASK, denominator: 96.0, lr: 1e-3 };
        learner.step(&input).expect("a step");
        learner.usage()
    };
    let first = step();
    let second = step();
    assert_eq!(first.in_use, second.in_use, "a step leaves nothing behind");
    for _ in 0..3 {
        assert_eq!(step(), second);
    }
}

#[test]
fn a_loss_that_is_no_number_changes_nothing() {
    let config = config(true);
    let of_optimizer = settings("adamw");
    let start = params(&config);
    let optimizer = Optimizer::new(&of_optimizer, start.layout());
    let settings = LearnerSettings { grad_clip: None, bf16_weights: false };
    let engine = open(&config, RecomputePolicy::None);
    let mut learner =
        CudaLearner::new(engine, start.clone(), optimizer, &of_optimizer, settings, 2)
            .expect("a learner");
    let batches = [batch(2, 24, true, 1)];
    // 0 / 0: what a broken denominator gives.
    let input = StepInput { batches: &batches, mask_id: MASK, denominator: 0.0, lr: 1e-3 };
    let output = learner.step(&input).expect("a step");
    assert!(!output.applied && !output.loss.is_finite());
    let (params, optimizer) = learner.state().expect("the state").expect("it is here");
    assert!(params.iter().zip(start.iter()).all(|(ours, right)| ours == right));
    assert_eq!(optimizer.steps(), 0);
}
