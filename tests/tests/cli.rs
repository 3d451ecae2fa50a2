//! What people script against: help texts, JSON keys, exit codes, errors with hints.
//!
//! The texts are snapshots in `snapshots/`; `INSTA_UPDATE=always` accepts new ones.

mod support;

use insta::{Settings, assert_snapshot};
use serde_json::Value;
use std::{fmt::Write as _, fs, path::Path};
use support::{Ran, Workplace, manifest, program, tree};

/// Snapshots without what differs between machines and runs.
fn stable(work: &Workplace, check: impl FnOnce()) {
    let mut settings = Settings::clone_current();
    let real = fs::canonicalize(work.path("")).expect("a folder");
    for folder in [real.as_path(), work.path("").as_path()] {
        let folder = folder.to_string_lossy();
        let folder = folder.trim_end_matches('/').replace('.', r"\.");
        settings.add_filter(&folder, "[work]");
    }
    settings.add_filter(r"[0-9a-f]{64}", "[hash]");
    settings.add_filter(r"[0-9]+\.[0-9]+ s \([^)]*\)", "[time]");
    // The corpora are documents of this repository, which grow.
    settings.add_filter(r"[0-9]+ rows in [0-9]+ shards, [0-9.]+ [KM]iB", "[size]");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(check);
}

fn shown(ran: &Ran) -> String {
    format!("exit {}\n--- stdout\n{}--- stderr\n{}", ran.code, ran.stdout, ran.stderr)
}

/// The keys of a JSON value, nested ones indented; of a list those of its first element.
fn key_tree(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let _ = writeln!(text, "{}{key}", "  ".repeat(indent));
                key_tree(value, indent + 1, text);
            }
        }
        Value::Array(list) => {
            if let Some(first) = list.first() {
                key_tree(first, indent, text);
            }
        }
        _ => {}
    }
}

fn keys(ran: &Ran) -> String {
    let mut text = String::new();
    key_tree(&ran.json(), 0, &mut text);
    text
}

#[test]
fn help_texts() {
    for (name, commands) in [
        (
            "coda-ingest",
            [
                "",
                "inspect",
                "verify",
                "export",
                "import",
                "card",
                "fetch",
                "merge",
                "presets",
                "records",
                "train-tokenizer",
            ]
            .as_slice(),
        ),
        ("coda-curriculum", &["", "show", "draw", "diff"]),
        (
            "coda-trainer",
            &[
                "",
                "sample",
                "eval",
                "eval code",
                "plan",
                "bench",
                "inspect",
                "verify",
                "export",
                "check",
            ],
        ),
        ("coda-serve", &[""]),
    ] {
        for command in commands {
            let args = command.split_whitespace().chain(["--help"]);
            let output = program(name).args(args).output().expect("runs");
            assert!(output.status.success());
            let mut settings = Settings::clone_current();
            settings.set_prepend_module_to_snapshot(false);
            settings.bind(|| {
                let text = String::from_utf8(output.stdout).expect("UTF-8");
                let name = format!("help-{name}-{command}").replace(' ', "-");
                assert_snapshot!(name.trim_end_matches('-'), text);
            });
        }
    }
}

/// Imports Megatron files with the tokenizer of the workplace.
fn imported(work: &Workplace, from: &str, out: &str) -> Ran {
    let ids = ["--eos", "<|im_end|>", "--pad", "<|endoftext|>", "--mask", "<|mask|>"];
    let rest = ["--row-length", "64", "--name", "back", "--tokenizer", "tokenizer.json", "--json"];
    let args = ["import", from, "--from", "megatron", "--out", out, "-q"];
    work.run("coda-ingest", &[&args[..], &ids].concat(), &rest)
}

#[test]
fn json_objects_keep_their_keys() {
    let work = Workplace::new();
    work.manifest("pre");
    let ingest =
        |more: &[&str]| work.run("coda-ingest", &["--manifest", "pre.yaml", "--json", "-q"], more);
    let inspect =
        |more: &[&str]| work.run("coda-ingest", &["inspect", "shards/pre", "--json"], more);
    let curriculum = |command, more: &[&str]| {
        work.run("coda-curriculum", &[command, "--manifest", "pre.yaml", "--json"], more)
    };
    let trainer = |command, more: &[&str]| work.run("coda-trainer", &[command], more);
    let export = |more: &[&str]| {
        work.run("coda-ingest", &["export", "shards/pre", "--to", "megatron"], more)
    };
    let records = |more: &[&str]| work.run("coda-ingest", &["records", "corpora/docs.jsonl"], more);
    let all = [
        ("ingest --dry-run", ingest(&["--dry-run"])),
        ("ingest", ingest(&[])),
        ("ingest inspect --row", inspect(&["--row", "0", "--text"])),
        ("ingest verify", work.run("coda-ingest", &["verify", "shards/pre", "--json"], &[])),
        ("ingest export", export(&["--out", "exported", "--json", "-q"])),
        ("ingest import", imported(&work, "exported", "imported")),
        ("ingest card", work.run("coda-ingest", &["card", "shards/pre", "--json"], &[])),
        ("ingest records", records(&["--out", "records.jsonl", "--json", "-q"])),
        ("curriculum show", curriculum("show", &[])),
        ("curriculum draw", curriculum("draw", &["--step", "0", "--rows", "0..1"])),
        ("trainer plan", trainer("plan", &["--stage", "pre", "--manifest", "pre.yaml", "--json"])),
        ("trainer", work.train("pre", "run", &["--steps", "2"])),
        ("trainer inspect", trainer("inspect", &["run", "--json"])),
        ("trainer verify", trainer("verify", &["run", "--json"])),
        (
            "trainer sample",
            trainer(
                "sample",
                &["--checkpoint", "run", "--prompt", "fn", "--max-new-tokens", "2", "--json", "-q"],
            ),
        ),
    ];
    let mut text = String::new();
    for (name, ran) in &all {
        let _ = writeln!(text, "# {name}\n{}", keys(ran));
    }
    let mut metrics = String::new();
    key_tree(work.metrics("run").last().expect("a line"), 0, &mut metrics);
    let _ = write!(text, "# metrics.jsonl\n{metrics}");
    stable(&work, || assert_snapshot!("json-keys", text));
}

#[test]
fn a_wrong_manifest_is_a_usage_error_with_a_hint() {
    let work = Workplace::new();
    let good = manifest("pre");
    for (name, text) in [
        ("unknown-key", good.replace("row_length", "row_lenght")),
        ("wrong-type", good.replace("row_length: 64", "row_length: many")),
        ("outside-the-roots", good.replace("corpora/docs.jsonl", "../../etc/passwd")),
        ("missing-source", good.replace("corpora/docs.jsonl", "corpora/none.jsonl")),
        ("missing-tokenizer", good.replace("tokenizer.json", "none.json")),
        ("unknown-mask", good.replace("<|mask|>", "<|no-mask|>")),
    ] {
        work.write("bad.yaml", text);
        let ran = work.run("coda-ingest", &["--manifest", "bad.yaml", "-q"], &[]);
        assert!(!work.path("shards/pre/index.json").exists(), "{name} wrote a shard set");
        let helps = ran.stderr.contains("hint: ") || ran.stderr.contains("expected");
        assert!(helps, "{name} says nothing of what would be right: {}", ran.stderr);
        stable(&work, || assert_snapshot!(format!("manifest-{name}"), shown(&ran)));
    }
    work.manifest("pre");
    for (name, args) in [
        ("missing", ["--manifest", "none.yaml", "-q"]),
        ("override", ["--manifest", "pre.yaml", "data.row_lenght=3"]),
        ("not-an-override", ["--manifest", "pre.yaml", "fast"]),
    ] {
        let ran = work.run("coda-ingest", &args, &[]);
        stable(&work, || assert_snapshot!(format!("manifest-{name}"), shown(&ran)));
    }
}

/// A zstd frame that holds `content` (below 256 bytes) without compressing it.
fn zstd_frame(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    let header = (u32::from(length) << 3 | 1).to_le_bytes();
    let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x20, length];
    [&frame, &header[..3], content].concat()
}

#[test]
fn bad_records_are_rejected_one_by_one_and_the_rest_is_kept() {
    let work = Workplace::new();
    let good = b"{\"text\": \"fn main() { work(); }\"}\n".as_slice();
    let frame = zstd_frame(&[good, good].concat());
    assert!(frame.len() > 60);
    for (name, file, content) in [
        ("truncated-zst", "docs.jsonl.zst", frame[..frame.len() - 20].to_vec()),
        ("invalid-utf8", "docs.jsonl", [good, b"{\"text\": \"\xff\"}\n", good].concat()),
        ("no-text-field", "docs.jsonl", [good, b"{\"body\": \"x\"}\n", good].concat()),
        ("not-json", "docs.jsonl", [good, b"{\"text\": \n", good].concat()),
    ] {
        work.write(&format!("{name}/{file}"), content);
        let text = manifest("pre").replace("corpora/docs.jsonl", &format!("{name}/{file}"));
        let text = text.replace("format: jsonl", "format: auto");
        work.write("bad.yaml", text);
        let out = format!("shards/{name}");
        let ran = work.run("coda-ingest", &["--manifest", "bad.yaml", "--out", &out, "-q"], &[]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        let rejects = work.read(&format!("{out}/rejects.jsonl"));
        assert_eq!(rejects.lines().count(), 1, "{rejects}");
        stable(&work, || {
            assert_snapshot!(
                format!("reject-{name}"),
                format!("{}--- rejects\n{rejects}", ran.stderr)
            );
        });
        assert_eq!(work.run("coda-ingest", &["verify", &out], &[]).code, 0, "the rest is whole");
        let allowed = ["--manifest", "bad.yaml", "--out", &out, "-q", "data.max_reject_rate=0.9"];
        assert_eq!(work.run("coda-ingest", &allowed, &["--force"]).code, 0, "within the allowance");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("written back");
}

#[test]
fn damaged_artefacts_are_refused_and_named() {
    let work = Workplace::new();
    work.ingest("pre");
    assert_eq!(work.train("pre", "run", &["--steps", "2"]).code, 0);
    let before = tree(&work.path("run"));

    flip(&work.path("shards/pre/shard-00000.arrow"), 5000);
    let verify = work.run("coda-ingest", &["verify", "shards/pre"], &[]);
    let train = work.train("pre", "other", &[]);
    stable(&work, || {
        assert_snapshot!("damaged-shard-verify", shown(&verify));
        assert_snapshot!("damaged-shard-train", shown(&train));
    });
    assert_eq!(tree(&work.path("run")), before, "what was written stays as it was");

    fs::remove_dir_all(work.path("shards/pre")).expect("there");
    work.ingest("pre");
    let shape = work.train("pre", "other", &["--init", "run", "model.hidden_size=64"]);
    let resumed = work.train("pre", "run", &["--steps", "4", "model.hidden_size=64"]);
    stable(&work, || {
        assert_snapshot!("other-shape-init", shown(&shape));
        assert_snapshot!("other-shape-resume", shown(&resumed));
    });
    assert_eq!(tree(&work.path("run")), before, "what was written stays as it was");

    let latest = work.read("run/checkpoints/latest");
    let weights = format!("run/checkpoints/{}/model.safetensors", latest.trim());
    flip(&work.path(&weights), 20_000);
    let verify = work.run("coda-trainer", &["verify", "run"], &[]);
    stable(&work, || assert_snapshot!("damaged-checkpoint-verify", shown(&verify)));
}

#[test]
fn exports_and_cards_overwrite_nothing_and_leave_nothing_behind() {
    let work = Workplace::new();
    work.ingest("pre");
    let export = |args: &[&str]| work.run("coda-ingest", &["export", "shards/pre", "-q"], args);
    work.write("taken/mine.txt", "mine");
    let mut shown_all = String::new();
    for args in [
        ["--to", "flat", "--out", "taken"].as_slice(),
        &["--to", "flat", "--out", "new", "--source", "dcos"],
        &["--to", "flat", "--out", "new", "--part", "held"],
        &["--to", "flat", "--out", "new", "--part", "held", "--held-out", "1"],
        &["--to", "hf", "--out", "new", "--id-bits", "16"],
        &["--to", "numpy", "--out", "new"],
        &["--to", "flat", "--out", "shards/pre/new"],
    ] {
        let ran = export(args);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        let _ = writeln!(shown_all, "# export {}\n{}", args.join(" "), shown(&ran));
        assert!(!work.path("new").exists() && !work.path("shards/pre/new").exists());
    }
    for out in ["taken/mine.txt", "shards/pre/CARD.md"] {
        let ran = work.run("coda-ingest", &["card", "shards/pre", "--out", out], &[]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        let _ = writeln!(shown_all, "# card --out {out}\n{}", shown(&ran));
    }
    assert_eq!(work.read("taken/mine.txt"), "mine");
    flip(&work.path("shards/pre/shard-00000.arrow"), 5000);
    let ran = export(&["--to", "parquet", "--out", "new"]);
    assert_eq!(ran.code, 4, "a damaged set is not exported: {}", ran.stderr);
    let _ = writeln!(shown_all, "# a damaged set\n{}", shown(&ran));
    stable(&work, || assert_snapshot!("usage-export-and-card", shown_all));
    let left: Vec<_> = tree(&work.path("")).into_iter().map(|(path, _)| path).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".tmp-")), "{left:?}");
}

#[test]
fn wrong_command_lines() {
    let work = Workplace::new();
    work.manifest("pre");
    for (name, program, args) in [
        ("no-manifest", "coda-ingest", ["--json", "-q"].as_slice()),
        ("no-shards", "coda-ingest", &["inspect", "none"]),
        ("no-rows", "coda-curriculum", &["draw", "--manifest", "pre.yaml", "--step", "0"]),
        ("not-ingested", "coda-trainer", &["--stage", "pre", "--manifest", "pre.yaml", "-q"]),
        ("other-stage", "coda-trainer", &["--stage", "mid", "--manifest", "pre.yaml", "-q"]),
        (
            "no-engine",
            "coda-trainer",
            &["--stage", "pre", "--manifest", "pre.yaml", "--engine", "cuda"],
        ),
        ("no-checkpoint", "coda-trainer", &["sample", "--checkpoint", "none", "--prompt", "fn"]),
    ] {
        let ran = work.run(program, args, &[]);
        stable(&work, || assert_snapshot!(format!("usage-{name}"), shown(&ran)));
    }
}
