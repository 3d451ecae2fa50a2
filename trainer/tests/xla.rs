//! The XLA engine, on the CPU plugin, against the CPU engine: loss, gradients, logits, steps of
//! both optimizers, on one device and on meshes.

#[path = "common/batches.rs"]
mod batches;

use batches::made_up;
use coda_manifests::{Compute, MeshShape, Xla};
use coda_pjrt::{PluginKind, discover};
use coda_trainer::{
    engine::{
        Batch, CpuEngine, Engine, HostLearner, Learner, LearnerSettings, StepInput,
        xla::{XlaEngine, XlaLearner, XlaOptions},
    },
    model::{Grads, ModelConfig, Params, RecomputePolicy},
    optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings},
};

const MASK: u32 = 95;

fn config(tied: bool) -> ModelConfig {
    ModelConfig {
        hidden_size: 32,
        num_hidden_layers: 3,
        intermediate_size: 48,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 96,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: tied,
        mask_token_id: Some(MASK),
    }
}

/// Weights far from their start, so that none is zero or one.
fn params(config: &ModelConfig) -> Params {
    let mut params = Params::init(config, 5);
    for (at, values) in params.slices_mut().into_iter().enumerate() {
        for (i, value) in values.iter_mut().enumerate() {
            *value += 0.01 * ((at * 31 + i * 7) as f32).sin();
        }
    }
    params
}

fn batch(rows: usize, len: usize, documents: bool, seed: usize) -> Batch {
    made_up(rows, len, documents, seed, MASK)
}

fn open(config: &ModelConfig, mesh: MeshShape, compute: Compute, chunk: u32) -> XlaEngine {
    let plugin = discover(None, PluginKind::Cpu).expect("the CPU plugin; `cargo xtask plugin`");
    let (query_chunk, loss_chunk) = (Some(chunk), Some(chunk));
    let options = XlaOptions { plugin, xla: Xla { mesh, compute, query_chunk, loss_chunk } };
    XlaEngine::open(config, &options).expect("the engine opens")
}

fn distance(ours: &[f32], right: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let apart = norm(&mut ours.iter().zip(right).map(|(a, b)| f64::from(a - b)));
    apart / norm(&mut right.iter().map(|&v| f64::from(v))).max(1e-30)
}

fn one() -> MeshShape {
    MeshShape::default()
}

#[test]
fn loss_gradients_and_logits_are_those_of_the_cpu_engine() {
    for (tied, documents, rows, len, chunk) in
        [(true, false, 3, 20, 512), (false, true, 2, 29, 8), (true, true, 4, 2, 3)]
    {
        let config = config(tied);
        let params = params(&config);
        let batch = batch(rows, len, documents, 1);
        let mut cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
        let mut xla = open(&config, one(), Compute::F32, chunk);
        let denominator = (rows * len) as f64;
        let mut right = Grads::zeros(&params);
        let expected =
            cpu.loss_and_grads(&params, &batch, MASK, denominator, &mut right).expect("cpu");
        let mut ours = Grads::zeros(&params);
        let found = xla.loss_and_grads(&params, &batch, MASK, denominator, &mut ours).expect("xla");
        assert!((found.loss / expected.loss - 1.0).abs() < 1e-6, "{found:?} {expected:?}");
        assert_eq!(found.scored, expected.scored);
        for (index, (name, ..)) in params.iter().enumerate() {
            let apart = distance(ours.get(index), right.get(index));
            assert!(apart < 1e-5, "{name}: {apart}");
        }
        if tied && documents {
            // The other programs have nothing that depends on what these two tell apart.
            continue;
        }
        let alone = xla.loss(&params, &batch, MASK, denominator).expect("xla");
        assert!((alone.loss / expected.loss - 1.0).abs() < 1e-6);
        let logits = xla.logits(&params, &batch.noised(), None).expect("xla");
        let right = cpu.logits(&params, &batch.noised(), None).expect("cpu");
        assert!(distance(&logits, &right) < 1e-5);
        let some = xla.logits(&params, &batch.noised(), Some(&[1, 0, 3])).expect("xla");
        let right = cpu.logits(&params, &batch.noised(), Some(&[1, 0, 3])).expect("cpu");
        assert!(distance(&some, &right) < 1e-5);
    }
}

/// bf16 has 8 bits of significand: a product's operands are off by up to 2^-9 each.
#[test]
fn products_in_bf16_give_loss_and_gradients_near_those_in_f32() {
    let config = config(true);
    let params = params(&config);
    let batch = batch(4, 24, true, 1);
    let of = |engine: &mut dyn Engine| {
        let mut grads = Grads::zeros(&params);
        let found =
            engine.loss_and_grads(&params, &batch, MASK, 96.0, &mut grads).expect("it runs");
        (found.loss, grads)
    };
    let (right, expected) = of(&mut CpuEngine::new(config.clone(), RecomputePolicy::None));
    let (loss, found) = of(&mut open(&config, one(), Compute::Bf16, 8));
    assert!((loss / right - 1.0).abs() < 2e-3, "{loss} {right}");
    for (index, (name, ..)) in params.iter().enumerate() {
        let apart = distance(found.get(index), expected.get(index));
        // Rounded, but not the same: products in f32 would be within 1e-5.
        assert!((1e-4..3e-2).contains(&apart), "{name}: {apart}");
    }
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

/// Losses and norms of some steps, and the parameters after them.
fn train(learner: &mut dyn Learner, passes: usize) -> (Vec<[f64; 2]>, Params, Optimizer) {
    let mut seen = Vec::new();
    for step in 0..4 {
        let batches: Vec<Batch> =
            (0..passes).map(|pass| batch(8 / passes, 24, true, step * 3 + pass)).collect();
        let input = StepInput { batches: &batches, mask_id: MASK, denominator: 192.0, lr: 3e-3 };
        let output = learner.step(&input).expect("a step");
        assert!(output.applied);
        assert_eq!(output.row_sums.len(), 8);
        seen.push([output.loss, output.norm]);
    }
    let (params, optimizer) = learner.state().expect("the state").expect("it is here");
    (seen, params.clone(), optimizer.clone())
}

#[test]
fn steps_are_those_of_the_cpu_engine_on_every_mesh() {
    for kind in ["adamw", "adafactor"] {
        let config = config(kind == "adamw");
        let of_optimizer = settings(kind);
        let start = params(&config);
        let fresh = || Optimizer::new(&of_optimizer, start.layout());
        let settings = LearnerSettings { grad_clip: Some(1.0), bf16_weights: false };
        let meshes = [
            (2, MeshShape { fsdp: 2, ..one() }),
            (1, MeshShape { data: 2, tensor: 2, ..one() }),
            (1, MeshShape { fsdp: 4, ..one() }),
            (1, one()),
        ];
        // Compiling is what takes the time, and no optimizer has a mesh of its own kind: each goes over two.
        let meshes = if kind == "adafactor" { &meshes[..2] } else { &meshes[2..] };
        for &(passes, mesh) in meshes {
            let cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
            let rows = 8 / passes;
            let mut host = HostLearner::new(cpu, start.clone(), fresh(), settings, rows);
            let (expected, right, state) = train(&mut host, passes);
            let engine = open(&config, mesh, Compute::F32, 8);
            let mut learner =
                XlaLearner::new(engine, start.clone(), fresh(), &of_optimizer, settings, rows)
                    .expect("a learner");
            let (found, ours, own_state) = train(&mut learner, passes);
            for ([loss, norm], [right_loss, right_norm]) in found.iter().zip(&expected) {
                assert!(
                    (loss / right_loss - 1.0).abs() < 1e-5,
                    "{kind} {mesh:?}: {found:?} {expected:?}"
                );
                assert!(
                    (norm / right_norm - 1.0).abs() < 1e-4,
                    "{kind} {mesh:?}: {found:?} {expected:?}"
                );
            }
            for ((name, _, ours), (_, _, right)) in ours.iter().zip(right.iter()) {
                assert!(distance(ours, right) < 2e-4, "{kind} {mesh:?} {name}");
            }
            assert_eq!(own_state.steps(), 4);
            for (ours, right) in own_state.state().iter().zip(state.state()) {
                assert_eq!(ours.name, right.name);
                assert!(
                    distance(ours.values, right.values) < 2e-3,
                    "{kind} {mesh:?} {}",
                    ours.name
                );
            }
        }
    }
}

#[test]
fn bf16_weights_take_the_steps_of_the_cpu_engine() {
    let config = config(false);
    let of_optimizer = settings("adafactor");
    // Not representable: both engines have to round them before the first step.
    let start = params(&config);
    let fresh = || Optimizer::new(&of_optimizer, start.layout());
    let settings = LearnerSettings { grad_clip: Some(1.0), bf16_weights: true };
    let cpu = CpuEngine::new(config.clone(), RecomputePolicy::None);
    let mut host = HostLearner::new(cpu, start.clone(), fresh(), settings, 8);
    let (expected, right, _) = train(&mut host, 1);
    let engine = open(&config, MeshShape { fsdp: 2, ..one() }, Compute::F32, 8);
    let mut learner = XlaLearner::new(engine, start.clone(), fresh(), &of_optimizer, settings, 8)
        .expect("a learner");
    let held = batch(8, 24, true, 50);
    let before = learner.loss(&held, MASK, 192.0).expect("a loss").loss;
    let (found, ours, _) = train(&mut learner, 1);
    assert!(learner.loss(&held, MASK, 192.0).expect("a loss").loss < before);
    for ([loss, norm], [right_loss, right_norm]) in found.iter().zip(&expected) {
        // The first step is the same to rounding; then values that fall on either side of a tie part.
        assert!((loss / right_loss - 1.0).abs() < 1e-4, "{found:?} {expected:?}");
        assert!((norm / right_norm - 1.0).abs() < 1e-2, "{found:?} {expected:?}");
    }
    assert!((found[0][0] / expected[0][0] - 1.0).abs() < 1e-6, "{found:?} {expected:?}");
    for ((name, _, ours), (_, _, right)) in ours.iter().zip(right.iter()) {
        assert!(distance(ours, right) < 5e-3, "{name}: {}", distance(ours, right));
        let rounded = |v: &f32| half::bf16::from_f32(*v).to_f32().to_bits() == v.to_bits();
        assert!(ours.iter().all(rounded), "{name} is bf16");
    }
}
