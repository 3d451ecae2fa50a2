//! A run that was stopped and went on equals one that was not, bit for bit.

mod support;

use std::{
    fs,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use support::{Workplace, tree};

/// The weights and the optimizer's state of a run's newest checkpoint: file names and bytes.
fn state(work: &Workplace, run: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let latest = work.read(&format!("{run}/checkpoints/latest"));
    let folder = work.path(run).join("checkpoints").join(latest.trim());
    let files: Vec<_> = tree(&folder)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    assert!(files.len() >= 2, "weights and state in {}", folder.display());
    files
}

fn assert_same_run(work: &Workplace, one: &str, other: &str) {
    assert_eq!(work.timeless_metrics(one), work.timeless_metrics(other), "{one} and {other}");
    for (a, b) in state(work, one).iter().zip(&state(work, other)) {
        assert_eq!(a.0, b.0);
        assert!(a.1 == b.1, "{} differs between {one} and {other}", a.0.display());
    }
}

/// Starts a run and waits until it has done at least `steps` steps.
fn start(work: &Workplace, out: &str, steps: usize, more: &[&str]) -> Child {
    let mut child = work
        .command("coda-trainer")
        .args(["--stage", "pre", "--manifest", "pre.yaml", "--out", out, "-q"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the trainer starts");
    let metrics = work.path(out).join("metrics.jsonl");
    let clock = Instant::now();
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < steps {
        assert!(clock.elapsed() < Duration::from_mins(2), "the run does not get on");
        assert!(child.try_wait().expect("a child").is_none(), "the run ended by itself");
        sleep(Duration::from_millis(2));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

#[test]
fn a_run_in_two_halves_equals_one_in_one() {
    for (stage, more) in [("pre", ""), ("post", "train.grad_clip=0.5")] {
        let work = Workplace::new();
        work.ingest(stage);
        let more: Vec<&str> = Some(more).into_iter().filter(|m| !m.is_empty()).collect();
        let whole = work.train(stage, "whole", &more);
        assert_eq!(whole.json()["step"], 40);
        for stop in ["1", "17", "39"] {
            let half =
                work.train(stage, stop, &[&["--stop-after", stop], more.as_slice()].concat());
            assert_eq!(half.json()["step"].to_string(), stop);
            let rest = work.train(stage, stop, &more);
            assert_eq!(rest.json()["step"], 40);
            assert_same_run(&work, "whole", stop);
        }
    }
}

#[test]
fn a_run_that_is_told_to_stop_saves_and_goes_on() {
    let work = Workplace::new();
    work.ingest("pre");
    // Long enough that the signals arrive while it runs.
    let long = ["--steps", "400", "train.checkpoint.every=1000"];
    assert_eq!(work.train("pre", "whole", &long).code, 0);
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = start(&work, name, 20, &long);
        signal(&child, name);
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "SIG{name}");
        let saved = work.read(&format!("{name}/checkpoints/latest"));
        assert!(saved.trim() != "step-000000", "it saved where it stood: {saved}");
        assert_eq!(work.train("pre", name, &long).code, 0);
        assert_same_run(&work, "whole", name);
    }
}

#[test]
fn a_run_that_is_killed_goes_on_from_its_last_checkpoint() {
    let work = Workplace::new();
    work.ingest("pre");
    let long = ["--steps", "200", "train.checkpoint.every=15"];
    assert_eq!(work.train("pre", "whole", &long).code, 0);
    // Three kills in one run, the last ones while it is going on again.
    for steps in [4, 40, 90] {
        let mut child = start(&work, "killed", steps, &long);
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
    }
    assert_eq!(work.train("pre", "killed", &long).code, 0);
    assert_same_run(&work, "whole", "killed");
    let left: Vec<_> = tree(&work.path("killed"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().contains(".tmp"))
        .collect();
    assert_eq!(left, [""; 0].map(std::path::PathBuf::from), "nothing temporary is left");
}

/// Twenty kills at moments that know nothing of steps: while a batch is computed, while a
/// checkpoint is written, while the program starts.
#[test]
fn a_run_that_is_killed_at_any_moment_goes_on() {
    let work = Workplace::new();
    work.ingest("pre");
    let long = ["--steps", "300", "train.checkpoint.every=3", "train.eval.every=100"];
    let clock = Instant::now();
    assert_eq!(work.train("pre", "whole", &long).code, 0);
    let whole = clock.elapsed();
    let (mut kills, mut runs, mut dice) = (0_u32, 0_u32, 2_463_534_242_u32);
    while kills < 20 {
        runs += 1;
        assert!(runs < 20, "the runs end before they are killed");
        let out = format!("killed-{runs}");
        let args = ["--stage", "pre", "--manifest", "pre.yaml", "--out", &out, "-q"];
        loop {
            let mut child = work
                .command("coda-trainer")
                .args(args)
                .args(long)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the trainer starts");
            // Marsaglia's xorshift; from almost nothing to a third of the whole run.
            dice ^= dice << 13;
            dice ^= dice >> 17;
            dice ^= dice << 5;
            sleep(whole.mul_f64(f64::from(dice) / f64::from(u32::MAX) / 3.0));
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(status.success(), "the run ended with {status}");
                break;
            }
            child.kill().expect("SIGKILL");
            child.wait().expect("it ends");
            kills += 1;
        }
        assert_same_run(&work, "whole", &out);
    }
}

/// Pre, mid and post, each from the weights of the one before, each stopped twice: every stage's
/// metrics, weights and state are those of the stages that nothing stopped.
#[test]
fn a_chain_of_stages_that_are_stopped_equals_one_that_is_not() {
    let work = Workplace::new();
    let chain = ["pre", "mid", "post"];
    for stage in chain {
        work.ingest(stage);
    }
    for (number, stage) in chain.into_iter().enumerate() {
        let init = |kind: &str| format!("{kind}-{}/final", chain[number.saturating_sub(1)]);
        let (whole_init, parts_init) = (init("whole"), init("parts"));
        let run = |out: &str, init: &str, more: &[&str]| {
            let first = ["--init", init];
            let first = if number == 0 { &[] } else { first.as_slice() };
            work.train(stage, out, &[first, more].concat()).json()
        };
        let (whole, parts) = (format!("whole-{stage}"), format!("parts-{stage}"));
        assert_eq!(run(&whole, &whole_init, &[])["step"], 40);
        for stop in ["13", "27"] {
            assert_eq!(run(&parts, &parts_init, &["--stop-after", stop])["step"].to_string(), stop);
        }
        assert_eq!(run(&parts, &parts_init, &[])["step"], 40);
        assert_same_run(&work, &whole, &parts);
    }
    // The prompts of post were opened step by step, and epochs ended on the way.
    let epochs: Vec<u64> =
        work.metrics("parts-post").iter().filter_map(|line| line["epoch"].as_u64()).collect();
    assert!(epochs.first() < epochs.last(), "no epoch ended: {epochs:?}");
}
