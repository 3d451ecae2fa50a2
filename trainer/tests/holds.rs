//! Schedules that wait for a held-out loss, in runs of the real binary.

mod common;

use coda_curriculum::{HoldRule, HoldState};
use coda_manifests::{HeldOutLoss, Hold};
use common::World;
use serde_json::Value;

const HELD: [&str; 5] = [
    "--steps=60",
    "train.eval.every=2",
    "train.checkpoint.every=1000",
    "curriculum.p3={piecewise: [[0, 0.1], [10, 0.5], [20, 0.9]], \
     hold: {on: s3, patience: 5, min_delta: 0.001, max_hold: 12}}",
    "curriculum.block_sizes={phases: [[2], [4], [8]], hold: {on: s1, patience: 1, max_hold: 9}}",
];

fn loss(line: &Value, key: &str) -> Option<f64> {
    line[key].as_f64()
}

#[test]
fn a_run_that_waits_is_resumed_bit_for_bit() {
    let world = World::new();
    world.train("whole", &HELD);
    let (metrics, state) = (world.metrics("whole"), world.state("whole", 60));
    // Before, at, within and after a wait.
    let waits: Vec<u64> = metrics
        .iter()
        .filter(|line| line["holds"]["p3"]["held"].as_u64() > Some(0))
        .filter_map(|line| line["step"].as_u64())
        .collect();
    let first = *waits.first().expect("p3 waits");
    let clock = &metrics[60]["holds"]["p3"]["clock"];
    assert!(clock.as_u64() < Some(60), "the clock is late: {clock}");
    for stop in [first - 1, first, first + 1, first + 3, 35, 59] {
        let out = format!("halves-{stop}");
        world.train(&out, &[&HELD[..], &["--stop-after", &stop.to_string()]].concat());
        world.train(&out, &HELD);
        assert_eq!(world.metrics(&out), metrics, "stopped after {stop}");
        assert!(world.state(&out, 60) == state, "stopped after {stop}");
    }
    // It waited for something: without the hold other rows would have been masked in blocks.
    let shape = "curriculum.p3={piecewise: [[0, 0.1], [10, 0.5], [20, 0.9]]}";
    world.train("free", &[&HELD[..3], &[shape, HELD[4]]].concat());
    let during = usize::try_from(first).expect("a step") + 2;
    assert_ne!(world.metrics("free")[during]["expected"], metrics[during]["expected"]);
}

/// The recorded losses give the recorded states, by the rule alone.
#[test]
fn what_is_recorded_can_be_replayed() {
    let world = World::new();
    world.train("run", &HELD);
    let rules = [
        ("p3", "held_out_s3", vec![11], (HeldOutLoss::S3, 5, 0.001, 12)),
        ("block_sizes", "held_out_s1", vec![20, 40], (HeldOutLoss::S1, 1, 0.0, 9)),
    ];
    for (key, measured, gates, (on, patience, min_delta, max_hold)) in rules {
        let hold = Hold { on, patience, min_delta, max_hold };
        let rule = HoldRule { key: key.to_owned(), hold, gates };
        let mut state = HoldState::default();
        let mut evaluations = 0;
        for line in world.metrics("run") {
            if let Some(loss) = loss(&line, measured) {
                state = rule.observe(state, loss);
            }
            if line["step"] != 0 {
                state = rule.advance(state);
            }
            if line["holds"].is_object() {
                let recorded = serde_json::from_value(line["holds"][key].clone()).expect("a state");
                assert_eq!(state, recorded, "{key}: {line}");
                evaluations += 1;
            }
        }
        assert_eq!(evaluations, 31);
    }
}

#[test]
fn losses_by_strategy_are_measured_when_asked_for_and_change_nothing() {
    let world = World::new();
    world.train("plain", &[]);
    world.train("asked", &["train.eval.by_strategy=true"]);
    let (plain, mut asked) = (world.metrics("plain"), world.metrics("asked"));
    for (plain, asked) in plain.iter().zip(&mut asked) {
        let keys = ["held_out_s1", "held_out_s2", "held_out_s3"];
        let losses = keys.map(|key| loss(asked, key));
        let object = asked.as_object_mut().expect("an object");
        for key in keys {
            object.shift_remove(key);
        }
        assert_eq!(plain, asked);
        if let Some(plain) = loss(plain, "held_out_loss") {
            let all = losses.map(|loss| loss.expect("measured").to_bits());
            // Other masks, other losses.
            assert!(!all.contains(&plain.to_bits()) && all[0] != all[1] && all[1] != all[2]);
        } else {
            assert_eq!(losses, [None; 3]);
        }
    }
    assert_eq!(plain.len(), asked.len());
    // It may be asked for on the way.
    world.train("half", &["--stop-after", "5"]);
    world.train("half", &["train.eval.by_strategy=true"]);
    assert_eq!(world.state("half", 12)[0], world.state("plain", 12)[0]);
}

/// By force a run goes on with a hold that it did not have: the clock begins at the step, and the rule
/// leads on from there.
#[test]
fn a_run_goes_on_by_force_with_a_new_hold_and_without_it() {
    let world = World::new();
    let run = |p3: &'static str, more: &[&'static str]| {
        let base = ["--steps=30", "train.eval.every=2", "train.checkpoint.every=10", p3];
        world.train("run", &[&base[..], more].concat());
    };
    let plain = "curriculum.p3={piecewise: [[0, 0.1], [5, 0.3], [14, 0.6], [20, 0.9]]}";
    let held = "curriculum.p3={piecewise: [[0, 0.1], [5, 0.3], [14, 0.6], [20, 0.9]], \
                hold: {on: s3, patience: 3, min_delta: 50, max_hold: 9}}";
    run(plain, &["--stop-after", "10"]);
    let args =
        ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run", "--steps=30"];
    let error = world.fails(&[&args[..], &["train.eval.every=2", held]].concat(), 4);
    assert!(error.contains("--resume force"), "{error}");
    run(held, &["--resume", "force", "--stop-after", "20"]);
    let clocks: Vec<(u64, u64)> = world
        .metrics("run")
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line["holds"]["p3"]["clock"].as_u64()?)))
        .collect();
    // The gate behind the point at 5 is past; at the one behind 14 the first loss is that after step
    // 12, and the third that is no better comes after step 18.
    assert_eq!(clocks, [(12, 12), (14, 14), (16, 14), (18, 15), (20, 17)]);
    // The events tell it too.
    let events: Vec<u8> = std::fs::read_dir(world.path("run/tb"))
        .expect("events")
        .flat_map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"))
        .collect();
    for tag in ["holds/p3/clock", "holds/p3/held"] {
        assert!(events.windows(tag.len()).any(|part| part == tag.as_bytes()), "{tag}");
    }
    // And back: without the hold the schedule is read at the step.
    run(plain, &["--resume", "force"]);
    let last = world.metrics("run").pop().expect("a line");
    assert!(last["step"] == 30 && last["holds"].is_null(), "{last}");
    let p3 = last["expected"]["s3"].as_f64().expect("a share");
    assert!((p3 - 0.9).abs() < 1e-12, "{last}");
}

#[test]
fn what_a_hold_needs_cannot_be_missing_or_change() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];
    let refused = |more: &[&str], code| world.fails(&[&run[..], &HELD, more].concat(), code);
    let error = refused(&["data.held_out=0"], 2);
    assert!(error.contains("data.held_out: 0 leaves no rows"), "{error}");
    world.train("run", &[&HELD[..], &["--stop-after", "5"]].concat());
    for (change, now) in [
        ("train.eval.every=3", "recipe.eval_every is 3, was 2"),
        ("train.eval.batches=1", "recipe.eval_batches is 1, was 2"),
        ("train.micro_batch=3", "recipe.micro_batch is 3, was null"),
    ] {
        let error = refused(&[change], 4);
        assert!(error.contains(now), "{error}");
    }
}
