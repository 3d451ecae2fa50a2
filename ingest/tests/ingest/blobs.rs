//! The blob store against a plain map, through crashes and damage.

use coda_ingest::{
    blobs::{BlobError, BlobId, BlobStore, BlobWriter, Lookup},
    decode::Body,
    record::{Document, Extracted, Extractor, RecordShape},
};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, io::Write as _, path::Path, sync::Arc};

fn id(number: u64) -> BlobId {
    let mut bytes = [0; BlobId::BYTES];
    bytes.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..BlobId::BYTES]);
    // Few shards, so that each has several blobs.
    bytes[0] = u8::try_from(number % 3).expect("small");
    BlobId::from_bytes(bytes)
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("in memory");
    encoder.finish().expect("in memory")
}

/// What one step of a random life does.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, Vec<u8>),
    Gone(u64),
    Flush,
    /// The process dies: the writer is dropped, and this many bytes of junk follow in a pack.
    Crash(u64, Vec<u8>),
    /// An index file is lost or damaged.
    Index(u64, bool),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u64..30;
    prop_oneof![
        6 => (number.clone(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(n, content)| Step::Put(n, content)),
        1 => number.clone().prop_map(Step::Gone),
        1 => Just(Step::Flush),
        1 => (number.clone(), prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(n, junk)| Step::Crash(n, junk)),
        1 => (number, any::<bool>()).prop_map(|(n, lost)| Step::Index(n, lost)),
        1 => Just(Step::Finish),
    ]
}

fn file(folder: &Path, number: u64, kind: &str) -> std::path::PathBuf {
    folder.join(format!("{:02x}.{kind}", number % 3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_is_a_map_whatever_happens(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let mut map: BTreeMap<u64, Lookup> = BTreeMap::new();
        let mut writer = Some(BlobWriter::open(folder).expect("opened"));
        for step in steps {
            let mut open = writer.take().unwrap_or_else(|| BlobWriter::open(folder).expect("opened"));
            match step {
                Step::Put(n, content) => {
                    open.put(id(n), &content).expect("written");
                    map.insert(n, Lookup::Found(content));
                }
                Step::Gone(n) => {
                    open.put_gone(id(n)).expect("written");
                    map.insert(n, Lookup::Gone);
                }
                Step::Flush => open.flush().expect("flushed"),
                Step::Crash(n, junk) => {
                    drop(open);
                    let mut pack = fs::OpenOptions::new()
                        .append(true)
                        .create(true)
                        .open(file(folder, n, "pack"))
                        .expect("opened");
                    // A pack begins with its own name; junk can only follow it.
                    if pack.metadata().expect("there").len() > 0 {
                        pack.write_all(&junk).expect("written");
                    }
                    continue;
                }
                Step::Index(n, lost) => {
                    drop(open);
                    let index = file(folder, n, "idx");
                    if let Ok(mut bytes) = fs::read(&index) {
                        if lost {
                            fs::remove_file(&index).expect("removed");
                        } else {
                            let last = bytes.len() - 1;
                            bytes[last] ^= 1;
                            fs::write(&index, bytes).expect("written");
                        }
                    }
                    continue;
                }
                Step::Finish => {
                    open.finish().expect("finished");
                    continue;
                }
            }
            writer = Some(open);
        }
        let store = BlobStore::open(folder);
        for n in 0..30 {
            let expected = map.get(&n).cloned().unwrap_or(Lookup::Absent);
            prop_assert_eq!(store.get(&id(n)).expect("undamaged"), expected, "blob {}", n);
        }
    }
}

#[test]
fn the_digest_does_not_depend_on_the_way_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let fill = |name: &str, numbers: &mut dyn Iterator<Item = u64>, flushes: bool| {
        let path = folder.path().join(name);
        let mut writer = BlobWriter::open(&path).expect("opened");
        for n in numbers {
            writer.put(id(n), &packed(&n.to_le_bytes())).expect("written");
            if flushes {
                writer.flush().expect("flushed");
            }
        }
        if flushes {
            writer.finish().expect("finished");
        }
        BlobStore::open(&path).digest().expect("readable")
    };
    let first = fill("a", &mut (0..50), false);
    assert_eq!(first, fill("b", &mut (0..50).rev(), true));
    assert_ne!(first, fill("c", &mut (0..49), true));
}

#[test]
fn every_flipped_bit_of_a_pack_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = BlobWriter::open(folder.path()).expect("opened");
    let content = packed(b"fn main() {}");
    writer.put(id(3), &content).expect("written");
    writer.put(id(6), &content).expect("written");
    writer.finish().expect("finished");
    let pack = file(folder.path(), 0, "pack");
    let whole = fs::read(&pack).expect("there");
    for bit in 8 * 8..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&pack, damaged).expect("written");
        let store = BlobStore::open(folder.path());
        let found = [3, 6].map(|n| store.get(&id(n)));
        let bad = found.iter().filter(|f| f.is_err()).count();
        assert_eq!(bad, 1, "bit {bit}");
        let right = Ok(Lookup::Found(content.clone()));
        assert!(found.contains(&right), "the other blob stays, bit {bit}");
    }
}

#[test]
fn texts_and_what_can_be_wrong_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = BlobWriter::open(folder.path()).expect("opened");
    writer.put(id(1), &packed("caf\u{e9}".as_bytes())).expect("written");
    writer.put(id(2), &packed(b"caf\xe9")).expect("written");
    writer.put(id(3), b"not gzip").expect("written");
    writer.put(id(4), &packed(b"")).expect("written");
    writer.put_gone(id(5)).expect("written");
    let locked = BlobWriter::open(folder.path());
    assert!(matches!(locked, Err(BlobError::Locked(_))), "one writer");
    writer.finish().expect("finished");

    let store = BlobStore::open(folder.path());
    let text = |n, encoding| store.text(&id(n).to_string(), encoding, 100);
    assert_eq!(text(1, Some("UTF-8")).as_deref(), Ok("café"));
    assert_eq!(text(2, Some("ISO-8859-1")).as_deref(), Ok("café"));
    assert_eq!(text(2, None).as_deref(), Ok("caf\u{fffd}"));
    let reason = |n, encoding| text(n, encoding).expect_err("refused").reason;
    assert_eq!(reason(2, Some("UTF-8")), "invalid_encoding");
    assert_eq!(reason(2, Some("klingon")), "unknown_encoding");
    assert_eq!(reason(3, None), "corrupt_blob");
    assert_eq!(reason(4, None), "empty_text");
    assert_eq!(reason(5, None), "missing_blob");
    assert_eq!(reason(6, None), "missing_blob");
    assert_eq!(store.text("x", None, 9).expect_err("refused").reason, "bad_blob_id");
    let short = store.text(&id(1).to_string(), None, 4).expect_err("refused");
    assert_eq!(short.reason, "too_long");
    let nowhere = BlobStore::open(&folder.path().join("none"));
    assert_eq!(nowhere.get(&id(1)), Ok(Lookup::Absent));
}

#[test]
fn another_file_is_not_taken_for_a_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), 0, "pack");
    fs::write(&path, "something precious").expect("written");
    let mut writer = BlobWriter::open(folder.path()).expect("opened");
    assert!(writer.put(id(0), b"x").is_err());
    assert_eq!(fs::read_to_string(&path).expect("there"), "something precious");
}

#[test]
fn records_are_read_through_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = BlobWriter::open(folder.path()).expect("opened");
    writer.put(id(1), &packed(b"caf\xe9")).expect("written");
    writer.finish().expect("finished");
    let extractor = Extractor::new(RecordShape::Blob {
        id: "blob_id".to_owned(),
        encoding: Some("src_encoding".to_owned()),
        store: Arc::new(BlobStore::open(folder.path())),
        max_bytes: 100,
    });
    let names = extractor.layout().columns.iter().map(|column| column.path.text());
    assert_eq!(names.collect::<Vec<_>>(), ["blob_id", "src_encoding"]);
    let read = |line: String| {
        let bytes = line.into_bytes();
        let body = Body::Json(0..bytes.len());
        let blob = extractor.blobs(&bytes, &body).map(|blobs| blobs.first().copied());
        let document = extractor.document(&bytes, &body).map(|document| match document {
            Extracted::Document(Document::Text(text)) => text.into_owned(),
            other => panic!("neither a conversation nor a drop: {other:?}"),
        });
        (blob, document)
    };
    let name = id(1);
    let line = |encoding: &str| format!(r#"{{"blob_id":"{name}","src_encoding":{encoding}}}"#);
    let (blob, document) = read(line("\"latin1\""));
    assert_eq!((blob, document.as_deref()), (Ok(Some(name)), Ok("caf\u{e9}")));
    let (_, document) = read(line("null"));
    assert_eq!(document.as_deref(), Ok("caf\u{fffd}"), "no encoding is named");
    let (_, document) = read(format!(r#"{{"blob_id":"{name}"}}"#));
    assert_eq!(document.as_deref(), Ok("caf\u{fffd}"), "the key is not there");
    let reason = |line: String| {
        let (blob, document) = read(line);
        (blob.map_err(|f| f.reason), document.expect_err("refused").reason)
    };
    assert_eq!(reason(line("7")), (Ok(Some(name)), "wrong_type"));
    assert_eq!(reason("{}".to_owned()), (Err("missing_field"), "missing_field"));
    let other = id(2);
    let absent = format!(r#"{{"blob_id":"{other}"}}"#);
    assert_eq!(reason(absent), (Ok(Some(other)), "missing_blob"));
}
