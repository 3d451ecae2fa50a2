//! Whole runs on `--engine xla` with the CPU plugin, beside the same runs on `--engine cpu`.

mod common;

use coda_pjrt::{PluginKind, discover};
use common::{World, read_json};
use serde_json::Value;

fn xla<'a>(plugin: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--engine", "xla", "--plugin", plugin], more].concat()
}

fn plugin() -> String {
    let found = discover(None, PluginKind::Cpu).expect("the CPU plugin: `cargo xtask plugin`");
    found.to_str().expect("a plain path").to_owned()
}

/// Losses, norms and held-out losses of every step.
fn curve(world: &World, out: &str) -> Vec<[Option<f64>; 3]> {
    let number = |line: &Value, key: &str| line[key].as_f64();
    let line = |line: &Value| ["loss", "grad_norm", "held_out_loss"].map(|key| number(line, key));
    world.metrics(out).iter().map(line).collect()
}

fn assert_same(ours: &[[Option<f64>; 3]], right: &[[Option<f64>; 3]]) {
    assert_eq!(ours.len(), right.len());
    for (step, (ours, right)) in ours.iter().zip(right).enumerate() {
        for (ours, right) in ours.iter().zip(right) {
            assert_eq!(ours.is_some(), right.is_some(), "step {step}");
            let (ours, right) = (ours.unwrap_or(1.0), right.unwrap_or(1.0));
            assert!((ours / right - 1.0).abs() < 1e-4, "step {step}: {ours} {right}");
        }
    }
}

#[test]
fn a_run_gives_the_losses_of_the_cpu_engine_and_resumes_bit_by_bit() {
    let (world, plugin) = (World::new(), plugin());
    // The hold waits until the fourth evaluation after the first: no last digit of a loss decides that.
    let keys = [
        "train.document_attention=true",
        "train.eval.every=2",
        "curriculum.p3={phases: [0.2, 0.9], hold: {on: s3, patience: 4, min_delta: 50, max_hold: 9}}",
    ];
    world.train("cpu", &keys);
    let summary = world.train("xla", &xla(&plugin, &keys));
    assert_eq!(summary["step"], 12);
    assert_same(&curve(&world, "xla"), &curve(&world, "cpu"));
    let run = read_json(&world.path("xla/run.json"));
    assert_eq!(run["engine"], "xla");

    let clocks = |out: &str| -> Vec<u64> {
        let lines = world.metrics(out);
        lines.iter().filter_map(|line| line["holds"]["p3"]["clock"].as_u64()).collect()
    };
    assert_eq!(clocks("xla"), clocks("cpu"));
    assert_eq!(clocks("xla"), [0, 2, 4, 5, 6, 8, 10], "two steps of waiting before the phase at 6");

    // In the middle of the wait.
    world.train("cut", &xla(&plugin, &[&["--stop-after", "7"], &keys[..]].concat()));
    world.train("cut", &xla(&plugin, &keys));
    assert_eq!(world.metrics("cut"), world.metrics("xla"), "every bit of every loss");
    assert!(world.state("cut", 12) == world.state("xla", 12));
}

#[test]
fn checkpoints_pass_between_engines_and_meshes() {
    let (world, plugin) = (World::new(), plugin());
    world.train("cpu", &[]);
    let right = curve(&world, "cpu");
    // Four steps each: CPU engine, two devices, one device with the batch in two passes
    // (and as many held-out rows, which are counted in passes).
    world.train("mixed", &["--stop-after", "4"]);
    world.train("mixed", &xla(&plugin, &["--mesh", "fsdp=2", "--stop-after", "8"]));
    world.train("mixed", &xla(&plugin, &["train.micro_batch=3", "train.eval.batches=4"]));
    assert_same(&curve(&world, "mixed"), &right);
    // And back to the CPU engine.
    world.train("back", &xla(&plugin, &["--mesh", "data=3", "--stop-after", "6"]));
    world.train("back", &[]);
    assert_same(&curve(&world, "back"), &right);
}

#[test]
fn a_loss_that_is_no_number_changes_nothing() {
    let (world, plugin) = (World::new(), plugin());
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];
    let more = ["train.lr.peak=1e38", "train.lr.schedule=constant", "train.lr.warmup_steps=0"];
    let error = world.fails(&[&run[..], &xla(&plugin, &more)].concat(), 1);
    assert!(error.contains("at step ") && error.contains("rows ["), "{error}");
    assert!(!world.path("run/final").exists());
}

#[test]
fn what_does_not_fit_is_refused_with_a_hint() {
    let (world, plugin) = (World::new(), plugin());
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];
    let refused = |more: &[&str], code| world.fails(&[&run[..], more].concat(), code);
    let error = refused(&xla(&plugin, &["--mesh", "fsdp=4"]), 1);
    assert!(error.contains("train.global_batch is 6") && error.contains("hint:"), "{error}");
    let error = refused(&xla(&plugin, &["--mesh", "tensor=2"]), 2);
    assert!(error.contains("tensor=2 does not divide the 1 key"), "{error}");
    let error = refused(&["--engine", "xla", "--plugin", "nowhere.so"], 2);
    assert!(error.contains("nowhere.so") && error.contains("hint:"), "{error}");
    let error = refused(&["--engine", "xla", "--plugin", "tiny.yaml"], 4);
    assert!(error.contains("tiny.yaml"), "{error}");
    let error = refused(&["--mesh", "fsdp=2"], 2);
    assert!(error.contains("--engine xla"), "{error}");
}

#[test]
fn a_model_is_evaluated_and_sampled_as_on_the_cpu() {
    let (world, plugin) = (World::new(), plugin());
    world.train("run", &[]);
    let json = |args: &[&str]| -> Value {
        let output = world.command(args).assert().success().get_output().stdout.clone();
        serde_json::from_slice(&output).expect("JSON")
    };
    let eval = ["eval", "--manifest", "tiny.yaml", "--checkpoint", "run", "--json"];
    let (cpu, ours) = (json(&eval), json(&[&eval[..], &xla(&plugin, &[])].concat()));
    let loss = |value: &Value| value["held_out_loss"].as_f64().expect("a loss");
    assert!((loss(&ours) / loss(&cpu) - 1.0).abs() < 1e-5, "{ours} {cpu}");
    let sample = [
        "sample",
        "--checkpoint",
        "run",
        "--prompt",
        "t1 t2 t3",
        "--max-new-tokens",
        "9",
        "--temperature",
        "0",
        "--json",
        "--quiet",
    ];
    let (cpu, ours) = (json(&sample), json(&[&sample[..], &xla(&plugin, &[])].concat()));
    assert_eq!(ours["tokens"], cpu["tokens"]);
}
