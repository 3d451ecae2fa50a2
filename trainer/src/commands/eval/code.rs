//! `coda-trainer eval code`.

use crate::evaluate::{Judge, Results, Session, Solution, Suite, Work, read_solutions};
use clap::Args;
use coda_cli::{Exit, Failure, Progress, ProgressArgs, print_json, print_text, signals::Stop};
use coda_sandbox::{Limits, Sandbox};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    thread,
};

const EXAMPLES: &str = "\
Examples:
  coda-trainer eval code --data HumanEvalPlus.jsonl.gz --canonical --out evals/check
  coda-trainer eval code --data mbpp.jsonl --samples samples.jsonl --out evals/mine

Solutions run in a sandbox (docs/evaluation.md says what it holds). An evaluation that was stopped goes on
when the same command runs again.";

/// The options of judging programs.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Code {
    /// The problems, in a published format: .jsonl or .json, plain or .gz.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    solutions: Source,
    /// Where evaluation.json, verdicts.jsonl and results.json go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Estimate pass@k for these.
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "1,10,100")]
    k: Vec<u32>,
    /// Count although some problems have no solution, without them.
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Print results.json.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// Where solutions come from.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Judge these: lines of `{"task_id", "solution"}` or `{"task_id", "completion"}`.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Judge the solutions that the file of problems has itself: all must pass.
    #[arg(long)]
    canonical: bool,
}

/// Where and how solutions run.
#[derive(Args)]
struct JudgeArgs {
    /// The Python interpreter that runs solutions; a few problems want numpy.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Solutions judged at a time; without it, half the processors, as times are measured.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Address space of a solution in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u64,
    /// Run solutions even where nothing protects your files from them.
    #[arg(long)]
    weak_sandbox: bool,
}

impl Code {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.k.contains(&0) {
            return Err(Failure::usage("--k must be at least 1"));
        }
        let suite = Suite::read(&self.data)?;
        let judge = self.judge.open()?;
        let (solutions, source) = self.solutions.solutions(&suite)?;
        let evaluation = json!({
            "coda": env!("CARGO_PKG_VERSION"),
            "benchmark": suite.benchmark,
            "data": {"file": name(&self.data), "hash": suite.hash, "problems": suite.problems.len()},
            "solutions": source,
            "judge": self.judge.describe(&judge)?,
        });
        let session = Session::open(&self.out, &evaluation)?;
        let stop = Stop::install()?;
        let total = Some(solutions.len() as u64);
        let progress = Progress::start(self.progress, "judge", "solutions", total);
        let work = Work {
            suite: &suite,
            judge: &judge,
            jobs: self.judge.jobs(),
            stop: &stop,
            progress: &progress,
        };
        let judged = session.judge(&work, &solutions)?;
        progress.finish();
        let Some(judged) = judged else { return Ok(stop.requested().unwrap_or(Exit::Terminated)) };
        let results = Results::count(evaluation, &suite, &judged, &self.k, self.partial)?;
        session.finish(&results)?;
        if self.json {
            print_json(&results)?;
        } else {
            print_text(&results.text(&suite))?;
        }
        let wrong = results.tasks.iter().any(|task| task.plus.unwrap_or(task.base) < task.samples);
        Ok(if self.solutions.canonical && wrong { Exit::CheckFailed } else { Exit::Done })
    }
}

impl Source {
    /// The solutions, and how results name them.
    fn solutions(&self, suite: &Suite) -> Result<(Vec<Solution>, Value), Failure> {
        let Some(path) = &self.samples else {
            let canonical = suite.problems.iter().map(|problem| Solution {
                task_id: problem.task_id.clone(),
                sample: 0,
                solution: problem.complete(suite.benchmark, &problem.canonical),
            });
            return Ok((canonical.collect(), json!("canonical")));
        };
        let solutions = read_solutions(path, suite)?;
        let mut hash = blake3::Hasher::new();
        for one in &solutions {
            hash.update(one.task_id.as_bytes()).update(one.hash().as_bytes());
        }
        let hash = hash.finalize().to_hex().to_string();
        Ok((solutions, json!({"file": name(path), "hash": hash})))
    }
}

impl JudgeArgs {
    fn open(&self) -> Result<Judge, Failure> {
        let launcher = std::env::current_exe()
            .map_err(|error| Failure::io(format!("cannot find this program: {error}")))?;
        let sandbox = Sandbox::new(&launcher, &["sandboxed"]).accept_weaker(self.weak_sandbox);
        Ok(Judge::new(sandbox, &self.python, self.memory << 20)?)
    }

    fn describe(&self, judge: &Judge) -> Result<Value, Failure> {
        let (isolation, python) = judge.describe()?;
        Ok(json!({
            "python": python,
            "memory_mib": self.memory,
            "open_files": Limits::default().open_files,
            "isolation": isolation,
        }))
    }

    fn jobs(&self) -> usize {
        let half = || thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        self.jobs.unwrap_or_else(half).max(1)
    }
}

/// The name of a file without the folders of this machine.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
