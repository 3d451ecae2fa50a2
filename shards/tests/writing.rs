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
