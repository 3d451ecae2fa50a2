//! `cargo xtask quickstart`: corpora → shards → curriculum → three stages → an infill → a report.

mod corpora;
mod evaluate;
mod files;
mod held_back;
mod pairs;
mod sample;
mod step;
mod tokens;
mod unpacked;

use crate::{
    plugin, process,
    report::{
        self,
        data::{Report, StageReport},
    },
};
use clap::{Args, ValueEnum};
use coda_cli::Failure;
use corpora::Selection;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};
use step::{Start, Steps};

/// The stages: the trainer's name, the shipped manifest's, the one for people.
const STAGES: [(&str, &str, &str); 3] = [
    ("pre", "pretrain", "pre-training"),
    ("mid", "midtrain", "mid-training"),
    ("post", "posttrain", "post-training"),
];

/// Ingest real code, look at the curriculum, train three stages, fill in a function, report.
#[derive(Args)]
pub(crate) struct Quickstart {
    /// Forget what an earlier call has done.
    #[arg(long)]
    fresh: bool,
    /// Stop before training: corpora, tokenizer, shard sets and curricula are there after some seconds.
    #[arg(long)]
    data: bool,
    /// What trains and samples. Runs on XLA have a folder of their own, `xla`, over the same rows.
    #[arg(long, value_enum, default_value_t, value_name = "ENGINE")]
    engine: Engine,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The CPU engine.
    #[default]
    Cpu,
    /// The XLA engine on XLA's CPU plugin, downloaded if it is not there.
    Xla,
}

struct Places {
    root: PathBuf,
    runs: PathBuf,
    engine: Engine,
    /// The options of `coda-trainer` by which it takes the engine.
    options: Vec<OsString>,
}

impl Places {
    fn corpora(&self) -> PathBuf {
        self.runs.join("corpora")
    }
    fn tokenizer(&self) -> PathBuf {
        self.runs.join("tokenizer").join("tokenizer.json")
    }
    fn shards(&self, stage: &str) -> PathBuf {
        self.runs.join("shards").join(stage)
    }
    fn curriculum(&self, stage: &str) -> PathBuf {
        self.runs.join("curriculum").join(format!("{stage}.json"))
    }
    /// The folder of what the engine has made.
    fn made(&self) -> PathBuf {
        match self.engine {
            Engine::Cpu => self.runs.clone(),
            Engine::Xla => self.runs.join("xla"),
        }
    }
    fn likelihood(&self, stage: &str) -> PathBuf {
        self.made().join("evaluation").join(format!("{stage}.json"))
    }
    fn holes(&self) -> PathBuf {
        self.made().join("evaluation").join("holes.jsonl")
    }
    fn filled(&self) -> PathBuf {
        self.made().join("evaluation").join("filled")
    }
    fn run(&self, stage: &str) -> PathBuf {
        self.made().join(stage)
    }
    /// A step's name: those of both engines stand side by side.
    fn step(&self, name: &str) -> String {
        match self.engine {
            Engine::Cpu => name.to_owned(),
            Engine::Xla => format!("xla-{name}"),
        }
    }
    fn manifest(&self, name: &str) -> PathBuf {
        self.root.join("manifests").join("quickstart").join(format!("{name}.yaml"))
    }
}

impl Quickstart {
    /// Runs all steps that are not done yet.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let root = process::root();
        let options = match self.engine {
            Engine::Cpu => vec!["--engine".into(), "cpu".into()],
            Engine::Xla => {
                let plugin = plugin::prepare()?;
                vec!["--engine".into(), "xla".into(), "--plugin".into(), plugin.into()]
            }
        };
        let runs = root.join("runs").join("quickstart");
        let places = Places { runs, root, engine: self.engine, options };
        if self.fresh {
            files::remove(&places.runs)?;
        }
        process::leave_signals_to_children();
        eprintln!("quickstart: building the three programs (the first time takes a while)");
        process::build_programs()?;
        let mut steps = Steps::new(places.runs.join("steps"));
        data(&places, &mut steps)?;
        if self.data {
            let sets: Vec<String> = STAGES
                .iter()
                .map(|(stage, _, _)| format!("{}\n", places.shards(stage).display()))
                .collect();
            return coda_cli::print_text(&sets.concat());
        }
        train(&places, &mut steps)?;
        let infill = places.made().join("infill.jsonl");
        let question = held_back::find(&unpacked_crates(&places)?)?;
        steps.run(&places.step("infill"), &question.prefix, &infill, |_| {
            sample::infill(&places.run("post"), &places.options, &question, &infill)
        })?;
        evaluate(&places, &mut steps)?;
        let report = collect(&places, &question, &infill, steps.seconds)?;
        let page = places.made().join("report.html");
        files::write(&page, report::render(&report).as_bytes())?;
        for stage in &report.stages {
            if let Some((first, last)) = stage.held_out() {
                eprintln!(
                    "quickstart: {}: held-out loss {:.3} -> {:.3} ({:+.1} %)",
                    stage.title,
                    first.loss,
                    last.loss,
                    (last.loss / first.loss - 1.0) * 100.0
                );
            }
        }
        coda_cli::print_text(&format!("{}\n", page.display()))
    }
}

/// Likelihoods of the three models, and holes in functions, filled by the one that has seen code only.
fn evaluate(places: &Places, steps: &mut Steps) -> Result<(), Failure> {
    for (stage, name, _) in STAGES {
        let (manifest, out) = (places.manifest(name), places.likelihood(stage));
        steps.run(&places.step(&format!("nll-{stage}")), "", &out, |_| {
            evaluate::likelihood(&manifest, &places.shards(stage), &places.run(stage), &out)
        })?;
    }
    let holes: Vec<String> = evaluate::holes(&unpacked_crates(places)?)?
        .iter()
        .map(|hole| json!(hole).to_string() + "\n")
        .collect();
    let text = holes.concat();
    let (path, out) = (places.holes(), places.filled());
    steps.run(&places.step("fill"), &text, &out.join("samples.jsonl"), |start| {
        if start == Start::Afresh {
            files::remove(&out)?;
        }
        files::write(&path, text.as_bytes())?;
        evaluate::fill(&path, &places.run("mid"), &out)
    })
}

fn unpacked_crates(places: &Places) -> Result<Vec<unpacked::Unpacked>, Failure> {
    let lock = files::read(&places.root.join("Cargo.lock"))?;
    unpacked::list(&lock, &unpacked::cargo_home()?)
}

/// Corpora, tokenizer, shard sets, curricula.
fn data(places: &Places, steps: &mut Steps) -> Result<(), Failure> {
    let lock = places.root.join("Cargo.lock");
    let selection = places.corpora().join("selection.json");
    steps.run("corpora", &corpora::key(&files::read(&lock)?), &selection, |_| {
        let taken = corpora::prepare(&lock, &unpacked::cargo_home()?, &places.corpora())?;
        eprintln!("    {}", taken.summary());
        Ok(())
    })?;
    let tokenizer = places.tokenizer();
    steps.run("tokenizer", "4096", &tokenizer, |_| {
        files::make_directory(&places.runs.join("tokenizer"))?;
        process::run(
            process::sibling("coda-ingest")?
                .args(["train-tokenizer", "--vocab-size", "4096", "--extensions", "rs", "--input"])
                .args([places.corpora().join("code"), places.corpora().join("docs.jsonl")])
                .arg("--out")
                .arg(&tokenizer),
        )
    })?;
    for (stage, name, _) in STAGES {
        let manifest = places.manifest(name);
        let text = files::read(&manifest)?;
        let shards = places.shards(stage);
        steps.run(&format!("ingest-{stage}"), &text, &shards.join("index.json"), |_| {
            files::remove(&shards)?;
            process::run(
                process::sibling("coda-ingest")?
                    .arg("--manifest")
                    .arg(&manifest)
                    .arg("--out")
                    .arg(&shards),
            )
        })?;
        let curriculum = places.curriculum(stage);
        steps.run(&format!("curriculum-{stage}"), &text, &curriculum, |_| {
            let show = |json: bool| {
                let mut command = process::sibling("coda-curriculum")?;
                command.arg("show").arg("--manifest").arg(&manifest);
                if json {
                    command.arg("--json");
                }
                process::capture(&mut command)
            };
            eprintln!("{}", show(false)?);
            files::write(&curriculum, show(true)?.as_bytes())
        })?;
    }
    Ok(())
}

/// Pre, mid, post: each from the weights of the one before.
fn train(places: &Places, steps: &mut Steps) -> Result<(), Failure> {
    let mut init: Option<PathBuf> = None;
    for (stage, name, _) in STAGES {
        let manifest = places.manifest(name);
        let out = places.run(stage);
        let model = sample::newest_checkpoint(&out);
        steps.run(&places.step(stage), &files::read(&manifest)?, &model, |start| {
            if start == Start::Afresh {
                files::remove(&out)?;
            }
            let mut command = process::sibling("coda-trainer")?;
            command.args(["--stage", stage, "--resume", "auto"]).args(&places.options);
            command.arg("--manifest").arg(&manifest).arg("--out").arg(&out);
            if let Some(init) = &init {
                command.arg("--init").arg(init);
            }
            process::run(&mut command)
        })?;
        init = Some(out);
    }
    Ok(())
}

fn collect(
    places: &Places,
    question: &held_back::Question,
    infill: &Path,
    seconds: Vec<(String, f64)>,
) -> Result<Report, Failure> {
    let selection: Selection = read_json(&places.corpora().join("selection.json"))?;
    let mut stages = Vec::new();
    for (stage, _, title) in STAGES {
        let metrics = places.run(stage).join("metrics.jsonl");
        stages.push(StageReport {
            title: title.to_owned(),
            index: read_json(&places.shards(stage).join("index.json"))?,
            timeline: read_json(&places.curriculum(stage))?,
            metrics: report::data::metrics(&files::read(&metrics)?)
                .map_err(|e| Failure::incompatible(format!("{}: {e}", metrics.display())))?,
        });
    }
    let likelihoods = STAGES.map(|(stage, _, title)| (title, places.likelihood(stage)));
    let likelihoods: Vec<_> =
        likelihoods.iter().map(|(title, path)| (*title, path.as_path())).collect();
    let samples = places.filled().join("samples.jsonl");
    Ok(Report {
        corpora: format!(
            "Made by cargo xtask quickstart on this machine. The corpora are {} that cargo had \
             unpacked to build CODA itself.",
            selection.summary()
        ),
        stages,
        evaluation: Some(evaluate::read(&likelihoods, &places.holes(), &samples)?),
        infill: Some(sample::read(infill, question, &places.tokenizer())?),
        seconds,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_str(&files::read(path)?)
        .map_err(|e| Failure::incompatible(format!("{} is not as expected: {e}", path.display())))
}
