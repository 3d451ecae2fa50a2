//! Training runs of the real binary: resume, signals, crashes, refusals.

mod common;

use common::{World, read_json};
use serde_json::json;
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let world = World::new();
    world.train("whole", &[]);
    let (metrics, state) = (world.metrics("whole"), world.state("whole", 12));
    assert_eq!(metrics.len(), 13);
    // An epoch ends within the run.
    assert_eq!(metrics[1]["epoch"], json!(0));
    assert!(metrics[12]["epoch"].as_u64() > Some(0), "{}", metrics[12]);
    for stop in 1..12 {
        let out = format!("halves-{stop}");
        let first = world.train(&out, &["--stop-after", &stop.to_string()]);
        assert_eq!(first["step"], json!(stop));
        let second = world.train(&out, &[]);
        assert!(second["resumed_from"].as_str().expect("resumed").contains("step-"), "{second}");
        assert_eq!(world.metrics(&out), metrics, "stopped after {stop}");
        assert!(world.state(&out, 12) == state, "stopped after {stop}");
    }
    // Twice, with the second optimizer of the method.
    let adamw = ["train.optimizer.kind=adamw", "train.document_attention=true"];
    world.train("adamw", &adamw);
    for stop in ["3", "7"] {
        world.train("adamw-thirds", &[&["--stop-after", stop][..], &adamw].concat());
    }
    world.train("adamw-thirds", &adamw);
    assert_eq!(world.metrics("adamw-thirds"), world.metrics("adamw"));
    assert!(world.state("adamw-thirds", 12) == world.state("adamw", 12));
}

#[test]
fn masks_cannot_follow_spans_that_the_rows_do_not_have() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];
    let over = ["data.spans=lines", "curriculum.mask_blocks=lines"];
    let told = world.fails(&[&run[..], &over].concat(), 4);
    for part in ["curriculum.mask_blocks", "follow lines", "hint: set `data.spans: lines`"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_finished_run_is_not_run_again() {
    let world = World::new();
    let first = world.train("run", &[]);
    let again = world.train("run", &[]);
    assert_eq!(again["step"], 12);
    assert_eq!(again["held_out_last"], first["held_out_last"]);
    assert_eq!(again["checkpoint"], again["resumed_from"]);
    assert_eq!(first["resumed_from"], json!(null));
    for name in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"] {
        assert!(world.path("run/final").join(name).is_file(), "{name}");
    }
    let kept: Vec<String> = fs::read_dir(world.path("run/checkpoints"))
        .expect("read")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(kept.iter().filter(|name| name.starts_with("step-")).count(), 2, "{kept:?}");
    assert!(kept.iter().all(|name| !name.starts_with('.')), "{kept:?}");
}

#[test]
fn the_loss_falls() {
    let world = World::new();
    let summary = world.train("run", &["--steps", "150", "curriculum.p1=0", "curriculum.p2=0"]);
    let number = |key: &str| summary[key].as_f64().expect("a number");
    assert!(number("held_out_last") < 0.8 * number("held_out_first"), "{summary}");
    assert_eq!(summary["tokens"], json!(150 * 6 * 24));
}

#[test]
fn the_split_into_micro_batches_changes_no_row_and_no_mask() {
    let world = World::new();
    world.train("whole", &["train.micro_batch=6"]);
    let whole = world.metrics("whole");
    for size in ["1", "2", "3"] {
        let out = format!("split-{size}");
        world.train(&out, &[&format!("train.micro_batch={size}")]);
        let split = world.metrics(&out);
        let loss = |line: &serde_json::Value| line["loss"].as_f64().expect("a loss");
        // The first loss differs only in how the engine groups its products; later ones also see
        // gradients that were added in another order.
        assert!((loss(&split[1]) - loss(&whole[1])).abs() <= 1e-6 * loss(&whole[1]));
        for (split, whole) in split.iter().zip(&whole).skip(1) {
            assert_eq!(split["observed"], whole["observed"]);
            assert_eq!(split["scored"], whole["scored"]);
            assert!((loss(split) - loss(whole)).abs() < 1e-3 * loss(whole));
        }
    }
}

#[test]
fn sigterm_saves_and_a_killed_run_goes_on() {
    let world = World::new();
    let more = ["--steps", "400", "train.checkpoint.every=7", "train.eval.every=0"];
    world.train("whole", &more);
    let (metrics, state) = (world.metrics("whole"), world.state("whole", 400));
    for (signal, code, delays) in [
        ("-TERM", Some(143), vec![60, 150]),
        ("-INT", Some(130), vec![90]),
        ("-KILL", None, vec![20, 70, 110, 160]),
    ] {
        let out = format!("run{signal}");
        for delay in delays {
            let mut child = Command::new(env!("CARGO_BIN_EXE_coda-trainer"))
                .current_dir(world.dir.path())
                .args(["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", &out])
                .args(more)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("spawn");
            // The clock starts when the handlers are surely there: with the first metrics.
            let metrics = world.path(&out).join("metrics.jsonl");
            let started = Instant::now();
            while !metrics.exists() && started.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(delay));
            let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
            assert!(kill.expect("kill").success() || child.try_wait().expect("wait").is_some());
            let status = child.wait().expect("wait");
            // A run that was done before the signal came leaves with 0.
            assert!(status.code() == code || status.success(), "{signal}: {status:?}");
        }
        world.train(&out, &more);
        assert_eq!(world.metrics(&out), metrics, "{signal}");
        assert!(world.state(&out, 400) == state, "{signal}");
    }
}

const RUN: [&str; 7] = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];

#[test]
fn another_recipe_is_refused_by_name_and_can_be_begun_anew() {
    let world = World::new();
    world.train("run", &["--stop-after", "4"]);
    let error = world.fails(&[&RUN[..], &["train.lr.peak=0.02"]].concat(), 4);
    assert!(error.contains("recipe.lr.peak is 0.02, was 0.01"), "{error}");
    assert!(error.contains("hint:") && error.contains("--resume never"), "{error}");
    let summary = world.train("run", &["--resume", "never", "train.lr.peak=0.02"]);
    assert_eq!(summary["step"], 12);
    assert!(world.path("run/before-1/checkpoints/step-000004").is_dir(), "nothing is lost");
    // What changes only speed or bookkeeping does not count as another run.
    world.train("run", &["train.lr.peak=0.02", "train.eval.every=3", "train.engine=cpu"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_aloud() {
    let world = World::new();
    world.train("whole", &[]);
    world.train("run", &["--stop-after", "8"]);
    let model = world.path("run/checkpoints/step-000008/model.safetensors");
    let mut bytes = fs::read(&model).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&model, &bytes).expect("write");
    let assert = world.command(&RUN).assert().success();
    let error = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(error.contains("warning: passing over a damaged checkpoint"), "{error}");
    assert!(error.contains("step-000004"), "{error}");
    assert!(world.state("run", 12) == world.state("whole", 12));

    // When none is whole, nothing begins anew in silence.
    world.train("other", &["--stop-after", "3"]);
    fs::remove_file(world.path("other/checkpoints/step-000003/run.json")).expect("remove");
    let error =
        world.fails(&["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "other"], 4);
    assert!(error.contains("run.json is missing"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_saves_nothing_bad() {
    let world = World::new();
    let more = ["train.lr.peak=1e38", "train.lr.schedule=constant", "train.lr.warmup_steps=0"];
    let error = world.fails(&[&RUN[..], &more].concat(), 1);
    assert!(error.contains("at step ") && error.contains("rows ["), "{error}");
    assert!(!world.path("run/final").exists());
    for line in world.metrics("run") {
        assert!(!line["loss"].is_null() || line["step"] == 0, "{line}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_a_hint() {
    let world = World::new();
    let error = world.fails(&[&RUN[..], &["--engine", "cuda"]].concat(), 2);
    assert!(error.contains("libcuda.so.1 is not on this machine"), "{error}");
    let refused = |more: &[&str], code| world.fails(&[&RUN[..], more].concat(), code);
    assert!(refused(&["train.stepz=3"], 2).contains("steps"));
    assert!(refused(&["model.vocab_size=42"], 4).contains("id 42"));
    assert!(refused(&["data.row_length=25"], 4).contains("data.row_length is 25"));
    assert!(refused(&["--init", "nowhere"], 4).contains("nowhere is not a checkpoint"));
    world.train("small", &[]);
    let error = refused(&["--init", "small", "model.hidden_size=32"], 4);
    assert!(error.contains("hidden_size is 16, the manifest says 32"), "{error}");
    let wrong = world.fails(&["--stage", "post", "--manifest", "tiny.yaml"], 2);
    assert!(wrong.contains("a manifest for stage pre"), "{wrong}");
}

#[test]
fn a_stage_begins_with_the_weights_of_another() {
    let world = World::new();
    world.train("first", &[]);
    let second = world.train("second", &["--init", "first", "--steps", "2"]);
    let first = world.metrics("first");
    assert_eq!(world.metrics("second")[0]["held_out_loss"], first[12]["held_out_loss"]);
    assert_eq!(second["held_out_first"], first[12]["held_out_loss"]);
    let run = read_json(&world.path("second/run.json"));
    assert_eq!(run["recipe"]["total_steps"], 2);
    assert_eq!(run["engine"], "cpu");
}
