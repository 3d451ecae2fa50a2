//! `coda-trainer eval code`.

use super::super::engines::EngineArgs;
use crate::{
    engine::decoder_of,
    evaluate::{
        Answerer, Generated, Judge, Ledger, Plan, Prompts, Results, Session, Solution, Style,
        Suite, Work, read_solutions,
    },
    fit::engine_failure,
    sample::{Accept, Algorithm, Cache, Decoding, Sampler},
};
use clap::Args;
use coda_cli::{Exit, Failure, Progress, ProgressArgs, print_json, print_text, signals::Stop};
use coda_manifests::{Engine as EngineKey, Recompute};
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
  coda-trainer eval code --data HumanEvalPlus.jsonl.gz --checkpoint runs/post --chat --out evals/post

Solutions run in a sandbox (docs/evaluation.md says what it holds). An evaluation that was stopped goes on
when the same command runs again.";

/// What a model answered, in the folder of an evaluation.
const SAMPLES: &str = "samples.jsonl";

/// The options of judging programs.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Code {
    /// The problems, in a published format: .jsonl or .json, plain or .gz.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    solutions: Source,
    /// Only problems with numbers from A to B: 11-510 is the test part of MBPP. A hole has its function's.
    #[arg(long, value_name = "A-B", value_parser = parse_range)]
    tasks: Option<(u64, u64)>,
    #[command(flatten)]
    generate: GenerateArgs,
    /// Where evaluation.json, samples.jsonl, verdicts.jsonl and results.json go.
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
    /// Judge what this model answers: a checkpoint, Hugging Face directory or run.
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
}

/// How a model is asked. The numbers are those of the report's evaluation.
#[derive(Args)]
struct GenerateArgs {
    /// Ask as a user's turn in the chat template, with the head of the answer given.
    #[arg(long)]
    chat: bool,
    /// A file of MBPP whose tasks 2, 3 and 4 stand before every task of MBPP+, as CoDA's harness has them.
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    examples: Option<PathBuf>,
    /// Solutions of every problem.
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples_per_task: u32,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 768)]
    max_new_tokens: usize,
    /// Tokens in a hole; without it, as many as the canonical solution has, which tells the model
    /// something.
    #[arg(long, value_name = "N")]
    span: Option<usize>,
    /// Denoising steps; without it, as many as tokens.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Solutions that are generated at a time; it changes none of them (on a card: but for rounding).
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Fill this many positions before going on to the next; without it an answer is one block,
    /// or with --cache, blocks go from a mask to the last of the next 128 positions.
    #[arg(long, value_name = "N")]
    block_length: Option<usize>,
    /// Keys and values to keep while a block is filled: `none`, `prefix` or `dual`.
    #[arg(long, value_name = "NAME", default_value = "none")]
    cache: Cache,
    /// A step reveals every token of this probability, and at least one; --steps has no say then.
    #[arg(long, value_name = "P", conflicts_with = "steps")]
    threshold: Option<f64>,
    /// How positions are chosen: `origin`, `maskgit_plus`, `topk_margin` or `entropy`.
    #[arg(long, value_name = "NAME", default_value = "entropy")]
    alg: Algorithm,
    /// Above 0, positions are drawn from their confidences instead of ranked.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    alg_temp: f64,
    /// Above 0, tokens are drawn instead of the best taken.
    #[arg(long, value_name = "T", default_value_t = 0.1)]
    temperature: f64,
    /// Draw only from the best tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 0.9)]
    top_p: f64,
    /// Draw only from this many best tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Decides every draw.
    #[arg(long, value_name = "SEED", default_value_t = 17)]
    seed: u64,
    /// Stop when all solutions are in samples.jsonl; the same command without this judges them.
    #[arg(long, requires = "checkpoint")]
    generate_only: bool,
    #[command(flatten)]
    engine: EngineArgs,
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
    /// Cut every solution down to its program before it is judged, as EvalPlus does: the longest run of
    /// lines that parses, and of that the imports and what the entry point needs.
    #[arg(long)]
    extract: bool,
    /// Run solutions even where nothing protects your files from them.
    #[arg(long)]
    weak_sandbox: bool,
}

impl Code {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.k.contains(&0) {
            return Err(Failure::usage("--k must be at least 1"));
        }
        self.generate.check()?;
        let mut suite = Suite::read(&self.data)?;
        let model = self.solutions.checkpoint.as_deref().map(Answerer::open).transpose()?;
        let solved = self.generate.examples.as_deref().map(Suite::read).transpose()?;
        let prompts = || Prompts::new(&suite, self.generate.style(), solved.as_ref());
        let prompts = model.is_some().then(prompts).transpose()?;
        if let Some((from, to)) = self.tasks {
            suite.keep(from, to)?;
        }
        let given = self.solutions.given(&suite)?;
        let mut evaluation = json!({
            "coda": env!("CARGO_PKG_VERSION"),
            "benchmark": suite.benchmark,
            "data": {"file": name(&self.data), "hash": suite.hash, "problems": suite.problems.len()},
            "tasks": self.tasks,
            "solutions": given.as_ref().map(|(_, source)| source),
            "generation": model.as_ref().map(|model| self.generate.describe(model)),
        });
        if let Some(solved) = &solved {
            evaluation["generation"]["examples"] = json!(solved.hash);
        }
        let session = Session::open(&self.out, &evaluation)?;
        let stop = Stop::install()?;
        let solutions = match (given, &model, &prompts) {
            (Some((solutions, _)), ..) => solutions,
            (None, Some(model), Some(prompts)) => {
                let (mut ledger, mut lines) = Ledger::<Generated>::open(&session.path(SAMPLES))?;
                let plan = self.generate.plan();
                let total = suite.problems.len() as u64 * u64::from(plan.samples);
                let progress = Progress::start(self.progress, "generate", "solutions", Some(total));
                progress.skip_to(lines.len() as u64);
                let mut engine = self.generate.engine.open(model.config(), Recompute::None)?;
                let vocabulary = model.config().vocab_size;
                let mut decoder = decoder_of(engine.as_mut(), model.params(), vocabulary)
                    .map_err(|error| engine_failure(&error))?;
                let all = model.generate(
                    decoder.as_mut(),
                    &suite,
                    prompts,
                    (&plan, self.generate.batch),
                    (&mut ledger, &mut lines),
                    (&progress, &stop),
                )?;
                progress.finish();
                if !all {
                    return Ok(stop.requested().unwrap_or(Exit::Terminated));
                }
                lines.into_iter().map(|line| line.solution).collect()
            }
            _ => return Err(Failure::usage("give --checkpoint, --samples or --canonical")),
        };
        if self.generate.generate_only {
            return self.generated(&session, solutions.len());
        }
        let judge = self.judge.open()?;
        if suite.needs_numpy() {
            judge.has_numpy()?;
        }
        let judged_by = self.judge.describe(&judge)?;
        session.agree("judge.json", &judged_by)?;
        evaluation["judge"] = judged_by;
        let total = Some(solutions.len() as u64);
        let (suite, judge, jobs, stop) = (&suite, &judge, self.judge.jobs(), &stop);
        let solutions = if self.judge.extract {
            let progress = Progress::start(self.progress, "extract", "solutions", total);
            let work = Work { suite, judge, jobs, stop, progress: &progress };
            let programs = session.extract(&work, &solutions)?;
            progress.finish();
            let Some(programs) = programs else {
                return Ok(stop.requested().unwrap_or(Exit::Terminated));
            };
            programs
        } else {
            solutions
        };
        let progress = Progress::start(self.progress, "judge", "solutions", total);
        let work = Work { suite, judge, jobs, stop, progress: &progress };
        let judged = session.judge(&work, &solutions)?;
        progress.finish();
        let Some(judged) = judged else { return Ok(stop.requested().unwrap_or(Exit::Terminated)) };
        let results = Results::count(evaluation, suite, &judged, &self.k, self.partial)?;
        session.finish(&results)?;
        if self.json {
            print_json(&results)?;
        } else {
            print_text(&results.text(suite))?;
        }
        let wrong = results.tasks.iter().any(|task| task.plus.unwrap_or(task.base) < task.samples);
        Ok(if self.solutions.canonical && wrong { Exit::CheckFailed } else { Exit::Done })
    }
}

impl Code {
    fn generated(&self, session: &Session, solutions: usize) -> Result<Exit, Failure> {
        let path = session.path(SAMPLES);
        if self.json {
            print_json(&json!({"samples": path, "solutions": solutions}))?;
        } else {
            print_text(&format!("{solutions} solutions in {}\n", path.display()))?;
        }
        Ok(Exit::Done)
    }
}

impl GenerateArgs {
    const fn style(&self) -> Style {
        if self.chat { Style::Chat } else { Style::Completion }
    }

    fn check(&self) -> Result<(), Failure> {
        let refuse = |message: &str| Err(Failure::usage(message.to_owned()));
        if self.steps == Some(0) || self.samples_per_task == 0 || self.max_new_tokens == 0 {
            return refuse("--steps, --samples-per-task and --max-new-tokens must be at least 1");
        }
        if self.top_k == Some(0) || self.span == Some(0) {
            return refuse("--top-k and --span must be at least 1");
        }
        if self.batch == 0 {
            return refuse("--batch must be at least 1");
        }
        let sampler = Sampler { steps: self.steps.unwrap_or(1), ..self.decoding().sampler };
        Decoding { sampler, ..self.decoding() }
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        self.engine.check(EngineKey::Auto)
    }

    fn plan(&self) -> Plan {
        Plan {
            decoding: self.decoding(),
            max_new_tokens: self.max_new_tokens,
            span: self.span,
            samples: self.samples_per_task,
        }
    }

    fn decoding(&self) -> Decoding {
        Decoding {
            sampler: Sampler {
                steps: self.steps.unwrap_or(0),
                algorithm: self.alg,
                alg_temp: self.alg_temp,
                temperature: self.temperature,
                top_p: Some(self.top_p),
                top_k: self.top_k,
                seed: self.seed,
                ..Sampler::default()
            },
            accept: self.threshold.map_or(Accept::Schedule, Accept::Threshold),
            block_length: self.block_length,
            cache: self.cache,
        }
    }

    /// What decides an answer. Engines agree to rounding only, so theirs is a part.
    fn describe(&self, model: &Answerer) -> Value {
        json!({
            "model": {"name": name(model.dir()), "hash": model.hash()},
            "engine": self.engine.name(EngineKey::Auto, Some(model.config())),
            "style": self.style(),
            "plan": self.plan(),
        })
    }
}

impl Source {
    /// The solutions that are there without a model, and how results name them.
    fn given(&self, suite: &Suite) -> Result<Option<(Vec<Solution>, Value)>, Failure> {
        if self.checkpoint.is_some() {
            return Ok(None);
        }
        let Some(path) = &self.samples else {
            let canonical = suite.problems.iter().map(|problem| Solution {
                task_id: problem.task_id.clone(),
                sample: 0,
                solution: problem.complete(suite.benchmark, &problem.canonical),
            });
            return Ok(Some((canonical.collect(), json!("canonical"))));
        };
        let solutions = read_solutions(path, suite)?;
        let mut hash = blake3::Hasher::new();
        for one in &solutions {
            hash.update(one.task_id.as_bytes()).update(one.hash().as_bytes());
        }
        let hash = hash.finalize().to_hex().to_string();
        Ok(Some((solutions, json!({"file": name(path), "hash": hash}))))
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
        let mut description = json!({
            "python": python,
            "memory_mib": self.memory,
            "open_files": Limits::default().open_files,
            "isolation": isolation,
        });
        if self.extract {
            description["extract"] = json!("evalplus 0.3.1");
        }
        Ok(description)
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

/// `A-B`, both included.
fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let range =
        text.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    range.filter(|(from, to)| from <= to).ok_or_else(|| format!("`{text}` is not like 11-510"))
}
