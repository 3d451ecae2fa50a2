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
