//! Cleaning, deduplication and decontamination of a build, from the outside: what is left out, that
//! every document is counted and explained, and that neither jobs nor budgets change a byte.

use super::common;
use assert_cmd::Command;
use coda_shards::ShardSet;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

struct Place(TempDir);

/// A paragraph of words that no other number has.
fn prose(number: usize) -> String {
    let words: Vec<String> = (0..60).map(|word| format!("word{}", number * 1000 + word)).collect();
    words.join(" ") + " "
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.write("tokenizer.json", &common::tokenizer().json);
        let near = prose(1).replace("word1030", "another");
        let task = "def add three numbers and return the sum of all of them in a list";
        place.lines(
            "docs.jsonl",
            &[
                &prose(1),
                "short",
                &prose(1),
                &near,
                &format!("\u{feff}{}\r\nnext line\0", prose(2)),
                &format!("{} {task} {}", prose(3), prose(4)),
                &"again and again\n".repeat(20),
                "",
                &prose(5),
            ],
        );
        place.lines("more.jsonl", &[&prose(5), &prose(6), &prose(1)]);
        let tasks = json!({"task_id": "HumanEval/9", "prompt": task}).to_string();
        place.write("bench/tasks.jsonl", &(tasks + "\n"));
        place.manifest(&json!({
            "clean": {"min_chars": 20, "bom": "strip", "newlines": "lf", "control": "strip",
                      "max_repeated_line_share": 0.5},
            "dedup": {"near": {"threshold": 0.7}},
            "decontaminate": {"files": ["bench/*.jsonl"], "fields": ["prompt"],
                              "id_field": "task_id"},
            "sources": [{"name": "docs", "paths": ["docs.jsonl"]},
                        {"name": "more", "paths": ["more.jsonl"]}],
        }));
        place
    }

    fn manifest(&self, data: &Value) {
        let mut manifest = json!({
            "version": 1, "name": "test", "stage": "pre",
            "tokenizer": {"path": "tokenizer.json"},
            "data": {"out": "set", "row_length": 64, "rows_per_shard": 10, "max_reject_rate": 0.5},
        });
        let keys = data.as_object().expect("keys").clone();
        manifest["data"].as_object_mut().expect("keys").extend(keys);
        self.write("m.yaml", &manifest.to_string());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn lines(&self, name: &str, texts: &[&str]) {
        let lines: Vec<String> =
            texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
        self.write(name, &lines.concat());
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"))
            .current_dir(self.0.path())
            .args(["--manifest", "m.yaml"])
            .args(arguments)
            .output()
            .expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json", "-q"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    fn tree(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.path(name)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let name = |path: &Path| PathBuf::from(path.file_name().expect("a name"));
        paths.map(|path| (name(&path), fs::read(&path).expect("a file"))).collect()
    }

    fn documents(&self) -> Vec<String> {
        let set = ShardSet::open(self.path("set")).expect("opens");
        let tokenizer: tokenizers::Tokenizer = common::tokenizer().json.parse().expect("loads");
        let mut ids = Vec::new();
        for row in (0..set.rows()).map(|number| set.row(number).expect("a row")) {
            ids.extend_from_slice(&row.tokens[..row.valid_len as usize]);
        }
        let mut texts: Vec<String> = ids
            .split(|&id| id == set.specials().eos)
            .map(|ids| tokenizer.decode(ids, false).expect("decodes"))
            .collect();
        texts.pop();
        texts
    }
}

fn drops(summary: &Value) -> Value {
    let sources = summary["sources"].as_array().expect("sources");
    sources.iter().map(|source| source["drops"].clone()).collect()
}

#[test]
fn what_is_left_out_is_counted_everywhere_and_the_rest_is_clean() {
    let place = Place::new();
    let summary = place.json(&[]);
    let docs = json!({
        "contaminated": 1, "duplicate": 1, "near_duplicate": 1, "repeated_lines": 1, "too_short": 1,
    });
    assert_eq!(drops(&summary), json!([docs, {"duplicate": 2}]));
    assert_eq!((&summary["dropped"], &summary["rejected"]), (&json!(7), &json!(1)));
    assert_eq!(summary["documents"], 4);
    let clean = format!("{}\nnext line", prose(2));
    assert_eq!(place.documents(), [prose(1), clean, prose(5), prose(6)]);

    let index: Value =
        serde_json::from_slice(&place.tree("set")[Path::new("index.json")]).expect("JSON");
    assert_eq!(index["sources"][0]["drops"], docs);
    let card = fs::read_to_string(place.path("set/README.md")).expect("a card");
    assert!(card.contains("| docs | `near_duplicate` | 1 |"), "{card}");
    let (_, text, _) = place.run(&["-q"]);
    assert!(
        text.contains("more: 1 documents") && text.contains("2 left out (duplicate)"),
        "{text}"
    );
    let left: Vec<String> = fs::read_dir(place.0.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_document_is_explained() {
    let place = Place::new();
    let explain = |document: &str| place.json(&["--explain", document]);
    let outcome = |line: usize| explain(&format!("docs:docs.jsonl:{line}"));

    let first = outcome(1);
    assert_eq!((&first["outcome"], &first["place"]["line"]), (&json!("taken_in"), &json!(1)));
    assert!(first["tokens"].as_u64().is_some_and(|tokens| tokens > 60));
    assert_eq!(first["blake3"], blake3::hash(prose(1).as_bytes()).to_hex().as_str());

    let short = outcome(2);
    assert_eq!((&short["outcome"], &short["reason"]), (&json!("left_out"), &json!("too_short")));
    let rule = &short["clean"].as_array().expect("rules")[1];
    assert_eq!(
        (&rule["key"], &rule["value"], &rule["bound"], &rule["dropped"]),
        (&json!("min_chars"), &json!(5.0), &json!(20.0), &json!(true))
    );
    let same = outcome(3);
    assert_eq!(same["reason"], "duplicate");
    let of = json!({"source": "docs", "file": "docs.jsonl", "line": 1});
    assert_eq!(same["duplicate"], json!({ "of": of }));
    let near = outcome(4);
    assert_eq!((&near["reason"], &near["duplicate"]["of"]), (&json!("near_duplicate"), &of));
    let similarity = near["duplicate"]["similarity"].as_f64().expect("a number");
    // 51 of 61 5-grams are in both.
    assert!((similarity - 51.0 / 61.0).abs() < 0.14, "{similarity}");
    let changed = outcome(5);
    assert_eq!(changed["outcome"], "taken_in");
    let bytes = changed["bytes"].as_array().expect("two");
    assert_eq!(bytes[0].as_u64(), bytes[1].as_u64().map(|n| n + 3 + 1 + 1));
    let contaminated = outcome(6);
    assert_eq!(contaminated["reason"], "contaminated");
    let task = contaminated["contamination"]["task"].as_str().expect("a task");
    assert_eq!(task, "HumanEval/9 (bench/tasks.jsonl)");
    let words = contaminated["contamination"]["text"].as_str().expect("words");
    assert_eq!(words, "def add three numbers and return the sum of all of them in");
    assert_eq!(outcome(7)["reason"], "repeated_lines");
    let empty = outcome(8);
    assert_eq!(
        (&empty["outcome"], &empty["rejection"]["reason"]),
        (&json!("rejected"), &json!("empty_text"))
    );

    // In another source, by its text, and as people read it.
    let digits = blake3::hash(prose(5).as_bytes()).to_hex().to_string();
    assert_eq!(explain(&digits[..10])["place"]["line"], 9, "the first one with this text");
    let later = explain("more:more.jsonl:1");
    assert_eq!(later["duplicate"]["of"]["line"], 9);
    let (code, text, _) = place.run(&["--explain", "more:more.jsonl:1"]);
    assert_eq!(code, 0);
    assert!(text.contains("duplicate: the same text as docs: docs.jsonl line 9"), "{text}");
    assert!(text.ends_with("  left out (duplicate)\n"), "{text}");
    assert!(!place.path("set").exists(), "nothing was written");

    for (document, words) in [
        ("docs:docs.jsonl:99", "no record was found"),
        ("docs:other.jsonl:1", "has no file"),
        ("none:docs.jsonl:1", "there is no source"),
        ("0123456789", "whose BLAKE3 begins with"),
        ("docs", "SOURCE:FILE:LINE"),
    ] {
        let (code, _, stderr) = place.run(&["--explain", document]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// Once the set is there, a document's rows are told: its ids stand there, and those of another's do not.
#[test]
fn an_explained_document_is_found_in_the_set() {
    let place = Place::new();
    assert!(place.json(&["--explain", "docs:docs.jsonl:1"])["placed"].is_null(), "no set yet");
    let (code, _, stderr) = place.run(&["--quiet"]);
    assert_eq!(code, 0, "{stderr}");
    let set = ShardSet::open(place.path("set")).expect("the set");
    let mut rows = Vec::new();
    for line in [1, 5, 9] {
        let told = place.json(&["--explain", &format!("docs:docs.jsonl:{line}")]);
        let tokens = told["tokens"].as_u64().expect("taken in");
        let found = told["placed"].as_array().expect("places");
        assert_eq!(found.len(), 1, "line {line}: {told}");
        let number = |key: &str| found[0][key].as_u64().expect("a number");
        let row = set.row(number("row")).expect("a row");
        assert!(row.segments.iter().any(|&start| u64::from(start) == number("token")));
        // From there on that many tokens follow to the end token, in this row and the next ones.
        let stream = (number("row")..set.rows())
            .flat_map(|row| set.row(row).expect("a row").tokens.to_vec())
            .skip(usize::try_from(number("token")).expect("small"));
        let end = stream.take_while(|&id| id != set.specials().eos).count() as u64;
        assert_eq!(end + 1, tokens, "line {line}");
        rows.push((number("row"), number("token")));
    }
    assert!(rows.is_sorted() && rows[0] == (0, 0), "{rows:?}");
    let (_, text, _) = place.run(&["--explain", "docs:docs.jsonl:1"]);
    assert!(text.contains(": row 0 from token 0 on\n"), "{text}");
    assert!(place.json(&["--explain", "docs:docs.jsonl:2"])["placed"].is_null(), "left out");
}

/// A corpus in which most documents are duplicates, across batches, files and a budget that ends in
/// the middle of a batch: what is decided behind it must not count.
#[test]
fn neither_jobs_nor_the_place_of_a_budget_change_a_byte() {
    let place = Place::new();
    let text = |i: usize| match i % 3 {
        0 => prose(i % 700),
        1 => prose(i % 500).replace("7 ", "9 "),
        _ => prose(i),
    };
    let texts: Vec<String> = (0..6000).map(text).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (file, part) in all.chunks(2000).enumerate() {
        place.lines(&format!("big/{file}.jsonl"), part);
    }
    place.lines("rest.jsonl", &all[4000..]);
    place.manifest(&json!({
        "rows_per_shard": 4000,
        "dedup": {"near": {"bands": 8, "rows": 4}, "memory": 1 << 20},
        "sources": [{"name": "big", "paths": ["big/*.jsonl"], "tokens": "600K"},
                    {"name": "rest", "paths": ["rest.jsonl"]}],
    }));
    let mut summaries = Vec::new();
    for jobs in ["1", "2", "7"] {
        let out = format!("set{jobs}");
        let mut summary = place.json(&["--jobs", jobs, "--out", &out]);
        for timed in ["seconds", "tokens_per_second", "shard_set"] {
            summary.as_object_mut().expect("keys").remove(timed);
        }
        summaries.push(summary);
    }
    assert_eq!(summaries[0], summaries[1]);
    assert!(place.tree("set1") == place.tree("set2") && place.tree("set1") == place.tree("set7"));
    let rest = &summaries[0]["sources"][1]["drops"];
    assert!(rest["duplicate"].as_u64().is_some_and(|n| n > 500), "{rest}");

    // Behind the budget nothing is read: the same set without what follows.
    let (code, _, stderr) = place.run(&["--explain", "big:big/2.jsonl:2000"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("token budget is reached"), "{stderr}");
    let documents = summaries[0]["documents"].as_u64().expect("a number");
    let taken = place.json(&["--explain", "rest:rest.jsonl:2000"]);
    assert!(documents > 500 && taken["outcome"] == "taken_in", "{taken}");
}

#[test]
fn sources_have_their_own_rules_and_a_dry_run_shows_them() {
    let place = Place::new();
    place.manifest(&json!({
        "clean": {"profile": "prose"},
        "sources": [{"name": "docs", "paths": ["docs.jsonl"], "clean": {"min_chars": 3}},
                    {"name": "more", "paths": ["more.jsonl"], "clean": {"profile": "none"}}],
    }));
    let dry = place.json(&["--dry-run"]);
    assert_eq!(dry["sources"][0]["clean"]["min_chars"], 3);
    assert_eq!(dry["sources"][0]["clean"]["max_replacement_share"], 0.001);
    assert_eq!(dry["sources"][0]["sampled_drops"], json!({"repeated_lines": 1}));
    assert_eq!(dry["sources"][1]["clean"], json!({}));
    // The values of a dry run, written out, are the same set.
    let with_profile = place.json(&[]);
    let explicit = format!("data.sources.0.clean={}", dry["sources"][0]["clean"]);
    let (code, _, stderr) = place.run(&["data.clean=", &explicit, "-q"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("up to date"), "{stderr}");
    assert_eq!(with_profile["dropped"], 1);
}

#[test]
fn a_benchmark_that_cannot_protect_is_a_usage_error() {
    let place = Place::new();
    for (key, words) in [
        ("data.decontaminate.fields=[question]", "no task with at least 8 words"),
        ("data.decontaminate.files=[none.jsonl]", "does not exist"),
        ("data.decontaminate.files=[../../etc/passwd]", "allowed_roots"),
    ] {
        let (code, _, stderr) = place.run(&[key, "-q"]);
        assert_eq!(code, 2, "{key}: {stderr}");
        assert!(stderr.contains(words) && stderr.contains("hint: "), "{key}: {stderr}");
    }
    // A benchmark that changes is another recipe.
    place.json(&[]);
    place.write("bench/tasks.jsonl", "{\"prompt\": \"one two three four five six seven eight\"}\n");
    let (code, _, stderr) = place.run(&["-q"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("other inputs"), "{stderr}");
}

#[test]
fn conversations_are_cleaned_and_compared_as_a_whole() {
    let place = Place::new();
    let pair = |q: &str, a: &str| json!({"instruction": q, "output": a}).to_string() + "\n";
    let data = [
        pair("Add two numbers?", "a + b\r\n"),
        pair("Add two numbers?", "a + b\n"),
        pair("Add two numbers?", "a - b"),
        pair("?", "!"),
    ];
    place.write("sft.jsonl", &data.concat());
    place.manifest(&json!({
        "clean": {"newlines": "lf", "min_chars": 10},
        "dedup": {},
        "sources": [{"name": "sft", "paths": ["sft.jsonl"], "kind": "sft"}],
    }));
    let summary = place.json(&["stage=post"]);
    assert_eq!(drops(&summary), json!([{"duplicate": 1, "too_short": 1}]));
    assert_eq!(summary["documents"], 2);
}
