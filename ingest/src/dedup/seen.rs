//! Which keys were seen, and in which document first; of any number, in bounded memory.
//!
//! New keys go into a table in memory. When it is full it becomes a run on disk ([`super::run`]), and
//! when four runs of a level are there they become one of the next. Every entry keeps the ordinal of
//! its document, so that everything after a document can be forgotten again: a later run over the
//! same input then adds the same entries.

use super::{
    DedupError,
    run::{self, Run, RunEntry},
    table::{Entry, Table},
};
use coda_shards::commit::{FileError, write_atomic};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    iter::Peekable,
    path::{Path, PathBuf},
};

/// Runs of a level that are merged into one of the next.
const FAN_IN: usize = 4;
/// The list of runs within the folder.
const LIST_FILE: &str = "runs.json";
const VERSION: u32 = 1;

/// The list of runs: with the files it names, the whole state on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    version: u32,
    key_words: usize,
    runs: Vec<RunEntry>,
}

/// A map from keys to ordinals that only grows at the end. Keys are `W` words of a hash.
pub struct Seen<const W: usize> {
    dir: PathBuf,
    table: Table<W>,
    /// Oldest first: their ordinals ascend.
    runs: Vec<Run<W>>,
    next_number: u64,
}

impl<const W: usize> Seen<W> {
    /// Opens what a folder holds, or starts with nothing in a fresh one; `memory` bounds the table.
    /// Files that the list does not name are what a killed process left, and are removed.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or a file is not what the list says.
    pub fn open(dir: &Path, memory: u64) -> Result<Self, DedupError> {
        fs::create_dir_all(dir).map_err(|e| FileError::new("create", dir, e))?;
        let list = read_list(&dir.join(LIST_FILE), W)?;
        let named: BTreeSet<u64> = list.iter().map(|entry| entry.number).collect();
        for found in fs::read_dir(dir).map_err(|e| FileError::new("read", dir, e))? {
            let path = found.map_err(|e| FileError::new("read", dir, e))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let is_list = path.file_name().is_some_and(|name| name == LIST_FILE);
            if !is_list && !number.is_some_and(|number| named.contains(&number)) {
                fs::remove_file(&path).map_err(|e| FileError::new("remove", &path, e))?;
            }
        }
        let next_number = named.last().map_or(0, |last| last + 1);
        let runs = list.into_iter().map(|entry| Run::open(dir, entry)).collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_owned(), table: Table::new(memory), runs, next_number })
    }

    /// The ordinal with which a key was inserted.
    #[must_use]
    pub fn get(&self, key: &[u64; W]) -> Option<u64> {
        // The youngest runs are the smallest, and near duplicates are often near each other.
        let on_disk = || self.runs.iter().rev().find_map(|run| run.get(key));
        self.table.get(key).or_else(on_disk)
    }

    /// Adds a key that is not there. Ordinals start from 1 and must not descend.
    ///
    /// # Errors
    /// If the table was full and cannot be written to disk.
    pub fn insert(&mut self, key: [u64; W], ordinal: u64) -> Result<(), DedupError> {
        if self.table.is_full() {
            self.flush()?;
        }
        self.table.insert(key, ordinal);
        Ok(())
    }

    /// Writes the table to disk: what was inserted until now is there after a crash.
    ///
    /// # Errors
    /// If a file cannot be written or removed.
    pub fn flush(&mut self) -> Result<(), DedupError> {
        if self.table.is_empty() {
            return Ok(());
        }
        let entries = self.table.take_sorted();
        let most = entries.len() as u64;
        let run = self.write(0, most, entries.into_iter())?;
        self.runs.push(run);
        let mut replaced = Vec::new();
        while let Some(level) = self.crowded() {
            let old = self.runs.split_off(self.runs.len() - FAN_IN);
            let most = old.iter().map(|run| run.entry.entries).sum();
            let merged = self.write(level + 1, most, Merge::of(&old))?;
            self.runs.push(merged);
            replaced.extend(old);
        }
        self.write_list()?;
        self.remove(replaced)
    }

    /// Forgets every key that was inserted with an ordinal above `ordinal`.
    ///
    /// # Errors
    /// If a file cannot be written or removed.
    pub fn forget_after(&mut self, ordinal: u64) -> Result<(), DedupError> {
        self.table.forget_after(ordinal);
        if self.runs.last().is_none_or(|run| run.entry.last <= ordinal) {
            return Ok(());
        }
        let (mut kept, mut replaced) = (Vec::new(), Vec::new());
        for run in std::mem::take(&mut self.runs) {
            if run.entry.last <= ordinal {
                kept.push(run);
                continue;
            }
            if run.entry.first <= ordinal {
                let before = run.iter().filter(|entry| entry.ordinal <= ordinal);
                kept.push(self.write(run.entry.level, run.entry.entries, before)?);
            }
            replaced.push(run);
        }
        self.runs = kept;
        self.write_list()?;
        self.remove(replaced)
    }

    /// Bytes of memory that the entries take; the maps of the runs are the system's to give back.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.table.bytes()
    }

    /// Runs on disk.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    fn write(
        &mut self,
        level: u32,
        most: u64,
        entries: impl Iterator<Item = Entry<W>>,
    ) -> Result<Run<W>, DedupError> {
        let number = self.next_number;
        self.next_number += 1;
        Run::write(&self.dir, (number, level), most, entries)
    }

    /// The level of the youngest runs, when there are enough of them to be merged.
    fn crowded(&self) -> Option<u32> {
        let level = self.runs.last()?.entry.level;
        let same = self.runs.iter().rev().take_while(|run| run.entry.level == level).count();
        (same >= FAN_IN).then_some(level)
    }

    fn write_list(&self) -> Result<(), FileError> {
        let runs = self.runs.iter().map(|run| run.entry.clone()).collect();
        let list = List { version: VERSION, key_words: W, runs };
        write_atomic(&self.dir.join(LIST_FILE), |file| {
            serde_json::to_writer(file, &list).map_err(io::Error::from)
        })
    }

    fn remove(&self, runs: Vec<Run<W>>) -> Result<(), DedupError> {
        for run in runs {
            let number = run.entry.number;
            // Some systems remove no file that is mapped.
            drop(run);
            run::remove(&self.dir, number)?;
        }
        Ok(())
    }
}

fn read_list(path: &Path, key_words: usize) -> Result<Vec<RunEntry>, DedupError> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|e| FileError::new("read", path, e))?,
    };
    let damaged = |problem| DedupError::Damaged { path: path.to_owned(), problem };
    let list: List = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if list.version != VERSION || list.key_words != key_words {
        return Err(damaged(format!(
            "version {} with keys of {} words, expected {VERSION} and {key_words}",
            list.version, list.key_words
        )));
    }
    Ok(list.runs)
}

/// The entries of several runs in the order of their keys. No key is in two runs.
struct Merge<I: Iterator> {
    heads: Vec<Peekable<I>>,
}

impl<'a, const W: usize> Merge<Box<dyn Iterator<Item = Entry<W>> + 'a>> {
    fn of(runs: &'a [Run<W>]) -> Self {
        let boxed =
            |run: &'a Run<W>| -> Box<dyn Iterator<Item = Entry<W>> + 'a> { Box::new(run.iter()) };
        Self { heads: runs.iter().map(|run| boxed(run).peekable()).collect() }
    }
}

impl<const W: usize, I: Iterator<Item = Entry<W>>> Iterator for Merge<I> {
    type Item = Entry<W>;

    fn next(&mut self) -> Option<Entry<W>> {
        let heads = self.heads.iter_mut().filter_map(|head| Some((head.peek()?.key, head)));
        heads.min_by_key(|(key, _)| *key).and_then(|(_, head)| head.next())
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;
    use crate::words::mix;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Large enough for the smallest table alone, so that every few hundred keys become a run.
    const MEMORY: u64 = 1;

    fn key(number: u64) -> [u64; 2] {
        // Some keys share their first word.
        [mix(number / 2, 1), number]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Flush,
        Reopen,
        ForgetAfter(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_u64..1 << 14, 1_u64..700).prop_map(|(from, count)| Step::Insert(from, count)),
            1 => Just(Step::Flush),
            1 => Just(Step::Reopen),
            1 => (0_u64..1000).prop_map(Step::ForgetAfter),
        ];
        prop::collection::vec(step, 1..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn it_is_a_map_whatever_is_spilled_reopened_and_forgotten(steps in steps()) {
            let folder = tempfile::tempdir().unwrap();
            let mut seen: Seen<2> = Seen::open(folder.path(), MEMORY).unwrap();
            let mut map: HashMap<u64, u64> = HashMap::new();
            let mut ordinal = 0;
            let mut bound = 0;
            for step in steps {
                match step {
                    Step::Insert(from, count) => for number in from..from + count {
                        prop_assert_eq!(seen.get(&key(number)), map.get(&number).copied());
                        map.entry(number).or_insert_with(|| {
                            ordinal += u64::from(number % 3 == 0) + u64::from(ordinal == 0);
                            seen.insert(key(number), ordinal).unwrap();
                            ordinal
                        });
                        bound = bound.max(seen.memory());
                    },
                    Step::Flush => seen.flush().unwrap(),
                    Step::Reopen => {
                        seen.flush().unwrap();
                        drop(seen);
                        std::fs::write(folder.path().join("999.run"), b"left by a crash").unwrap();
                        seen = Seen::open(folder.path(), MEMORY).unwrap();
                        prop_assert!(!folder.path().join("999.run").exists());
                    }
                    Step::ForgetAfter(share) => {
                        ordinal = ordinal * share / 1000;
                        seen.forget_after(ordinal).unwrap();
                        map.retain(|_, first| *first <= ordinal);
                    }
                }
            }
            for number in 0..(1 << 14) + 700 {
                prop_assert_eq!(seen.get(&key(number)), map.get(&number).copied(), "{}", number);
            }
            prop_assert!(bound <= 1024 * 24, "the smallest table: {}", bound);
            let files = std::fs::read_dir(folder.path()).unwrap().count();
            prop_assert!(files <= 1 + 2 * seen.runs(), "no file is left over");
        }
    }

    #[test]
    fn memory_stays_in_its_budget_and_runs_stay_few() {
        let folder = tempfile::tempdir().unwrap();
        let budget = 1 << 18;
        let mut seen: Seen<1> = Seen::open(folder.path(), budget).unwrap();
        for number in 1..=200_000 {
            seen.insert([mix(number, 7)], number).unwrap();
            assert!(seen.memory() <= budget);
        }
        assert!((2..=10).contains(&seen.runs()), "{} runs", seen.runs());
        for number in 1..=200_000 {
            assert_eq!(seen.get(&[mix(number, 7)]), Some(number));
            assert_eq!(seen.get(&[mix(number, !7)]), None);
        }
    }

    #[test]
    fn damage_is_found_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fill = || {
            let mut seen: Seen<1> = Seen::open(folder.path(), MEMORY).unwrap();
            seen.insert([5], 1).unwrap();
            seen.flush().unwrap();
        };
        fill();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 3);
        for path in names {
            let sound = std::fs::read(&path).unwrap();
            // The level alone decides nothing that could be wrong.
            let is_list = path.extension().is_some_and(|extension| extension == "json");
            for index in (0..sound.len()).step_by(if is_list { 29 } else { 7 }) {
                let mut bytes = sound.clone();
                bytes[index] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                let opened = Seen::<1>::open(folder.path(), MEMORY);
                let same = opened.is_ok_and(|seen| seen.get(&[5]) == Some(1));
                assert!(!same || is_list, "{} byte {index}", path.display());
                // What does not fit the list may have been cleared away.
                std::fs::remove_dir_all(folder.path()).unwrap();
                fill();
            }
            std::fs::write(&path, &sound).unwrap();
        }
        let other = Seen::<2>::open(folder.path(), MEMORY).err().expect("other keys");
        assert!(other.to_string().contains("runs.json"), "{other}");
    }
}
