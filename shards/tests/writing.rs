//! Crashes, foreign files, two writers at once.

mod support;

use coda_shards::{
    RowBuf, ShardError, ShardSet, ShardWriter,
    commit::{AtomicDir, AtomicFile, remove_dir, remove_leftovers, write_atomic},
    verify,
};
use std::{fs, io::Write, path::Path};
use support::{options, reports, rows, tree, write};

const SOURCES: [(&str, u64); 1] = [("text", 9)];

fn push_all(writer: &mut ShardWriter, rows: &[RowBuf]) {
    for row in rows {
        writer.push(row).unwrap();
    }
}

/// Writes `count` rows and stops without finishing, as a crash would.
fn abandon(work: &Path, count: usize) {
    let options = options(work, &["text"], 8, 2);
    let mut writer = ShardWriter::create(work.join("set"), options).unwrap();
    push_all(&mut writer, &rows(&SOURCES, 8)[..count]);
}

#[test]
fn after_a_crash_the_next_run_gives_the_same_set() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &SOURCES, 8, 2);
    for count in 0..=9 {
        let work = tempfile::tempdir().unwrap();
        abandon(work.path(), count);
        let dir = work.path().join("set");
        fs::write(dir.join(".tmp-left"), b"torn").unwrap();
        assert!(matches!(ShardSet::open(&dir), Err(ShardError::Unfinished { .. })));
        write(work.path(), &SOURCES, 8, 2);
        assert!(tree(&dir) == tree(&whole.path().join("set")), "after {count} rows");
    }
}

#[test]
fn a_finished_set_is_only_replaced_on_demand() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &SOURCES, 8, 2);
    let dir = work.path().join("set");
    let before = tree(&dir);
    let again = options(work.path(), &["text"], 8, 4);
    let refused = ShardWriter::create(&dir, again.clone()).err().unwrap();
    assert!(matches!(refused, ShardError::Occupied { .. }), "{refused}");
    assert!(tree(&dir) == before);
    let replacing = coda_shards::WriterOptions { replace: true, ..again };
    let mut writer = ShardWriter::create(&dir, replacing).unwrap();
    assert!(!dir.join("index.json").exists() && !dir.join("shard-00004.arrow").exists());
    push_all(&mut writer, &rows(&SOURCES, 8));
    writer.finish(reports(&["text"])).unwrap();
    assert_eq!(verify(&dir).unwrap().shards, 3);
}

#[test]
fn foreign_files_are_never_touched() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("set");
    fs::create_dir(&dir).unwrap();
    for name in ["README.md", "notes.txt", "shard-00000.arrow"] {
        fs::write(dir.join(name), b"mine").unwrap();
        let options = options(work.path(), &["text"], 8, 2);
        let refused = ShardWriter::create(&dir, options).err().unwrap();
        assert!(matches!(refused, ShardError::Occupied { .. }), "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
        assert_eq!(tree(&dir).into_iter().collect::<Vec<_>>(), [(name.into(), b"mine".into())]);
        fs::remove_file(dir.join(name)).unwrap();
    }
}

#[test]
fn two_writers_never_mix() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("set");
    let mut first = ShardWriter::create(&dir, options(work.path(), &["text"], 8, 2)).unwrap();
    let second = ShardWriter::create(&dir, options(work.path(), &["text"], 8, 2)).err().unwrap();
    assert!(matches!(second, ShardError::Locked { .. }), "{second}");
    push_all(&mut first, &rows(&SOURCES, 8));
    first.finish(reports(&["text"])).unwrap();
    assert!(verify(&dir).unwrap().is_sound());
}

/// Many at once: one finishes, the others are told why not, and the set is sound.
#[test]
fn a_race_has_one_winner() {
    for _ in 0..20 {
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join("set");
        let options = options(work.path(), &["text"], 8, 2);
        let finished: usize = std::thread::scope(|scope| {
            let one = || {
                let mut writer = match ShardWriter::create(&dir, options.clone()) {
                    Ok(writer) => writer,
                    Err(ShardError::Locked { .. } | ShardError::Occupied { .. }) => return 0,
                    Err(error) => panic!("{error}"),
                };
                push_all(&mut writer, &rows(&SOURCES, 8));
                writer.finish(reports(&["text"])).unwrap();
                1
            };
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(finished, 1);
        assert!(verify(&dir).unwrap().is_sound());
    }
}

#[test]
fn reports_must_be_those_of_the_sources() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("set");
    let writer = ShardWriter::create(&dir, options(work.path(), &["text"], 8, 2)).unwrap();
    assert!(matches!(writer.finish(reports(&["code"])), Err(ShardError::Settings { .. })));
    assert!(!dir.join("index.json").exists());
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("state.json");
    write_atomic(&path, |file| file.write_all(b"old")).unwrap();
    let failed = write_atomic(&path, |file| {
        file.write_all(b"half")?;
        Err(std::io::Error::other("no space"))
    });
    assert!(failed.unwrap_err().to_string().contains("state.json"));
    let mut dropped = AtomicFile::create(&path).unwrap();
    dropped.write_all(b"half").unwrap();
    drop(dropped);
    assert_eq!(
        tree(work.path()).into_iter().collect::<Vec<_>>(),
        [("state.json".into(), b"old".into())]
    );
    write_atomic(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = work.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "others may read it as any other file");
    }
}

#[test]
fn a_directory_appears_whole_or_not_at_all() {
    let work = tempfile::tempdir().unwrap();
    let target = work.path().join("step-10");
    for content in ["one", "two"] {
        let dir = AtomicDir::create(&target).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), content).unwrap();
        dir.commit().unwrap();
        assert_eq!(fs::read_to_string(target.join("sub/file")).unwrap(), content);
    }
    let dropped = AtomicDir::create(&target).unwrap();
    fs::write(dropped.path().join("file"), "three").unwrap();
    drop(dropped);
    assert_eq!(fs::read_to_string(target.join("sub/file")).unwrap(), "two");
    fs::create_dir(work.path().join(".tmp-crashed")).unwrap();
    fs::write(work.path().join(".trash-half"), b"").unwrap();
    assert_eq!(remove_leftovers(work.path()).unwrap(), 2);
    let names = || fs::read_dir(work.path()).unwrap().count();
    assert_eq!(names(), 1, "nothing but the directory itself");
    remove_dir(&target).unwrap();
    assert_eq!(names(), 0);
}

/// Rows as far as the last completed shard, noted with the number of the row that comes next.
fn stop_after(work: &Path, count: usize, start: &mut usize) {
    let (mut writer, noted) =
        ShardWriter::resume(work.join("set"), options(work, &["text"], 8, 2)).unwrap();
    *start = noted.map_or(0, |at| usize::try_from(at.as_u64().unwrap()).unwrap());
    let rows = rows(&SOURCES, 8);
    for (number, row) in rows.iter().enumerate().skip(*start).take(count) {
        writer.push_reject(&format!("before row {number}")).unwrap();
        if writer.push(row).unwrap() {
            writer.save(serde_json::json!(number + 1)).unwrap();
        }
    }
    if *start + count >= rows.len() {
        writer.finish(reports(&["text"])).unwrap();
    }
}

#[test]
fn a_stopped_writer_goes_on_behind_its_last_note() {
    let whole = tempfile::tempdir().unwrap();
    stop_after(whole.path(), 9, &mut 0);
    let whole = tree(&whole.path().join("set"));
    for first in 0..9 {
        for second in 0..9 {
            let work = tempfile::tempdir().unwrap();
            let mut start = 0;
            stop_after(work.path(), first, &mut start);
            assert_eq!(start, 0);
            stop_after(work.path(), second, &mut start);
            assert_eq!(start, first / 2 * 2, "two rows a shard");
            if !work.path().join("set/index.json").exists() {
                stop_after(work.path(), 9, &mut start);
            }
            assert!(tree(&work.path().join("set")) == whole, "after {first} and {second} rows");
        }
    }
}

/// What the error must say, and the damage.
type Damage = (&'static str, fn(&Path));

#[test]
fn an_unfinished_set_that_is_damaged_or_of_another_build_is_refused() {
    let damages: [Damage; 5] = [
        ("shard-00001.arrow", |dir| fs::remove_file(dir.join("shard-00001.arrow")).unwrap()),
        ("block 0", |dir| {
            let path = dir.join("shard-00000.arrow");
            let mut bytes = fs::read(&path).unwrap();
            bytes[300] ^= 1;
            fs::write(&path, bytes).unwrap();
        }),
        ("bytes", |dir| fs::write(dir.join("shard-00000.arrow"), b"short").unwrap()),
        (".partial-rejects.jsonl", |dir| {
            fs::write(dir.join(".partial-rejects.jsonl"), b"x").unwrap();
        }),
        (".progress.json", |dir| fs::write(dir.join(".progress.json"), b"{}").unwrap()),
    ];
    for (word, damage) in damages {
        let work = tempfile::tempdir().unwrap();
        stop_after(work.path(), 5, &mut 0);
        let dir = work.path().join("set");
        damage(&dir);
        let before = tree(&dir);
        let error = ShardWriter::resume(&dir, options(work.path(), &["text"], 8, 2)).err().unwrap();
        assert!(matches!(error, ShardError::Damaged { .. }), "{word}: {error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert!(tree(&dir) == before, "{word}: nothing is touched");
        // Starting anew is always possible.
        ShardWriter::create(&dir, options(work.path(), &["text"], 8, 2)).unwrap();
    }
    let work = tempfile::tempdir().unwrap();
    stop_after(work.path(), 5, &mut 0);
    for other in [options(work.path(), &["code"], 8, 2), options(work.path(), &["text"], 8, 4)] {
        let error = ShardWriter::resume(work.path().join("set"), other).err().unwrap();
        assert!(matches!(error, ShardError::OtherBuild { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--force"));
    }
}

#[test]
fn what_a_crash_left_behind_the_index_is_tidied() {
    let work = tempfile::tempdir().unwrap();
    write(work.path(), &SOURCES, 8, 2);
    let dir = work.path().join("set");
    let clean = tree(&dir);
    for name in [".writing", ".progress.json", ".partial-rejects.jsonl", ".tmp-x"] {
        fs::write(dir.join(name), b"left").unwrap();
    }
    coda_shards::tidy(&dir).unwrap();
    assert!(tree(&dir) == clean);
    coda_shards::tidy(&dir).unwrap();
}
