//! Answers cut down to their programs, as EvalPlus does before it judges.

use super::{EvaluateError, Judge, Ledger, Session, Solution, Work};
use coda_sandbox::Limits;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// What runs inside the sandbox: a parser of Python is at hand there.
const EXTRACT: &str = include_str!("extract.py");

/// How long that may take. An answer without a program in it is parsed once for every run of its lines.
const SECONDS: f64 = 60.0;

/// A line for every program.
const EXTRACTED: &str = "extracted.jsonl";

/// What was cut out of a solution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extracted {
    /// The program.
    #[serde(flatten)]
    program: Solution,
    /// The hash of the solution that it was cut out of.
    of: String,
}

impl Judge {
    /// The program in a text: the longest run of lines that parses, and of that what `entry_point` needs, by
    /// the rules of EvalPlus 0.3.1's `sanitize`. The text as it is where that takes too long.
    ///
    /// # Errors
    /// If the sandbox fails.
    pub fn extract(&self, text: &str, entry_point: Option<&str>) -> Result<String, EvaluateError> {
        #[derive(Deserialize)]
        struct Answer {
            program: String,
        }
        let job = json!({"code": text, "entry_point": entry_point});
        let output = Limits::default().output.max(8 * text.len() as u64);
        let answer = self.run::<Answer>(EXTRACT, &job, SECONDS, output)?;
        Ok(answer.map_or_else(|_| text.to_owned(), |answer| answer.program))
    }
}

impl Session {
    /// Cuts down what has not been cut yet. Gives all programs, in the order of `solutions`, or nothing when
    /// a signal came first.
    ///
    /// # Errors
    /// If the sandbox fails, or a program cannot be written.
    pub fn extract(
        &self,
        work: &Work<'_>,
        solutions: &[Solution],
    ) -> Result<Option<Vec<Solution>>, EvaluateError> {
        let (ledger, there) = Ledger::<Extracted>::open(&self.path(EXTRACTED))?;
        let key =
            |solution: &Solution| (solution.task_id.clone(), solution.sample, solution.hash());
        let mut known: HashMap<(String, u32, String), Solution> = there
            .into_iter()
            .map(|one| ((one.program.task_id.clone(), one.program.sample, one.of), one.program))
            .collect();
        let entry_points: HashMap<&str, Option<&str>> = work
            .suite
            .problems
            .iter()
            .map(|problem| (problem.task_id.as_str(), problem.entry_point.as_deref()))
            .collect();
        let queue: Vec<&Solution> =
            solutions.iter().filter(|solution| !known.contains_key(&key(solution))).collect();
        work.progress.skip_to((solutions.len() - queue.len()) as u64);
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let shared = Mutex::new((ledger, Vec::new()));
        let worker = || -> Result<(), EvaluateError> {
            while let Some(solution) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                if work.stop.requested().is_some() || failed.load(Ordering::Relaxed) {
                    break;
                }
                let entry_point = entry_points.get(solution.task_id.as_str()).copied().flatten();
                let program = work.judge.extract(&solution.solution, entry_point)?;
                let of = solution.hash();
                let program = Solution { solution: program, ..(*solution).clone() };
                let extracted = Extracted { program, of };
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.0.add(&extracted)?;
                shared.1.push(extracted);
                work.progress.advance(1);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let start =
                |_| scope.spawn(|| worker().inspect_err(|_| failed.store(true, Ordering::Relaxed)));
            let workers: Vec<_> = (0..work.jobs.max(1)).map(start).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect::<Result<Vec<()>, EvaluateError>>()
        })?;
        let (_, fresh) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        known.extend(
            fresh.into_iter().map(|one| {
                ((one.program.task_id.clone(), one.program.sample, one.of), one.program)
            }),
        );
        Ok(solutions.iter().map(|solution| known.get(&key(solution)).cloned()).collect())
    }
}
