//! Judging many solutions, several at a time, with every verdict on disk as soon as it is there.

use super::{EvaluateError, Judge, Judged, Ledger, Solution, Suite, Verdict};
use coda_cli::{Progress, signals::Stop};
use coda_shards::commit::{FileError, write_atomic};
use serde_json::Value;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// What was asked, in the folder of an evaluation.
const EVALUATION: &str = "evaluation.json";
/// A line for every verdict.
const VERDICTS: &str = "verdicts.jsonl";
/// What it came to.
const RESULTS: &str = "results.json";

/// The folder of an evaluation.
#[derive(Clone, Debug)]
pub struct Session {
    dir: PathBuf,
}

/// What is judged with.
pub struct Work<'a> {
    /// The problems.
    pub suite: &'a Suite,
    /// The judge.
    pub judge: &'a Judge,
    /// Solutions at a time.
    pub jobs: usize,
    /// Signals.
    pub stop: &'a Stop,
    /// Advanced by one for every verdict.
    pub progress: &'a Progress,
}

impl Session {
    /// Opens the folder of an evaluation, or begins one.
    ///
    /// # Errors
    /// If the folder has another evaluation in it, or cannot be written.
    pub fn open(dir: &Path, evaluation: &Value) -> Result<Self, EvaluateError> {
        fs::create_dir_all(dir).map_err(|error| FileError::new("create", dir, error))?;
        let session = Self { dir: dir.to_path_buf() };
        session.agree(EVALUATION, evaluation)?;
        Ok(session)
    }

    /// Writes a description, or compares it with the one that is there.
    ///
    /// # Errors
    /// If they differ, or the file cannot be read or written.
    pub fn agree(&self, name: &str, description: &Value) -> Result<(), EvaluateError> {
        let path = self.path(name);
        if path.exists() {
            let text = fs::read(&path).map_err(|error| FileError::new("read", &path, error))?;
            let there: Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(difference) = difference("", &there, description) {
                let path = self.dir.display().to_string();
                return Err(EvaluateError::Other { path, difference });
            }
            return Ok(());
        }
        let text = serde_json::to_string_pretty(description).unwrap_or_default();
        Ok(write_atomic(&path, |out| writeln!(out, "{text}"))?)
    }

    /// A file of the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Judges what has no verdict yet. Gives all verdicts, in the order of `solutions`, or nothing when a
    /// signal came first.
    ///
    /// # Errors
    /// If the sandbox or a canonical solution fails, or a verdict cannot be written.
    pub fn judge(
        &self,
        work: &Work<'_>,
        solutions: &[Solution],
    ) -> Result<Option<Vec<Judged>>, EvaluateError> {
        let (ledger, there) = Ledger::<Judged>::open(&self.path(VERDICTS))?;
        let mut known: HashMap<(String, u32, String), Verdict> = there
            .into_iter()
            .map(|one| ((one.task_id, one.sample, one.solution), one.verdict))
            .collect();
        let key =
            |solution: &Solution| (solution.task_id.clone(), solution.sample, solution.hash());
        let mut waiting: HashMap<&str, Vec<&Solution>> = HashMap::new();
        for solution in solutions.iter().filter(|solution| !known.contains_key(&key(solution))) {
            waiting.entry(&solution.task_id).or_default().push(solution);
        }
        let done = solutions.len() - waiting.values().map(Vec::len).sum::<usize>();
        work.progress.skip_to(done as u64);
        let problems = work.suite.problems.iter();
        let queue: Vec<_> = problems
            .filter_map(|problem| Some((problem, waiting.remove(problem.task_id.as_str())?)))
            .collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let shared = Mutex::new((ledger, Vec::new()));
        let worker = || -> Result<(), EvaluateError> {
            // A problem at a time, so that its canonical solution runs once.
            while let Some((problem, solutions)) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                let leave = || work.stop.requested().is_some() || failed.load(Ordering::Relaxed);
                if leave() {
                    break;
                }
                let canonical = problem.complete(work.suite.benchmark, &problem.canonical);
                let expected = work.judge.expect(problem, &canonical)?;
                for solution in solutions {
                    if leave() {
                        return Ok(());
                    }
                    let verdict =
                        work.judge.judge(problem, expected.as_ref(), &solution.solution)?;
                    let judged = Judged {
                        task_id: solution.task_id.clone(),
                        sample: solution.sample,
                        solution: solution.hash(),
                        verdict,
                    };
                    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    shared.0.add(&judged)?;
                    shared.1.push(judged);
                    work.progress.advance(1);
                }
            }
            Ok(())
        };
        let ended: Result<Vec<()>, EvaluateError> = thread::scope(|scope| {
            let start =
                |_| scope.spawn(|| worker().inspect_err(|_| failed.store(true, Ordering::Relaxed)));
            let workers: Vec<_> = (0..work.jobs.max(1)).map(start).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        ended?;
        let (_, fresh) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        known.extend(
            fresh.into_iter().map(|one| ((one.task_id, one.sample, one.solution), one.verdict)),
        );
        let judged = solutions.iter().map(|solution| {
            let key = key(solution);
            let verdict = known.get(&key)?.clone();
            Some(Judged { task_id: key.0, sample: key.1, solution: key.2, verdict })
        });
        Ok(judged.collect())
    }

    /// Writes `results.json`, whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(&self, results: &super::Results) -> Result<PathBuf, EvaluateError> {
        let path = self.path(RESULTS);
        let text = serde_json::to_string_pretty(results).unwrap_or_default();
        write_atomic(&path, |out| writeln!(out, "{text}"))?;
        Ok(path)
    }
}

/// The first key by which two descriptions differ.
fn difference(at: &str, there: &Value, now: &Value) -> Option<String> {
    match (there, now) {
        (Value::Object(there), Value::Object(now)) => {
            there.keys().chain(now.keys()).find_map(|key| {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let none = Value::Null;
                difference(&at, there.get(key).unwrap_or(&none), now.get(key).unwrap_or(&none))
            })
        }
        _ => (there != now).then(|| format!("{at} is {there} there and {now} now")),
    }
}
