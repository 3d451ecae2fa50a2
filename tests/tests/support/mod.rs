//! A small workplace for the real programs: corpora, a tokenizer, manifests.

#![allow(dead_code, reason = "every target uses its own part")]

use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};
use tempfile::TempDir;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// A program of ours, built once per test process.
pub(crate) fn program(name: &str) -> Command {
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    let release = RELEASE.get_or_init(|| {
        // …/target/release/deps/flow-0123
        let own = std::env::current_exe().expect("own path");
        let target = own.ancestors().nth(3).expect("a target folder").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(root())
            .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
            .arg(&target)
            .args(["--workspace", "--exclude", "xtask", "--bins"]);
        // What the outer cargo says of this package: build scripts that watch it (ring's) would run
        // again, and all that needs them be compiled once more.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| text.starts_with(start)) {
                cargo.env_remove(&name);
            }
        }
        assert!(cargo.status().expect("cargo runs").success(), "the programs do not build");
        target.join("release")
    });
    let mut command = Command::new(release.join(name));
    // Neither a terminal's width nor a user's settings change what a program prints.
    command.env("COLUMNS", "100").env("NO_COLOR", "1");
    command
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// The one JSON object on stdout of a run that went well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// A folder with corpora of real sources, a tokenizer trained on them, and manifests.
pub(crate) struct Workplace {
    dir: TempDir,
}

/// Tokens in a row.
pub(crate) const ROW_LENGTH: u32 = 64;
/// Rows in an optimizer step.
pub(crate) const GLOBAL_BATCH: u32 = 8;

impl Workplace {
    /// Corpora and tokenizer.
    pub(crate) fn new() -> Self {
        let work = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        work.corpora();
        let trained = work.run(
            "coda-ingest",
            &["train-tokenizer", "--input", "corpora/code", "--vocab-size", "512", "--out"],
            &["tokenizer.json"],
        );
        assert_eq!(trained.code, 0, "{}", trained.stderr);
        work
    }

    /// A path within the workplace.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes a file within the workplace.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, content).expect("write");
    }

    /// Reads a file of the workplace.
    pub(crate) fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Runs a program within the workplace.
    pub(crate) fn run(&self, name: &str, args: &[&str], more: &[&str]) -> Ran {
        Ran::of(self.command(name).args(args).args(more).output().expect("the program starts"))
    }

    /// A program that runs within the workplace, without progress lines.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = program(name);
        command.current_dir(self.dir.path());
        command
    }

    /// Writes the manifest of a stage and gives its name.
    pub(crate) fn manifest(&self, stage: &str) -> String {
        let name = format!("{stage}.yaml");
        self.write(&name, manifest(stage));
        name
    }

    /// Builds the shard set of a stage.
    pub(crate) fn ingest(&self, stage: &str) -> Value {
        let manifest = self.manifest(stage);
        self.run("coda-ingest", &["--manifest", &manifest, "--json", "-q"], &[]).json()
    }

    /// Trains a stage into `out` with further arguments.
    pub(crate) fn train(&self, stage: &str, out: &str, more: &[&str]) -> Ran {
        let manifest = format!("{stage}.yaml");
        let args = ["--stage", stage, "--manifest", &manifest, "--out", out, "--json", "-q"];
        self.run("coda-trainer", &args, more)
    }

    /// The lines of a run's `metrics.jsonl`.
    pub(crate) fn metrics(&self, out: &str) -> Vec<Value> {
        self.read(&format!("{out}/metrics.jsonl"))
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }

    /// The metrics without what time decides.
    pub(crate) fn timeless_metrics(&self, out: &str) -> Vec<Value> {
        let mut lines = self.metrics(out);
        for line in &mut lines {
            let line = line.as_object_mut().expect("an object");
            line.retain(|key, _| key != "seconds" && key != "tokens_per_second");
        }
        lines
    }

    fn corpora(&self) {
        for room in ["random", "cli", "curriculum"] {
            let source = root().join(room).join("src");
            for entry in fs::read_dir(&source).expect("a room's sources") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|e| e == "rs") {
                    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                    let text = fs::read(&path).expect("a source file");
                    self.write(&format!("corpora/code/{room}/{name}"), text);
                }
            }
        }
        let mut docs = String::new();
        for page in ["docs/shard-format.md", "docs/manifest.md"] {
            let text = fs::read_to_string(root().join(page)).expect("a page");
            for part in text.split("\n## ") {
                let _ = writeln!(docs, "{}", json!({"text": part}));
            }
        }
        self.write("corpora/docs.jsonl", docs);
        let mut pairs = String::new();
        for number in 0..160 {
            let name = ["add", "sub", "mul", "min", "max"][number % 5];
            let record = json!({
                "instruction": format!("Write {name}_{number}."),
                "output": format!("fn {name}_{number}() {{ {name}({number}) }}"),
            });
            let _ = writeln!(pairs, "{record}");
        }
        self.write("corpora/pairs.jsonl", pairs);
    }
}

/// The manifest of a stage: small enough to train in seconds.
pub(crate) fn manifest(stage: &str) -> String {
    let source = match stage {
        "post" => {
            "
    - name: pairs
      paths: [corpora/pairs.jsonl]
      format: jsonl
      kind: sft
      fields: {instruction: instruction, output: output}"
        }
        _ => {
            "
    - name: docs
      paths: [corpora/docs.jsonl]
      format: jsonl
    - name: code
      paths: [corpora/code]
      format: code
      extensions: [rs]"
        }
    };
    let optimizer = if stage == "post" { "adamw" } else { "adafactor" };
    format!(
        "version: 1
name: tiny-{stage}
stage: {stage}
seed: 17
tokenizer:
  path: tokenizer.json
  eos: \"<|im_end|>\"
  pad: \"<|endoftext|>\"
  mask: \"<|mask|>\"
data:
  out: shards/{stage}
  row_length: {ROW_LENGTH}
  rows_per_shard: 64
  held_out: 0.05
  sources:{source}
curriculum:
  block_sizes: [2, 4]
model:
  hidden_size: 32
  num_hidden_layers: 2
  intermediate_size: 64
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 16
  vocab_size: 512
  rope_theta: 1e4
  tie_word_embeddings: false
train:
  steps: 40
  global_batch: {GLOBAL_BATCH}
  optimizer: {{kind: {optimizer}}}
  lr: {{peak: 1e-2, schedule: linear, warmup_ratio: 0.1}}
  grad_clip: 1.0
  eval: {{every: 10, batches: 2}}
  checkpoint: {{every: 10, keep: 3}}
  log_every: 10
"
    )
}

/// Every file under a folder with its bytes, sorted by path.
pub(crate) fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let relative = path.strip_prefix(folder).expect("inside").to_owned();
                files.push((relative, fs::read(&path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}
