//! The binary as users run it: results, exit codes, what is left on disk.
use super::common;
use assert_cmd::Command;
use coda_shards::ShardSet;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A folder with a tokenizer, data and a manifest.
struct Place {
    folder: TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: stdout {:?}, stderr {}", self.stdout, self.stderr))
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.write("tokenizer.json", common::tokenizer().json.as_bytes());
        let documents: Vec<String> =
            (0..400).map(|i| format!("fn f{i}() {{ {} }}\n", "x += 1; ".repeat(i % 37))).collect();
        place.write("docs/a.jsonl", &lines(documents[..150].iter()));
        let zst = zstd::encode_all(&lines(documents[150..300].iter())[..], 1).expect("in memory");
        place.write("docs/b.jsonl.zst", &zst);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&lines(documents[300..].iter())).expect("in memory");
        place.write("docs/c.jsonl.gz", &gz.finish().expect("in memory"));
        place.write("code/src/main.rs", b"fn main() {}\n");
        place.write("code/src/deep/lib.py", b"def f():\n    return 1\n");
        place.write("code/target/out.rs", b"left out");
        place.write("code/.hidden/x.rs", b"left out");
        place.write("code/vendor/x.rs", b"left out");
        place.write("code/logo.png", b"left out");
        place.write("code/blob.rs", b"bin\0ary");
        place.manifest(&json!([
            {"name": "docs", "paths": ["docs/*.jsonl*"], "license": "CC0-1.0"},
            {"name": "code", "paths": ["code"]},
        ]));
        place
    }

    fn manifest(&self, sources: &Value) {
        let manifest = json!({
            "version": 1, "name": "test", "stage": "pre",
            "tokenizer": {"path": "tokenizer.json"},
            "data": {"out": "shards", "row_length": 64, "rows_per_shard": 100, "sources": sources},
        });
        // JSON is YAML.
        self.write("m.yaml", manifest.to_string().as_bytes());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"))
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .expect("runs");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran
    }

    fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let read = |path: PathBuf| fs::read(path).expect("readable");
        fs::read_dir(self.path(dir))
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
            .map(|e| (e.file_name().to_string_lossy().into_owned(), read(e.path())))
            .collect()
    }
}

fn lines(documents: impl Iterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut out = Vec::new();
    for text in documents {
        writeln!(out, "{}", json!({ "text": text.as_ref() })).expect("in memory");
    }
    out
}

/// Everything that was written, decoded, documents apart.
fn documents(dir: &Path, source: usize) -> Vec<String> {
    let set = ShardSet::open(dir).expect("opens");
    let tokenizer: tokenizers::Tokenizer = common::tokenizer().json.parse().expect("loads");
    let mut ids = Vec::new();
    for number in 0..set.rows() {
        let row = set.row(number).expect("a row");
        if usize::from(row.source) == source {
            ids.extend_from_slice(&row.tokens[..row.valid_len as usize]);
        }
    }
    let mut texts: Vec<String> = ids
        .split(|&id| id == set.specials().eos)
        .map(|ids| tokenizer.decode(ids, false).expect("decodes"))
        .collect();
    assert_eq!(texts.pop().as_deref(), Some(""));
    texts
}

#[test]
fn a_build_writes_what_it_says_and_its_text_comes_back() {
    let place = Place::new();
    let summary = place.ok(&["--manifest", "m.yaml", "--json"]).json();
    let keys: Vec<&str> =
        summary.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "documents",
            "rejected",
            "dropped",
            "rows",
            "tokens",
            "padding_tokens",
            "input_bytes",
            "output_bytes",
            "seconds",
            "tokens_per_second",
            "shard_set",
            "fingerprint",
            "padding_share",
            "sources"
        ],
        "the contract of the command line"
    );
    assert_eq!((summary["documents"].as_u64(), summary["rejected"].as_u64()), (Some(402), Some(0)));
    let size: u64 = place
        .files("shards")
        .iter()
        .filter(|(n, _)| *n != "index.json")
        .map(|(_, b)| b.len() as u64)
        .sum();
    assert_eq!(summary["output_bytes"].as_u64(), Some(size));

    let docs = documents(&place.path("shards"), 0);
    assert_eq!(docs.len(), 400);
    assert_eq!(docs[299], format!("fn f299() {{ {} }}\n", "x += 1; ".repeat(299 % 37)));
    let code = documents(&place.path("shards"), 1);
    assert_eq!(code, ["def f():\n    return 1\n", "fn main() {}\n"], "sorted by path");

    place.ok(&["verify", "shards"]);
    let row = place.ok(&["inspect", "shards", "--row", "0", "--text", "--json"]).json();
    assert_eq!(row["source_name"], "docs");
    assert_eq!(row["maskable"], json!([[0, 64]]));
    assert!(row["text"].as_str().expect("text").starts_with("fn f0() {"));
    let whole = place.ok(&["inspect", "shards"]);
    assert!(whole.stdout.contains("licence CC0-1.0"), "{}", whole.stdout);
}

#[test]
fn any_number_of_jobs_writes_the_same_bytes() {
    let place = Place::new();
    place.write("docs/bad.jsonl", b"{\"text\":1}\n{}\n");
    let allow = "data.max_reject_rate=0.5";
    for jobs in ["1", "2", "7"] {
        let out = format!("out{jobs}");
        place.ok(&["--manifest", "m.yaml", "--out", &out, "--jobs", jobs, allow]);
    }
    let one = place.files("out1");
    assert!(one.len() > 5, "several shards: {:?}", one.keys());
    assert!(one == place.files("out2") && one == place.files("out7"));
}

#[test]
fn a_second_run_is_up_to_date_and_a_different_one_is_refused() {
    let place = Place::new();
    place.ok(&["--manifest", "m.yaml"]);
    let before = place.files("shards");
    let again = place.ok(&["--manifest", "m.yaml", "--json"]);
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    assert_eq!(again.json()["documents"], 402);
    assert_eq!(place.files("shards"), before);

    let other = place.run(&["--manifest", "m.yaml", "data.row_length=32"]);
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("hint: --force"), "{}", other.stderr);
    assert_eq!(place.files("shards"), before, "nothing was touched");

    place.write("docs/a.jsonl", b"{\"text\":\"changed\"}\n");
    assert_eq!(place.run(&["--manifest", "m.yaml"]).code, 2, "other inputs are another set");
    place.ok(&["--manifest", "m.yaml", "--force"]);
    assert_eq!(documents(&place.path("shards"), 0)[0], "changed");
    let left: Vec<String> = fs::read_dir(place.folder.path())
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "no temporary folder is left: {left:?}");
}

#[test]
fn force_keeps_the_old_set_when_the_new_one_fails() {
    let place = Place::new();
    place.ok(&["--manifest", "m.yaml"]);
    let before = place.files("shards");
    let failed = place.run(&["--manifest", "m.yaml", "--force", "data.rows_per_shard=0"]);
    assert_eq!(failed.code, 2, "{}", failed.stderr);
    assert_eq!(place.files("shards"), before);
}

#[test]
fn rejects_above_the_allowance_end_with_1_and_the_set_is_complete() {
    let place = Place::new();
    place.write("docs/bad.jsonl", b"{\"text\":\"good\"}\n{\"txt\":\"a\"}\n\xff\xff\n");
    let ran = place.run(&["--manifest", "m.yaml", "--json"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.json()["rejected"], 2);
    assert!(ran.stderr.contains("invalid_utf8 1, missing_field 1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    place.ok(&["verify", "shards"]);
    let rejects = fs::read_to_string(place.path("shards/rejects.jsonl")).expect("there");
    let rejects: Vec<Value> =
        rejects.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rejects[0]["file"], "docs/bad.jsonl");
    assert_eq!((&rejects[0]["line"], &rejects[0]["byte_offset"]), (&json!(2), &json!(16)));
    assert_eq!(rejects[0]["reason"], "missing_field");
    assert_eq!(
        rejects[1]["head_blake3"].as_str(),
        Some(blake3::hash(b"\xff\xff").to_hex().as_str())
    );
    assert_eq!(place.run(&["--manifest", "m.yaml"]).code, 1, "again, also when up to date");
    place.ok(&["--manifest", "m.yaml", "--out", "other", "data.max_reject_rate=0.01"]);
}

#[test]
fn conversations_become_one_row_each() {
    let place = Place::new();
    let pair = |q: &str, a: &str| format!("{}\n", json!({"q": q, "a": a}));
    let long = "word ".repeat(200);
    let data = [pair("Two?", "2"), pair("Long?", &long), pair(&long, "never seen")].concat();
    place.write("sft.jsonl", data.as_bytes());
    let source = json!({"name": "sft", "paths": ["sft.jsonl"], "kind": "sft",
                        "fields": {"instruction": "q", "output": "a"}});
    place.manifest(&json!([source]));
    let summary = place.ok(&["--manifest", "m.yaml", "--json", "stage=post"]).json();
    assert_eq!((&summary["documents"], &summary["rows"]), (&json!(2), &json!(2)));
    let set = ShardSet::open(place.path("shards")).expect("opens");
    let judge: tokenizers::Tokenizer = common::tokenizer().json.parse().expect("loads");
    let prompt = "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant";
    let whole = format!("{prompt}\n<think>\n\n</think>\n\n2<|im_end|>\n");
    let ids = judge.encode(whole, false).expect("encodes").get_ids().to_vec();
    let prompt_ids = judge.encode(prompt, false).expect("encodes").len();
    let row = set.row(0).expect("a row");
    assert_eq!(row.tokens[..ids.len()], ids);
    assert_eq!((row.valid_len as usize, row.prefix_len as usize), (ids.len(), prompt_ids));
    assert!(row.tokens[ids.len()..].iter().all(|&id| id == set.specials().pad));
    assert_eq!(row.maskable_starts, [row.prefix_len]);
    assert_eq!(row.maskable_lens, [row.valid_len - row.prefix_len]);
    assert_eq!(set.row(1).expect("a row").valid_len, 64, "cut");

    let drop =
        ["--manifest", "m.yaml", "--out", "dropped", "--json", "stage=post", "data.overlong=drop"];
    let dropped = place.ok(&drop).json();
    assert_eq!((&dropped["rows"], &dropped["sources"][0]["dropped"]), (&json!(1), &json!(2)));
    assert_eq!(summary["sources"][0]["overlong_truncated"], 1);
}

#[test]
fn best_fit_packing_keeps_documents_whole() {
    let place = Place::new();
    let packed = ["--manifest", "m.yaml", "--json", "data.packing=best-fit", "--jobs"];
    for (out, jobs) in [("one", "1"), ("three", "3")] {
        place.ok(&[&packed[..], &[jobs, "--out", out]].concat());
    }
    assert!(place.files("one") == place.files("three"), "the same for any number of jobs");
    let concat = place.ok(&["--manifest", "m.yaml", "--json"]).json();
    let best = place.ok(&[&packed[..], &["2", "--out", "two"]].concat()).json();
    assert_eq!((&best["documents"], &best["tokens"]), (&concat["documents"], &concat["tokens"]));
    let share = |summary: &Value| summary["padding_share"].as_f64().expect("a share");
    assert!(share(&best) > share(&concat) && share(&best) < 0.1, "{best}");
    place.ok(&["verify", "two"]);

    // Documents are whole: a row that does not end with an end token is full of one that is longer.
    let set = ShardSet::open(place.path("two")).expect("opens");
    let rows = (0..set.rows()).map(|number| set.row(number).expect("a row"));
    let cut = rows.filter(|row| row.tokens[row.valid_len as usize - 1] != set.specials().eos);
    let cut: Vec<(usize, u32)> = cut.map(|row| (row.segments.len(), row.valid_len)).collect();
    assert!(!cut.is_empty() && cut.iter().all(|&cut| cut == (1, 64)), "{cut:?}");
}

#[test]
fn sources_are_mixed_by_weight_or_by_epochs() {
    let place = Place::new();
    let shares = |more: &[&str]| {
        let summary = place.ok(&[&["--manifest", "m.yaml", "--json"], more].concat()).json();
        let share = |i: usize| summary["sources"][i]["training_share"].as_f64().expect("a share");
        (share(0), share(1))
    };
    place.write("code/src/more.rs", "fn more() { more(); }\n".repeat(60).as_bytes());
    let held = "data.held_out=0.000001";
    let (docs, code) = shares(&[held]);
    assert!((docs + code - 1.0).abs() < 1e-12 && code < docs);
    let (_, heavy) = shares(&[held, "data.sources.0.weight=1", "data.sources.1.weight=3"]);
    assert!((heavy - 0.75).abs() < 1e-12, "{heavy}");
    let (_, often) = shares(&[held, "data.sources.1.epochs=3"]);
    assert!((often / (1.0 - often) / (code / docs) - 3.0).abs() < 1e-9, "three times as often");

    let both = ["--manifest", "m.yaml", "data.sources.0.weight=1", "data.sources.1.epochs=3"];
    let refused = place.run(&both);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("epochs") && refused.stderr.contains("hint: "));
}

#[test]
fn a_dry_run_estimates_and_writes_nothing() {
    let place = Place::new();
    let dry = place.ok(&["--manifest", "m.yaml", "--dry-run", "--json"]).json();
    assert!(!place.path("shards").exists());
    let files = dry["sources"][0]["files"].as_array().expect("files");
    assert_eq!(files.len(), 3);
    assert_eq!(files[0]["name"], "docs/a.jsonl");
    let tokens = place.ok(&["--manifest", "m.yaml", "--json"]).json()["tokens"].as_f64();
    let (estimated, tokens) = (dry["estimated_tokens"].as_f64(), tokens);
    let (estimated, tokens) = (estimated.expect("a number"), tokens.expect("a number"));
    assert!((estimated / tokens - 1.0).abs() < 0.1, "{estimated} against {tokens}");

    let wrong = place.run(&["--manifest", "m.yaml", "--dry-run", "data.sources.0.text_field=body"]);
    assert_eq!(wrong.code, 2, "a field that no record has");
    assert!(wrong.stderr.contains("\"body\""), "{}", wrong.stderr);
}

#[test]
fn mistakes_are_told_apart() {
    let place = Place::new();
    for (arguments, code, words) in [
        (&["--manifest", "none.yaml"][..], 3, "none.yaml"),
        (&["--manifest", "m.yaml", "tokenizer.mask=<MASK>"], 2, "tokenizer.mask"),
        (&["--manifest", "m.yaml", "tokenizer.path=missing.json"], 2, "missing.json"),
        (&["--manifest", "m.yaml", "tokenizer.path=m.yaml"], 2, "not a Hugging Face tokenizer"),
        (&["--manifest", "m.yaml", "data.sources.0.paths=[nothing/*.jsonl]"], 2, "does not exist"),
        (&["--manifest", "m.yaml", "data.sources.0.paths=[code/*.jsonl]"], 2, "matches no file"),
        (&["--manifest", "m.yaml", "data.sources.0.paths=[code/logo.png]"], 2, "format"),
        (&["--manifest", "m.yaml", "data.sources.0.pahts=[a]"], 2, "did you mean"),
        (&["--manifest", "m.yaml", "data.sources.0.paths=[../../..]"], 2, "allowed_roots"),
        (&["--jobs", "2"], 2, "--manifest"),
        (&["verify", "docs"], 4, "no finished shard set"),
        (&["inspect", "docs"], 4, "no finished shard set"),
        (&["train-tokenizer", "--input", "code", "--vocab-size", "100", "--out", "t"], 2, "262"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{arguments:?}: {}", ran.stdout);
        assert!(!place.path("shards").exists(), "{arguments:?} wrote something");
    }
}

#[test]
fn a_damaged_set_is_found_with_4() {
    let place = Place::new();
    place.ok(&["--manifest", "m.yaml"]);
    let path = place.path("shards/shard-00000.arrow");
    let mut bytes = fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("written");
    let ran = place.run(&["verify", "shards", "--json"]);
    assert_eq!(ran.code, 4);
    assert_eq!(ran.json()["sound"], false);
    assert_eq!(ran.json()["problems"][0]["file"], "shard-00000.arrow");
    place.ok(&["--manifest", "m.yaml", "--force"]);
    place.ok(&["verify", "shards"]);
}

#[test]
fn a_tokenizer_is_trained_the_same_twice_and_used() {
    let place = Place::new();
    for out in ["a.json", "b.json"] {
        let ran = place.ok(&[
            "train-tokenizer",
            "--input",
            "code",
            "docs/*.jsonl*",
            "--vocab-size",
            "280",
            "--out",
            out,
            "--json",
        ]);
        assert_eq!(ran.json()["documents"], 402);
        assert_eq!(ran.json()["vocab_size"], 280);
    }
    assert_eq!(fs::read(place.path("a.json")).ok(), fs::read(place.path("b.json")).ok());
    place.ok(&["--manifest", "m.yaml", "tokenizer.path=a.json"]);
}

#[cfg(unix)]
#[test]
fn links_are_read_where_the_manifest_may_read_and_refused_elsewhere() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    place.write("blobs/0a1b", &lines(["a blob behind a link"].iter()));
    symlink(place.path("blobs/0a1b"), place.path("docs/d.jsonl")).expect("linked");
    place.ok(&["--manifest", "m.yaml", "--quiet"]);
    let texts = documents(&place.path("shards"), 0);
    assert_eq!(texts.last().map(String::as_str), Some("a blob behind a link"));

    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::write(elsewhere.path().join("secret.jsonl"), lines(["secret"].iter())).expect("written");
    symlink(elsewhere.path().join("secret.jsonl"), place.path("docs/e.jsonl")).expect("linked");
    let ran = place.run(&["--manifest", "m.yaml", "--out", "other", "--quiet"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("secret.jsonl") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    assert!(!place.path("other/index.json").exists());
}

#[test]
fn a_dry_run_without_tokenizer_and_corpora_tells_what_it_can() {
    let place = Place::new();
    place.manifest(&json!([
        {"name": "web", "preset": "dclm-baseline-1.0", "paths": ["web/*.zst"], "tokens": "60.17B"},
        {"name": "maths", "preset": "open-web-math", "paths": ["maths/*.parquet"]},
        {"name": "own", "paths": ["docs/*.jsonl*"]},
    ]));
    let arguments = ["--manifest", "m.yaml", "--dry-run", "tokenizer.path=none.json", "-j", "2"];
    let dry = place.ok(&[&arguments[..], &["--json"]].concat()).json();
    assert_eq!(dry["estimated_tokens"], 60_170_000_000_u64 + 14_700_000_000);
    assert_eq!(dry["unknown"], json!(["own"]));
    assert_eq!(
        dry["estimated_output_bytes"].as_u64(),
        dry["estimated_rows"].as_u64().map(|n| n * 256)
    );
    assert!(dry["free_bytes"].as_u64().is_some_and(|free| free > 0));
    assert_eq!(dry["measured"], false);
    let [web, maths, own] = [&dry["sources"][0], &dry["sources"][1], &dry["sources"][2]];
    assert_eq!(
        (&web["published"]["tokens"], &web["files"]),
        (&json!(4_000_000_000_000_u64), &json!(0))
    );
    assert!(web["not_listed"][0].as_str().is_some_and(|why| why.contains("does not exist")));
    assert_eq!(maths["estimated_tokens"], 14_700_000_000_u64);
    assert_eq!((&own["files"], &own["published"]), (&json!(3), &Value::Null));

    let text = place.ok(&arguments).stdout;
    for words in [
        "none.json is not there",
        "60.2B tokens (its budget)",
        "published (dclm-baseline-1.0)",
        "without own",
        "are free",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!place.path("shards").exists());
    assert_eq!(place.run(&["--manifest", "m.yaml", "tokenizer.path=none.json"]).code, 2);
}

/// Of conversations the rows are known before any token is: one each.
#[test]
fn a_dry_run_of_conversations_counts_their_rows() {
    let place = Place::new();
    place.manifest(&json!([
        {"name": "evol", "preset": "opc-sft-stage2", "paths": ["sft/evol_instruct/*.parquet"]},
        {"name": "all", "preset": "opc-sft-stage2", "paths": ["sft/*.parquet"]},
    ]));
    let arguments = ["--manifest", "m.yaml", "--dry-run", "tokenizer.path=none.json", "stage=post"];
    let dry = place.ok(&[&arguments[..], &["--json"]].concat()).json();
    let row = dry["row_length"].as_u64().expect("a length");
    let [evol, all] = [&dry["sources"][0], &dry["sources"][1]];
    assert_eq!(
        (&evol["estimated_rows"], &all["estimated_rows"]),
        (&json!(111_000), &json!(435_900))
    );
    assert_eq!(evol["estimated_tokens"], 111_000 * row);
    assert_eq!(evol["published"]["documents"], 111_000);
    assert_eq!((&dry["estimated_rows"], &dry["unknown"]), (&json!(546_900), &json!([])));
    let text = place.ok(&arguments).stdout;
    let lines = ["111k rows (a conversation each)", "published (opc-sft-stage2): 111k documents\n"];
    assert!(lines.iter().all(|line| text.contains(line)), "{text}");
}

#[test]
fn presets_are_listed_and_written_out() {
    let place = Place::new();
    let list = place.ok(&["presets"]).stdout;
    assert!(list.lines().any(|line| line.starts_with("wikipedia ")), "{list}");
    let all = place.ok(&["presets", "--json"]).json();
    assert_eq!(all["presets"].as_array().map(Vec::len), Some(list.lines().count()));
    let one = place.ok(&["presets", "gutenberg-english"]).stdout;
    assert!(one.contains("\ntext_field: TEXT\n") && one.contains("48.3k documents"), "{one}");
    let one = place.ok(&["presets", "gutenberg-english", "--json"]).json();
    assert_eq!(one["keys"]["transforms"], json!(["lf"]));
    let wrong = place.run(&["presets", "wikipedai"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""));
}
