//! `coda-ingest records`: what lies in files, as JSON lines.

use super::columns;
use assert_cmd::Command;
use polars_arrow::{
    array::{
        Array, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, ListArray, StructArray,
        Utf8Array,
    },
    datatypes::{ArrowDataType, ArrowSchema, Field},
    io::ipc::write::{FileWriter, WriteOptions},
    offset::OffsetsBuffer,
    record_batch::RecordBatchT,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
};

/// Exit code, lines of stdout, stderr.
fn records(folder: &Path, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
    let output = command.current_dir(folder).args(["records", "--quiet"]).args(arguments).output();
    let output = output.expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let stdout = text(output.stdout);
    let lines = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (output.status.code().unwrap_or(-1), lines, text(output.stderr))
}

fn lines_of(values: &[Value]) -> String {
    let mut text = values.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

#[test]
fn every_container_gives_the_rows_that_were_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts: Vec<String> = (0..900).map(|n| format!("line {n}\n\"ä\" \u{1f980}\r")).collect();
    let texts: Vec<Option<&str>> =
        (0..).zip(&texts).map(|(n, text)| (n % 7 != 3).then_some(text.as_str())).collect();
    // The writers number the rows of a group.
    let expected: Vec<Value> = (0..)
        .zip(&texts)
        .map(|(n, text)| json!({"number": n % columns::CHUNK, "text": text}))
        .collect();
    for (name, _) in columns::write_all(folder.path(), &texts) {
        let (code, lines, _) = records(folder.path(), &[&name]);
        assert!(code == 0 && lines == expected, "{name}");
    }
    // Lines, an array over several lines, and both packed.
    let lines = lines_of(&expected);
    let array = serde_json::to_string_pretty(&expected).expect("JSON");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(array.as_bytes()).expect("in memory");
    for (name, content) in [
        ("a.jsonl", lines.clone().into_bytes()),
        ("a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).expect("in memory")),
        ("a.json", array.clone().into_bytes()),
        ("a.json.gz", gz.finish().expect("in memory")),
    ] {
        fs::write(folder.path().join(name), content).expect("written");
        let (code, lines, _) = records(folder.path(), &[name]);
        assert!(code == 0 && lines == expected, "{name}");
    }
}

#[test]
fn a_text_and_a_pair_of_lines_become_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.txt"), "one\ntwo\n").expect("written");
    fs::write(folder.path().join("pairs"), "what?\nthat\nwho?\nshe\n").expect("written");
    let (code, lines, _) = records(folder.path(), &["a.txt"]);
    assert_eq!((code, lines), (0, vec![json!({"text": "one\ntwo\n"})]));
    let (code, lines, _) = records(folder.path(), &["pairs", "--format", "pairs", "--head", "1"]);
    assert_eq!((code, lines), (0, vec![json!({"question": "what?", "answer": "that"})]));
    let (code, _, stderr) = records(folder.path(), &["pairs"]);
    assert!(code == 2 && stderr.contains("say it with --format"), "{stderr}");
}

/// A column of every shape, among them one that JSON has no kind for.
#[test]
fn values_keep_their_kinds() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kinds.arrow");
    let field = |name: &str, dtype| Field::new(name.into(), dtype, true);
    let words = Utf8Array::<i32>::from([Some("a"), None, Some("c")]).boxed();
    let numbers = Float64Array::from([Some(0.1), Some(-2.0), None]).boxed();
    let parts = vec![field("w", words.dtype().clone()), field("x", ArrowDataType::Float64)];
    let parts = StructArray::new(ArrowDataType::Struct(parts), 3, vec![words, numbers], None);
    let list = ArrowDataType::List(Box::new(field("item", parts.dtype().clone())));
    let offsets = OffsetsBuffer::try_from(vec![0_i32, 2, 3]).expect("they ascend");
    let list = ListArray::new(list, offsets, parts.boxed(), None).boxed();
    let ids = ArrowDataType::FixedSizeList(Box::new(field("item", ArrowDataType::Int32)), 2);
    let ids = FixedSizeListArray::new(ids, 2, Int32Array::from_vec(vec![1, 2, 3, 4]).boxed(), None);
    let days = Int32Array::from_vec(vec![0, 20_000]).to(ArrowDataType::Date32).boxed();
    let flags = BooleanArray::from([Some(true), None]).boxed();
    let arrays: Vec<(&str, Box<dyn Array>)> =
        vec![("z", list), ("ids", ids.boxed()), ("day", days), ("a \"flag\"", flags)];
    let schema: ArrowSchema = arrays
        .iter()
        .map(|(name, array)| ((*name).into(), field(name, array.dtype().clone())))
        .collect();
    let schema = Arc::new(schema);
    let arrays = arrays.into_iter().map(|(_, array)| array).collect();
    let file = File::create(&path).expect("created");
    let options = WriteOptions { compression: None };
    let mut writer =
        FileWriter::try_new(file, Arc::clone(&schema), None, options).expect("started");
    writer.write(&RecordBatchT::new(2, schema, arrays), None).expect("written");
    writer.finish().expect("finished");

    let (code, lines, _) = records(folder.path(), &["kinds.arrow"]);
    let expected = [
        json!({"z": [{"w": "a", "x": 0.1}, {"w": null, "x": -2.0}], "ids": [1, 2],
               "day": "1970-01-01", "a \"flag\"": true}),
        json!({"z": [{"w": "c", "x": null}], "ids": [3, 4], "day": "2024-10-04",
               "a \"flag\"": null}),
    ];
    assert_eq!((code, lines.as_slice()), (0, expected.as_slice()));
    let order = lines[0].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(order, ["z", "ids", "day", "a \"flag\""], "as in the file");
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.jsonl");
    fs::write(&path, b"{\"a\": 1}\n[2]\n{\"b\": \xff}\n{\"c\": NaN}\n{\"d\"\n").expect("written");
    let args = ["a.jsonl", "--out", "out.jsonl", "--json"];
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
    let output = command.current_dir(folder.path()).args(["records", "-q"]).args(args).output();
    let output = output.expect("runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for place in ["record 2", "record 3", "record 5"] {
        assert!(stderr.contains(&format!("left out: a.jsonl, {place}: ")), "{stderr}");
    }
    assert!(stderr.contains("3 records are left out"), "{stderr}");
    // Python's numbers stand as they were.
    let written = fs::read_to_string(folder.path().join("out.jsonl")).expect("a file");
    assert_eq!(written, "{\"a\": 1}\n{\"c\": NaN}\n");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["records"], 2);
    assert_eq!(summary["rejected"], 3);
    assert_eq!(summary["output_bytes"], written.len());
    let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 2, "nothing half is left");

    // A file that is no Parquet, beside one that is whole.
    fs::write(folder.path().join("b.parquet"), b"PAR1 and nothing").expect("written");
    let (code, lines, stderr) = records(folder.path(), &["b.parquet", "a.jsonl", "--head", "1"]);
    assert_eq!((code, lines), (1, vec![json!({"a": 1})]), "{stderr}");
    assert!(stderr.contains("left out: b.parquet: the parquet file is damaged"), "{stderr}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_head_is_the_beginning_of_the_whole(
        values in prop::collection::vec("[a-z\\n\"]{0,9}", 0..12),
        head in 0_usize..14,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let records_of: Vec<Value> = values.iter().map(|text| json!({"text": text})).collect();
        let (first, second) = records_of.split_at(values.len() / 2);
        for (name, part) in [("1.json", first), ("2.jsonl", second)] {
            let text = match name {
                "1.json" => serde_json::to_string_pretty(part).expect("JSON"),
                _ => lines_of(part),
            };
            fs::write(folder.path().join(name), text).expect("written");
        }
        let (code, lines, _) = records(folder.path(), &["1.json", "2.jsonl", "--head", &head.to_string()]);
        prop_assert_eq!(code, 0);
        prop_assert_eq!(lines.as_slice(), &records_of[..head.min(records_of.len())]);
    }
}
