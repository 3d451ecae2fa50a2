//! Whole runs on `--engine cuda` with the emulator in place of a card, beside the same runs on
//! `--engine cpu`, and what is said where there is no card.

mod common;

use assert_cmd::Command;
use coda_cuda_emulator::Deed;
use common::{World, read_json};
use serde_json::Value;
use std::time::Duration;

/// A shape that the kernels are made for, and a learning rate at which runs that differ by rounding
/// stay together.
const SHAPE: [&str; 5] = [
    "model.head_dim=64",
    "model.vocab_size=48",
    "model.hidden_size=32",
    "train.steps=8",
    "train.lr.peak=0.001",
];

fn emulated(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command
        .env(coda_cuda_emulator::LIBRARIES, coda_cuda_emulator::folder())
        .env("CODA_CUDA_CACHE", world.path("kernels"));
    command
}

/// As on a machine without a card, also where one is.
fn without_card(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env_remove(coda_cuda_emulator::LIBRARIES).env("CUDA_VISIBLE_DEVICES", "-1");
    command
}

/// What is said where there is no driver, or one without a card.
fn names_what_is_missing(error: &str) -> bool {
    ["libcuda.so.1 is not on this machine", "the NVIDIA driver sees no card"]
        .iter()
        .any(|said| error.contains(said))
}

fn train(world: &World, out: &str, more: &[&str]) -> Value {
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--json", "--out", out];
    let args = [&run[..], &["--engine", "cuda"], &SHAPE, more].concat();
    let output = emulated(world, &args).assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("a JSON object")
}

fn losses(world: &World, out: &str) -> Vec<f64> {
    world.metrics(out).iter().filter_map(|line| line["loss"].as_f64()).collect()
}

/// The first step begins with the same weights; what bf16 rounds there grows with every step after it.
fn assert_close(ours: &[f64], right: &[f64]) {
    assert_eq!(ours.len(), right.len());
    for (step, (one, other)) in ours.iter().zip(right).enumerate() {
        let allowed = if step == 0 { 1e-3 } else { 2e-2 };
        assert!((one / other - 1.0).abs() < allowed, "step {step}: {ours:?} {right:?}");
    }
}

#[test]
fn a_run_gives_the_losses_of_the_cpu_engine_and_resumes_bit_by_bit() {
    let world = World::new();
    let keys = ["train.document_attention=true"];
    world.train("cpu", &[&SHAPE[..], &keys].concat());
    let summary = train(&world, "cuda", &keys);
    assert_eq!(summary["step"], 8);
    assert_close(&losses(&world, "cuda"), &losses(&world, "cpu"));
    assert_eq!(read_json(&world.path("cuda/run.json"))["engine"], "cuda");

    train(&world, "cut", &["--stop-after", "3", keys[0]]);
    train(&world, "cut", &keys);
    assert_eq!(world.metrics("cut"), world.metrics("cuda"), "every bit of every loss");
    assert!(world.state("cut", 8) == world.state("cuda", 8));
}

#[test]
fn kernels_that_were_kept_and_cannot_be_loaded_are_compiled_anew() {
    let world = World::new();
    train(&world, "first", &["train.steps=1"]);
    let kept = std::fs::read_dir(world.path("kernels")).expect("kept kernels");
    let kept: Vec<_> = kept.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!kept.is_empty());
    for path in &kept {
        std::fs::write(path, "/nowhere/kernels.so\0").expect("written");
    }
    train(&world, "second", &["train.steps=1"]);
    assert_eq!(losses(&world, "first"), losses(&world, "second"));
}

#[test]
fn checkpoints_pass_between_engines() {
    let world = World::new();
    world.train("cpu", &SHAPE);
    world.train("mixed", &[&SHAPE[..], &["--stop-after", "3"]].concat());
    train(&world, "mixed", &["--stop-after", "6"]);
    world.train("mixed", &SHAPE);
    assert_close(&losses(&world, "mixed"), &losses(&world, "cpu"));
}

#[test]
fn runs_in_ranks_give_the_same_files_whatever_their_number() {
    let world = World::new();
    let run = |out: &str, ranks: &str, more: &[&str]| {
        let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--json", "--out", out];
        let keys = ["--engine", "cuda", "--ranks", ranks, "train.micro_batch=1", "train.steps=4"];
        let mut command = emulated(&world, &[&run[..], &SHAPE, &keys, more].concat());
        command.env(coda_cuda_emulator::CARDS, "4");
        command
    };
    run("one", "1", &[]).assert().success();
    run("four", "4", &[]).assert().success();
    assert_eq!(world.metrics("four"), world.metrics("one"), "every bit of every loss");
    assert!(world.state("four", 4) == world.state("one", 4));
    // Stopped, and on with another number.
    run("cut", "4", &["--stop-after", "2"]).assert().success();
    run("cut", "2", &[]).assert().success();
    assert!(world.state("cut", 4) == world.state("one", 4));
    assert_eq!(read_json(&world.path("cut/run.json"))["ranks"], 2);
    // More ranks than cards: before the run's folder is touched.
    let mut command = run("many", "4", &[]);
    command.env(coda_cuda_emulator::CARDS, "2");
    let assert = command.assert().code(2);
    let error = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(error.contains("2 cards for 4 ranks") && error.contains("lower --ranks"), "{error}");
    assert!(!world.path("many").exists());
}

#[test]
fn a_card_that_fails_in_an_exchange_ends_the_run_which_then_goes_on_to_the_same_bits() {
    let world = World::new();
    let run = |out: &str| {
        let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--json", "--out", out];
        let keys = ["--engine", "cuda", "--ranks", "4", "train.micro_batch=1"];
        let mut command = emulated(&world, &[&run[..], &SHAPE, &keys].concat());
        command.env(coda_cuda_emulator::CARDS, "4").timeout(Duration::from_mins(2));
        command
    };
    run("whole").assert().success();
    // Four ranks exchange four times a step: twice for the sums, twice for the weights.
    let of_step_six = 5 * 4 + 3;
    let mut command = run("cut");
    command.env(coda_cuda_emulator::BREAK, format!("2,{},{of_step_six}", Deed::Group as u8));
    let assert = command.assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(error.contains("rank 2: ncclGroupEnd failed: ncclSystemError"), "{error}");
    let steps = |out: &str| losses(&world, out).len();
    assert_eq!(steps("cut"), 5, "the sixth was not finished by any rank");
    run("cut").assert().success();
    assert_eq!(world.metrics("cut"), world.metrics("whole"));
    assert!(world.state("cut", 8) == world.state("whole", 8));
}

#[test]
fn auto_takes_a_card_that_is_there() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "auto"];
    let args = [&run[..], &SHAPE, &["train.steps=1"]].concat();
    let assert = emulated(&world, &args).assert().success();
    let error = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(error.contains("engine: cuda (emulated card)"), "{error}");
    let assert = without_card(&world, &args).assert();
    let error = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(error.contains("engine: cpu (") && names_what_is_missing(&error), "{error}");
}

#[test]
fn auto_takes_the_cpu_where_the_card_has_no_kernels_for_the_model() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "train.steps=2"];
    let told = |args: &[&str]| {
        let assert = emulated(&world, args).assert().success();
        let error = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
        let lines: Vec<_> = error.lines().filter(|line| line.starts_with("engine: ")).collect();
        let why = "engine: cpu (the cuda engine cannot run this model: vocab_size is 44;";
        assert!(lines.len() == 1 && lines[0].starts_with(why), "{error}");
    };
    told(&[&run[..], &["--out", "auto"]].concat());
    assert_eq!(read_json(&world.path("auto/run.json"))["engine"], "cpu");
    world.train("cpu", &["train.steps=2", "--engine", "cpu"]);
    assert!(world.state("auto", 2) == world.state("cpu", 2));
    // There are no two cards, and none is needed.
    let ranks = ["--out", "ranks", "--ranks", "2", "train.micro_batch=1"];
    told(&[&run[..], &ranks].concat());
    told(&["sample", "--checkpoint", "cpu", "--prefix", "t1 t2", "--span", "2"]);
}

#[test]
fn what_a_card_cannot_do_is_told_in_one_line() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--engine", "cuda"];
    let refused = |command: &mut Command, code: i32| {
        let assert = command.assert().code(code);
        String::from_utf8(assert.get_output().stderr.clone()).expect("text")
    };
    // No card: before the run's folder is touched.
    let args = [&run[..], &["--out", "none"], &SHAPE].concat();
    let error = refused(&mut without_card(&world, &args), 2);
    let lines: Vec<&str> = error.lines().collect();
    assert!(names_what_is_missing(lines[0]), "{error}");
    assert!(lines[1].starts_with("hint: ") && lines.len() == 2, "{error}");
    assert!(!world.path("none").exists());
    // A shape without kernels.
    let error = refused(&mut emulated(&world, &[&run[..], &["--out", "a"]].concat()), 2);
    assert!(error.contains("cannot run this model"), "{error}");
    // A card that is full.
    let mut command = emulated(&world, &[&run[..], &["--out", "b"], &SHAPE].concat());
    command.env(coda_cuda_emulator::MEMORY, "33600000");
    let error = refused(&mut command, 4);
    assert!(error.contains("no room") && error.contains("train.micro_batch"), "{error}");
    // Options of another engine.
    let more = ["--out", "c", "--mesh", "fsdp=2"];
    let error = refused(&mut emulated(&world, &[&run[..], &more].concat()), 2);
    assert!(error.contains("options of the XLA engine"), "{error}");
}
