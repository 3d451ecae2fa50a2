//! Every preset on small files with the schema of its corpus. `tests/python/published.py` made them,
//! and read them with pyarrow and plain Python: what it found is in `expected.json`.

use super::{
    common,
    hostile::{Bytes, Kept, SPECIALS},
};
use coda_cli::{Progress, ProgressArgs, ProgressMode, signals::Stop};
use coda_ingest::{
    blobs::{BlobId, BlobWriter},
    decode::{Batch, BatchSink, DecodeOptions, decode},
    pack::{Overlong, PackedRow},
    pipeline::{Line, SourceReport, run_source},
    plan::Plan,
};
use coda_manifests::{Manifest, ManifestError, Packing, presets};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpora")
}

fn expected() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(fixtures().join("expected.json")).expect("committed");
    serde_json::from_str(&text).expect("JSON")
}

/// A manifest with one source, whose relative paths start at `root`.
pub(crate) fn manifest(root: &Path, source: &Value) -> Result<Manifest, ManifestError> {
    let mut source = source.clone();
    source["name"] = json!("source");
    let is_sft = source["preset"].as_str().is_some_and(|name| name.contains("-sft-"));
    let manifest = json!({
        "version": 1, "name": "published", "stage": if is_sft { "post" } else { "pre" },
        "allowed_roots": [root, tokenizer().parent()],
        "tokenizer": {"path": tokenizer()},
        "data": {"out": "shards", "row_length": 4096, "sources": [source]},
    });
    Manifest::from_yaml(&manifest.to_string(), &root.join("m.yaml"), &[] as &[&str], &[])
}

fn tokenizer() -> PathBuf {
    static WRITTEN: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = WRITTEN.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        std::fs::write(path, &common::tokenizer().json).expect("written");
        folder
    });
    folder.path().join("tokenizer.json")
}

/// Everything that comes out of the one source, with one id for each byte.
pub(crate) fn run(plan: &Plan, jobs: usize) -> (Kept, SourceReport) {
    let mut kept = Kept::default();
    let workers = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().expect("threads");
    let quiet = ProgressArgs { progress: ProgressMode::None, quiet: true };
    let line = Line {
        encoder: &Bytes,
        specials: SPECIALS,
        row_length: 4096,
        overlong: Overlong::Truncate,
        decode: DecodeOptions { max_document_bytes: 1 << 20, ..plan.decode.clone() },
        packing: Packing::Concat,
        fetch: None,
        benchmarks: None,
        marker: None,
        dedup: None,
        workers: &workers,
        progress: &Progress::start(quiet, "test", "bytes", None),
        stop: &Stop::never(),
    };
    let report = run_source(&plan.sources[0], &line, &mut kept, None).expect("runs");
    (kept, report)
}

/// The documents, drops and rejects of a source of the fixtures or of another folder.
pub(crate) fn read(root: &Path, source: &Value) -> (Vec<String>, Value, Vec<&'static str>) {
    let manifest = manifest(root, source).unwrap_or_else(|e| panic!("{source}: {e}"));
    let plan = Plan::new(&manifest).unwrap_or_else(|e| panic!("{source}: {e}"));
    let (kept, report) = run(&plan, 2);
    assert_eq!(report.dropped, report.drops.values().sum::<u64>());
    let rejects = kept.rejects.iter().map(|reject| reject.reason).collect();
    let documents =
        if plan.sources[0].chat.is_some() { conversations(&kept) } else { kept.documents() };
    (documents, json!(report.drops), rejects)
}

/// The text of each conversation, without control tokens, whose ids are no bytes.
fn conversations(kept: &Kept) -> Vec<String> {
    let text = |row: &PackedRow| {
        let ids = &row.tokens[..row.valid_len as usize];
        let bytes = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
        String::from_utf8(bytes).expect("UTF-8")
    };
    kept.rows.iter().map(text).collect()
}

#[test]
fn every_preset_reads_its_corpus() {
    let expected = expected();
    for (preset, wanted) in &expected {
        let mut source = wanted["source"].clone();
        source["preset"] = json!(preset);
        let (documents, drops, rejects) = read(&fixtures(), &source);
        assert!(rejects.is_empty(), "{preset}: {rejects:?}");
        assert_eq!(drops, wanted["drops"], "{preset}");
        let texts: Vec<String> = wanted["documents"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|document| match document.as_array() {
                None => document.as_str().expect("text").to_owned(),
                // Through the chat template, control tokens left out.
                Some(pair) => format!(
                    "user\n{}\nassistant\n\n\n\n\n{}\n",
                    pair[0].as_str().expect("text"),
                    pair[1].as_str().expect("text"),
                ),
            })
            .collect();
        assert_eq!(documents, texts, "{preset}");
    }
    let parts = ["opc-annealing-algorithmic", "opc-annealing-qa", "opc-annealing-snippet"];
    let tested: BTreeSet<&str> = expected.keys().map(String::as_str).chain(parts).collect();
    let all: BTreeSet<&str> = presets().iter().map(|preset| preset.name).collect();
    assert_eq!(tested, all, "a preset without a test");
}

#[test]
fn presets_that_list_blobs_read_them_from_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = BlobWriter::open(&folder.path().join("blobs")).expect("opened");
    let mut put = |number: u8, content: &[u8]| {
        let id = BlobId::from_bytes([number; BlobId::BYTES]);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(content).expect("in memory");
        writer.put(id, &gzip.finish().expect("in memory")).expect("written");
        id.to_string()
    };
    let ids = [put(1, b"caf\xe9"), put(2, "na\u{ef}ve".as_bytes()), put(3, b"vendored")];
    writer.finish().expect("finished");
    let absent = BlobId::from_bytes([9; BlobId::BYTES]).to_string();
    let file = |id: &String, encoding: Value, vendor: bool| {
        json!({"blob_id": id, "src_encoding": encoding, "license_type": "permissive",
               "is_vendor": vendor, "is_generated": null})
    };
    let files = [
        file(&ids[0], json!("ISO-8859-1"), false),
        file(&ids[2], json!("UTF-8"), true),
        file(&ids[1], json!("UTF-8"), false),
    ];
    let nested = [json!({"files": files}), json!({"files": [file(&absent, json!(null), false)]})];
    let flat: Vec<Value> = files
        .into_iter()
        .map(|mut file| {
            file["language"] = json!("Python");
            file
        })
        .collect();
    let lines =
        |records: &[Value]| records.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.path().join("nested.jsonl"), lines(&nested)).expect("written");
    std::fs::write(folder.path().join("flat.jsonl"), lines(&flat)).expect("written");
    let of = |source: Value| read(folder.path(), &source);
    let vendor = json!({"vendor": 1});

    let smol = json!({"preset": "the-stack-v2-train-smol-ids", "format": "jsonl",
                      "paths": ["nested.jsonl"]});
    let (documents, drops, rejects) = of(smol.clone());
    assert_eq!(
        (documents.as_slice(), drops),
        (&["café", "naïve"].map(String::from)[..], vendor.clone())
    );
    assert_eq!(rejects, ["missing_blob"]);
    let mut joined = smol;
    joined["unnest"] = json!({"list": "files", "into": "document", "separator": "\n"});
    let (documents, drops, rejects) = of(joined.clone());
    assert_eq!((documents.as_slice(), drops), (&["café\nnaïve".to_owned()][..], json!({})));
    assert_eq!(rejects, ["missing_blob"]);
    let python =
        json!({"preset": "the-stack-v2-python", "format": "jsonl", "paths": ["flat.jsonl"]});
    let (documents, drops, _) = of(python);
    assert_eq!((documents.as_slice(), drops), (&["café", "naïve"].map(String::from)[..], vendor));
    // No encoding is told: what is no UTF-8 is replaced.
    let edu = json!({"preset": "smollm-python-edu", "format": "jsonl", "paths": ["flat.jsonl"]});
    assert_eq!(of(edu).0, ["caf\u{fffd}", "vendored", "naïve"]);

    // A fetch asks for what no filter leaves out, each element of a list by itself.
    let plan = Plan::new(&manifest(folder.path(), &joined).expect("fine")).expect("planned");
    let mut wanted = Vec::new();
    let mut look = |batch: Batch| {
        for record in &batch.records {
            let blobs = plan.sources[0].extractor.blobs(&batch.bytes, &record.body);
            wanted.extend(blobs.expect("valid ids").iter().map(ToString::to_string));
        }
        true
    };
    let mut sink = BatchSink::new(&mut look);
    let options =
        DecodeOptions { layout: plan.sources[0].extractor.layout().clone(), ..plan.decode.clone() };
    decode(&plan.sources[0].files[0], 0, &options, &mut sink).expect("readable");
    sink.flush().expect("taken");
    assert_eq!(wanted, [&ids[0], &ids[1], &absent].map(String::clone));
}
