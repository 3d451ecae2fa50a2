//! A build that is killed at any moment goes on to the same bytes, and leaves nothing behind.

use super::common;
use assert_cmd::cargo::cargo_bin;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub(super) struct Place(TempDir);

pub(super) type Tree = BTreeMap<PathBuf, Vec<u8>>;

impl Place {
    /// Two sources of about so many documents, with bad records among them.
    pub(super) fn new(documents: usize) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.write("tokenizer.json", &common::tokenizer().json);
        for file in 0..3 {
            let mut lines = String::new();
            for i in 0..documents / 4 {
                let text = format!("fn f{file}_{i}() {{ {} }}\n", "x += 1; ".repeat(i * 7 % 41));
                let _ = match i % 29 {
                    28 => writeln!(lines, "{{\"txt\": {i}}}"),
                    _ => writeln!(lines, "{}", json!({ "text": text })),
                };
            }
            place.write(&format!("docs/{file}.jsonl"), &lines);
        }
        for i in 0..documents / 4 {
            let text = format!("def g{i}():\n    return {}\n", "1 + ".repeat(i % 17) + "0");
            place.write(&format!("code/{:03}/{i}.py", i / 50), &text);
        }
        let manifest = json!({
            "version": 1, "name": "test", "stage": "pre",
            "tokenizer": {"path": "tokenizer.json"},
            "data": {
                "out": "set", "row_length": 64, "rows_per_shard": 40, "max_reject_rate": 0.5,
                "sources": [{"name": "docs", "paths": ["docs/*.jsonl"]},
                            {"name": "code", "paths": ["code"]}],
            },
        });
        place.write("m.yaml", &manifest.to_string());
        place
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// A build into `out` with so many jobs.
    pub(super) fn command(&self, out: &str, jobs: usize, more: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin!("coda-ingest"));
        command
            .current_dir(self.0.path())
            .args(["--manifest", "m.yaml", "-q", "--jobs", &jobs.to_string(), "--out", out])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    pub(super) fn build(&self, out: &str, jobs: usize, more: &[&str]) -> Tree {
        let ran = self.command(out, jobs, more).output().expect("it starts");
        assert!(ran.status.success(), "{}", error(&ran));
        tree(&self.0.path().join(out))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Folders and files beside the inputs that are no shard sets.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).expect("a folder");
        names
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with('.'))
            .collect()
    }
}

pub(super) fn error(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

pub(super) fn tree(folder: &Path) -> Tree {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.strip_prefix(folder).expect("inside").to_owned(), path))
        .map(|(name, path)| (name, fs::read(path).expect("a file")))
        .collect()
}

fn names(tree: &Tree) -> Vec<&PathBuf> {
    tree.keys().collect()
}

pub(super) fn assert_same(one: &Tree, other: &Tree, context: &str) {
    assert_eq!(names(one), names(other), "{context}");
    for (name, bytes) in one {
        assert!(*bytes == other[name], "{context}: {} differs", name.display());
    }
}

/// Marsaglia's xorshift.
fn roll(dice: &mut u32) -> f64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 17;
    *dice ^= *dice << 5;
    f64::from(*dice) / f64::from(u32::MAX)
}

#[test]
fn a_build_that_is_killed_at_any_moment_goes_on() {
    let place = Place::new(3000);
    let clock = Instant::now();
    let whole = place.build("whole", 2, &[]);
    let time = clock.elapsed();
    assert!(whole.len() > 12, "many shards: {:?}", names(&whole));
    let (mut kills, mut gone_on, mut dice) = (0, 0, 2_463_534_242);
    for chain in 0.. {
        if kills >= 16 {
            break;
        }
        assert!(chain < 40, "the builds end before they are killed");
        let out = format!("killed-{chain}");
        // Chains of up to five kills; the number of jobs changes on the way.
        for turn in 0.. {
            let jobs = 1 + (chain + turn) % 3;
            if turn == 5 {
                place.build(&out, jobs, &[]);
                break;
            }
            let mut child = place.command(&out, jobs, &[]).spawn().expect("it starts");
            sleep(time.mul_f64(roll(&mut dice) * 0.7));
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(status.success(), "{}", error(&child.wait_with_output().expect("ended")));
                break;
            }
            child.kill().expect("SIGKILL");
            child.wait().expect("it ends");
            kills += 1;
            gone_on += usize::from(place.0.path().join(&out).join(".progress.json").exists());
        }
        // Once more, as after a kill behind the index.
        assert_same(&place.build(&out, 2, &[]), &whole, &out);
    }
    assert!(gone_on > 3, "most builds go on from a note, not from the start: {gone_on}");
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn a_build_goes_on_behind_the_last_finished_shard() {
    let place = Place::new(3000);
    let out = place.0.path().join("set");
    let mut child = place.command("set", 2, &[]).spawn().expect("it starts");
    while !out.join("shard-00004.arrow").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
        sleep(Duration::from_millis(1));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    let kept = fs::metadata(out.join("shard-00001.arrow")).expect("there").modified().ok();

    // Another manifest, or other inputs, must not be mixed in.
    let before = tree(&out);
    let other = place.command("set", 2, &["data.row_length=32"]).output().expect("it starts");
    assert_eq!(other.status.code(), Some(2), "{}", error(&other));
    assert!(error(&other).contains("unfinished") && error(&other).contains("--force"));
    assert_same(&tree(&out), &before, "refused");

    // A kept shard that is damaged is named.
    let path = out.join("shard-00001.arrow");
    let sound = fs::read(&path).expect("there");
    let mut bytes = sound.clone();
    bytes[1000] ^= 4;
    fs::write(&path, bytes).expect("written");
    let damaged = place.command("set", 2, &[]).output().expect("it starts");
    assert_eq!(damaged.status.code(), Some(4), "{}", error(&damaged));
    assert!(error(&damaged).contains("shard-00001.arrow is damaged at block 0"));
    assert!(error(&damaged).contains("hint: this unfinished set cannot go on; --force"));
    fs::write(&path, sound).expect("written");
    let stamp = fs::File::options().write(true).open(&path).expect("opens");
    stamp.set_modified(kept.expect("a time")).expect("set");

    let whole = place.build("whole", 1, &[]);
    assert_same(&place.build("set", 3, &[]), &whole, "gone on");
    let now = fs::metadata(&path).expect("there").modified().ok();
    assert_eq!(now, kept, "what was finished is not written again");

    // --force begins anew, whatever is there.
    fs::remove_file(out.join("index.json")).expect("there");
    fs::write(out.join(".writing"), b"").expect("written");
    assert_same(&place.build("set", 2, &["--force"]), &whole, "anew");
}

/// A library for `LD_PRELOAD` that kills the program at the n-th step that touches the disk: before
/// and after each fsync, and before each write, rename, truncation and removal.
#[cfg(target_os = "linux")]
const KILLER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
static atomic_long steps;
static void step(void) {
    static long at = -1;
    if (at < 0) { const char *text = getenv("KILL_AT"); at = text ? atol(text) : 0; }
    if (atomic_fetch_add(&steps, 1) + 1 == at) kill(getpid(), SIGKILL);
}
#define REAL(type, name) static type (*real)(); if (!real) real = (type (*)())dlsym(RTLD_NEXT, name)
int fsync(int fd) { REAL(int, "fsync"); step(); int r = real(fd); step(); return r; }
ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(ssize_t, "write");
    if (fd > 2 && n > 8) step();
    return real(fd, bytes, n);
}
int rename(const char *a, const char *b) { REAL(int, "rename"); step(); return real(a, b); }
int unlink(const char *path) { REAL(int, "unlink"); step(); return real(path); }
int ftruncate64(int fd, off_t n) { REAL(int, "ftruncate64"); step(); return real(fd, n); }
"#;

#[cfg(target_os = "linux")]
impl Place {
    /// The library, built.
    pub(super) fn killer(&self) -> PathBuf {
        let (source, killer) = (self.path("killer.c"), self.path("killer.so"));
        fs::write(&source, KILLER).expect("written");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-w", "-o"])
            .args([&killer, &source])
            .arg("-ldl")
            .status()
            .expect("a C compiler");
        assert!(built.success());
        killer
    }
}

/// The state of deduplication goes back with the rows, and is gone with the last step.
#[cfg(target_os = "linux")]
#[test]
fn a_build_without_duplicates_that_is_killed_goes_on() {
    let place = Place::new(80);
    let killer = place.killer();
    // Of five documents, one repeats an earlier one and one nearly does.
    let words = |i: usize| {
        let words: Vec<String> = (0..20).map(|word| format!("w{}", i * 100 + word)).collect();
        words.join(" ") + " "
    };
    let text = |i: usize| match i % 5 {
        3 => words(i / 5),
        4 => words(i / 5) + "more",
        _ => words(i),
    };
    let lines: Vec<String> =
        (0..80).map(|i| json!({ "text": text(i) }).to_string() + "\n").collect();
    place.write("docs/3.jsonl", &lines.concat());
    let keys = ["data.dedup={near: {threshold: 0.7}}", "data.rows_per_shard=30"];
    let whole = place.build("whole", 1, &keys);
    let card = String::from_utf8_lossy(&whole[Path::new("README.md")]).into_owned();
    assert!(card.contains("`near_duplicate`") && card.contains("`duplicate`"), "{card}");
    let mut at = 1;
    loop {
        let mut command = place.command("set", 2, &keys);
        let ran = command.env("LD_PRELOAD", &killer).env("KILL_AT", at.to_string()).output();
        if ran.expect("it starts").status.success() {
            break;
        }
        at += 29;
        assert_same(&place.build("set", 1, &keys), &whole, &format!("step {at}"));
        fs::remove_dir_all(place.0.path().join("set")).expect("removed");
    }
    assert!(at > 100, "{at} steps");
    assert_eq!(place.leftovers(), [""; 0]);

    // Notes of progress without the state that they count on.
    let out = place.0.path().join("set");
    fs::remove_dir_all(&out).expect("removed");
    let mut command = place.command("set", 1, &keys);
    let at = (at / 2).to_string();
    let ran = command.env("LD_PRELOAD", &killer).env("KILL_AT", at).output().expect("it starts");
    assert!(!ran.status.success() && out.join(".progress.json").exists());
    fs::remove_dir_all(place.0.path().join(".dedup-set")).expect("removed");
    let refused = place.command("set", 1, &keys).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(4), "{}", error(&refused));
    assert!(error(&refused).contains("--force begins it anew"), "{}", error(&refused));
    let forced = [&keys[..], &["--force"]].concat();
    assert_same(&place.build("set", 1, &forced), &whole, "anew");
}

/// Every step of a small build, of its second run, and of one that replaces a finished set.
#[cfg(target_os = "linux")]
#[test]
fn a_build_that_is_killed_at_every_step_goes_on() {
    let place = Place::new(80);
    let killer = place.killer();
    let whole = place.build("whole", 1, &[]);
    let killed = |out: &str, at: usize, more: &[&str]| {
        let mut command = place.command(out, 1, more);
        let ran = command.env("LD_PRELOAD", &killer).env("KILL_AT", at.to_string()).output();
        let ran = ran.expect("it starts");
        assert!(ran.status.success() || ran.status.code().is_none(), "{}", error(&ran));
        !ran.status.success()
    };
    let mut steps = 0;
    while killed("set", steps + 1, &[]) {
        steps += 1;
        // The second run is killed too, somewhere else; the third one goes to the end.
        if steps % 3 == 0 {
            killed("set", 1 + steps * 7 % 40, &[]);
        }
        assert_same(&place.build("set", 2, &[]), &whole, &format!("step {steps}"));
        assert_same(&place.build("set", 2, &[]), &whole, &format!("step {steps}, up to date"));
        fs::remove_dir_all(place.0.path().join("set")).expect("removed");
    }
    assert!(steps > 30, "{steps} steps");
    let mut forced = 0;
    place.build("set", 1, &[]);
    while killed("set", forced + 1, &["--force", "data.row_length=48"]) {
        forced += 3;
        let now = tree_or_none(&place.0.path().join("set"));
        assert!(now.is_none_or(|now| now == whole || now.len() > 4), "old or new, never mixed");
        place.build("set", 2, &["--force"]);
    }
    assert!(forced >= steps, "{forced} steps");
    assert_eq!(place.leftovers(), [""; 0]);
}

#[cfg(target_os = "linux")]
fn tree_or_none(folder: &Path) -> Option<Tree> {
    folder.is_dir().then(|| tree(folder))
}
