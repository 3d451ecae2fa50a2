//! `README.md` of an exported model: a model card for a hub, from the files that the runs have left.

use crate::{
    fit::METRICS_FILE,
    metrics::{MetricsFile, StepMetrics},
    model::ModelConfig,
};
use coda_cli::{Exit, Failure, human};
use coda_shards::{Index, commit::FileError};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Runs in a chain of stages; a chain that is longer goes in a circle.
const MOST_STAGES: usize = 16;

/// One run of the chain that made the model.
struct Stage {
    /// `run.json` of its folder.
    run: Value,
    /// The index of its shard set, if that is still there.
    index: Option<Index>,
    /// `metrics.jsonl`.
    metrics: Vec<StepMetrics>,
}

/// What a card says.
pub struct ModelCard<'a> {
    /// The title.
    pub name: &'a str,
    /// The licence of the weights, as the hub names it. Nobody but their owner can say.
    pub license: Option<&'a str>,
    /// The shape of the model.
    pub config: &'a ModelConfig,
    /// Results of evaluations: `results.json` of `eval code`, or what `eval --nll --json` printed.
    pub results: Vec<Value>,
    stages: Vec<Stage>,
}

impl<'a> ModelCard<'a> {
    /// Follows the runs from the one that `checkpoint` lies in to the one that began it all. A model from
    /// elsewhere has none.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub fn of(checkpoint: &Path, name: &'a str, config: &'a ModelConfig) -> Result<Self, Failure> {
        let mut stages = Vec::new();
        let mut next = run_folder(checkpoint);
        while let Some(folder) = next.filter(|_| stages.len() < MOST_STAGES) {
            let stage = Stage::read(&folder)?;
            next = stage.run["init"].as_str().and_then(|init| run_folder(Path::new(init)));
            stages.push(stage);
        }
        stages.reverse();
        Ok(Self { name, license: None, config, results: Vec::new(), stages })
    }

    /// The whole file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut card = self.front_matter();
        let config = self.config;
        let _ = write!(
            card,
            "\n# {}\n\nA masked diffusion language model of {} parameters, trained with \
             [CODA](https://github.com/coda-toolkit/coda), which reproduces \
             [CoDA](https://arxiv.org/abs/2510.03270). The weights have the names and shapes of Qwen3 ({} \
             layers, width {}, {} query and {} key heads, vocabulary {}); attention goes in both directions, and \
             the output at a position predicts the token after it.\n",
            self.name,
            human::count(config.parameters()),
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.vocab_size,
        );
        card.push_str(
            "\n`transformers` loads it as `Qwen3ForCausalLM`, but its `generate` is not how such a model is \
             sampled: masks are filled in over several steps (`coda-trainer sample --checkpoint .`; \
             `generation_config.json` has the settings).\n",
        );
        self.data(&mut card);
        self.training(&mut card);
        self.evaluation(&mut card);
        card
    }

    fn front_matter(&self) -> String {
        let mut out = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n".to_owned();
        if let Some(license) = self.license {
            let _ = writeln!(out, "license: {}", quoted(license));
        }
        out.push_str("tags:\n- masked-diffusion\n- diffusion-language-model\n- code\n- coda\n");
        let datasets: BTreeSet<String> = self.indexes().flat_map(hub_names).collect();
        if !datasets.is_empty() {
            out.push_str("datasets:\n");
            for name in &datasets {
                let _ = writeln!(out, "- {}", quoted(name));
            }
        }
        let programs: Vec<&Value> =
            self.results.iter().filter(|result| result["tasks"].is_array()).collect();
        if !programs.is_empty() {
            let _ = write!(out, "model-index:\n- name: {}\n  results:\n", quoted(self.name));
            for result in programs {
                let name = result["evaluation"]["benchmark"].as_str().unwrap_or("unknown");
                let _ = write!(
                    out,
                    "  - task:\n      type: text-generation\n    dataset:\n      name: {0}\n      type: {0}\n    \
                     metrics:\n",
                    quoted(name)
                );
                for (k, rate) in rates(result) {
                    let value = format!("{:.1}", 100.0 * rate);
                    let _ = write!(out, "    - type: \"pass@{k}\"\n      value: {value}\n");
                }
            }
        }
        out.push_str("---\n");
        out
    }

    fn indexes(&self) -> impl Iterator<Item = &Index> {
        self.stages.iter().filter_map(|stage| stage.index.as_ref())
    }

    fn data(&self, card: &mut String) {
        card.push_str("\n## Data\n\n");
        if self.indexes().next().is_none() {
            card.push_str("The shard sets of its runs are not at hand, or it has none.\n");
            return;
        }
        card.push_str("| stage | source | licence | documents | tokens |\n|---|---|---|--:|--:|\n");
        for stage in &self.stages {
            for source in stage.index.iter().flat_map(|index| &index.sources) {
                let _ = writeln!(
                    card,
                    "| {} | {} | {} | {} | {} |",
                    stage.name(),
                    cell(&source.name),
                    cell(source.license.as_deref().unwrap_or("not stated")),
                    source.documents,
                    source.tokens
                );
            }
        }
    }

    fn training(&self, card: &mut String) {
        card.push_str("\n## Training\n\n");
        if self.stages.is_empty() {
            card.push_str("No run is known that made it.\n");
            return;
        }
        card.push_str(
            "| stage | profile | steps | rows × tokens | optimizer | peak rate | held-out loss | nats per masked \
             token |\n|---|---|--:|--:|---|--:|--:|--:|\n",
        );
        for stage in &self.stages {
            let recipe = &stage.run["recipe"];
            let last = stage.metrics.iter().rev().find_map(|line| line.held_out.as_ref());
            let first = stage.metrics.iter().find_map(|line| line.held_out.as_ref());
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
            let text =
                |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(
                card,
                "| {} | {} | {} of {} | {} × {} | {} | {} | {} → {} | {} |",
                stage.name(),
                text(&recipe["profile"]),
                stage.metrics.last().map_or(0, |line| line.step),
                recipe["total_steps"],
                recipe["global_batch"],
                recipe["row_length"],
                text(&recipe["optimizer"]["kind"]),
                recipe["lr"]["peak"],
                number(first.map(|held_out| held_out.loss)),
                number(last.map(|held_out| held_out.loss)),
                number(last.map(|held_out| held_out.nats_per_token)),
            );
        }
        card.push_str(
            "\nThe held-out loss is the weighted sum over scored positions, divided by all tokens of the rows \
             (method of the report); it compares within a stage only.\n",
        );
    }

    fn evaluation(&self, card: &mut String) {
        card.push_str("\n## Evaluation\n\n");
        if self.results.is_empty() {
            card.push_str("None was given.\n");
        }
        for result in &self.results {
            let asked = &result["evaluation"];
            if result["tasks"].is_array() {
                let _ = writeln!(
                    card,
                    "* {}: {} — {} problems, {} solutions; data `{}`; sampler `{}`; judge `{}`",
                    asked["benchmark"].as_str().unwrap_or("unknown"),
                    rates(result)
                        .iter()
                        .map(|(k, rate)| format!("pass@{k} {:.1} %", 100.0 * rate))
                        .collect::<Vec<_>>()
                        .join(", "),
                    result["problems"],
                    result["samples"],
                    asked["data"]["hash"].as_str().unwrap_or("unknown"),
                    asked["generation"],
                    asked["judge"],
                );
            }
            for (under, nll) in result["nll"].as_object().into_iter().flatten() {
                let _ = writeln!(
                    card,
                    "* held-out likelihood, masked as {under}: {:.4} nats a token, {:.4} bits a byte{} ({} rows)",
                    nll["nats_per_token"].as_f64().unwrap_or(f64::NAN),
                    nll["bits_per_byte"].as_f64().unwrap_or(f64::NAN),
                    if nll["bound"] == true { ", an upper bound" } else { ", not a bound" },
                    nll["rows"],
                );
            }
        }
    }
}

impl Stage {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let io = |error: FileError| Failure::from_error(Exit::Io, &error);
        let path = folder.join("run.json");
        let text = fs::read(&path).map_err(|error| io(FileError::new("read", &path, error)))?;
        let run: Value = serde_json::from_slice(&text)
            .map_err(|error| Failure::incompatible(format!("{}: {error}", path.display())))?;
        let metrics = folder.join(METRICS_FILE);
        let metrics =
            if metrics.is_file() { MetricsFile::read(&metrics).map_err(io)? } else { vec![] };
        // A set that has moved, or is of another format, is left out; the card says so.
        let set = run["shard_set"]["dir"].as_str().map(|dir| Path::new(dir).join("index.json"));
        let index = set.and_then(|path| fs::read(path).ok());
        let index = index.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { run, index, metrics })
    }

    fn name(&self) -> &str {
        self.run["recipe"]["stage"].as_str().unwrap_or("unknown")
    }
}

/// The folder of the run that a checkpoint is of: the path itself or one above it.
fn run_folder(path: &Path) -> Option<PathBuf> {
    let is_run = |folder: &&Path| {
        // Checkpoints have a `run.json` of their own, which has no shard set.
        let text = fs::read(folder.join("run.json")).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).is_ok_and(|run| run["shard_set"].is_object())
    };
    path.ancestors().take(3).find(is_run).map(Path::to_path_buf)
}

/// The hub's names of the datasets that a set was made from.
fn hub_names(index: &Index) -> Vec<String> {
    let origins = index.sources.iter().flat_map(|source| &source.origins);
    let names = origins.filter_map(|origin| {
        let path = origin.strip_prefix("hf://datasets/")?;
        let mut parts = path.split('/');
        let (owner, name) = (parts.next()?, parts.next()?.split('@').next()?);
        Some(format!("{owner}/{name}"))
    });
    names.collect()
}

/// The pass rates that count: with the plus inputs where there are some.
fn rates(result: &Value) -> Vec<(&str, f64)> {
    let found = if result["plus"].is_object() { &result["plus"] } else { &result["base"] };
    let rates = found.as_object().into_iter().flatten();
    rates.filter_map(|(k, rate)| Some((k.as_str(), rate.as_f64()?))).collect()
}

/// A string of JSON is a string of YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
