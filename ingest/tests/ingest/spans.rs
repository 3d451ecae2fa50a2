//! Spans of the text in rows, as ingest writes them.

use super::killed::{Place, assert_same, error, tree};
use coda_ingest::tokenize::HfEncoder;
use coda_manifests::{SpanKind, SpanKinds};
use coda_shards::{ShardSet, ShardWriter, SourceReport, SyntaxSpan, WriterOptions};
use std::fs;

/// What a program of this crate says.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
    let ran = command.current_dir(place.path("")).args(arguments).output().expect("it starts");
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    (ran.status.code().unwrap_or(-1), stdout, error(&ran))
}

#[test]
fn spans_are_lines_and_brackets_of_the_text() {
    let place = Place::new(200);
    let spans = "data.spans=[lines, brackets]";
    let first = place.build("set", 1, &[spans]);
    assert_same(&first, &place.build("again", 3, &[spans]), "for any number of jobs");
    let best_fit = [spans, "data.packing=best-fit"];
    place.build("best-fit", 2, &best_fit);

    for dir in ["set", "best-fit"] {
        let set = ShardSet::open(place.path(dir)).expect("opens");
        assert_eq!(set.index().format_version, 2);
        let tokenizer = HfEncoder::load(&set.tokenizer_path(), false).expect("loads");
        let (mut lines, mut brackets) = (0, 0);
        for number in 0..set.rows() {
            let row = set.row(number).expect("a row");
            for span in row.spans.iter() {
                let ids = &row.tokens[span.start as usize..(span.start + span.len) as usize];
                let text = tokenizer.decode(ids).expect("decodes");
                if span.kind == SpanKind::Lines.code() {
                    assert!(!text.trim_end_matches('\n').contains('\n'), "{text:?}");
                    lines += 1;
                } else {
                    let balance =
                        |open, close| text.matches(open).count().min(text.matches(close).count());
                    let pairs = balance('(', ')') + balance('[', ']') + balance('{', '}');
                    assert!(pairs > 0, "{text:?}");
                    brackets += 1;
                }
            }
        }
        assert!(lines > 150 && brackets > 10, "{dir}: {lines} {brackets}");
    }

    let (code, stdout, stderr) = run(&place, &["inspect", "set", "--row", "0", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("\"brackets\"") && stdout.contains("\"lines\""), "{stdout}");
    let (_, summary, _) = run(&place, &["inspect", "set"]);
    assert!(summary.contains("spans        lines,brackets"), "{summary}");
}

/// But for the spans, a set is the one without.
#[test]
fn spans_change_no_row() {
    let place = Place::new(120);
    place.build("without", 1, &[]);
    place.build("with", 2, &["data.spans=brackets"]);
    let (without, with) = (place.path("without"), place.path("with"));
    let (without, with) =
        (ShardSet::open(without).expect("opens"), ShardSet::open(with).expect("opens"));
    assert_eq!((without.index().format_version, with.index().format_version), (1, 2));
    assert_eq!(without.rows(), with.rows());
    for number in 0..without.rows() {
        let mut row = with.row(number).expect("a row").to_buf();
        assert!(row.spans.iter().all(|span| span.kind == SpanKind::Brackets.code()));
        row.spans.clear();
        assert_eq!(row, without.row(number).expect("a row").to_buf());
    }
    let tokenizer = fs::read(place.path("without/tokenizer.json")).expect("there");
    assert_eq!(tokenizer, fs::read(place.path("with/tokenizer.json")).expect("there"));
}

#[test]
fn verify_finds_spans_that_are_not_of_the_text() {
    let place = Place::new(60);
    place.build("set", 1, &["data.spans=lines"]);
    let (code, stdout, stderr) = run(&place, &["verify", "set"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    // Written by the book, but with spans of its own.
    let set = ShardSet::open(place.path("set")).expect("opens");
    let index = set.index();
    let names: Vec<String> = index.sources.iter().map(|source| source.name.clone()).collect();
    let options = WriterOptions {
        row_length: index.row_length,
        rows_per_shard: index.rows_per_shard,
        specials: index.specials,
        spans: SpanKinds::new([SpanKind::Lines]),
        tokenizer: set.tokenizer_path(),
        manifest_hash: index.manifest_hash.clone(),
        sources: names.clone(),
        replace: false,
    };
    let mut writer = ShardWriter::create(place.path("forged"), options).expect("a writer");
    for number in 0..set.rows() {
        let mut row = set.row(number).expect("a row").to_buf();
        if number == 5 {
            row.spans = vec![SyntaxSpan { start: 0, len: 2, kind: SpanKind::Lines.code() }];
        }
        writer.push(&row).expect("it keeps the rules");
    }
    let report = |name: &String| SourceReport { name: name.clone(), ..SourceReport::default() };
    writer.finish(names.iter().map(report).collect()).expect("an index");
    let (code, stdout, _) = run(&place, &["verify", "forged"]);
    assert_eq!(code, 4, "{stdout}");
    assert!(stdout.contains("shard-00000.arrow, row 5: its spans are not those"), "{stdout}");
}

/// The frozen set of version 2 has a tokenizer that is none: its bytes are sound, and what cannot be held
/// against the text is said.
#[test]
fn frozen_sets_of_every_version_are_sound() {
    let place = Place::new(1);
    for (version, told) in [("v1", ""), ("v2", "note: its spans were not found again: ")] {
        let dir = format!("{}/../tests/compat/shards_{version}", env!("CARGO_MANIFEST_DIR"));
        let (code, stdout, stderr) = run(&place, &["verify", &dir]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert!(stdout.starts_with(told) && stdout.contains(": sound; 5 rows"), "{stdout}");
        let (_, stdout, _) = run(&place, &["verify", &dir, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        assert_eq!(report["spans_unchecked"].is_string(), !told.is_empty(), "{report}");
    }
}

#[test]
fn a_tokenizer_that_is_not_of_bytes_is_refused() {
    let place = Place::new(20);
    let json = fs::read_to_string(place.path("tokenizer.json")).expect("there");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let split = serde_json::json!({"type": "Whitespace"});
    tokenizer["pre_tokenizer"] = split;
    tokenizer["decoder"] = serde_json::Value::Null;
    place.write("tokenizer.json", &tokenizer.to_string());
    let arguments = ["--manifest", "m.yaml", "-q", "--out", "set", "data.spans=lines"];
    let (code, _, stderr) = run(&place, &arguments);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("byte-level") && stderr.contains("hint: "), "{stderr}");
    assert!(!place.path("set").exists());
    // Without spans any tokenizer will do.
    place.build("set", 1, &["data.max_reject_rate=1"]);
    assert!(tree(&place.path("set")).len() >= 5);
}
