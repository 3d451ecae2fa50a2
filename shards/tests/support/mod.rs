//! Small shard sets for tests.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its own part")]

use coda_manifests::{SpanKind, SpanKinds};
use coda_shards::{
    Index, RowBuf, ShardWriter, SourceReport, Span, Specials, SyntaxSpan, WriterOptions, row_key,
};
use std::{collections::BTreeMap, path::Path};

pub const EOS: u32 = 1;
pub const PAD: u32 = 2;
pub const MASK: u32 = 3;

/// Any fixed stream of numbers will do: `SplitMix64`.
pub fn noise(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Row `ordinal` of source `source`: packed rows in even sources, prompt rows in odd ones.
pub fn row(source: u16, name: &str, ordinal: u64, length: u32) -> RowBuf {
    let key = row_key(name, ordinal);
    let draw = |i: u64, n: u32| u32::try_from(noise(key, i) % u64::from(n)).unwrap();
    let valid_len = if ordinal % 3 == 2 { 1 + draw(0, length) } else { length };
    let tokens = (0..length)
        .map(|i| if i < valid_len { 4 + draw(100 + u64::from(i), 4000) } else { PAD })
        .collect();
    let chat = source % 2 == 1;
    let mut segments = vec![0];
    if !chat {
        segments.extend((1..valid_len).filter(|&i| draw(9000 + u64::from(i), 7) == 0));
    }
    let prefix_len = if chat { draw(1, valid_len + 1) } else { 0 };
    let maskable = if chat && prefix_len == valid_len {
        Vec::new()
    } else if chat {
        vec![Span { start: prefix_len, len: valid_len - prefix_len }]
    } else {
        vec![Span { start: 0, len: length }]
    };
    RowBuf {
        tokens,
        segments,
        row_key: key,
        source,
        prefix_len,
        valid_len,
        maskable,
        spans: Vec::new(),
    }
}

pub fn options(dir: &Path, names: &[&str], length: u32, per_shard: u32) -> WriterOptions {
    let tokenizer = dir.join("source-tokenizer.json");
    std::fs::write(&tokenizer, b"{\"version\":\"1.0\"}\n").unwrap();
    WriterOptions {
        row_length: length,
        rows_per_shard: per_shard,
        specials: Specials { eos: EOS, pad: PAD, mask: MASK },
        spans: None,
        tokenizer,
        manifest_hash: "0123abcd".to_owned(),
        sources: names.iter().map(|&name| name.to_owned()).collect(),
        replace: false,
    }
}

pub fn reports(names: &[&str]) -> Vec<SourceReport> {
    let report = |name: &&str| SourceReport {
        name: (*name).to_owned(),
        license: Some("CC0-1.0".to_owned()),
        documents: 5,
        input_bytes: 700,
        rejects: BTreeMap::from([("not_utf8".to_owned(), 1)]),
        drops: BTreeMap::new(),
        origins: Vec::new(),
    };
    names.iter().map(report).collect()
}

/// All rows of a set with these sources.
pub fn rows(sources: &[(&str, u64)], length: u32) -> Vec<RowBuf> {
    let mut rows = Vec::new();
    for (source, &(name, count)) in sources.iter().enumerate() {
        let source = u16::try_from(source).unwrap();
        rows.extend((0..count).map(|ordinal| row(source, name, ordinal, length)));
    }
    rows
}

/// Writes a set into `work/set`.
pub fn write(work: &Path, sources: &[(&str, u64)], length: u32, per_shard: u32) -> Index {
    let names: Vec<&str> = sources.iter().map(|&(name, _)| name).collect();
    write_rows(work, options(work, &names, length, per_shard), &rows(sources, length))
}

fn write_rows(work: &Path, options: WriterOptions, rows: &[RowBuf]) -> Index {
    let names = options.sources.clone();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut writer = ShardWriter::create(work.join("set"), options).unwrap();
    for row in rows {
        writer.push(row).unwrap();
    }
    for name in &names {
        let reject = BTreeMap::from([("source", *name), ("reason", "not_utf8")]);
        writer.push_reject(&reject).unwrap();
    }
    writer.finish(reports(&names)).unwrap()
}

/// Some lines and some nested pairs of brackets in each document of a row.
pub fn spans(row: &RowBuf) -> Vec<SyntaxSpan> {
    let mut spans = Vec::new();
    let ends = row.segments.iter().skip(1).copied().chain([row.valid_len]);
    for (&start, end) in row.segments.iter().zip(ends) {
        let mut from = start;
        while from < end {
            let len = 1 + u32::try_from(noise(row.row_key, u64::from(from)) % 6).unwrap();
            let len = len.min(end - from);
            let mut push = |start, len, kind: SpanKind| {
                if len >= 2 {
                    spans.push(SyntaxSpan { start, len, kind: kind.code() });
                }
            };
            push(from, len, SpanKind::Lines);
            push(from, len.saturating_sub(1), SpanKind::Brackets);
            push(from + 1, len.saturating_sub(3), SpanKind::Brackets);
            from += len;
        }
    }
    spans.sort_by_key(|span| (span.start, u32::MAX - span.len, span.kind));
    spans
}

/// The rows of [`rows`] with [`spans`].
pub fn rows_with_spans(sources: &[(&str, u64)], length: u32) -> Vec<RowBuf> {
    let rows = rows(sources, length).into_iter();
    rows.map(|row| RowBuf { spans: spans(&row), ..row }).collect()
}

/// As [`write`], with the spans.
pub fn write_with_spans(
    work: &Path,
    sources: &[(&str, u64)],
    length: u32,
    per_shard: u32,
) -> Index {
    let names: Vec<&str> = sources.iter().map(|&(name, _)| name).collect();
    let options = options(work, &names, length, per_shard);
    let options = WriterOptions { spans: SpanKinds::new(SpanKind::ALL), ..options };
    write_rows(work, options, &rows_with_spans(sources, length))
}

/// Every file of a directory with its bytes.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}
