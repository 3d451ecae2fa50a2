//! Formats of documents: what comes out, read by a few lines that share nothing with the writers, is
//! what went in.

mod support;

use coda_shards::{
    RowBuf, ShardSet, ShardWriter, Span,
    export::{
        DocumentFormat, DocumentOptions, ExportError, Exported, IdWidth, Part, Selection,
        write_documents, write_hf,
    },
    row_key,
};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use std::{fs, io::Read as _, ops::ControlFlow, path::Path};
use support::{EOS, PAD, options, reports, tree, write};

const FORMATS: [DocumentFormat; 3] =
    [DocumentFormat::Megatron, DocumentFormat::Flat, DocumentFormat::Olmo];

/// Documents of each source packed one after the other, as `coda-ingest` does, into `work/set`.
fn pack(work: &Path, sources: &[(&str, Vec<Vec<u32>>)], length: usize) -> ShardSet {
    let names: Vec<&str> = sources.iter().map(|(name, _)| *name).collect();
    let row_length = u32::try_from(length).unwrap();
    let mut writer =
        ShardWriter::create(work.join("set"), options(work, &names, row_length, 3)).unwrap();
    for (source, (name, documents)) in (0..).zip(sources) {
        let stream: Vec<u32> = documents.concat();
        let mut starts = vec![0];
        starts.extend(documents.iter().scan(0, |end, document| {
            *end += document.len();
            Some(*end)
        }));
        for (ordinal, ids) in (0..).zip(stream.chunks(length)) {
            let from = usize::try_from(ordinal).unwrap() * length;
            let within = starts.iter().filter(|s| (from + 1..from + ids.len()).contains(s));
            let segments = within.map(|start| u32::try_from(start - from).unwrap());
            let mut tokens = ids.to_vec();
            tokens.resize(length, PAD);
            let row = RowBuf {
                tokens,
                segments: std::iter::once(0).chain(segments).collect(),
                row_key: row_key(name, ordinal),
                source,
                prefix_len: 0,
                valid_len: u32::try_from(ids.len()).unwrap(),
                maskable: vec![Span { start: 0, len: row_length }],
                spans: Vec::new(),
            };
            writer.push(&row).unwrap();
        }
    }
    writer.finish(reports(&names)).unwrap();
    ShardSet::open(work.join("set")).unwrap()
}

fn export(
    set: &ShardSet,
    selection: &Selection,
    options: DocumentOptions,
    out: &Path,
) -> Result<Exported, ExportError> {
    let selected = selection.of(set)?;
    write_documents(set, &selected, options, out, &mut |_| ControlFlow::Continue(()))
}

fn ids(bytes: &[u8], width: IdWidth) -> Vec<u32> {
    match width {
        IdWidth::U16 => {
            bytes.chunks(2).map(|id| u16::from_le_bytes(id.try_into().unwrap()).into()).collect()
        }
        _ => bytes.chunks(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect(),
    }
}

fn numbers(bytes: &[u8]) -> Vec<usize> {
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks(8).map(|bytes| usize::try_from(number(bytes)).unwrap()).collect()
}

/// Reads a pair as Megatron's `IndexedDataset` does: pointer and length for each sequence.
fn read_megatron(dir: &Path, stem: &str, width: IdWidth) -> Vec<Vec<u32>> {
    let (bin, idx) = (dir.join(format!("{stem}.bin")), dir.join(format!("{stem}.idx")));
    let (bin, idx) = (fs::read(bin).unwrap(), fs::read(idx).unwrap());
    assert_eq!(&idx[..17], b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(idx[17], if width == IdWidth::U16 { 8 } else { 4 });
    let [sequences, entries] = numbers(&idx[18..34])[..] else { panic!("two numbers") };
    assert_eq!(idx.len(), 34 + sequences * 12 + entries * 8);
    let (lengths, rest) = idx[34..].split_at(sequences * 4);
    let (pointers, firsts) = rest.split_at(sequences * 8);
    assert_eq!(numbers(firsts), (0..=sequences).collect::<Vec<_>>());
    let lengths = ids(lengths, IdWidth::I32);
    let size = usize::try_from(width.bytes()).unwrap();
    let sequence = |(pointer, length): (usize, u32)| {
        ids(&bin[pointer..pointer + length as usize * size], width)
    };
    numbers(pointers).into_iter().zip(lengths).map(sequence).collect()
}

fn read_flat(dir: &Path, stem: &str, width: IdWidth) -> Vec<Vec<u32>> {
    let ids = ids(&fs::read(dir.join(format!("{stem}.bin"))).unwrap(), width);
    ids.split_inclusive(|&id| id == EOS).map(<[u32]>::to_vec).collect()
}

fn read_olmo(dir: &Path, stem: &str, width: IdWidth) -> Vec<Vec<u32>> {
    let ids = ids(&fs::read(dir.join(format!("{stem}.npy"))).unwrap(), width);
    let mut table = String::new();
    let gz = fs::File::open(dir.join(format!("{stem}.csv.gz"))).unwrap();
    GzDecoder::new(gz).read_to_string(&mut table).unwrap();
    let document = |line: &str| {
        let parts: Vec<&str> = line.split(',').collect();
        assert_eq!(parts.len(), 5, "{line}");
        let (start, end): (usize, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
        ids[start..end].to_vec()
    };
    table.lines().map(document).collect()
}

fn read(format: DocumentFormat, dir: &Path, stem: &str, width: IdWidth) -> Vec<Vec<u32>> {
    match format {
        DocumentFormat::Megatron => read_megatron(dir, stem, width),
        DocumentFormat::Flat => read_flat(dir, stem, width),
        DocumentFormat::Olmo => read_olmo(dir, stem, width),
    }
}

/// Documents without end tokens inside; short and long against rows of up to 11 tokens.
fn documents() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let document = prop::collection::vec(4_u32..4000, 0..40).prop_map(|mut ids| {
        ids.push(EOS);
        ids
    });
    prop::collection::vec(document, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn documents_out_are_documents_in(
        (first, second) in (documents(), documents()),
        length in 2_usize..12,
        width in prop::sample::select(vec![IdWidth::U16, IdWidth::U32]),
        format in prop::sample::select(FORMATS.to_vec()),
        split_sources: bool,
    ) {
        let work = tempfile::tempdir().unwrap();
        let set = pack(work.path(), &[("a", first.clone()), ("b", second.clone())], length);
        let out = work.path().join("out");
        let options = DocumentOptions { format, width, split_sources, label_mask: false };
        let done = export(&set, &Selection::default(), options, &out).unwrap();
        prop_assert_eq!(done.documents, (first.len() + second.len()) as u64);
        prop_assert_eq!(done.tokens, set.index().totals.tokens);
        prop_assert_eq!((done.rows, done.cut_documents), (set.rows(), 0));
        let found: Vec<String> = tree(&out).into_keys().collect();
        let mut said = done.files;
        said.sort();
        prop_assert_eq!(said, found, "the files are those that are said to be there");
        if split_sources {
            prop_assert_eq!(read(format, &out, "00000-a", width), first);
            prop_assert_eq!(read(format, &out, "00001-b", width), second);
        } else {
            prop_assert_eq!(read(format, &out, "tokens", width), [first, second].concat());
        }
    }
}

/// The parts on both sides of the held-out boundary are the whole, but for the document that it cuts.
#[test]
fn parts_divide_the_set_at_the_boundary() {
    let documents: Vec<Vec<u32>> =
        (0..40_u32).map(|i| (0..i % 9).map(|j| 10 + i * 9 + j).chain([EOS]).collect()).collect();
    let work = tempfile::tempdir().unwrap();
    let set = pack(work.path(), &[("a", documents.clone())], 8);
    let options = DocumentOptions {
        format: DocumentFormat::Olmo,
        width: IdWidth::U16,
        split_sources: false,
        label_mask: false,
    };
    let mut parts = Vec::new();
    for (part, name) in [(Part::Train, "train"), (Part::HeldOut, "held")] {
        let selection = Selection { part, held_out: 0.3, ..Selection::default() };
        let out = work.path().join(name);
        parts.push((
            export(&set, &selection, options, &out).unwrap(),
            read_olmo(&out, "tokens", IdWidth::U16),
        ));
    }
    let [(train, before), (held, after)] = &parts[..] else { panic!("two") };
    assert_eq!(train.rows + held.rows, set.rows());
    assert_eq!((train.cut_documents, held.cut_documents), (1, 0));
    let stream = [before.concat(), after.concat()].concat();
    assert_eq!(stream, documents.concat());
    assert_eq!(before.len() + after.len(), documents.len() + 1);
}

/// Rows with pads in the middle of a source (prompts, best-fit packing) are never joined.
#[test]
fn rows_with_pads_are_documents_of_their_own() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 7), ("chat", 5)], 16, 4);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    for format in FORMATS {
        let out = work.path().join(format!("{format:?}"));
        let options = DocumentOptions {
            format,
            width: IdWidth::U32,
            split_sources: false,
            label_mask: false,
        };
        let done = export(&set, &Selection::default(), options, &out).unwrap();
        let mut expected = Vec::new();
        for number in 0..set.rows() {
            let row = set.row(number).unwrap();
            let ends = row.segments[1..].iter().copied().chain([row.valid_len]);
            expected.extend(
                row.segments
                    .iter()
                    .zip(ends)
                    .map(|(&s, e)| row.tokens[s as usize..e as usize].to_vec()),
            );
        }
        assert_eq!(done.documents, expected.len() as u64);
        if format != DocumentFormat::Flat {
            assert_eq!(read(format, &out, "tokens", IdWidth::U32), expected, "{format:?}");
        }
    }
}

/// One byte for each id: 0 in prompts and outside of maskable spans.
#[test]
fn label_masks_lie_beside_their_ids() {
    let work = tempfile::tempdir().unwrap();
    let length = 8;
    let mut writer = ShardWriter::create(
        work.path().join("set"),
        options(work.path(), &["chat", "text"], length, 3),
    )
    .unwrap();
    let row = |source, ordinal: u64, prefix_len, valid_len: u32, maskable: &[(u32, u32)]| RowBuf {
        tokens: (0..length).map(|p| if p < valid_len { 10 + p } else { PAD }).collect(),
        segments: vec![0],
        row_key: row_key(["chat", "text"][usize::from(source)], ordinal),
        source,
        prefix_len,
        valid_len,
        maskable: maskable.iter().map(|&(start, len)| Span { start, len }).collect(),
        spans: Vec::new(),
    };
    for row in [
        row(0, 0, 3, 6, &[(3, 3)]),
        // A second turn that is only read, and a span that reaches into prompt and pads.
        row(0, 1, 2, 7, &[(1, 2), (5, 3)]),
        row(1, 0, 0, 8, &[(0, 8)]),
        row(1, 1, 0, 2, &[]),
    ] {
        writer.push(&row).unwrap();
    }
    writer.finish(reports(&["chat", "text"])).unwrap();
    let set = ShardSet::open(work.path().join("set")).unwrap();
    let chat = [0, 0, 0, 1, 1, 1, /* */ 0, 0, 1, 0, 0, 1, 1];
    let text = [1, 1, 1, 1, 1, 1, 1, 1, /* */ 0, 0];
    for (split_sources, expected) in [
        (false, vec![("tokens", [&chat[..], &text].concat())]),
        (true, vec![("00000-chat", chat.to_vec()), ("00001-text", text.to_vec())]),
    ] {
        let out = work.path().join(format!("split-{split_sources}"));
        let (format, width) = (DocumentFormat::Olmo, IdWidth::U16);
        let options = DocumentOptions { format, width, split_sources, label_mask: true };
        let done = export(&set, &Selection::default(), options, &out).unwrap();
        for (stem, mask) in expected {
            let name = format!("{stem}.label_mask");
            assert_eq!(fs::read(out.join(&name)).unwrap(), mask);
            assert!(done.files.contains(&name), "{:?}", done.files);
            let ids = fs::metadata(out.join(format!("{stem}.npy"))).unwrap().len();
            assert_eq!(ids, 2 * mask.len() as u64);
        }
    }
}

#[test]
fn what_cannot_be_exported_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 3)], 8, 4);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    let before = fs::read_dir(work.path()).unwrap().count();
    let out = work.path().join("out");
    let options = |width| DocumentOptions {
        format: DocumentFormat::Megatron,
        width,
        split_sources: true,
        label_mask: false,
    };
    let selected = Selection::default().of(&set).unwrap();
    let mut rows = 0;
    let stopped = write_documents(&set, &selected, options(IdWidth::U32), &out, &mut |_| {
        rows += 1;
        if rows == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ExportError::Stopped)));
    let unknown = Selection { sources: vec!["tex".to_owned()], ..Selection::default() };
    let error = unknown.of(&set).unwrap_err();
    assert_eq!(error.to_string(), "the shard set has no source \"tex\", only text");
    for share in [-0.1, 1.0, f64::NAN] {
        let wrong = Selection { held_out: share, ..Selection::default() };
        assert!(matches!(wrong.of(&set), Err(ExportError::HeldOut { .. })), "{share}");
    }
    let none = Selection { part: Part::HeldOut, ..Selection::default() };
    assert!(matches!(none.of(&set), Err(ExportError::Empty)));
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), before, "nothing is left behind");

    let wide = tempfile::tempdir().unwrap();
    let set = pack(wide.path(), &[("a", vec![vec![65_536, EOS]])], 4);
    let error = export(&set, &Selection::default(), options(IdWidth::U16), &out).unwrap_err();
    assert_eq!(error.to_string(), "id 65536 in row 0 does not fit uint16");
    assert!(error.hint().unwrap().contains("--id-bits 32"));
    assert!(!out.exists());
}

/// The same set gives the same bytes, and the streams open with another row for another choice.
#[test]
fn exports_are_functions_of_set_and_choice() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 6), ("chat", 3)], 16, 4);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    let hf = |name: &str, selection: &Selection| {
        let out = work.path().join(name);
        let selected = selection.of(&set).unwrap();
        let done = write_hf(&set, &selected, &out, &mut |_| ControlFlow::Continue(())).unwrap();
        (done, tree(&out))
    };
    let (done, first) = hf("one", &Selection::default());
    assert_eq!(
        done.files,
        [
            "data-00000-of-00003.arrow",
            "data-00001-of-00003.arrow",
            "data-00002-of-00003.arrow",
            "dataset_info.json",
            "state.json"
        ]
    );
    assert_eq!((done.rows, done.tokens), (9, 9 * 16));
    assert!(hf("two", &Selection::default()).1 == first, "the same bytes");
    let chat = Selection { sources: vec!["chat".to_owned()], ..Selection::default() };
    let (done, other) = hf("three", &chat);
    assert_eq!((done.files.len(), done.rows), (4, 3), "shards without a chosen row have no file");
    assert_ne!(first["state.json"], other["state.json"], "the fingerprint follows the choice");
    for format in FORMATS {
        let export = |name: &str| {
            let out = work.path().join(format!("{format:?}-{name}"));
            let options = DocumentOptions {
                format,
                width: IdWidth::U32,
                split_sources: true,
                label_mask: false,
            };
            export(&set, &Selection::default(), options, &out).unwrap();
            tree(&out)
        };
        assert!(export("one") == export("two"), "{format:?}");
    }
}
