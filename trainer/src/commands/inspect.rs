//! `coda-trainer inspect`.

use crate::checkpoint::{HfWeights, SafetensorsFile, Store};
use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use serde_json::{Value, json};
use std::{fmt::Write as _, fs, path::PathBuf};

/// The options of an inspection.
#[derive(Args)]
pub(super) struct Inspect {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let dir = Store::locate(&self.checkpoint)?;
        let weights = HfWeights::open(&dir)?;
        let config = weights.config();
        let tensors: Vec<(String, String, Vec<usize>)> = weights
            .files()
            .iter()
            .flat_map(SafetensorsFile::tensors)
            .map(|(name, info)| (name.clone(), format!("{:?}", info.dtype), info.shape.clone()))
            .collect();
        let run: Value = fs::read(dir.join("run.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        if self.json {
            let list: Vec<Value> = tensors
                .iter()
                .map(|(name, dtype, shape)| json!({"name": name, "dtype": dtype, "shape": shape}))
                .collect();
            print_json(&json!({
                "checkpoint": dir, "config": config, "parameters": config.parameters(),
                "tensors": list, "run": run,
            }))?;
            return Ok(Exit::Done);
        }
        let mut text = format!(
            "{}\n{} parameters in {} tensors, head {}\n",
            dir.display(),
            human::count(config.parameters()),
            tensors.len(),
            if config.tie_word_embeddings { "tied to the embedding" } else { "of its own" },
        );
        let _ = writeln!(
            text,
            "{} layers, width {}, FFN {}, heads {}/{} of {}, vocabulary {}",
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.vocab_size
        );
        if let Some(step) = run["step"].as_u64() {
            let of = run["recipe"]["total_steps"].as_u64().unwrap_or(step);
            let tokens = human::count(run["tokens"].as_u64().unwrap_or(0));
            let stage = run["recipe"]["stage"].as_str().unwrap_or("?");
            let _ = writeln!(text, "stage {stage}, step {step} of {of}, {tokens} tokens");
        }
        if self.tensors {
            for (name, dtype, shape) in &tensors {
                let _ = writeln!(text, "  {name} {dtype} {shape:?}");
            }
        }
        print_text(&text)?;
        Ok(Exit::Done)
    }
}
