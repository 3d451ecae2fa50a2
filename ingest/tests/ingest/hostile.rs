//! Every class of bad input becomes a counted reject, and the good records around it are kept.
use super::{columns, common};
use coda_cli::{Progress, ProgressArgs, ProgressMode, signals::Stop};
use coda_ingest::{
    decode::{DecodeOptions, Limits, Members},
    pack::{Overlong, PackedRow},
    pipeline::{
        Commit, CommitError, Line, PipelineError, SourcePlan, SourceProgress, SourceReport,
        run_source,
    },
    record::{Extractor, RecordShape},
    reject::Reject,
    source::Container,
    tokenize::{Encode, EncodeError, Specials},
};
use coda_manifests::Packing;
use std::{io::Write as _, path::PathBuf};
use tempfile::TempDir;

/// One id for each byte, so that rows show the text.
pub(crate) struct Bytes;

impl Encode for Bytes {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError> {
        ids.extend(text.bytes().map(u32::from));
        Ok(())
    }
}

pub(crate) const SPECIALS: Specials = Specials { eos: 256, pad: 257, mask: 258 };

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<PackedRow>,
    pub(crate) rejects: Vec<Reject>,
}

impl Commit for Kept {
    fn row(&mut self, row: PackedRow) -> Result<bool, CommitError> {
        self.rows.push(row);
        Ok(false)
    }

    fn note(&mut self, _: SourceProgress) -> Result<(), CommitError> {
        unreachable!("no row asks for it")
    }
    fn reject(&mut self, reject: Reject) -> Result<(), CommitError> {
        self.rejects.push(reject);
        Ok(())
    }
}

impl Kept {
    pub(crate) fn documents(&self) -> Vec<String> {
        let ids: Vec<u32> = self
            .rows
            .iter()
            .flat_map(|row| row.tokens[..row.valid_len as usize].iter().copied())
            .collect();
        let mut documents: Vec<String> = ids
            .split(|&id| id == SPECIALS.eos)
            .map(|ids| {
                let bytes = ids.iter().map(|&id| u8::try_from(id).expect("a byte")).collect();
                String::from_utf8(bytes).expect("UTF-8")
            })
            .collect();
        assert_eq!(documents.pop().as_deref(), Some(""), "every document has its end token");
        documents
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.rejects.iter().map(|reject| reject.reason).collect()
    }
}

struct Setup {
    jobs: usize,
    limits: Limits,
    max_document_bytes: usize,
    budget: Option<u64>,
    shape: RecordShape,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            jobs: 2,
            limits: Limits::default(),
            max_document_bytes: 1 << 20,
            budget: None,
            shape: RecordShape::Text { field: "text".to_owned() },
        }
    }
}

impl Setup {
    fn run(&self, files: &[(PathBuf, Container)]) -> (Kept, SourceReport) {
        self.try_run(files).expect("never stops at bad input")
    }

    fn try_run(
        &self,
        files: &[(PathBuf, Container)],
    ) -> Result<(Kept, SourceReport), PipelineError> {
        let mut kept = Kept::default();
        let plan = SourcePlan {
            name: "source".to_owned(),
            files: files.iter().map(|(path, container)| common::input(path, *container)).collect(),
            extractor: Extractor::new(self.shape.clone()),
            origins: Vec::new(),
            unlisted: Vec::new(),
            blobs: None,
            number: 0,
            cleaner: coda_ingest::clean::Cleaner::default(),
            chat: None,
            members: Members::default(),
            drop_generated: false,
            budget: self.budget,
        };
        let workers =
            rayon::ThreadPoolBuilder::new().num_threads(self.jobs).build().expect("threads");
        let quiet = ProgressArgs { progress: ProgressMode::None, quiet: true };
        let line = Line {
            fetch: None,
            encoder: &Bytes,
            specials: SPECIALS,
            row_length: 16,
            overlong: Overlong::Truncate,
            packing: Packing::Concat,
            decode: DecodeOptions {
                max_document_bytes: self.max_document_bytes,
                limits: self.limits,
                ..DecodeOptions::default()
            },
            benchmarks: None,
            marker: None,
            dedup: None,
            workers: &workers,
            progress: &Progress::start(quiet, "test", "bytes", None),
            stop: &Stop::never(),
        };
        let report = run_source(&plan, &line, &mut kept, None)?;
        assert_eq!(report.rejected, kept.rejects.len() as u64);
        assert_eq!(report.rows, kept.rows.len() as u64);
        Ok((kept, report))
    }

    fn jsonl(&self, bytes: &[u8]) -> (Kept, SourceReport) {
        let (_folder, path) = file("data.jsonl", bytes);
        self.run(&[(path, Container::Jsonl)])
    }
}

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    (folder, path)
}

fn lines(documents: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in documents {
        writeln!(out, "{}", serde_json::json!({ "text": text })).expect("in memory");
    }
    out
}

/// Three lines: good, the one in question, good.
fn around(bad: &[u8]) -> (Kept, SourceReport) {
    let mut bytes = lines(&["before"]);
    bytes.extend_from_slice(bad);
    bytes.push(b'\n');
    bytes.extend(lines(&["after"]));
    let (kept, report) = Setup::default().jsonl(&bytes);
    assert_eq!(kept.documents(), ["before", "after"], "the good records are kept");
    if let Some(reject) = kept.rejects.first() {
        assert_eq!((reject.line, reject.byte_offset), (Some(2), Some(18)));
        assert_eq!(
            reject.head_blake3,
            blake3::hash(&bad[..bad.len().min(256)]).to_hex().to_string(),
            "the record can be found again"
        );
    }
    (kept, report)
}

#[test]
fn every_kind_of_bad_line_has_its_reason() {
    let deep_text = format!("{{\"text\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: &[(&[u8], &str)] = &[
        (b"{\"text\": \"cut", "malformed_json"),
        (b"not json", "malformed_json"),
        (b"{\"text\":\"a\"}{\"text\":\"b\"}", "malformed_json"),
        (b"{\"text\":\"raw \x01 control\"}", "malformed_json"),
        (b"{\"text\":\"\xff\xfe\"}", "invalid_utf8"),
        (b"{\"x\":\"\xc3\x28\",\"text\":\"a\"}", "invalid_utf8"),
        (b"{\"body\":\"a\"}", "missing_field"),
        (b"{\"text\":null}", "missing_field"),
        (b"{\"text\":12}", "wrong_type"),
        (b"{\"text\":[\"a\"]}", "wrong_type"),
        (b"{\"text\":{\"text\":\"a\"}}", "wrong_type"),
        (b"[\"text\"]", "wrong_type"),
        (b"\"text\"", "wrong_type"),
        (b"{\"text\":\"\"}", "empty_text"),
        (b"{\"text\":\"a\",\"text\":\"b\"}", "duplicate_key"),
        (b"{\"text\":\"\\ud83d\"}", "lone_surrogate"),
        (b"{\"text\":\"\\ude00 low\"}", "lone_surrogate"),
        (deep_text.as_bytes(), "wrong_type"),
        (b"\x00\x00\x00", "malformed_json"),
    ];
    for (bad, reason) in cases {
        let (kept, report) = around(bad);
        assert_eq!(
            kept.reasons(),
            [*reason],
            "{}",
            String::from_utf8_lossy(&bad[..bad.len().min(60)])
        );
        assert_eq!(report.reasons.get(reason), Some(&1));
        assert!(!kept.rejects[0].message.is_empty());
    }
}

#[test]
fn odd_but_valid_lines_are_kept_exactly() {
    for (line, text) in [
        (&b"{\"text\":\"nul \\u0000 inside\"}"[..], "nul \0 inside"),
        (b"{\"text\":\"pair \\ud83d\\ude00\"}", "pair \u{1f600}"),
        (b"{\"text\":\"crlf\\r\\n\"}\r", "crlf\r\n"),
        (b"{\"text\":\"\\ufeffbom\"}", "\u{feff}bom"),
        (b"  {\"a\":[[[[]]]], \"text\" : \"spaced\"}  ", "spaced"),
    ] {
        let mut bytes = line.to_vec();
        bytes.extend_from_slice(b"\n\n   \r\n");
        let (kept, _) = Setup::default().jsonl(&bytes);
        assert_eq!(kept.documents(), [text]);
    }
}

#[test]
fn a_byte_order_mark_before_the_first_line_is_not_part_of_it() {
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(lines(&["first", "second"]));
    let (kept, _) = Setup::default().jsonl(&bytes);
    assert_eq!(kept.documents(), ["first", "second"]);
}

#[test]
fn an_empty_file_and_a_last_line_without_its_feed() {
    let (kept, report) = Setup::default().jsonl(b"");
    assert_eq!((kept.rows.len(), report.rejected), (0, 0));
    let (kept, _) = Setup::default().jsonl(b"{\"text\":\"last\"}");
    assert_eq!(kept.documents(), ["last"]);
}

#[test]
fn the_length_cap_holds_at_its_edge() {
    for (size, rejected) in [(999, false), (1000, false), (1001, true)] {
        let setup = Setup { max_document_bytes: 1000, ..Setup::default() };
        let text = "x".repeat(size - 11);
        let mut bytes = lines(&[&text]);
        assert_eq!(bytes.len(), size + 1, "the line feed is not counted");
        bytes.extend(lines(&["after"]));
        let (kept, _) = setup.jsonl(&bytes);
        assert_eq!(kept.reasons(), vec!["too_long"; usize::from(rejected)], "{size} bytes");
        assert_eq!(kept.documents().last().map(String::as_str), Some("after"));
    }
}

#[test]
fn compressed_files_of_several_members_and_frames() {
    let (first, second) = (lines(&["one", "two"]), lines(&["three"]));
    let gz = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let zst = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("in memory");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for (name, bytes) in [
        ("a.jsonl.gz", [gz(&first), gz(&second)].concat()),
        ("a.jsonl.zst", [zst(&first), zst(&second)].concat()),
        ("b.jsonl.zst", [skippable, zst(&first), zst(&second)].concat()),
    ] {
        let (_folder, path) = file(name, &bytes);
        let (kept, report) = Setup::default().run(&[(path, Container::Jsonl)]);
        assert_eq!(kept.documents(), ["one", "two", "three"], "{name}");
        assert_eq!(report.rejected, 0);
    }
}

#[test]
fn a_truncated_stream_keeps_what_came_before_and_is_one_reject() {
    let texts: Vec<String> = (0..20_000).map(|i| format!("document {i} {}", i * 7919)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let all = lines(&texts);
    let zst = zstd::encode_all(&all[..], 1).expect("in memory");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&all).expect("in memory");
    let gz = encoder.finish().expect("in memory");
    for (name, bytes) in [("a.jsonl.zst", zst), ("a.jsonl.gz", gz)] {
        let (_folder, path) = file(name, &bytes[..bytes.len() * 2 / 3]);
        let (_other, good) = file("good.jsonl", &lines(&["good"]));
        let (kept, _) = Setup::default().run(&[(path, Container::Jsonl), (good, Container::Jsonl)]);
        let documents = kept.documents();
        assert_eq!(kept.reasons(), ["truncated"], "{name}");
        assert!(documents.len() > 5000, "{name}: {}", documents.len());
        assert_eq!(documents[..documents.len() - 1], texts[..documents.len() - 1]);
        assert_eq!(documents.last().map(String::as_str), Some("good"), "the next file is read");
        assert!(kept.rejects[0].line.is_some() && kept.rejects[0].byte_offset.is_some());
    }
}

#[test]
fn damage_inside_a_compressed_file() {
    let bytes = zstd::encode_all(&lines(&vec!["a"; 50_000])[..], 1).expect("in memory");
    let mut garbage = bytes.clone();
    garbage.extend_from_slice(b"garbage after the frame");
    let (_folder, path) = file("a.jsonl.zst", &garbage);
    let (kept, _) = Setup::default().run(&[(path, Container::Jsonl)]);
    assert_eq!((kept.documents().len(), kept.reasons()), (50_000, vec!["corrupt"]));

    let (_folder, path) = file("plain.jsonl.zst", &lines(&["a"]));
    let (kept, _) = Setup::default().run(&[(path, Container::Jsonl)]);
    assert_eq!((kept.rows.len(), kept.reasons()), (0, vec!["corrupt"]));
    assert!(kept.rejects[0].line.is_none(), "the file as a whole");
}

#[test]
fn bombs_stop_at_their_caps() {
    let zeros = vec![b'0'; 8 << 20];
    let bomb = zstd::encode_all(&zeros[..], 19).expect("in memory");
    let limits = Limits { max_output: 64 << 30, max_ratio: 1000, ratio_from: 1 << 20 };
    let (_folder, path) = file("bomb.jsonl.zst", &bomb);
    let setup = Setup { limits, ..Setup::default() };
    let (kept, _) = setup.run(&[(path.clone(), Container::Jsonl)]);
    assert_eq!(kept.reasons(), ["decompression_bomb"]);

    let limits = Limits { max_output: 4 << 20, max_ratio: u64::MAX, ratio_from: 1 << 20 };
    let setup = Setup { limits, ..Setup::default() };
    let (kept, _) = setup.run(&[(path, Container::Text)]);
    assert_eq!(kept.reasons(), ["too_long"], "the document cap comes first");
    let (_folder, path) = file("a.jsonl.zst", &bomb);
    let (kept, _) = setup.run(&[(path, Container::Jsonl)]);
    assert_eq!(kept.reasons(), ["decompression_bomb"]);
}

#[test]
fn a_zstd_window_above_27_is_refused_with_a_hint() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(28).expect("a window");
    encoder.long_distance_matching(true).expect("long distance");
    encoder.write_all(&lines(&["far"])).expect("in memory");
    let bytes = encoder.finish().expect("in memory");
    let (_folder, path) = file("a.jsonl.zst", &bytes);
    let (kept, _) = Setup::default().run(&[(path, Container::Jsonl)]);
    assert_eq!(kept.reasons(), ["zstd_window"]);
    assert!(kept.rejects[0].message.contains("--long=27"));
}

#[test]
fn code_folders_pass_over_binary_and_empty_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        (path, Container::Code)
    };
    let files = [
        write("a.py", b"print(1)\r\n"),
        write("b.py", b"\x7fELF\x00\x00"),
        write("c.py", b""),
        write("d.py", b"latin \xe9\n"),
        write("e.py", b"\xef\xbb\xbfkept = True\n"),
    ];
    let (kept, report) = Setup::default().run(&files);
    assert_eq!(kept.documents(), ["print(1)\r\n", "\u{feff}kept = True\n"]);
    assert_eq!(report.skipped_files, 2);
    assert_eq!(kept.reasons(), ["invalid_utf8"]);
    assert_eq!(kept.rejects[0].at, Some(6));
    assert!(kept.rejects[0].file.ends_with("d.py"));
}

#[test]
fn any_number_of_workers_gives_the_same_rows_and_rejects() {
    let mut bytes = Vec::new();
    for i in 0..12_000 {
        if i % 97 == 0 {
            bytes.extend_from_slice(b"{\"text\":\n");
        } else {
            bytes.extend(lines(&[&format!("document {i} {}", "y".repeat(i % 301))]));
        }
    }
    let run = |jobs| Setup { jobs, ..Setup::default() }.jsonl(&bytes);
    let (one, report) = run(1);
    assert_eq!(report.rejected, 124);
    for jobs in [2, 7] {
        let (other, _) = run(jobs);
        assert!(one.rows == other.rows, "{jobs} workers");
        let places = |kept: &Kept| kept.rejects.iter().map(|r| r.line).collect::<Vec<_>>();
        assert_eq!(places(&one), places(&other));
    }
}

#[test]
fn a_budget_ends_the_source_after_the_document_that_fills_it() {
    let bytes = lines(&vec!["123456789"; 5000]);
    for (budget, documents) in [(1, 1), (10, 1), (11, 2), (1000, 100), (10_000_000, 5000)] {
        let setup = Setup { budget: Some(budget), ..Setup::default() };
        let (kept, report) = setup.jsonl(&bytes);
        assert_eq!(kept.documents().len(), documents, "budget {budget}");
        assert_eq!(report.tokens, documents as u64 * 10);
        assert_eq!(report.budget_reached, documents < 5000);
    }
}

#[test]
fn parquet_and_arrow_give_the_same_documents_as_jsonl() {
    let texts: Vec<String> =
        (0..3000).map(|i| format!("row {i} é {}", "z".repeat(i % 50))).collect();
    let values: Vec<Option<&str>> = texts.iter().map(|t| Some(t.as_str())).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, container) in columns::write_all(folder.path(), &values) {
        let (kept, report) = Setup::default().run(&[(folder.path().join(&name), container)]);
        assert_eq!(kept.documents(), texts, "{name}");
        assert_eq!(report.rejected, 0, "{name}");
    }
}

#[test]
fn rows_without_text_are_rejected_by_row() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, container) in
        columns::write_all(folder.path(), &[Some("a"), None, Some(""), Some("b")])
    {
        let (kept, _) = Setup::default().run(&[(folder.path().join(&name), container)]);
        assert_eq!(kept.documents(), ["a", "b"], "{name}");
        assert_eq!(kept.reasons(), ["missing_field", "empty_text"], "{name}");
        let rows: Vec<_> = kept.rejects.iter().map(|r| (r.row, r.line)).collect();
        assert_eq!(rows, [(Some(2), None), (Some(3), None)]);
    }
}

#[test]
fn a_column_that_is_not_there_or_holds_no_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, container) in columns::write_all(folder.path(), &[Some("a")]) {
        let ask = |field: &str| {
            let shape = RecordShape::Text { field: field.to_owned() };
            Setup { shape, ..Setup::default() }.run(&[(folder.path().join(&name), container)]).0
        };
        let kept = ask("content");
        assert_eq!(kept.reasons(), ["missing_field"], "{name}");
        assert!(kept.rejects[0].message.contains("number, text"), "{}", kept.rejects[0].message);
        assert_eq!(ask("number").reasons(), ["wrong_type"], "{name}");
    }
}

#[test]
fn truncated_column_files_are_one_reject_at_every_length() {
    let texts: Vec<String> = (0..200).map(|i| format!("row {i}")).collect();
    let values: Vec<Option<&str>> = texts.iter().map(|t| Some(t.as_str())).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, container) in columns::write_all(folder.path(), &values) {
        let whole = std::fs::read(folder.path().join(&name)).expect("readable");
        for cut in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let path = folder.path().join("cut");
            std::fs::write(&path, &whole[..cut]).expect("written");
            let (kept, _) = Setup::default().run(&[(path, container)]);
            let documents = kept.documents_or_none();
            assert_eq!(documents, texts[..documents.len()], "{name} cut at {cut}");
            let all = documents.len() == texts.len() || name.ends_with("stream.arrow");
            assert!(all || kept.rejects.len() == 1, "{name} cut at {cut}: {:?}", kept.reasons());
        }
    }
}

#[test]
fn flipped_bytes_in_column_files_never_end_the_run() {
    let texts: Vec<String> = (0..50).map(|i| format!("row {i}")).collect();
    let values: Vec<Option<&str>> = texts.iter().map(|t| Some(t.as_str())).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, container) in columns::write_all(folder.path(), &values) {
        let whole = std::fs::read(folder.path().join(&name)).expect("readable");
        for place in (0..whole.len()).step_by(whole.len() / 200 + 1) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0xff;
            let path = folder.path().join("flipped");
            std::fs::write(&path, &bytes).expect("written");
            Setup::default().run(&[(path, container)]);
        }
    }
}

impl Kept {
    /// As [`Kept::documents`], for runs that may have taken in nothing.
    fn documents_or_none(&self) -> Vec<String> {
        if self.rows.is_empty() { Vec::new() } else { self.documents() }
    }
}

#[test]
fn a_path_that_cannot_be_read_ends_the_run() {
    let (folder, path) = file("a.jsonl", b"");
    let files = [(path.clone(), Container::Jsonl)];
    drop(folder);
    let error = Setup::default().try_run(&files).err().expect("the file is gone");
    let text = error.to_string();
    assert!(matches!(error, PipelineError::Read { .. }), "{text}");
    assert!(text.contains("a.jsonl"), "{text}");
}
