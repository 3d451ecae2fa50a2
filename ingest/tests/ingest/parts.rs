//! Any number of tasks, merged, give the bytes of one process; and what is no whole is refused.

use super::killed::{Place, assert_same, error, tree};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

const NEAR: &str = "data.dedup={near: {ngram: 3, threshold: 0.7}}";

impl Place {
    /// Runs a task into `part` and gives its summary.
    fn task(&self, task: &str, part: &str, jobs: usize, more: &[&str]) -> Value {
        let more = [&["--task", task, "--json"], more].concat();
        let mut command = self.command(part, jobs, &more);
        let ran = command.stdout(std::process::Stdio::piped()).output().expect("it starts");
        assert!(ran.status.success(), "{}", error(&ran));
        serde_json::from_slice(&ran.stdout).expect("JSON")
    }

    /// Documents that are there already, and some that nearly are, in both sources.
    fn add_duplicates(&self) {
        let docs = fs::read_to_string(self.path("docs/0.jsonl")).expect("there");
        let mut lines: Vec<String> = docs.lines().step_by(3).map(str::to_owned).collect();
        for i in 0..60 {
            let words: Vec<String> = (0..50).map(|k| format!("w{}of{k}", i % 4)).collect();
            let text = format!("{} {i}\n", words.join(" "));
            if i % 3 == 0 {
                self.write(&format!("code/near/{i}.py"), &text);
            } else {
                lines.insert(i * 7 % lines.len(), json!({ "text": text }).to_string());
            }
        }
        self.write("docs/00.jsonl", &lines.join("\n"));
    }

    /// All parts of a build in `of` tasks, made with changing numbers of jobs.
    fn parts(&self, of: usize, more: &[&str]) -> Vec<String> {
        let part = |i: usize| format!("part-{of}-{i}");
        for i in 1..=of {
            self.task(&format!("{i}/{of}"), &part(i), 1 + i % 3, more);
        }
        // In any order.
        (1..=of).rev().map(part).collect()
    }

    fn merge(&self, parts: &[String], out: &str) -> std::process::Output {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
        command.current_dir(self.path("")).arg("merge").args(parts).args(["-q", "--out", out]);
        command.output().expect("it starts")
    }

    /// What a merge is refused with.
    fn refused(&self, parts: &[String], code: i32, words: &[&str]) {
        let ran = self.merge(parts, "refused");
        assert_eq!(ran.status.code(), Some(code), "{}", error(&ran));
        for word in words.iter().chain(&["hint: "]) {
            assert!(error(&ran).contains(word), "{word:?} is not in {}", error(&ran));
        }
        assert!(!self.path("refused/index.json").exists());
    }
}

#[test]
fn any_number_of_tasks_gives_the_bytes_of_one_process() {
    let place = Place::new(400);
    place.add_duplicates();
    for (name, more) in [
        ("plain", &[][..]),
        ("budgets", &["data.sources.0.tokens=3000", "data.sources.1.tokens=900"]),
        ("spans", &["data.spans=[lines, brackets]"]),
        ("exact", &["data.dedup={}"]),
        ("near", &[NEAR]),
        ("near, in each source", &["data.dedup={near: {ngram: 3, threshold: 0.7}, scope: source}"]),
        ("near, to budgets", &[NEAR, "data.sources.0.tokens=24000", "data.sources.1.tokens=5000"]),
        ("best-fit", &["data.packing=best-fit", "data.rows_per_shard=13"]),
    ] {
        let whole = place.build(&format!("whole-{name}"), 2, more);
        let index: Value =
            serde_json::from_slice(&whole[&PathBuf::from("index.json")]).expect("JSON");
        let found = |rule: &str| {
            let sources = index["sources"].as_array().expect("a list").iter();
            sources.map(|source| source["drops"][rule].as_u64().unwrap_or(0)).sum::<u64>()
        };
        let (exact, near) = (found("duplicate"), found("near_duplicate"));
        let wanted = (more.concat().contains("dedup"), more.concat().contains("near"));
        assert_eq!((exact > 9, near > 9), wanted, "{name}: {exact} and {near}");
        for of in [1, 2, 3, 7] {
            let parts = place.parts(of, more);
            let ran = place.merge(&parts, "merged");
            assert!(ran.status.success(), "{}", error(&ran));
            let merged = tree(&place.path("merged"));
            assert_same(&merged, &whole, &format!("{name} in {of} tasks"));
            // Once more: it is up to date.
            assert!(place.merge(&parts, "merged").status.success());
            assert_same(&tree(&place.path("merged")), &whole, "again");
            fs::remove_dir_all(place.path("merged")).expect("removed");
            for part in parts {
                fs::remove_dir_all(place.path(&part)).expect("removed");
            }
        }
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn conversations_are_cut_or_dropped_by_the_merge() {
    let place = Place::new(40);
    let lines: Vec<String> = (0..60)
        .map(|i| json!({"instruction": format!("Say {i}."), "output": "word ".repeat(i)}))
        .map(|record| record.to_string() + "\n")
        .collect();
    place.write("sft/a.jsonl", &lines[..20].concat());
    place.write("sft/b.jsonl", &lines[20..].concat());
    let mut manifest: Value =
        serde_json::from_str(&fs::read_to_string(place.path("m.yaml")).expect("there"))
            .expect("JSON");
    manifest["stage"] = json!("post");
    manifest["data"]["sources"] =
        json!([{"name": "sft", "kind": "sft", "paths": ["sft/*.jsonl"], "tokens": 2000}]);
    place.write("m.yaml", &manifest.to_string());
    for overlong in ["data.overlong=drop", "data.overlong=truncate", "profile=coda-repo"] {
        let whole = place.build("whole", 1, &[overlong]);
        let parts = place.parts(2, &[overlong]);
        let ran = place.merge(&parts, "merged");
        assert!(ran.status.success(), "{}", error(&ran));
        assert_same(&tree(&place.path("merged")), &whole, overlong);
        for folder in parts.iter().map(String::as_str).chain(["whole", "merged"]) {
            fs::remove_dir_all(place.path(folder)).expect("removed");
        }
    }
}

#[test]
fn what_is_no_whole_is_refused() {
    let place = Place::new(200);
    let parts = place.parts(2, &[]);
    let (second, first) = (parts[0].clone(), parts[1].clone());
    place.refused(std::slice::from_ref(&first), 2, &["task 2/2 is missing"]);
    place.refused(&[first.clone(), first.clone(), second.clone()], 2, &["1/2 is there twice"]);
    place.refused(&[first.clone(), "docs".to_owned()], 4, &["docs holds no part"]);
    place.refused(&[first.clone(), "none".to_owned()], 4, &["none holds no part"]);
    place.task("2/3", "of-three", 1, &[]);
    place.refused(&[first.clone(), "of-three".to_owned()], 4, &["it is task 2/3, others are of 2"]);
    place.task("2/2", "other", 1, &["data.row_length=32"]);
    place.refused(&[first.clone(), "other".to_owned()], 4, &["other", "does not belong here"]);

    // A task does not write over another one's part, nor into somebody's folder.
    let mut command = place.command(&first, 1, &["--task", "2/2"]);
    let ran = command.output().expect("it starts");
    assert_eq!(ran.status.code(), Some(2), "{}", error(&ran));
    assert!(error(&ran).contains("it holds task 1/2") && error(&ran).contains("--force"));
    let ran = place.command("docs", 1, &["--task", "1/2"]).output().expect("it starts");
    assert_eq!(ran.status.code(), Some(2), "{}", error(&ran));
    assert!(error(&ran).contains("0.jsonl is there"), "{}", error(&ran));
    for wrong in ["0/2", "3/2", "2"] {
        let ran = place.command("x", 1, &["--task", wrong]).output().expect("it starts");
        assert_eq!(ran.status.code(), Some(2), "{}", error(&ran));
    }

    // Damage of any file is found and the file is named.
    let names: Vec<PathBuf> = tree(&place.path(&first)).into_keys().collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let path = place.path(&first).join(&name);
        let sound = fs::read(&path).expect("there");
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).expect("written");
        place.refused(&parts, 4, &[&name.to_string_lossy(), "is damaged"]);
        fs::write(&path, sound).expect("written");
    }
    assert!(place.merge(&parts, "refused").status.success(), "sound again, and it goes on");
}

/// A task that stopped behind any of its chunks goes on to the same chunks.
#[test]
fn a_task_goes_on_behind_its_last_chunk() {
    use coda_cli::{Progress, ProgressArgs, ProgressMode, signals::Stop};
    use coda_ingest::{
        part::{TaskOptions, run_task},
        plan::Plan,
    };
    let place = Place::new(120);
    let none: [&str; 0] = [];
    let manifest =
        coda_manifests::Manifest::load(&place.path("m.yaml"), &none, &[]).expect("a manifest");
    let plan = Plan::new(&manifest).expect("a plan");
    let quiet = ProgressArgs { progress: ProgressMode::None, quiet: true };
    let out = place.path("part");
    let run = |jobs| {
        let options = TaskOptions {
            task: "1/2".parse().expect("a task"),
            out: &out,
            data: manifest.data.clone(),
            recipe: "recipe".to_owned(),
            chunk_bytes: 2000,
            jobs,
            replace: false,
            progress: &Progress::start(quiet, "test", "bytes", None),
            stop: &Stop::never(),
        };
        run_task(&plan, &options).expect("it runs")
    };
    let report = run(2);
    let whole: BTreeMap<PathBuf, Vec<u8>> = tree(&out);
    let index: Value = serde_json::from_slice(&whole[&PathBuf::from("part.json")]).expect("JSON");
    let chunks = index["chunks"].as_array().expect("a list").clone();
    assert!(chunks.len() > 8 && report.records > 40, "{report:?}");
    assert!(chunks.iter().any(|chunk| chunk["start"]["records"] != 0), "within a file");
    for (kept, next) in chunks.iter().enumerate() {
        let mut stopped = index.clone();
        stopped["chunks"] = chunks[..kept].into();
        stopped["next"] = json!({"source": next["source"], "place": next["start"]});
        let of = |source: u64| chunks[..kept].iter().any(|chunk| chunk["source"] == source);
        stopped["tokens"] = json!([u64::from(of(0)), u64::from(of(1))]);
        stopped["fingerprint"] = json!("");
        let bytes = |index: &Value| serde_json::to_string_pretty(index).expect("JSON") + "\n";
        stopped["fingerprint"] = json!(blake3::hash(bytes(&stopped).as_bytes()).to_hex().as_str());
        fs::write(out.join("part.json"), bytes(&stopped)).expect("written");
        fs::write(out.join(".tmp-torn"), b"x").expect("written");
        fs::write(out.join(".writing"), b"").expect("written");
        run(1 + kept % 3);
        let mut now = tree(&out);
        let part: Value = serde_json::from_slice(&now[&PathBuf::from("part.json")]).expect("JSON");
        assert_eq!(part["chunks"], index["chunks"], "behind chunk {kept}");
        assert_eq!(part["next"], Value::Null);
        now.insert("part.json".into(), whole[&PathBuf::from("part.json")].clone());
        assert_same(&now, &whole, &format!("behind chunk {kept}"));
    }
}

/// Tasks and the merge, killed at steps all over, go on.
#[cfg(target_os = "linux")]
#[test]
fn tasks_and_the_merge_that_are_killed_go_on() {
    let place = Place::new(100);
    place.add_duplicates();
    let whole = place.build("whole", 2, &[NEAR]);
    let killer = place.killer();
    let killed = |mut command: std::process::Command, at: usize| {
        command.env("LD_PRELOAD", &killer).env("KILL_AT", at.to_string());
        let ran = command.output().expect("it starts");
        assert!(ran.status.success() || ran.status.code().is_none(), "{}", error(&ran));
        !ran.status.success()
    };
    let parts = [1, 2].map(|i| format!("part-{i}"));
    let mut kills = 0;
    for (number, part) in (1..).zip(&parts) {
        let task = format!("{number}/2");
        let run = || place.command(part, 1, &["--task", &task, NEAR]);
        let mut at = number;
        while killed(run(), at) {
            at += 5;
            kills += 1;
        }
        assert!(place.merge(&parts[..number], "early").status.code() != Some(0) || number == 2);
    }
    let merge = || {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
        command.current_dir(place.path("")).arg("merge").args(&parts).args(["-q", "--out", "set"]);
        command
    };
    let mut at = 3;
    while killed(merge(), at) {
        at += 4;
        kills += 1;
    }
    assert!(kills > 8, "{kills} kills");
    assert_same(&tree(&place.path("set")), &whole, "after all of that");
    assert_eq!(place.leftovers(), [""; 0]);
}
