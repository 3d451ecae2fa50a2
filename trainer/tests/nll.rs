//! The likelihood bound of held-out rows against plain arithmetic in f64.

mod common;

use coda_curriculum::{Context, RowView, Settings, SyntaxSpans, plan_row_at};
use coda_manifests::{MaskBlocks, Profile};
use coda_shards::ShardSet;
use coda_trainer::{
    checkpoint::HfWeights,
    engine::{CpuEngine, Engine as _, Ids},
    model::RecomputePolicy,
};
use common::{MASK, World};
use serde_json::Value;

const LEVELS: u32 = 5;
const EPS: f64 = 1e-3;

fn measured(world: &World, more: &[&str]) -> Value {
    let args = ["eval", "--manifest", "tiny.yaml", "--checkpoint", "run/final", "--nll", "--json"];
    let output = world.command(&[&args, more].concat()).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("one JSON object")
}

fn settings(under: &str) -> Settings {
    let on = |name: &str| f64::from(u8::from(under == name));
    Settings {
        p1: on("s1"),
        p2: on("s2"),
        p3: on("s3"),
        block_sizes: vec![4, 8, 16, 32],
        mask_blocks: MaskBlocks::Tokens,
        sampling_eps: EPS,
        span_ratio: 1.0,
    }
}

/// `-ln softmax(logits)[target]`.
fn cross_entropy(logits: &[f32], target: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    sum.ln() - f64::from(logits[target as usize] - most)
}

#[test]
fn the_bound_is_the_mean_over_strata_of_weighted_cross_entropies() {
    let world = World::new();
    world.train("run", &["train.steps=6"]);
    let found = measured(&world, &["--levels", "5"]);
    let set = ShardSet::open(world.path("shards")).expect("the set");
    let (config, params) =
        HfWeights::open(&world.path("run/final")).expect("files").read().expect("a model");
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let held_out: Vec<u64> = set
        .source_ranges(0.2)
        .iter()
        .flat_map(|range| {
            range.first_row + range.rows - range.held_out_rows..range.first_row + range.rows
        })
        .collect();
    assert_eq!(found["rows"], held_out.len());
    let specials = set.specials();
    for under in ["plain", "s1", "s2", "s3"] {
        let context =
            Context { profile: Profile::CodaPaper, seed: 0x00C0_DA00, step: 0, score_pads: true };
        let (mut sums, mut tokens) = (vec![0.0; LEVELS as usize], 0);
        for &row in &held_out {
            let row = set.row(row).expect("a row");
            let view = RowView {
                length: u32::try_from(row.tokens.len()).expect("short"),
                row_key: row.row_key,
                epoch: 0,
                prefix_len: row.prefix_len,
                valid_len: row.valid_len,
                maskable_starts: row.maskable_starts,
                maskable_lens: row.maskable_lens,
                spans: SyntaxSpans::default(),
            };
            let all = if under == "s3" { "plain" } else { under };
            let all = plan_row_at(&settings(all), &context, &view, |_| 1.0);
            tokens += all.masked.iter().filter(|&&j| j > 0).count();
            for (level, sum) in sums.iter_mut().enumerate() {
                let at = |u: f64| EPS + (1.0 - EPS) * (level as f64 + u) / f64::from(LEVELS);
                let plan = plan_row_at(&settings(under), &context, &view, at);
                let mut clean = row.tokens.to_vec();
                clean[plan.valid_len as usize..].fill(specials.pad);
                let mut ids = clean.clone();
                plan.masked.iter().for_each(|&j| ids[j as usize] = MASK);
                // Pre-training attends inside documents: an end token belongs to the one that it ends.
                let segments: Vec<u32> = (0..clean.len())
                    .map(|j| clean[..j].iter().map(|&id| u32::from(id == specials.eos)).sum())
                    .collect();
                let segment_ids = Some(segments.as_slice());
                let input = Ids { rows: 1, len: ids.len(), ids: &ids, segment_ids };
                let logits = engine.logits(&params, &input, None).expect("logits");
                let width = logits.len() / ids.len();
                for &j in plan.masked.iter().filter(|&&j| j > 0) {
                    let j = j as usize;
                    let row = &logits[(j - 1) * width..j * width];
                    *sum += cross_entropy(row, clean[j]) / plan.sigma;
                }
            }
        }
        let expected = sums.iter().sum::<f64>() / f64::from(LEVELS) / tokens as f64;
        let of = &found["nll"][under];
        let value = of["nats_per_token"].as_f64().expect("a number");
        assert!((value / expected - 1.0).abs() < 1e-5, "{under}: {value} {expected}");
        assert_eq!(of["tokens"], tokens, "{under}");
        assert_eq!(of["bound"], under != "s3");
        let levels = of["levels"].as_array().expect("levels");
        assert_eq!(levels.len(), LEVELS as usize);
        for (level, sum) in levels.iter().zip(&sums) {
            let value = level["nats_per_token"].as_f64().expect("a number");
            assert!((value - sum / tokens as f64).abs() < 1e-4 * value.abs(), "{under}: {level}");
        }
    }
}

#[test]
fn it_is_the_same_every_time_and_strata_agree_with_more_strata() {
    let world = World::new();
    world.train("run", &["train.steps=6"]);
    let once = measured(&world, &["--levels", "3"]);
    assert_eq!(once["nll"], measured(&world, &["--levels", "3"])["nll"]);
    // The mean over many strata is the same expectation.
    let few = measured(&world, &["--levels", "16"])["nll"]["plain"]["nats_per_token"].as_f64();
    let many = measured(&world, &["--levels", "64"])["nll"]["plain"]["nats_per_token"].as_f64();
    let (few, many) = (few.expect("a number"), many.expect("a number"));
    assert!((few / many - 1.0).abs() < 0.1, "{few} {many}");
}

#[test]
fn a_run_measures_the_bound_at_every_evaluation() {
    let world = World::new();
    let keys = ["train.steps=6", "train.eval.every=3", "train.eval.batches=1000"];
    let asked = ["train.eval.nll_levels=5", "train.eval.by_strategy=true"];
    world.train("run", &[&keys[..], &asked].concat());
    let lines = world.metrics("run");
    let evaluated: Vec<&Value> = lines.iter().filter(|line| !line["nll"].is_null()).collect();
    let steps: Vec<_> = evaluated.iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, [0, 3, 6]);
    // The last one is what `eval --nll` finds of the finished model, to the bit.
    let found = measured(&world, &["--levels", "5"]);
    assert_eq!(evaluated[2]["nll"], found["nll"]);
    assert_eq!(found["nll"].as_object().map(serde_json::Map::len), Some(4));
    // Stopped and resumed, a run has the same lines; without strategies there is one bound.
    let stop = [&keys[..], &["train.eval.nll_levels=2"]].concat();
    world.train("whole", &stop);
    world.train("cut", &[&["--stop-after", "4"], &stop[..]].concat());
    world.train("cut", &stop);
    let bounds = |out: &str| -> Vec<Value> {
        world.metrics(out).into_iter().map(|line| line["nll"].clone()).collect()
    };
    assert_eq!(bounds("cut"), bounds("whole"));
    let last = bounds("whole").pop().expect("lines");
    assert_eq!(last.as_object().map(serde_json::Map::len), Some(1));
    // Measuring more or less is no other run.
    world.train("cut", &[&keys[..], &["train.steps=6"]].concat());
}
