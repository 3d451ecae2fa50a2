//! Schedules that wait for a loss, as scripts see them: assumed, and as a run recorded them.

mod support;

use serde_json::{Value, json};
use std::{fmt::Write as _, fs};
use support::House;

const MANIFEST: &str = "
version: 1
name: waiting
stage: mid
tokenizer: {path: tokenizer.json}
data:
  out: shards
  row_length: 32
  sources:
    - {name: code, paths: [code.jsonl], weight: 3}
    - {name: text, paths: [text.jsonl], weight: 1}
curriculum:
  p1: 0.1
  p2: 0.1
  p3:
    phases: [0.1, 0.4]
    hold: {on: s3, patience: 1, min_delta: 0.05, max_hold: 30}
  sources:
    code:
      block_sizes:
        piecewise: [[0, [2]], [20, [8]]]
        hold: {on: plain, patience: 2, max_hold: 15}
train: {steps: 100, global_batch: 4}
";

impl House {
    fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        fs::write(house.dir.path().join("run.yaml"), MANIFEST).expect("the manifest");
        house
    }

    fn metrics(&self, lines: &str) {
        fs::write(self.dir.path().join("metrics.jsonl"), lines).expect("the metrics");
    }
}

/// What a trainer writes: `p3` comes to its gate at 50 and waits 11 steps there; `code` does not wait.
fn recorded(to: u64) -> String {
    let mut lines = String::new();
    for step in 0..=to {
        let mut line = json!({"step": step, "loss": 3.0, "tokens": step * 128});
        if step % 10 == 0 {
            let (clock, held) = match step {
                0..50 => (step, 0),
                50 => (49, 1),
                _ => (step - 10, 0),
            };
            line["held_out_s3"] = json!(2.5);
            line["holds"] = json!({
                "p3": {"clock": clock, "best": 2.5, "stale": 0, "held": held},
                "sources.code.block_sizes": {"clock": step, "stale": 0, "held": 0},
            });
        }
        let _ = writeln!(lines, "{line}");
    }
    lines
}

fn column(timeline: &Value, key: &str) -> Vec<(u64, Value)> {
    let lines = timeline["lines"].as_array().expect("lines");
    lines
        .iter()
        .map(|line| (line["first_step"].as_u64().expect("a step"), line[key].clone()))
        .collect()
}

#[test]
fn show_has_the_run_without_waits_and_with_the_longest() {
    let house = House::new();
    insta::assert_snapshot!(house.stdout(&["show", "--manifest", "run.yaml"]));
    let shown = house.json(&["show", "--manifest", "run.yaml", "--json"]);
    assert_eq!(
        (&shown["waits"], &shown["longest_waits"]["waits"]),
        (&json!("none"), &json!("longest"))
    );
    let p3 = |timeline| column(timeline, "p3");
    assert!(p3(&shown).contains(&(50, json!(0.4))), "{shown}");
    assert!(p3(&shown["longest_waits"]).contains(&(80, json!(0.4))), "{shown}");
    let sizes = |timeline: &Value| column(&timeline["sources"][0], "block_sizes");
    assert!(sizes(&shown).contains(&(20, json!([8]))), "{shown}");
    assert!(sizes(&shown["longest_waits"]).contains(&(35, json!([8]))), "{shown}");
    assert_eq!(shown["holds"][0]["key"], "p3");
    assert_eq!(shown["holds"][0]["gates"], json!([50]));
    assert_eq!(shown["longest_waits"]["holds"][0]["passed_at"], json!([80]));
    // A manifest without holds says nothing of them.
    let plain =
        ["show", "--manifest", "run.yaml", "--json", "curriculum.p3=0.1", "curriculum.sources={}"];
    let plain = house.json(&plain);
    for key in ["waits", "holds", "longest_waits"] {
        assert!(plain.get(key).is_none(), "{key}");
    }
}

#[test]
fn pictures_have_both_runs_and_the_clocks() {
    let house = House::new();
    house.stdout(&["show", "--manifest", "run.yaml", "--svg", "a.svg", "--html", "a.html"]);
    let read = |name: &str| fs::read_to_string(house.dir.path().join(name)).expect("a file");
    let (svg, page) = (read("a.svg"), read("a.html"));
    for text in [
        "If everything waits as long as it may: Rows taken by each strategy",
        "If everything waits as long as it may: source code",
        "Clock of p3, in steps",
        "Clock of sources.code.block_sizes, in steps",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    for text in [
        "<h2>If everything waits as long as it may</h2>",
        "p3 waits before step 50 of its clock until the held-out loss under S3 has not fallen by more \
         than 0.05 in 1 evaluation, at each for at most 30 steps.",
        "Clock of p3, in steps",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn recorded_clocks_are_those_of_the_run() {
    let house = House::new();
    house.metrics(&recorded(100));
    let args = ["show", "--manifest", "run.yaml", "--clocks", "metrics.jsonl"];
    let shown = house.json(&[&args[..], &["--json"]].concat());
    assert_eq!(shown["waits"], json!({"recorded": {"steps": 100}}));
    assert!(shown.get("longest_waits").is_none());
    assert_eq!(shown["holds"][0]["passed_at"], json!([60]));
    assert!(column(&shown, "p3").contains(&(60, json!(0.4))), "{shown}");
    assert!(house.stdout(&args).contains("as recorded by a run, 100 steps\n"));
    // A run that is not done, and whose last line is being written: no wait is assumed after it.
    house.metrics(&(recorded(55) + "{\"step\": 56, \"lo"));
    let shown = house.json(&[&args[..], &["--json"]].concat());
    assert_eq!(shown["waits"], json!({"recorded": {"steps": 55}}));
    assert_eq!(shown["holds"][0]["passed_at"], json!([56]));
}

#[test]
fn diff_tells_two_runs_of_one_manifest_apart() {
    let house = House::new();
    house.metrics(&recorded(100));
    let text = house.stdout(&["diff", "run.yaml", "--clocks-b", "metrics.jsonl"]);
    assert!(text.contains("A  run.yaml, run A, if nothing waits\n"), "{text}");
    assert!(text.contains("B  run.yaml, run B, as recorded by a run, 100 steps\n"), "{text}");
    assert!(!text.contains("Keys that decide") && text.contains("40% | 10%"), "{text}");
    let both = ["diff", "run.yaml", "--clocks-a", "metrics.jsonl", "--clocks-b", "metrics.jsonl"];
    assert!(house.stdout(&both).contains("The model sees the same."));
}

#[test]
fn metrics_of_another_run_are_refused() {
    let house = House::new();
    let show = ["show", "--manifest", "run.yaml", "--clocks", "metrics.jsonl"];
    let (code, stderr) = house.refused(&show);
    assert!(code == 3 && stderr.contains("metrics.jsonl"), "{stderr}");
    let whole = recorded(100);
    for (lines, problem) in [
        (String::new(), "there is no line in it"),
        ("no json\n".to_owned(), "line 1: expected"),
        ("{\"step\": -1}\n".to_owned(), "line 1: invalid value"),
        (whole.clone() + "{\"step\": 101}\n", "line 102: step 101 lies behind the 100 steps"),
        (whole.clone() + &whole, "line 102: step 0 comes again"),
        (whole.replace("\"p3\"", "\"p4\""), "it has no clock of curriculum.p3"),
        (whole.replace("\"clock\":10,", "\"clock\":11,"), "after step 10 the clock stands at 11"),
        (whole.replace("\"clock\":0,", "\"clock\":18446744073709551615,"), "after step 0"),
    ] {
        house.metrics(&lines);
        let (code, stderr) = house.refused(&show);
        assert!(
            code == 4 && stderr.contains(problem) && stderr.contains("hint: give the"),
            "{stderr}"
        );
    }
}
