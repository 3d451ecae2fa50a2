//! What an evaluation comes to.

use super::{EvaluateError, Status, Suite, Verdict, pass_at_k};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

/// A verdict with the solution that it is on: a line of `verdicts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Which problem.
    pub task_id: String,
    /// Which of its solutions, from 0.
    pub sample: u32,
    /// BLAKE3 of the program, in hex.
    pub solution: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// One problem of the results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub task_id: String,
    /// How many solutions it had.
    pub samples: u32,
    /// How many of them passed the tests, or the base inputs.
    pub base: u32,
    /// How many of them passed the plus inputs too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plus: Option<u32>,
    /// The verdicts, by sample.
    pub verdicts: Vec<Verdict>,
}

/// All of `results.json`. The same question on the same machine gives the same bytes: it has no dates and
/// no durations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Everything that was asked: files with their hashes, model, prompts, sampler, judge.
    pub evaluation: Value,
    /// `pass@k` of the tests or base inputs, by `k`, in parts of 1.
    pub base: BTreeMap<u32, f64>,
    /// The same of base and plus inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plus: Option<BTreeMap<u32, f64>>,
    /// Problems that had solutions.
    pub problems: usize,
    /// Solutions.
    pub samples: u32,
    /// The problems, in the order of the file.
    pub tasks: Vec<Task>,
}

impl Results {
    /// Counts verdicts. `k` above the number of a task's solutions has no estimate and is left out.
    ///
    /// # Errors
    /// If a problem has no solution, unless `partial`: then the averages are over those that have.
    pub fn count(
        evaluation: Value,
        suite: &Suite,
        judged: &[Judged],
        k: &[u32],
        partial: bool,
    ) -> Result<Self, EvaluateError> {
        let mut by_task: HashMap<&str, Vec<&Judged>> = HashMap::new();
        for one in judged {
            by_task.entry(&one.task_id).or_default().push(one);
        }
        let mut tasks = Vec::new();
        for problem in &suite.problems {
            let Some(mut judged) = by_task.remove(problem.task_id.as_str()) else {
                if partial {
                    continue;
                }
                return Err(EvaluateError::Misfit(format!(
                    "{} has no solution; --partial counts without such tasks",
                    problem.task_id
                )));
            };
            judged.sort_by_key(|one| one.sample);
            let count = |right: &dyn Fn(&Verdict) -> bool| {
                let right = judged.iter().filter(|one| right(&one.verdict)).count();
                u32::try_from(right).unwrap_or(u32::MAX)
            };
            tasks.push(Task {
                task_id: problem.task_id.clone(),
                samples: count(&|_| true),
                base: count(&|verdict| verdict.base == Status::Pass),
                plus: suite.has_plus().then(|| count(&Verdict::passed)),
                verdicts: judged.iter().map(|one| one.verdict.clone()).collect(),
            });
        }
        let rates = |correct: &dyn Fn(&Task) -> u32| {
            let estimate = |&k: &u32| {
                let each: Option<Vec<f64>> =
                    tasks.iter().map(|task| pass_at_k(task.samples, correct(task), k)).collect();
                let each = each.filter(|each| !each.is_empty())?;
                Some((k, each.iter().sum::<f64>() / each.len() as f64))
            };
            k.iter().filter_map(estimate).collect::<BTreeMap<_, _>>()
        };
        Ok(Self {
            evaluation,
            base: rates(&|task| task.base),
            plus: suite.has_plus().then(|| rates(&|task| task.plus.unwrap_or(0))),
            problems: tasks.len(),
            samples: tasks.iter().map(|task| task.samples).sum(),
            tasks,
        })
    }

    /// The figures for people.
    #[must_use]
    pub fn text(&self, suite: &Suite) -> String {
        let name = suite.benchmark.name();
        let mut text =
            format!("{name}: {} solutions of {} problems\n", self.samples, self.problems);
        let parts = [(if self.plus.is_some() { "base" } else { "tests" }, Some(&self.base))];
        for (part, rates) in parts.into_iter().chain([("plus", self.plus.as_ref())]) {
            for (k, rate) in rates.into_iter().flatten() {
                let _ = writeln!(text, "{part} pass@{k} {:.1} %", 100.0 * rate);
            }
        }
        text
    }
}
