//! The judge of programs, by the real binary, on small files in the published formats.

mod common;

use assert_cmd::Command;
use common::World;
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
fn answers_are_cut_down_to_their_programs() {
    let folder = files();
    let verdicts = |out: &str, more: &[&str]| -> Vec<Value> {
        let args = ["--data", "humaneval.jsonl", "--samples", "humaneval.answers.jsonl"];
        let all = [args.as_slice(), &["--out", out, "--partial"], more].concat();
        eval(folder.path(), &all).assert().success();
        let results = json(folder.path().join(out).join("results.json"));
        let verdicts = results["tasks"][0]["verdicts"].as_array().expect("verdicts");
        verdicts.iter().map(|verdict| verdict["base"].clone()).collect()
    };
    let answers = lines(folder.path().join("humaneval.answers.jsonl"));
    let expected: Vec<Value> = answers.iter().map(|answer| answer["expected"].clone()).collect();
    assert_eq!(verdicts("cut", &["--extract"]), expected);
    assert!(verdicts("whole", &[]).iter().all(|verdict| verdict == "fail"));
    // What was cut is kept, and a second run cuts nothing again.
    let path = folder.path().join("cut/extracted.jsonl");
    let cut = fs::read(&path).expect("programs");
    fs::remove_file(folder.path().join("cut/verdicts.jsonl")).expect("the verdicts");
    assert_eq!(verdicts("cut", &["--extract"]), expected);
    assert_eq!(fs::read(&path).expect("programs"), cut);
    assert_eq!(lines(path).len(), expected.len());
    // Canonical solutions stay whole enough in every format.
    for suite in SUITES {
        let (data, out) = (format!("{suite}.jsonl"), format!("{suite}.extracted"));
        let args = ["--data", &data, "--canonical", "--extract", "--out", &out];
        eval(folder.path(), &args).assert().success();
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

/// A tiny model in a folder with the files of all formats.
fn world() -> World {
    let world = World::new();
    world.train("run", &["train.steps=4"]);
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/evaluation/make.py");
    Command::new("python3").arg(make).arg(world.path("")).assert().success();
    world
}

fn generate(world: &World, data: &str, out: &str, more: &[&str]) -> Vec<Value> {
    let args =
        ["--checkpoint", "run", "--max-new-tokens", "6", "--temperature", "1", "--generate-only"];
    let args = [&["--data", data, "--out", out], args.as_slice(), more].concat();
    eval(&world.path(""), &args).assert().success();
    lines(world.path(out).join("samples.jsonl"))
}

#[test]
fn an_answer_depends_on_its_problem_its_number_and_the_plan_alone() {
    let world = world();
    let all = generate(&world, "humaneval.jsonl", "all", &["--samples-per-task", "3"]);
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|line| line["tokens"].as_u64().is_some_and(|tokens| tokens <= 6)));
    let answers = |lines: &[Value], task: &str| -> Vec<String> {
        let of = lines.iter().filter(|line| line["task_id"] == task);
        of.map(|line| line["answer"].to_string()).collect()
    };
    // The second problem alone, with fewer samples.
    let some = generate(
        &world,
        "humaneval.jsonl",
        "some",
        &["--samples-per-task", "2", "--tasks", "901-999"],
    );
    assert_eq!(answers(&some, "HumanEval/901"), answers(&all, "HumanEval/901")[..2]);
    assert_ne!(answers(&all, "HumanEval/900"), answers(&all, "HumanEval/901"));
    // However many go at once, and in blocks with kept keys and values too.
    let blocks = ["--block-length", "2", "--cache", "dual"];
    for (name, how) in [("plain", &[][..]), ("blocks", &blocks), ("sure", &["--threshold", "0.5"])]
    {
        let of = |batch: &str| {
            let more = [&["--samples-per-task", "3", "--batch", batch], how].concat();
            generate(&world, "humaneval.jsonl", &format!("{name}-{batch}"), &more)
        };
        let one = of("1");
        assert_eq!((of("4"), of("6")), (one.clone(), one.clone()), "{name}");
        assert_eq!(one == all, name == "plain", "{name}");
    }
    let other = generate(&world, "humaneval.jsonl", "other", &["--seed", "5"]);
    assert_ne!(answers(&other, "HumanEval/900")[0], answers(&all, "HumanEval/900")[0]);

    // A kill in the middle of a line, then the same command, now with its verdicts.
    let path = world.path("all/samples.jsonl");
    let whole = fs::read(&path).expect("samples");
    fs::write(&path, &whole[..whole.len() / 2]).expect("write");
    let again = generate(&world, "humaneval.jsonl", "all", &["--samples-per-task", "3"]);
    assert_eq!(again, all);
    let args = ["--data", "humaneval.jsonl", "--out", "all", "--checkpoint", "run", "--k", "1,3"];
    let plan = ["--max-new-tokens", "6", "--temperature", "1", "--samples-per-task", "3"];
    eval(&world.path(""), &args).args(plan).assert().success();
    assert_eq!(fs::read(&path).expect("samples"), whole);
    let results = json(world.path("all/results.json"));
    assert_eq!((&results["samples"], &results["base"]["1"]), (&6.into(), &0.0.into()));
    let generation = &results["evaluation"]["generation"];
    assert_eq!(generation["plan"]["sampler"]["seed"], 17, "{generation}");
    assert_eq!(generation["model"]["hash"].as_str().map(str::len), Some(64), "{generation}");
    assert!(results["evaluation"]["judge"]["isolation"]["network"].is_string());
}

#[test]
fn holes_are_filled_and_what_cannot_be_asked_is_refused() {
    let world = world();
    let filled = generate(&world, "infilling.jsonl", "holes", &["--span", "4"]);
    let program = filled[0]["solution"].as_str().expect("a program");
    assert!(program.starts_with("def triple(x):\n    total = x\n"), "{program}");
    assert!(program.ends_with("    return total\n"), "{program}");
    for (data, more, code, word) in [
        ("humaneval.jsonl", ["--chat"].as_slice(), 4, "im_start"),
        ("infilling.jsonl", &["--chat"], 2, "without --chat"),
        ("mbpp.jsonl", &[], 2, "tasks 2, 3 and 4"),
        ("humaneval.jsonl", &["--tasks", "1-2"], 2, "no task has a number from 1 to 2"),
        ("humaneval.jsonl", &["--tasks", "9"], 2, "11-510"),
        ("humaneval.jsonl", &["--top-p", "2"], 2, "top_p is from 0 to 1"),
        ("humaneval.jsonl", &["--batch", "0"], 2, "--batch must be at least 1"),
        ("humaneval.jsonl", &["--samples", "x"], 2, "--samples"),
    ] {
        let args = [&["--data", data, "--checkpoint", "run", "--out", "refused"], more].concat();
        let assert = eval(&world.path(""), &args).assert().code(code);
        let words = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(words.contains(word), "{word}: {words}");
        let _ = fs::remove_dir_all(world.path("refused"));
    }
}
