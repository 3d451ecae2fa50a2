//! The frozen fixtures of `tests/judges`: what `PyTorch` (f64) and `transformers` made of small
//! models and optimizers, replayed without them.

use coda_trainer::{
    checkpoint::{HfWeights, SafetensorsFile},
    engine::{Batch, CpuEngine, Engine},
    model::{Grads, RecomputePolicy},
    optim::{
        AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings, TensorShape, clip_scale,
        global_norm, scale,
    },
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Relative L2: the goals of f32 against f64.
const LOSS: f64 = 1e-6;
const GRADIENT: f64 = 1e-5;
const PARAMETER: f64 = 1e-6;

fn frozen(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/frozen").join(name)
}

/// The L2 norm of the difference over that of what is right.
fn distance(found: &[f32], right: &[f32]) -> f64 {
    assert_eq!(found.len(), right.len());
    let square = |v: f64| v * v;
    let apart: f64 =
        found.iter().zip(right).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = right.iter().map(|&b| square(f64::from(b))).sum();
    (apart / size).sqrt()
}

fn batch(file: &mut SafetensorsFile) -> Batch {
    let shape = file.tensors()["input_ids"].shape.clone();
    let segments = file.tensors().contains_key("segment_ids");
    Batch {
        rows: shape[0],
        len: shape[1],
        input_ids: file.read_ids("input_ids").expect("ids"),
        noised_ids: file.read_ids("noised_ids").expect("ids"),
        sigma: file.read_f32("sigma").expect("sigma").into_iter().map(f64::from).collect(),
        segment_ids: segments.then(|| file.read_ids("segment_ids").expect("ids")),
    }
}

#[test]
fn loss_logits_and_gradients_are_pytorchs() {
    for case in ["untied-documents", "tied"] {
        let folder = frozen("gradients").join(case);
        let (config, params) = HfWeights::open(&folder).expect("a model").read().expect("weights");
        let open = |name: &str| SafetensorsFile::open(&folder.join(name)).expect("a file");
        let batch = batch(&mut open("batch.safetensors"));
        let right = open("expected.safetensors");
        let mask = config.mask_token_id.expect("a mask id");
        for policy in [RecomputePolicy::None, RecomputePolicy::Layer] {
            let mut engine = CpuEngine::new(config.clone(), policy);
            let mut grads = Grads::zeros(&params);
            let denominator = (batch.rows * batch.len) as f64;
            let output = engine
                .loss_and_grads(&params, &batch, mask, denominator, &mut grads)
                .expect("the batch fits");
            let loss = f64::from(right.read_f32("loss").expect("loss")[0]);
            // The fixture's own loss is rounded to f32.
            assert!((output.loss - loss).abs() <= LOSS * loss, "{case}: {} {loss}", output.loss);
            for (index, (name, _, _)) in params.iter().enumerate() {
                let wanted = right.read_f32(&format!("grad.{name}")).expect("a gradient");
                let error = distance(grads.get(index), &wanted);
                assert!(error <= GRADIENT, "{case}: gradient of {name} is off by {error:.1e}");
            }
            let logits = engine.logits(&params, &batch.noised(), None).expect("logits");
            let shape = right.tensors()["logits"].shape.clone();
            let wanted = right.read_f32("logits").expect("logits");
            let last = shape[1] * shape[2];
            for (row, wanted) in
                logits.chunks_exact(batch.len * config.vocab_size).zip(wanted.chunks_exact(last))
            {
                let error = distance(&row[row.len() - last..], wanted);
                assert!(error <= GRADIENT, "{case}: logits are off by {error:.1e}");
            }
        }
    }
}

fn settings(value: &Value) -> OptimizerSettings {
    let number = |key: &str| value[key].as_f64().expect("a number");
    match value["kind"].as_str() {
        Some("adafactor") => OptimizerSettings::Adafactor(AdafactorSettings::default()),
        Some("adamw") => OptimizerSettings::AdamW(AdamWSettings {
            beta1: value["betas"][0].as_f64().expect("beta1"),
            beta2: value["betas"][1].as_f64().expect("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
        }),
        other => panic!("no optimizer {other:?}"),
    }
}

#[test]
fn ten_steps_of_either_optimizer_are_the_judges() {
    for name in ["adafactor", "adamw"] {
        let text = fs::read(frozen("optimizers").join(format!("{name}.json"))).expect("a file");
        let given: Value = serde_json::from_slice(&text).expect("JSON");
        let file = frozen("optimizers").join(format!("{name}.safetensors"));
        let file = SafetensorsFile::open(&file).expect("a file");
        let shapes: Vec<TensorShape> = file
            .tensors()
            .iter()
            .filter_map(|(name, info)| {
                let name = name.strip_prefix("start.")?.to_owned();
                Some(TensorShape { name, shape: info.shape.clone() })
            })
            .collect();
        assert_eq!(shapes.len(), 3);
        let read = |prefix: &str| -> Vec<Vec<f32>> {
            let one = |shape: &TensorShape| file.read_f32(&format!("{prefix}.{}", shape.name));
            shapes.iter().map(one).collect::<Result<_, _>>().expect("tensors")
        };
        let mut params = read("start");
        let mut optimizer = Optimizer::new(&settings(&given["optimizer"]), &shapes);
        let limit = given["clip"].as_f64().expect("a limit");
        let mut clipped = 0;
        for step in 0..10 {
            let mut grads = read(&format!("{step}.gradient"));
            let mut grads: Vec<&mut [f32]> = grads.iter_mut().map(Vec::as_mut_slice).collect();
            let norm = global_norm(&grads.iter().map(|g| &**g).collect::<Vec<_>>());
            let right = given["norms"][step].as_f64().expect("a norm");
            assert!((norm - right).abs() <= 1e-12 * right, "{name}, step {step}: norm {norm}");
            if let Some(factor) = clip_scale(norm, limit) {
                scale(&mut grads, factor);
                clipped += 1;
            }
            let grads: Vec<&[f32]> = grads.iter().map(|g| &**g).collect();
            let mut slices: Vec<&mut [f32]> = params.iter_mut().map(Vec::as_mut_slice).collect();
            let rate = given["rates"][step].as_f64().expect("a rate");
            optimizer.step(rate, &mut slices, &grads);
            for ((found, right), shape) in
                params.iter().zip(read(&format!("{step}.after"))).zip(&shapes)
            {
                let error = distance(found, &right);
                assert!(error <= PARAMETER, "{name}, step {step}, {}: {error:.1e}", shape.name);
            }
        }
        assert!((1..10).contains(&clipped), "some steps are clipped, some are not");
        let moved = distance(&params[0], &read("start")[0]);
        assert!(moved > 1e-3, "the parameters moved only by {moved:.1e}");
    }
}
