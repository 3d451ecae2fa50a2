//! Every damage is found and named, and none of them brings the reader down.

mod support;

use coda_shards::{Check, ErrorClass, ShardError, ShardSet, verify};
use rayon::prelude::*;
use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};
use support::{noise, rows, rows_with_spans, tree, write, write_with_spans};

/// One problem in one file, or the test fails.
fn only_problem(dir: &Path) -> coda_shards::Problem {
    let mut report = verify(dir).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    report.problems.remove(0)
}

/// Puts the byte of a bit into a file, changed.
fn put(file: &mut fs::File, bytes: &[u8], bit: usize, change: u8) {
    file.seek(SeekFrom::Start((bit / 8) as u64)).unwrap();
    file.write_all(&[bytes[bit / 8] ^ change]).unwrap();
}

/// Every single bit of every file of the smallest set, through the files: `verify` names the file
/// and, of shards, the block; opening refuses what it reads, and otherwise gives the right rows.
#[test]
fn every_flipped_bit_is_found_in_its_file() {
    every_bit(write, rows, "");
}

/// The same of a shard of a set with spans; its other files are those of any set.
#[test]
fn every_flipped_bit_is_found_in_a_shard_with_spans() {
    every_bit(write_with_spans, rows_with_spans, "shard-00001");
}

type Write = fn(&Path, &[(&str, u64)], u32, u32) -> coda_shards::Index;

type Rows = fn(&[(&str, u64)], u32) -> Vec<coda_shards::RowBuf>;

/// Of all files, or of those whose names begin so.
fn every_bit(write: Write, rows: Rows, prefix: &str) {
    let sources = [("text", 1), ("chat", 1)];
    let names: Vec<String> = {
        let work = tempfile::tempdir().unwrap();
        write(work.path(), &sources, 8, 1);
        tree(&work.path().join("set")).into_keys().collect()
    };
    assert_eq!(names.len(), 6);
    // A set of its own for every file: they are flipped side by side.
    names.par_iter().filter(|name| name.starts_with(prefix)).for_each(|name| {
        let work = tempfile::tempdir().unwrap();
        write(work.path(), &sources, 8, 1);
        let dir = work.path().join("set");
        let (path, expected) = (dir.join(name), rows(&sources, 8));
        let bytes = fs::read(&path).unwrap();
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            put(&mut file, &bytes, bit, 1 << (bit % 8));
            match verify(&dir) {
                Ok(report) => {
                    assert!(!report.is_sound(), "{name} bit {bit} went unnoticed");
                    assert!(report.problems.iter().all(|p| p.file == *name), "{name} bit {bit}");
                    let block = name.starts_with("shard-").then_some(0);
                    assert_eq!(report.problems[0].block, block, "{name} bit {bit}");
                }
                // A flip in the index's format or version names another format.
                Err(ShardError::Incompatible { file, .. }) => {
                    assert_eq!((&file, name.as_str()), (&path, "index.json"));
                }
                Err(error) => panic!("{name} bit {bit}: {error}"),
            }
            match ShardSet::open(&dir) {
                Err(error) => {
                    assert_eq!(error.class(), ErrorClass::Artefact, "{name} bit {bit}");
                    assert!(error.to_string().contains(name), "{name} bit {bit}: {error}");
                }
                // Opening does not read what no row depends on.
                Ok(set) => {
                    assert!(
                        ["README.md", "rejects.jsonl"].contains(&name.as_str()),
                        "{name} {bit}"
                    );
                    for (number, row) in (0..).zip(&expected) {
                        assert_eq!(set.row(number).unwrap().to_buf(), *row);
                    }
                }
            }
            put(&mut file, &bytes, bit, 0);
        }
        assert!(verify(&dir).unwrap().is_sound(), "no false alarm");
    });
}

/// Bits anywhere in shards of several blocks: the shard and the block are named.
#[test]
fn sampled_flips_of_large_shards_name_shard_and_block() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 4)], 1 << 18, 2);
    let dir = work.path().join("set");
    for case in 0..120 {
        let name = format!("shard-{:05}.arrow", case % 2);
        let path = dir.join(&name);
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() > 2 << 20);
        let bit = usize::try_from(noise(case, 3) >> 8).unwrap() % (bytes.len() * 8);
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        put(&mut file, &bytes, bit, 1 << (bit % 8));
        let block = Some(bit / 8 / (1 << 20));
        let problem = only_problem(&dir);
        assert_eq!((problem.file.as_str(), problem.block), (name.as_str(), block), "bit {bit}");
        put(&mut file, &bytes, bit, 0);
    }
    assert!(verify(&dir).unwrap().is_sound());
}

/// Opens a set without checksums and touches every value of every row: a bad address would fault.
/// Returns whether the shard was refused.
fn refused(dir: &Path, what: &str) -> bool {
    match ShardSet::open_with(dir, Check::Structure) {
        Err(error) => {
            assert!(matches!(error, ShardError::Damaged { .. }), "{what}: {error}");
            assert!(error.to_string().contains("shard-00000.arrow"), "{what}: {error}");
            true
        }
        Ok(set) => {
            for row in 0..set.rows() {
                let sum = set.row(row).map_or(0, |row| {
                    let spans = row.maskable_starts.iter().chain(row.maskable_lens);
                    let text = row.spans.starts.iter().chain(row.spans.lens);
                    let kinds: u64 = row.spans.kinds.iter().map(|&kind| u64::from(kind)).sum();
                    let words = row.tokens.iter().chain(row.segments).chain(spans).chain(text);
                    kinds + words.map(|&v| u64::from(v)).sum::<u64>()
                });
                std::hint::black_box(sum);
            }
            false
        }
    }
}

/// With checksums off, a damaged shard gives an error or rows, and nothing else ever.
#[test]
fn without_checksums_no_damage_brings_the_reader_down() {
    for (write, every, cases) in [(write as Write, 1, 6000), (write_with_spans, 3, 2000)] {
        let work = tempfile::tempdir().unwrap();
        write(work.path(), &[("text", 2), ("chat", 1)], 8, 4);
        damaged_without_checksums(&work.path().join("set"), every, cases);
    }
}

fn damaged_without_checksums(dir: &Path, every: usize, cases: u64) {
    let path = dir.join("shard-00000.arrow");
    let bytes = fs::read(&path).unwrap();
    let put = |bad: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bad).unwrap();
    };
    let mut count = [0, 0];
    for bit in (0..bytes.len() * 8).step_by(every) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&bad);
        count[usize::from(refused(dir, &format!("bit {bit}")))] += 1;
    }
    assert!(count[0] > 1000 && count[1] > 1000, "{count:?}");
    // Several words at once, of the values that break arithmetic.
    let words = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 7];
    for case in 0..cases {
        let mut bad = bytes.clone();
        for change in 0..=case % 4 {
            let draw = usize::try_from(noise(case, change) >> 1).unwrap();
            let at = draw % (bytes.len() / 4) * 4;
            bad[at..at + 4].copy_from_slice(&words[draw / bytes.len() % 8].to_le_bytes());
        }
        put(&bad);
        refused(dir, &format!("case {case}"));
    }
}

#[test]
fn every_truncation_is_found() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 3)], 8, 2);
    let dir = work.path().join("set");
    for (name, bytes) in tree(&dir) {
        let path = dir.join(&name);
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let problem = only_problem(&dir);
            assert_eq!(problem.file, name, "cut to {length}");
            if name.starts_with("shard-") {
                let error = ShardSet::open_with(&dir, Check::Structure).err().unwrap();
                assert_eq!(error.class(), ErrorClass::Artefact);
                assert!(error.to_string().contains(&name), "{error}");
            }
        }
        let mut longer = bytes.clone();
        longer.push(0);
        fs::write(&path, &longer).unwrap();
        assert_eq!(only_problem(&dir).file, name, "one byte too many");
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn the_damaged_block_is_named() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 3)], 1 << 18, 4);
    let dir = work.path().join("set");
    let path = dir.join("shard-00000.arrow");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 3 << 20);
    for (place, block) in [(0, 0), ((1 << 20) - 1, 0), (1 << 20, 1), (bytes.len() - 1, 3)] {
        let mut bad = bytes.clone();
        bad[place] ^= 4;
        fs::write(&path, &bad).unwrap();
        assert_eq!(only_problem(&dir).block, Some(block));
        let error = ShardSet::open(&dir).err().unwrap();
        assert!(error.to_string().contains(&format!("block {block} ")), "{error}");
        assert!(error.hint().is_some());
    }
    // Blocks 1 and 2 exchanged.
    let mut bad = bytes.clone();
    bad[1 << 20..2 << 20].copy_from_slice(&bytes[2 << 20..3 << 20]);
    bad[2 << 20..3 << 20].copy_from_slice(&bytes[1 << 20..2 << 20]);
    fs::write(&path, &bad).unwrap();
    let blocks: Vec<_> = verify(&dir).unwrap().problems.iter().map(|p| p.block).collect();
    assert_eq!(blocks, [Some(1), Some(2)]);
    // The last block zeroed, as after a crash of the machine.
    let mut bad = bytes.clone();
    bad[3 << 20..].fill(0);
    fs::write(&path, &bad).unwrap();
    assert_eq!(only_problem(&dir).block, Some(3));
}

#[test]
fn missing_surplus_and_exchanged_files_are_named() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 6)], 8, 2);
    let dir = work.path().join("set");
    for name in ["shard-00001.arrow", "tokenizer.json", "rejects.jsonl", "README.md"] {
        let aside = work.path().join("aside");
        fs::rename(dir.join(name), &aside).unwrap();
        let problem = only_problem(&dir);
        assert_eq!((problem.file.as_str(), problem.message.contains("missing")), (name, true));
        fs::rename(&aside, dir.join(name)).unwrap();
    }
    fs::write(dir.join("shard-00003.arrow"), b"x").unwrap();
    assert_eq!(only_problem(&dir).file, "shard-00003.arrow");
    fs::remove_file(dir.join("shard-00003.arrow")).unwrap();
    fs::copy(dir.join("shard-00000.arrow"), dir.join("shard-00001.arrow")).unwrap();
    assert_eq!(only_problem(&dir).file, "shard-00001.arrow");
    assert!(ShardSet::open(&dir).is_err());
}

#[test]
fn exchanged_shards_are_both_named() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 4)], 8, 2);
    let dir = work.path().join("set");
    let (first, second) = (dir.join("shard-00000.arrow"), dir.join("shard-00001.arrow"));
    let aside = work.path().join("aside");
    fs::rename(&first, &aside).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(&aside, &second).unwrap();
    let found: Vec<_> = verify(&dir).unwrap().problems.into_iter().map(|p| p.file).collect();
    assert_eq!(found, ["shard-00000.arrow", "shard-00001.arrow"]);
    assert!(matches!(ShardSet::open(&dir), Err(ShardError::Damaged { .. })));
}

#[test]
fn the_index_cannot_be_tampered_with() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 6)], 8, 2);
    let dir = work.path().join("set");
    let path = dir.join("index.json");
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"rows\": 6", "\"rows\": 5"),
        ("\"documents\": 5", "\"documents\": 6"),
        ("CC0-1.0", "MIT"),
        ("\"rows_per_shard\": 2", "\"rows_per_shard\": 3"),
        ("\"format\":", "\"surprise\": 1, \"format\":"),
        ("{\n  \"format\"", "{\n\n  \"format\""),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from}");
        fs::write(&path, bad).unwrap();
        assert_eq!(only_problem(&dir).file, "index.json", "{from}");
        assert!(matches!(ShardSet::open(&dir), Err(ShardError::Damaged { .. })), "{from}");
    }
    fs::write(&path, text.replacen("\"format_version\": 1", "\"format_version\": 3", 1)).unwrap();
    let error = ShardSet::open(&dir).err().unwrap();
    assert!(matches!(error, ShardError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("version 3"), "{error}");
    // A version that the rest of the index does not fit.
    fs::write(&path, text.replacen("\"format_version\": 1", "\"format_version\": 2", 1)).unwrap();
    assert!(matches!(ShardSet::open(&dir), Err(ShardError::Damaged { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(verify(&dir), Err(ShardError::Unfinished { .. })));
    assert!(matches!(ShardSet::open(&dir), Err(ShardError::Unfinished { .. })));
}

/// A shard of another set, with an index that was made to fit: only its own description tells.
#[test]
fn rows_must_fit_the_index() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 6)], 8, 2);
    let other = tempfile::tempdir().unwrap();
    write(other.path(), &[("chat", 6)], 8, 2);
    let set = ShardSet::open(work.path().join("set")).unwrap();
    assert_eq!(set.row(5).unwrap().to_buf(), rows(&[("text", 6)], 8)[5]);
    let from = other.path().join("set/shard-00001.arrow");
    let to = work.path().join("set/shard-00001.arrow");
    fs::remove_file(&to).unwrap();
    fs::copy(from, &to).unwrap();
    // The open set still has the old file mapped; a new one is refused.
    assert_eq!(set.row(3).unwrap().to_buf(), rows(&[("text", 6)], 8)[3]);
    assert!(ShardSet::open(work.path().join("set")).is_err());
}
