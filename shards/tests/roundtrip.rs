//! What goes in comes out, from the mapping itself, and always as the same bytes.

mod support;

use coda_shards::{Check, RowBuf, ShardError, ShardSet, ShardWriter, Span, SyntaxSpan, verify};
use proptest::prelude::*;
use std::fs;
use support::{PAD, options, reports, rows, rows_with_spans, tree, write, write_with_spans};

const SOURCES: [(&str, u64); 3] = [("text", 11), ("chat", 7), ("code", 5)];

#[test]
fn rows_come_back_as_they_were_written() {
    let work = tempfile::tempdir().unwrap();
    let index = write(work.path(), &SOURCES, 32, 5);
    assert_eq!((index.rows, index.shards.len()), (23, 5));
    for check in [Check::Checksums, Check::Structure] {
        let set = ShardSet::open_with(work.path().join("set"), check).unwrap();
        assert_eq!(set.index(), &index);
        for (i, expected) in rows(&SOURCES, 32).iter().enumerate() {
            assert_eq!(&set.row(i as u64).unwrap().to_buf(), expected, "row {i}");
        }
        assert!(matches!(set.row(23), Err(ShardError::OutOfRange { row: 23, rows: 23 })));
        assert!(set.row(u64::MAX).is_err());
    }
    let report = verify(work.path().join("set")).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.rows, report.shards), (23, 5));
}

#[test]
fn spans_come_back_and_only_sets_with_spans_are_of_version_2() {
    let work = tempfile::tempdir().unwrap();
    let index = write_with_spans(work.path(), &SOURCES, 32, 5);
    assert_eq!((index.format_version, index.rows), (2, 23));
    let set = ShardSet::open(work.path().join("set")).unwrap();
    let expected = rows_with_spans(&SOURCES, 32);
    assert!(expected.iter().map(|row| row.spans.len()).sum::<usize>() > 100);
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(&set.row(i as u64).unwrap().to_buf(), expected, "row {i}");
    }
    assert_eq!(verify(work.path().join("set")).unwrap().problems, []);
    let json = fs::read_to_string(work.path().join("set/index.json")).unwrap();
    assert!(json.contains("\"spans\": [\n    \"lines\",\n    \"brackets\"\n  ]"), "{json}");
    let without = tempfile::tempdir().unwrap();
    assert_eq!(write(without.path(), &SOURCES, 32, 5).format_version, 1);
    let json = fs::read_to_string(without.path().join("set/index.json")).unwrap();
    assert!(!json.contains("spans"), "{json}");
}

#[test]
fn every_slice_lies_in_the_mapping_and_is_aligned() {
    let work = tempfile::tempdir().unwrap();
    // Three record batches per shard: 2^21 / 2^20 = 2 rows each.
    write(work.path(), &[("text", 7)], 1 << 20, 5);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    for i in 0..set.rows() {
        let mapping = set.mapping_of(i).unwrap();
        let row = set.row(i).unwrap();
        for slice in [row.tokens, row.segments, row.maskable_starts, row.maskable_lens] {
            assert!(slice.as_ptr().is_aligned());
            let bytes = slice.as_ptr_range();
            assert!(mapping.start <= bytes.start.cast() && bytes.end.cast() <= mapping.end);
        }
        assert_eq!(row.tokens.len(), 1 << 20);
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), &SOURCES, 16, 4);
    write(two.path(), &SOURCES, 16, 4);
    let (one, two) = (tree(&one.path().join("set")), tree(&two.path().join("set")));
    assert!(one == two);
    assert!(one.keys().all(|name| !name.starts_with('.')), "{:?}", one.keys());
}

#[test]
fn threads_may_share_a_set() {
    fn shareable<T: Send + Sync>() {}
    shareable::<ShardSet>();
}

#[test]
fn an_empty_set_is_a_set() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 0)], 8, 4);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    assert_eq!(set.rows(), 0);
    assert!(set.row(0).is_err());
    assert!(verify(work.path().join("set")).unwrap().is_sound());
}

#[test]
fn the_index_tells_what_is_in_the_set() {
    let work = tempfile::tempdir().unwrap();
    let index = write(work.path(), &SOURCES, 32, 5);
    let all = rows(&SOURCES, 32);
    let tokens: u64 = all.iter().map(|row| u64::from(row.valid_len)).sum();
    assert_eq!((index.totals.tokens, index.totals.padding_tokens), (tokens, 23 * 32 - tokens));
    assert_eq!((index.totals.documents, index.totals.rejected), (15, 3));
    assert_eq!(index.totals.input_bytes, 2100);
    let starts: Vec<u64> = index.sources.iter().map(|source| source.first_row).collect();
    assert_eq!(starts, [0, 11, 18]);
    let card = fs::read_to_string(work.path().join("set/README.md")).unwrap();
    assert!(card.contains("| chat | CC0-1.0 | 5 |"), "{card}");
    let rejects = fs::read_to_string(work.path().join("set/rejects.jsonl")).unwrap();
    assert_eq!(rejects.lines().count(), 3);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    assert_eq!(fs::read(set.tokenizer_path()).unwrap(), b"{\"version\":\"1.0\"}\n");
}

#[test]
fn rows_that_break_a_rule_are_refused_and_nothing_is_lost() {
    let work = tempfile::tempdir().unwrap();
    let good = rows(&[("a", 2), ("b", 1)], 8);
    let options = options(work.path(), &["a", "b"], 8, 4);
    let mut writer = ShardWriter::create(work.path().join("set"), options).unwrap();
    writer.push(&good[0]).unwrap();
    let second = &good[1];
    let line = SyntaxSpan { start: 0, len: 2, kind: 0 };
    let broken: [(&str, RowBuf); 7] = [
        ("kind 0", RowBuf { spans: vec![line], ..second.clone() }),
        ("tokens", RowBuf { tokens: vec![4; 7], ..second.clone() }),
        ("row_key", RowBuf { row_key: 1, ..second.clone() }),
        ("source", RowBuf { source: 2, ..second.clone() }),
        ("pad", RowBuf { valid_len: 4, segments: vec![0], ..second.clone() }),
        ("first segment", RowBuf { segments: vec![3], ..second.clone() }),
        ("maskable", RowBuf { maskable: vec![Span { start: 8, len: 1 }], ..second.clone() }),
    ];
    for (word, row) in broken {
        let error = writer.push(&row).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("row 1"), "{error}");
    }
    writer.push(second).unwrap();
    writer.push(&good[2]).unwrap();
    let late = support::row(0, "a", 2, 8);
    assert!(writer.push(&late).unwrap_err().to_string().contains("later source"));
    writer.finish(reports(&["a", "b"])).unwrap();
    assert!(verify(work.path().join("set")).unwrap().is_sound());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_comes_back(
        counts in prop::collection::vec(0u64..9, 1..4),
        length in 1u32..40,
        per_shard in 1u32..7,
    ) {
        let work = tempfile::tempdir().unwrap();
        let sources: Vec<(&str, u64)> = ["a", "b", "c"].into_iter().zip(counts).collect();
        write(work.path(), &sources, length, per_shard);
        let set = ShardSet::open(work.path().join("set")).unwrap();
        let expected = rows(&sources, length);
        prop_assert_eq!(set.rows(), expected.len() as u64);
        for (i, expected) in expected.iter().enumerate() {
            let row = set.row(i as u64).unwrap();
            prop_assert_eq!(&row.to_buf(), expected);
            prop_assert!(row.tokens[row.valid_len as usize..].iter().all(|&id| id == PAD));
        }
        prop_assert!(verify(work.path().join("set")).unwrap().is_sound());
    }
}
