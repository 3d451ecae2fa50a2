//! The judge of programs, by the real binary, on small files in the published formats.

use assert_cmd::Command;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The formats of `tests/evaluation/make.py`.
const SUITES: [&str; 5] = ["humaneval", "infilling", "mbpp", "humaneval+", "mbpp+"];

/// A folder with the files of all formats.
fn files() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/evaluation/make.py");
    Command::new("python3").arg(make).arg(folder.path()).assert().success();
    folder
}

fn eval(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("coda-trainer").expect("the binary");
    command.current_dir(folder).args(["eval", "code", "--quiet"]).args(args);
    command
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_canonical_solution_passes() {
    let folder = files();
    for suite in SUITES {
        let data = format!("{suite}.jsonl");
        let out = format!("{suite}.canonical");
        eval(folder.path(), &["--data", &data, "--canonical", "--out", &out]).assert().success();
        let results = json(folder.path().join(&out).join("results.json"));
        assert_eq!(results["base"]["1"], 1.0, "{suite}: {results}");
        let compares = suite.ends_with('+');
        assert_eq!(
            results["plus"]["1"],
            if compares { 1.0.into() } else { Value::Null },
            "{suite}"
        );
        // Counted, not parsed: Python writes numbers that JSON does not have.
        let problems = fs::read_to_string(folder.path().join(data)).expect("a file");
        assert_eq!(results["problems"], problems.lines().count(), "{suite}");
    }
}

#[test]
fn every_verdict_is_the_one_that_the_solution_deserves() {
    let folder = files();
    for suite in SUITES {
        let (data, samples) = (format!("{suite}.jsonl"), format!("{suite}.samples.jsonl"));
        let out = format!("{suite}.out");
        let args = ["--data", &data, "--samples", &samples, "--out", &out, "--jobs", "4"];
        eval(folder.path(), &args).assert().success();
        let results = json(folder.path().join(&out).join("results.json"));
        let mut seen = std::collections::HashMap::<String, usize>::new();
        for sample in lines(folder.path().join(&samples)) {
            let task =
                sample["task_id"].as_str().map_or(sample["task_id"].to_string(), str::to_owned);
            let number = seen.entry(task.clone()).or_default();
            let tasks = results["tasks"].as_array().expect("tasks");
            let judged = tasks.iter().find(|judged| judged["task_id"] == *task).expect("the task");
            let verdict = &judged["verdicts"][*number];
            let expected = &sample["expected"];
            let found = match expected {
                Value::Array(_) => {
                    Value::from(vec![verdict["base"].clone(), verdict["plus"].clone()])
                }
                _ => verdict["base"].clone(),
            };
            assert_eq!(found, *expected, "{suite}: {sample}\n{verdict}");
            assert_eq!(
                verdict["why"].is_null(),
                !expected.to_string().contains(['f', 't']),
                "{verdict}"
            );
            *number += 1;
        }
    }
}

#[test]
fn a_stopped_evaluation_goes_on_to_the_same_bytes() {
    let folder = files();
    let args =
        ["--data", "mbpp.jsonl", "--samples", "mbpp.samples.jsonl", "--out", "out", "--jobs"];
    eval(folder.path(), &args).arg("1").assert().success();
    let out = folder.path().join("out");
    let (results, verdicts) = (out.join("results.json"), out.join("verdicts.jsonl"));
    let (whole, all) = (fs::read(&results).expect("results"), fs::read(&verdicts).expect("lines"));
    // As a kill leaves it: two lines and a half, no results.
    let ends: Vec<usize> = (0..all.len()).filter(|&i| all[i] == b'\n').collect();
    fs::write(&verdicts, &all[..ends[1] + 20]).expect("write");
    fs::remove_file(&results).expect("remove");
    eval(folder.path(), &args).arg("3").assert().success();
    assert_eq!(fs::read(&results).expect("results"), whole);
    assert_eq!(lines(verdicts).len(), ends.len());

    let other = ["--data", "mbpp.jsonl", "--canonical", "--out", "out"];
    let refused = eval(folder.path(), &other).assert().code(2);
    let words = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(words.contains("another evaluation") && words.contains("solutions"), "{words}");
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = files();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("write");
    write("empty.jsonl", "\n");
    write("odd.jsonl", "{\"task_id\": \"x\"}\n");
    write("torn.jsonl", "{\"task_id\": ");
    write("unknown.jsonl", "{\"task_id\": \"HumanEval/1\", \"completion\": \"\"}\n");
    write("neither.jsonl", "{\"task_id\": \"HumanEval/900\"}\n");
    write("one.jsonl", "{\"task_id\": \"HumanEval/900\", \"completion\": \"\"}\n");
    let (data, canonical) = ("humaneval.jsonl", ["--canonical"].as_slice());
    let samples = |file| ["--samples", file];
    for (data, more, code, word) in [
        ("missing.jsonl", canonical, 3, "missing.jsonl"),
        ("empty.jsonl", canonical, 4, "no problems"),
        ("odd.jsonl", canonical, 4, "odd.jsonl:1"),
        ("torn.jsonl", canonical, 4, "torn.jsonl:1"),
        (data, &samples("unknown.jsonl"), 4, "HumanEval/1 is no task"),
        (data, &samples("neither.jsonl"), 4, "neither `solution` nor `completion`"),
        (data, &samples("one.jsonl"), 2, "HumanEval/901 has no solution"),
        (data, &["--canonical", "--python", "no-such-python"], 2, "no-such-python"),
        (data, &["--canonical", "--k", "0"], 2, "--k"),
        (data, &[], 2, "--samples"),
    ] {
        let args = [&["--data", data, "--out", data.trim_end_matches(".jsonl")], more].concat();
        let out = format!("out-{word}").replace(['/', ' ', '`', ':'], "-");
        let args: Vec<&str> = args
            .iter()
            .map(|&arg| if arg == data.trim_end_matches(".jsonl") { &out } else { arg })
            .collect();
        let assert = eval(folder.path(), &args).assert().code(code);
        let words = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(words.contains(word), "{word}: {words}");
    }
    let partial = ["--data", data, "--samples", "one.jsonl", "--out", "partial", "--partial"];
    eval(folder.path(), &partial).assert().success();
    assert_eq!(json(folder.path().join("partial/results.json"))["problems"], 1);
}

#[test]
fn packed_files_read_like_plain_ones() {
    let folder = files();
    let pack = "import gzip, json, sys\n\
                text = open('mbpp.jsonl', 'rb').read()\n\
                gzip.open('mbpp.jsonl.gz', 'wb').write(text)\n\
                json.dump([json.loads(line) for line in text.splitlines()], open('mbpp.json', 'w'))";
    Command::new("python3").args(["-c", pack]).current_dir(folder.path()).assert().success();
    let rates: Vec<Value> = ["mbpp.jsonl", "mbpp.jsonl.gz", "mbpp.json"]
        .into_iter()
        .map(|data| {
            let out = format!("{data}.out");
            eval(folder.path(), &["--data", data, "--canonical", "--out", &out]).assert().success();
            json(folder.path().join(out).join("results.json"))["tasks"].clone()
        })
        .collect();
    assert!(rates.iter().all(|tasks| *tasks == rates[0]));
}
