//! Sets that go out to another format and come back, and files that are not what they claim to be.

use coda_cli::{Progress, ProgressArgs, signals::Stop};
use coda_ingest::{
    import::{ImportError, ImportFormat, ImportOptions, Imported, Width, import, inputs},
    reject::Reject,
};
use coda_manifests::Packing;
use coda_shards::{
    ShardSet, Specials,
    export::{DocumentFormat, DocumentOptions, IdWidth, Selection, pieces, write_documents},
    verify,
};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{
    fs,
    io::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

const EOS: u32 = 1;
const SPECIALS: Specials = Specials { eos: EOS, pad: 2, mask: 3 };
const VOCABULARY: u32 = 5000;

/// What an import of some files into `work/out` needs.
struct Job<'a> {
    work: &'a Path,
    format: ImportFormat,
    paths: Vec<PathBuf>,
    width: Option<Width>,
    packing: Packing,
    row_length: u32,
    out: &'a str,
}

impl Job<'_> {
    fn run(&self) -> Result<Imported, ImportError> {
        let tokenizer = self.work.join("tokenizer.json");
        fs::write(&tokenizer, b"{}").expect("written");
        let inputs = inputs(self.format, &self.paths, self.width, EOS)?;
        let quiet = ProgressArgs { quiet: true, ..ProgressArgs::default() };
        let options = ImportOptions {
            inputs: &inputs,
            tokenizer: &tokenizer,
            vocabulary: VOCABULARY,
            specials: SPECIALS,
            row_length: self.row_length,
            rows_per_shard: 4,
            packing: self.packing,
            name: "theirs",
            license: Some(&"CC0-1.0".to_owned()),
            out: &self.work.join(self.out),
            replace: false,
            progress: &Progress::start(quiet, "import", "bytes", None),
            stop: &Stop::never(),
        };
        let recipe = options.recipe()?;
        import(&options, &recipe)
    }

    fn set(&self) -> ShardSet {
        let dir = self.work.join(self.out);
        assert_eq!(verify(&dir).expect("a set").problems, []);
        ShardSet::open(dir).expect("sound")
    }
}

fn job(work: &Path, format: ImportFormat, width: Option<Width>) -> Job<'_> {
    Job {
        work,
        format,
        paths: vec![work.join("in")],
        width,
        packing: Packing::Concat,
        row_length: 7,
        out: "set",
    }
}

fn documents_of(set: &ShardSet) -> Vec<Vec<u32>> {
    let (mut documents, mut document) = (Vec::new(), Vec::new());
    for chosen in Selection::default().of(set).expect("rows") {
        pieces(set, &chosen, |piece| {
            document.extend_from_slice(piece.ids);
            if piece.ends {
                documents.push(std::mem::take(&mut document));
            }
            Ok::<(), coda_shards::ShardError>(())
        })
        .expect("readable");
    }
    documents
}

fn le16(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|&id| u16::try_from(id).expect("fits").to_le_bytes()).collect()
}

/// An index of one sequence a document.
fn index(code: u8, size: u64, lengths: &[i32]) -> Vec<u8> {
    let n = lengths.len() as u64;
    let mut out = b"MMIDIDX\0\0".to_vec();
    out.extend(1u64.to_le_bytes());
    out.push(code);
    out.extend([n, n + 1].iter().flat_map(|n| n.to_le_bytes()));
    out.extend(lengths.iter().flat_map(|n| n.to_le_bytes()));
    let mut pointer = 0u64;
    for length in lengths {
        out.extend(pointer.to_le_bytes());
        pointer += u64::from(length.unsigned_abs()) * size;
    }
    out.extend((0..=n).flat_map(u64::to_le_bytes));
    out
}

fn in_dir(work: &Path) -> PathBuf {
    let dir = work.join("in");
    fs::create_dir_all(&dir).expect("made");
    dir
}

fn flat(work: &Path, documents: &[Vec<u32>]) {
    fs::write(in_dir(work).join("train.bin"), le16(&documents.concat())).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// In as a flat file, out to any format, in again: the same documents, and the same rows when
    /// they are packed alike.
    #[test]
    fn there_and_back_again(
        documents in prop::collection::vec(prop::collection::vec(4_u32..VOCABULARY, 0..30), 1..20),
        row_length in 2_u32..16,
        which in 0_usize..3,
        wide: bool,
    ) {
        let documents: Vec<Vec<u32>> =
            documents.into_iter().map(|mut ids| { ids.push(EOS); ids }).collect();
        let work = tempfile::tempdir().expect("a folder");
        flat(work.path(), &documents);
        let first = Job { row_length, ..job(work.path(), ImportFormat::Flat, Some(Width::U16)) };
        prop_assert_eq!(first.run().expect("imported").ends_added, 0);
        let set = first.set();
        prop_assert_eq!(documents_of(&set), documents.clone());
        prop_assert_eq!(set.index().totals.documents, documents.len() as u64);

        let (to, from) = [
            (DocumentFormat::Megatron, ImportFormat::Megatron),
            (DocumentFormat::Flat, ImportFormat::Flat),
            (DocumentFormat::Olmo, ImportFormat::Olmo),
        ][which];
        let out = work.path().join("out");
        let width = if wide { IdWidth::U32 } else { IdWidth::U16 };
        let options = DocumentOptions { format: to, width, split_sources: false, label_mask: false };
        let selected = Selection::default().of(&set).expect("rows");
        write_documents(&set, &selected, options, &out, &mut |_| ControlFlow::Continue(()))
            .expect("exported");
        // The width is in the index, or in meta.json.
        let back = Job { paths: vec![out], out: "back", row_length, ..job(work.path(), from, None) };
        back.run().expect("imported");
        prop_assert_eq!(documents_of(&back.set()), documents);
        let rows = |set: &ShardSet| -> Vec<_> {
            (0..set.rows()).map(|row| set.row(row).expect("readable").to_buf()).collect()
        };
        prop_assert_eq!(rows(&back.set()), rows(&set));
    }
}

#[test]
fn documents_without_an_end_get_one_and_foreign_ids_are_rejects() {
    let work = tempfile::tempdir().expect("a folder");
    let (dir, ids) = (in_dir(work.path()), [10, 11, EOS, 12, 13, 14, 5000, EOS, EOS, 15]);
    fs::write(dir.join("a.bin"), le16(&ids)).expect("written");
    fs::write(dir.join("a.idx"), index(8, 2, &[3, 2, 3, 0, 1, 1])).expect("written");
    let job = job(work.path(), ImportFormat::Megatron, None);
    let imported = job.run().expect("imported");
    assert_eq!(
        documents_of(&job.set()),
        [vec![10, 11, EOS], vec![12, 13, EOS], vec![EOS], vec![15, EOS]]
    );
    assert_eq!(imported.ends_added, 2);
    let source = &job.set().sources()[0].clone();
    assert_eq!((source.documents, source.rejected()), (4, 2));
    assert_eq!(source.license.as_deref(), Some("CC0-1.0"));
    let rejects = fs::read_to_string(work.path().join("set/rejects.jsonl")).expect("there");
    let rejects: Vec<Reject> =
        rejects.lines().map(|line| serde_json::from_str(line).expect("a reject")).collect();
    let told: Vec<_> = rejects.iter().map(|r| (r.reason, r.row, r.byte_offset, r.at)).collect();
    assert_eq!(
        told,
        [
            ("id_outside_vocabulary", Some(3), Some(10), Some(1)),
            ("empty_document", Some(4), Some(16), None)
        ]
    );
    assert_eq!((rejects[0].file.as_str(), rejects[0].source.as_str()), ("a.bin", "theirs"));
    assert!(rejects[0].message.contains("token 1 is 5000"), "{}", rejects[0].message);
}

#[test]
fn sequences_of_a_document_are_joined_and_signed_types_are_read() {
    let work = tempfile::tempdir().expect("a folder");
    let dir = in_dir(work.path());
    let ids: Vec<u8> = [10_i32, 11, 12, EOS.cast_signed(), -1, 13]
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    fs::write(dir.join("a.bin"), ids).expect("written");
    let mut idx = index(4, 4, &[2, 2, 1, 1]);
    // Three documents, the first of two sequences.
    idx[26..34].copy_from_slice(&4_u64.to_le_bytes());
    idx.truncate(34 + 4 * 12);
    idx.extend([0_u64, 2, 3, 4].iter().flat_map(|n| n.to_le_bytes()));
    fs::write(dir.join("a.idx"), idx).expect("written");
    let job = job(work.path(), ImportFormat::Megatron, None);
    job.run().expect("imported");
    assert_eq!(documents_of(&job.set()), [vec![10, 11, 12, EOS], vec![13, EOS]]);
    assert_eq!(job.set().sources()[0].rejects["id_outside_vocabulary"], 1, "the negative one");
}

/// Says what it says of the file and the place, and leaves no set.
fn refused(job: &Job<'_>, file: &str, words: &str) {
    let error = job.run().err().unwrap_or_else(|| panic!("{file}: {words} was taken"));
    let text = error.to_string();
    assert!(text.contains(file) && text.contains(words), "{text}");
    assert!(error.hint().is_some(), "{text}");
    assert!(!job.work.join("set/index.json").exists(), "no finished set");
}

#[test]
fn a_false_index_is_named() {
    let work = tempfile::tempdir().expect("a folder");
    let dir = in_dir(work.path());
    let job = job(work.path(), ImportFormat::Megatron, None);
    fs::write(dir.join("a.bin"), le16(&[10, 11, EOS, 12, EOS])).expect("written");
    let sound = index(8, 2, &[3, 2]);
    let put = |bytes: &[u8]| fs::write(dir.join("a.idx"), bytes).expect("written");
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = sound.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        put(&bad);
    };
    with(0, b"MMAPIDX");
    refused(&job, "a.idx", "MMIDIDX");
    with(9, &[2]);
    refused(&job, "a.idx", "version 2");
    for code in [0, 2, 6, 7, 9, 255] {
        with(17, &[code]);
        refused(&job, "a.idx", "type of integers");
    }
    for count in [0, 1, 3, u64::MAX, u64::MAX / 12 + 1] {
        with(18, &count.to_le_bytes());
        refused(&job, "a.idx", "do not make");
    }
    with(26, &u64::MAX.to_le_bytes());
    refused(&job, "a.idx", "do not make");
    with(34, &(-3_i32).to_le_bytes());
    refused(&job, "a.idx", "negative");
    for length in [6_i32, i32::MAX] {
        with(34, &length.to_le_bytes());
        refused(&job, "a.idx", "do not lie");
    }
    for pointer in [1_i64, 6, i64::MAX, i64::MAX - 1] {
        with(42, &pointer.to_le_bytes());
        refused(&job, "a.idx", "do not lie");
    }
    with(42, &(-2_i64).to_le_bytes());
    refused(&job, "a.idx", "negative");
    for (entry, value) in [(0, 1_i64), (1, 3), (2, 0), (2, 1), (1, -1)] {
        with(34 + 24 + entry * 8, &value.to_le_bytes());
        refused(&job, "a.idx", "");
    }
    for length in 0..sound.len() {
        put(&sound[..length]);
        refused(&job, "a.idx", "its end");
    }
    put(&[sound.as_slice(), &[0, 0]].concat());
    refused(&job, "a.idx", "multimodal");
    put(&[sound.as_slice(), &[0]].concat());
    refused(&job, "a.idx", "do not make");
    put(&sound);
    fs::write(dir.join("a.bin"), [0; 9]).expect("written");
    refused(&job, "a.bin", "no multiple of 2");
    fs::write(dir.join("a.bin"), [0; 8]).expect("written");
    refused(&job, "a.idx", "do not lie in the 4 ids");
    fs::remove_file(dir.join("a.idx")).expect("there");
    refused(&job, "in", "holds no .bin with an .idx");
}

/// Every single bit of an index flipped: an error, or documents that lie within the file; never a
/// panic, and nothing is read outside.
#[test]
fn no_flipped_bit_of_an_index_brings_the_reader_down() {
    let work = tempfile::tempdir().expect("a folder");
    let dir = in_dir(work.path());
    fs::write(dir.join("a.bin"), le16(&[10, 11, EOS, 12, EOS])).expect("written");
    let sound = index(8, 2, &[3, 2]);
    let mut taken = 0;
    for bit in 0..sound.len() * 8 {
        let mut bad = sound.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.join("a.idx"), bad).expect("written");
        let job = job(work.path(), ImportFormat::Megatron, None);
        if job.run().is_ok() {
            taken += 1;
            let tokens: usize = documents_of(&job.set()).iter().map(Vec::len).sum();
            assert!(tokens <= 12, "bit {bit}");
            fs::remove_dir_all(work.path().join("set")).expect("there");
        }
    }
    assert!(taken < 60, "{taken} of {} flips went through", sound.len() * 8);
}

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("written");
    encoder.finish().expect("finished")
}

#[test]
fn tables_of_documents_are_checked() {
    let work = tempfile::tempdir().expect("a folder");
    let dir = in_dir(work.path());
    let job = job(work.path(), ImportFormat::Olmo, Some(Width::U16));
    fs::write(dir.join("a.npy"), le16(&[10, 11, EOS, 12, EOS])).expect("written");
    let put = |bytes: &[u8]| fs::write(dir.join("a.csv.gz"), bytes).expect("written");
    for (table, words) in [
        ("0,3\n3,6\n", "line 2"),
        ("0,3\n4,5\n", "line 2"),
        ("0,3\n", "last line"),
        ("", "last line"),
        ("0,3\n2,5\n", "line 2"),
        ("3,0\n", "line 1"),
        ("start,end\n0,3\n", "line 1"),
        ("0\n", "line 1"),
        ("-1,3\n", "line 1"),
        ("99999999999999999999,3\n", "line 1"),
        ("\n", "line 1"),
    ] {
        put(&gz(table));
        refused(&job, "a.csv.gz", words);
    }
    let whole = gz("0,3,a:0,a,0\n3,5,a:1,a,1\n");
    for length in 0..whole.len() {
        put(&whole[..length]);
        refused(&job, "a.csv.gz", "line");
    }
    put(b"0,3\n3,5\n");
    refused(&job, "a.csv.gz", "line 1");
    put(&gz(&"1".repeat(1 << 20)));
    refused(&job, "a.csv.gz", "line 1");
    put(&whole);
    job.run().expect("imported");
    assert_eq!(documents_of(&job.set()), [vec![10, 11, EOS], vec![12, EOS]]);
}

#[test]
fn widths_are_told_or_asked_for_never_guessed() {
    let work = tempfile::tempdir().expect("a folder");
    let dir = in_dir(work.path());
    flat(work.path(), &[vec![10, EOS]]);
    let unknown = job(work.path(), ImportFormat::Flat, None);
    refused(&unknown, "train.bin", "how many bits");
    let meta = |text: &str| fs::write(dir.join("meta.json"), text).expect("written");
    meta(r#"{"file": "other.bin", "dtype": "uint16"}"#);
    refused(&unknown, "train.bin", "how many bits");
    meta(r#"{"file": "train.bin", "dtype": "float32"}"#);
    refused(&unknown, "meta.json", "float32");
    meta(r#"{"file": "train.bin", "dtype""#);
    refused(&unknown, "meta.json", "line 1");
    meta(r#"{"file": "train.bin", "dtype": "uint16", "eos": 7}"#);
    refused(&unknown, "meta.json", "end with id 7");
    meta(r#"{"file": "train.bin", "dtype": "uint16", "eos": 1}"#);
    let other = job(work.path(), ImportFormat::Flat, Some(Width::U32));
    refused(&other, "meta.json", "uint16");
    unknown.run().expect("imported");
    assert_eq!(documents_of(&unknown.set()), [vec![10, EOS]]);

    let work = tempfile::tempdir().expect("a folder");
    fs::write(in_dir(work.path()).join("a.npy"), b"\x93NUMPY\x01\0").expect("written");
    refused(&job(work.path(), ImportFormat::Olmo, Some(Width::U16)), "a.npy", "numpy.save");
}
