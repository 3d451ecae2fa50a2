//! A shard set of each format version, frozen: every later version must read it alike.

mod support;

use coda_shards::{ShardSet, verify};
use std::{fs, path::PathBuf};
use support::{rows, rows_with_spans, tree, write, write_with_spans};

const SOURCES: [(&str, u64); 2] = [("text", 3), ("chat", 2)];
const LENGTH: u32 = 16;
const ROWS_PER_SHARD: u32 = 3;
const FINGERPRINT: &str = "4bffa67ea06ed750ef312cad2afc956381e04621cf27ea699cfad150500e7bec";

fn frozen() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/compat/shards_v1")
}

#[test]
fn the_frozen_set_reads_as_ever() {
    let set = ShardSet::open(frozen()).unwrap();
    assert_eq!(set.fingerprint(), FINGERPRINT);
    let expected = rows(&SOURCES, LENGTH);
    assert_eq!(set.rows(), expected.len() as u64);
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(&set.row(i as u64).unwrap().to_buf(), expected, "row {i}");
    }
    assert_eq!(verify(frozen()).unwrap().problems, []);
}

/// Every value of every row, as pyarrow read it when the set was frozen.
#[test]
fn the_frozen_rows_have_their_recorded_values() {
    let recorded = fs::read_to_string(frozen().with_extension("rows.jsonl")).unwrap();
    let set = ShardSet::open(frozen()).unwrap();
    assert_eq!(recorded.lines().count() as u64, set.rows());
    for (number, line) in (0..).zip(recorded.lines()) {
        let row = set.row(number).unwrap();
        let spans: Vec<[u32; 2]> =
            row.maskable_starts.iter().zip(row.maskable_lens).map(|(&s, &l)| [s, l]).collect();
        let read = serde_json::json!({
            "tokens": row.tokens,
            "segments": row.segments,
            "row_key": row.row_key,
            "source": row.source,
            "prefix_len": row.prefix_len,
            "valid_len": row.valid_len,
            "maskable": spans,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap(), read, "row {number}");
    }
}

#[test]
fn the_same_rows_still_give_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &SOURCES, LENGTH, ROWS_PER_SHARD);
    assert!(tree(&work.path().join("set")) == tree(&frozen()), "the writer's bytes have changed");
}

/// Version 2: the same rows with spans of their text.
fn frozen_v2() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/compat/shards_v2")
}

const FINGERPRINT_V2: &str = "d765aa8bb91ec9b7f8618b816f9080b35d6ddc8c680554b3e69a7fb19290777f";

#[test]
fn the_frozen_set_with_spans_reads_as_ever() {
    let set = ShardSet::open(frozen_v2()).unwrap();
    assert_eq!(set.fingerprint(), FINGERPRINT_V2);
    let expected = rows_with_spans(&SOURCES, LENGTH);
    assert_eq!(set.rows(), expected.len() as u64);
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(&set.row(i as u64).unwrap().to_buf(), expected, "row {i}");
    }
    assert_eq!(verify(frozen_v2()).unwrap().problems, []);
}

#[test]
fn the_same_rows_with_spans_still_give_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    write_with_spans(work.path(), &SOURCES, LENGTH, ROWS_PER_SHARD);
    assert!(
        tree(&work.path().join("set")) == tree(&frozen_v2()),
        "the writer's bytes have changed"
    );
}

/// The spans of every row, as pyarrow read them when the set was frozen.
#[test]
fn the_frozen_spans_have_their_recorded_values() {
    let recorded = fs::read_to_string(frozen_v2().with_extension("spans.jsonl")).unwrap();
    let set = ShardSet::open(frozen_v2()).unwrap();
    assert_eq!(recorded.lines().count() as u64, set.rows());
    for (number, line) in (0..).zip(recorded.lines()) {
        let row = set.row(number).unwrap();
        let spans: Vec<_> =
            row.spans.iter().map(|span| (span.start, span.len, span.kind)).collect();
        let read = serde_json::json!(spans);
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap(), read, "row {number}");
    }
}

/// Writes the frozen set, once per format version:
/// `cargo test --release -p coda-shards --test compat -- --ignored freeze`.
#[test]
#[ignore = "writes the fixture; run it only for a new format version, into a new folder"]
fn freeze() {
    assert!(!frozen_v2().exists(), "a frozen set is never written again");
    let work = tempfile::tempdir().unwrap();
    write_with_spans(work.path(), &SOURCES, LENGTH, ROWS_PER_SHARD);
    fs::create_dir_all(frozen_v2()).unwrap();
    for (name, bytes) in tree(&work.path().join("set")) {
        fs::write(frozen_v2().join(name), bytes).unwrap();
    }
}
