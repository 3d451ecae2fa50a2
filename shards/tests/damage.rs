//! Every damage is found and named, and none of them brings the reader down.

mod support;

use coda_shards::{Check, ErrorClass, ShardError, ShardSet, verify};
use std::{fs, path::Path};
use support::{noise, rows, tree, write};

/// One problem in one file, or the test fails.
fn only_problem(dir: &Path) -> coda_shards::Problem {
    let mut report = verify(dir).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    report.problems.remove(0)
}

/// Through the files, bits of every byte of every file. (The unit tests flip every single bit of a
/// shard of 64 KiB and of an index, in memory.)
#[test]
fn flipped_bits_are_found_in_their_file() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 1), ("chat", 1)], 8, 2);
    let dir = work.path().join("set");
    for (name, bytes) in tree(&dir) {
        let path = dir.join(&name);
        // Odd, so that every place within a byte has its turn.
        for bit in (0..bytes.len() * 8).step_by(5) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            match verify(&dir) {
                Ok(report) => {
                    assert!(!report.is_sound(), "{name} bit {bit} went unnoticed");
                    assert!(report.problems.iter().all(|p| p.file == name), "{name} bit {bit}");
                    let block = name.starts_with("shard-").then_some(0);
                    assert_eq!(report.problems[0].block, block, "{name} bit {bit}");
                }
                // A flip in the index's format or version names another format.
                Err(ShardError::Incompatible { file, .. }) => {
                    assert_eq!((file, name.as_str()), (path.clone(), "index.json"));
                }
                Err(error) => panic!("{name} bit {bit}: {error}"),
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(verify(&dir).unwrap().is_sound(), "no false alarm");
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
                    row.tokens.iter().chain(row.segments).chain(spans).map(|&v| u64::from(v)).sum()
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
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &[("text", 2), ("chat", 1)], 8, 4);
    let dir = work.path().join("set");
    let path = dir.join("shard-00000.arrow");
    let bytes = fs::read(&path).unwrap();
    let put = |bad: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bad).unwrap();
    };
    let mut count = [0, 0];
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&bad);
        count[usize::from(refused(&dir, &format!("bit {bit}")))] += 1;
    }
    assert!(count[0] > 1000 && count[1] > 1000, "{count:?}");
    // Several words at once, of the values that break arithmetic.
    let words = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 7];
    for case in 0..6000 {
        let mut bad = bytes.clone();
        for change in 0..=case % 4 {
            let draw = usize::try_from(noise(case, change) >> 1).unwrap();
            let at = draw % (bytes.len() / 4) * 4;
            bad[at..at + 4].copy_from_slice(&words[draw / bytes.len() % 8].to_le_bytes());
        }
        put(&bad);
        refused(&dir, &format!("case {case}"));
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
    fs::write(&path, text.replacen("\"format_version\": 1", "\"format_version\": 2", 1)).unwrap();
    let error = ShardSet::open(&dir).err().unwrap();
    assert!(matches!(error, ShardError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
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
