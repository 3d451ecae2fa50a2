//! Archives, arrays, pairs of lines, lists inside records and folders of code, damaged ones among
//! them: the good records are kept, the others are counted.

use super::published::{manifest, read, run};
use coda_ingest::plan::Plan;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, bytes).expect("written");
        path
    }

    fn read(&self, source: &Value) -> (Vec<String>, Value, Vec<&'static str>) {
        read(self.0.path(), source)
    }

    /// Documents and reasons of one file.
    fn file(&self, name: &str, bytes: &[u8], keys: &Value) -> (Vec<String>, Vec<&'static str>) {
        self.write(name, bytes);
        let mut source = json!({ "paths": [name] });
        for (key, value) in keys.as_object().expect("a map") {
            source[key] = value.clone();
        }
        let (documents, drops, rejects) = self.read(&source);
        assert_eq!(drops, json!({}));
        (documents, rejects)
    }
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).expect("in memory");
    gz.finish().expect("in memory")
}

#[test]
fn members_of_archives_are_read_by_their_names() {
    let folder = Folder::new();
    let long = format!("{}/long.jsonl", "deep/".repeat(40));
    let bytes = tar(&[
        ("a/lines.jsonl", b"{\"text\":\"one\"}\n{\"text\":\"two\"}"),
        ("a/notes.txt", b"three"),
        ("a/logo.png", b"no text"),
        ("a/array.json", b"[{\"text\":\"four\"},\n {\"text\":\"five\"}]"),
        ("a/table.parquet", b"PAR1"),
        (&long, b"{\"text\":\"six\"}\nbroken\n{\"text\":\"seven\"}\n"),
        ("a/x.py", b"print(8)\n"),
        ("a/Cargo.lock", b"# generated\n"),
    ]);
    let wanted = ["one", "two", "three", "four", "five", "six", "seven", "print(8)\n"];
    let packed = [
        ("x.tar", bytes.clone()),
        ("x.tar.gz", gzip(&bytes)),
        ("x.tgz", gzip(&bytes)),
        ("x.tar.zst", zstd::encode_all(&bytes[..], 1).expect("in memory")),
    ];
    let all = wanted.map(String::from);
    for (name, bytes) in packed {
        let (documents, rejects) = folder.file(name, &bytes, &json!({}));
        assert_eq!(
            (&documents[..], &rejects[..]),
            (&all[..], &["unsupported", "malformed_json"][..])
        );
        let some = json!({"members": ["**/*.txt", "a/*.json"]});
        let (documents, rejects) = folder.file(name, &bytes, &some);
        assert_eq!((&documents[..], rejects.len()), (&all[2..5], 0));
    }
}

#[test]
fn a_reject_in_an_archive_tells_where_its_bytes_are() {
    let folder = Folder::new();
    let bytes =
        tar(&[("a.jsonl", b"{\"text\":\"one\"}\n"), ("b.jsonl", b"{\"text\":\"x\"}\noops\n")]);
    folder.write("x.tar", &bytes);
    let manifest = manifest(folder.0.path(), &json!({"paths": ["x.tar"]})).expect("fine");
    let (kept, _) = run(&Plan::new(&manifest).expect("planned"), 1);
    let [reject] = kept.rejects.as_slice() else { panic!("{:?}", kept.rejects) };
    assert_eq!((reject.line, reject.reason), (Some(3), "malformed_json"));
    let place = usize::try_from(reject.byte_offset.expect("known")).expect("small");
    assert!(bytes[place..].starts_with(b"oops\n"));
}

#[test]
fn damaged_archives_keep_what_came_before() {
    let folder = Folder::new();
    let whole = tar(&[("a.txt", b"first"), ("b.txt", &[b'x'; 3000])]);
    for cut in [300, 700, 1300, 2500, 4000] {
        let (documents, rejects) = folder.file("x.tar", &whole[..cut], &json!({}));
        assert_eq!(documents.len(), usize::from(cut > 517), "cut at {cut}");
        assert_eq!(rejects.len(), 1, "cut at {cut}: {rejects:?}");
        let (documents, rejects) = folder.file("x.tar.gz", &gzip(&whole)[..60], &json!({}));
        assert!(documents.len() <= 1 && rejects == ["truncated"], "{rejects:?}");
    }
    let mut wrong = whole.clone();
    wrong[1024 + 150] ^= 1; // the checksum of the second header
    let (documents, rejects) = folder.file("x.tar", &wrong, &json!({}));
    assert_eq!((documents.len(), rejects.as_slice()), (1, &["corrupt"][..]));

    // A header that promises a name of a gigabyte.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut bomb = header.as_bytes().to_vec();
    bomb.resize(1 << 20, b'n');
    let (documents, rejects) = folder.file("x.tar", &bomb, &json!({}));
    assert_eq!((documents.len(), rejects.as_slice()), (0, &["corrupt"][..]));
    let (documents, rejects) = folder.file("x.tar", b"", &json!({}));
    assert_eq!((documents.len(), rejects.len()), (0, 0), "nothing is no fault");
}

#[test]
fn pairs_of_lines() {
    let folder = Folder::new();
    let keys = json!({"format": "pairs", "text_template": "{question}={answer}"});
    let of = |bytes: &[u8]| folder.file("x.txt", bytes, &keys);
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    for (bytes, documents, rejects) in [
        (&b"q\na\nr\nb\n"[..], &["q=a", "r=b"][..], &[][..]),
        (b"q\r\na\r\nr\r\nb", &["q=a", "r=b"], &[]),
        (b"\xef\xbb\xbfq\na\n", &["q=a"], &[]),
        (b"q\na\n\n", &["q=a"], &[]),
        (b"q\n\nr\nb\n", &["q=", "r=b"], &[]),
        (b"q\na\nr\n", &["q=a"], &["no_answer"]),
        (b"q\na\nr", &["q=a"], &["no_answer"]),
        (b"q\n\xff\nr\nb\n", &["r=b"], &["invalid_utf8"]),
        (b"", &[], &[]),
        (b"\n\n", &[], &["empty_text"]),
    ] {
        assert_eq!(of(bytes), (texts(documents), rejects.to_vec()), "{bytes:?}");
    }
    let long = [b"q\na\n".as_slice(), &vec![b'x'; 2 << 20], b"\ny\nr\nb\n"].concat();
    assert_eq!(of(&long), (texts(&["q=a", "r=b"]), vec!["too_long"]));
    let other = json!({"format": "pairs", "text_field": "reply"});
    assert_eq!(folder.file("x.txt", b"q\na\n", &other).1, ["missing_field"]);
}

#[test]
fn arrays_and_values_over_many_lines() {
    let folder = Folder::new();
    let of = |name: &str, text: &str, keys: &Value| folder.file(name, text.as_bytes(), keys);
    let wanted = |documents: &[&str], rejects: &[&'static str]| {
        (documents.iter().map(|&d| d.to_owned()).collect::<Vec<_>>(), rejects.to_vec())
    };
    let array =
        "\u{feff} [ {\"text\": \"a]}\\\"\"},\n\n{\"n\":[[{}]],\n\"text\":\"b\"} , {}, 7, \"s\"]\n";
    let rejects = ["missing_field", "wrong_type", "wrong_type"];
    let json = json!({"format": "json"});
    assert_eq!(of("x.json", &array[3..], &json!({})), wanted(&["a]}\"", "b"], &rejects));
    assert_eq!(of("x.any", array, &json), wanted(&["a]}\"", "b"], &rejects));
    let values = "{\n \"text\": \"a\"\n}\n{\"text\":\"b\"}{\"text\":\"c\"}";
    assert_eq!(of("x.any", values, &json), wanted(&["a", "b", "c"], &[]));
    assert_eq!(
        of("x.json", "{\"text\":\"a\"}\n[1]\n", &json!({})),
        wanted(&["a"], &["wrong_type"])
    );
    for (text, documents, rejects) in [
        ("", &[][..], &[][..]),
        ("[]", &[], &[]),
        ("[", &[], &["truncated"]),
        ("[{\"text\":\"a\"},{\"text\":\"b", &["a"], &["truncated"]),
        ("[{\"text\":\"a\"}] {\"text\":\"b\"}", &["a"], &["malformed_json"]),
        ("[{\"text\":\"a\"}, {\"text\": no}, {\"text\":\"c\"}]", &["a", "c"], &["malformed_json"]),
        ("{\"text\":\"a\"} ] {\"text\":\"b\"}", &["a"], &["malformed_json"]),
        ("nul", &[], &["malformed_json"]),
    ] {
        assert_eq!(of("x.any", text, &json), wanted(documents, rejects), "{text}");
    }
    let long = format!("[{{\"text\":\"{}\"}},{{\"text\":\"b\"}}]", "x".repeat(2 << 20));
    assert_eq!(of("x.any", &long, &json), wanted(&["b"], &["too_long"]));
    let deep = format!("[{}{},{{\"text\":\"b\"}}]", "[".repeat(1 << 19), "]".repeat(1 << 19));
    assert_eq!(of("x.any", &deep, &json).0, ["b"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// However a list of records is written, the same documents come out.
    #[test]
    fn an_array_is_its_lines(texts in prop::collection::vec("[^\u{0}]{1,40}", 0..20), pretty: bool) {
        let folder = Folder::new();
        let records: Vec<Value> = texts.iter().map(|text| json!({"n": [{}], "text": text})).collect();
        let array = if pretty {
            serde_json::to_string_pretty(&records)
        } else {
            serde_json::to_string(&records)
        };
        let array = array.expect("plain values");
        let (documents, rejects) = folder.file("x.json", array.as_bytes(), &json!({}));
        prop_assert_eq!(documents, texts);
        prop_assert!(rejects.is_empty());
    }
}

#[test]
fn lists_inside_json_records() {
    let folder = Folder::new();
    let lines = [
        json!({"repo": "r", "files": [{"lang": "c", "body": "a"}, {"lang": "d", "body": "b"}]}),
        json!({"repo": "s", "files": []}),
        json!({"repo": "t", "files": [{"lang": "c", "body": 7}, {"lang": "c", "body": "d"}]}),
        json!({"repo": "u"}),
        json!({"repo": "v", "files": "[{'lang': 'c', 'body': 'e'}, {'lang': 'c'}]"}),
        json!({"repo": "w", "files": {"body": "f"}}),
    ];
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    folder.write("x.jsonl", text.join("\n"));
    let keep = json!({"files.lang": ["c"]});
    let source = json!({
        "paths": ["x.jsonl"], "text_template": "{repo}:{files.body}", "keep": keep,
        "unnest": {"list": "files"},
    });
    let (documents, drops, rejects) = folder.read(&source);
    assert_eq!(documents, ["r:a", "t:d", "v:e"]);
    assert_eq!(drops, json!({"language": 1}));
    assert_eq!(rejects, ["wrong_type", "missing_field", "missing_field", "wrong_type"]);

    let together = json!({
        "paths": ["x.jsonl"], "text_field": "files.body",
        "unnest": {"list": "files", "into": "document", "separator": "|"},
    });
    let (documents, drops, _) = folder.read(&together);
    assert_eq!((documents, drops), (vec!["a|b".to_owned(), "d".into(), "e".into()], json!({})));
}

#[test]
fn repositories_of_a_table_can_be_joined() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpora");
    let source = json!({
        "preset": "the-stack-v2-train-smol-ids", "text_field": "files.content",
        "paths": ["the-stack-v2-train-smol-ids/data/*.parquet"],
        "unnest": {"list": "files", "into": "document", "separator": "\n"}, "transforms": ["lf"],
    });
    let (documents, drops, rejects) = read(&fixtures, &source);
    assert_eq!(documents, ["a = 1\n", "int c;\n", "package f // 世界\n"]);
    assert_eq!((drops, rejects), (json!({}), vec![]));
    let all = json!({
        "paths": ["the-stack-v2-train-smol-ids/data/*.parquet"], "text_field": "files.content",
        "unnest": {"list": "files", "into": "document", "separator": "--"},
    });
    assert_eq!(read(&fixtures, &all).0[0], "a = 1\n--b()");
    // A list of texts, and a column that is no list.
    let licences = json!({
        "paths": ["the-stack-v2-python/data/Python/*.parquet"], "text_field": "detected_licenses",
        "unnest": {"list": "detected_licenses"},
    });
    assert_eq!(read(&fixtures, &licences).0, ["MIT", "MIT", "Apache-2.0", "GPL-3.0", "MIT"]);
    let wrong = json!({
        "paths": ["the-stack-v2-python/data/Python/*.parquet"], "text_field": "path.x",
        "unnest": {"list": "path"},
    });
    assert_eq!(read(&fixtures, &wrong).2, ["wrong_type"]);
}

#[test]
fn code_of_others_and_of_programs_is_counted() {
    let folder = Folder::new();
    folder.write("src/main.rs", "fn main() {}\n");
    folder.write("src/Makefile", "all:\n");
    folder.write("src/run", "#!/usr/bin/env python3\nprint()\n");
    folder.write("src/data", "no script\n");
    folder.write("src/gen.go", "// Code generated by x. DO NOT EDIT.\npackage x\n");
    folder.write("src/node_modules/m/x.js", "m()\n");
    folder.write("src/third_party/y.c", "int y;\n");
    folder.write("src/target/z.rs", "never looked at");
    let (documents, drops, rejects) = folder.read(&json!({"paths": ["src"]}));
    assert_eq!(documents, ["all:\n", "fn main() {}\n", "#!/usr/bin/env python3\nprint()\n"]);
    assert_eq!((drops, rejects), (json!({"generated": 1, "vendored": 2}), vec![]));
    let all = json!({"paths": ["src"], "drop_vendored": false, "drop_generated": false});
    let (documents, drops, _) = folder.read(&all);
    assert_eq!((documents.len(), drops), (6, json!({})));
    let python = json!({"paths": ["src"], "languages": ["python"]});
    assert_eq!(folder.read(&python).0.len(), 1);
}

/// The reader of compressed IPC takes as much memory as a buffer says that it needs.
#[test]
fn a_compressed_buffer_that_claims_too_much_is_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpora");
    let path = "opc-annealing-corpus/algorithmic_corpus/data-00000-of-00001.arrow";
    let whole = fs::read(fixtures.join(path)).expect("committed");
    let folder = Folder::new();
    folder.write("x.arrow", &whole);
    let (documents, _, _) = folder.read(&json!({"paths": ["x.arrow"]}));
    // The texts of the first batch lie in one buffer, before it stands its length.
    let length: usize = documents[..3].iter().map(String::len).sum();
    let length = i64::try_from(length).expect("small").to_le_bytes();
    let place = whole.windows(8).rposition(|window| window == length).expect("it is there");
    for (claim, reason) in [(1_i64 << 60, "decompression_bomb"), (1 << 30, "decompression_bomb")] {
        let mut bytes = whole.clone();
        bytes[place..place + 8].copy_from_slice(&claim.to_le_bytes());
        let (documents, rejects) = folder.file("x.arrow", &bytes, &json!({}));
        assert_eq!((documents.len(), rejects.as_slice()), (0, &[reason][..]));
    }
    for cut in (1..whole.len()).step_by(97) {
        let (documents, rejects) = folder.file("x.arrow", &whole[..cut], &json!({}));
        assert!(documents.len() + rejects.len() > 0 || cut < 8, "cut at {cut}: nothing is said");
    }
}
