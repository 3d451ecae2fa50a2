//! `coda-trainer export`.

use crate::{
    card::ModelCard,
    checkpoint::{HfWeights, Store, TokenizerFiles, WeightType, save_model},
    model::ModelConfig,
};
use clap::Args;
use coda_cli::{Exit, Failure, print_json, print_text};
use coda_shards::{
    Specials,
    commit::{AtomicDir, FileError, write_atomic},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The options of an export.
#[derive(Args)]
pub(super) struct Export {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// The directory to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    hf: PathBuf,
    /// The element type of the weights; bf16 halves the size and rounds.
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    dtype: WeightType,
    /// The model's name in its card; without it, that of the directory.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The licence of the weights, as the hub names it. The card has none that is not given.
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Results to put into the card: results.json of `eval code`, or what `eval --nll --json` printed.
    #[arg(long = "results", value_name = "FILE")]
    results: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let dir = Store::locate(&self.checkpoint)?;
        if self.hf.exists() {
            return Err(Failure::usage(format!("{} exists already", self.hf.display()))
                .hint("choose another directory with --hf"));
        }
        let (config, params) = HfWeights::open(&dir)?.read()?;
        let tokenizer = tokenizer_files(&dir)?;
        let failed = |error: FileError| Failure::from_error(Exit::Io, &error);
        let out = AtomicDir::create(&self.hf).map_err(failed)?;
        save_model(out.path(), &config, &params, &tokenizer, self.dtype)?;
        let card = self.card(&config)?;
        write_atomic(&out.path().join("README.md"), |file| file.write_all(card.as_bytes()))
            .map_err(failed)?;
        out.commit().map_err(failed)?;
        if self.json {
            let parameters = config.parameters();
            print_json(&json!({"checkpoint": dir, "hf": self.hf, "parameters": parameters}))?;
        } else {
            print_text(&format!("{} -> {}\n", dir.display(), self.hf.display()))?;
        }
        Ok(Exit::Done)
    }
}

impl Export {
    /// The model card, from the runs that the checkpoint comes of.
    fn card(&self, config: &ModelConfig) -> Result<String, Failure> {
        let own = self.hf.file_name().unwrap_or_default().to_string_lossy();
        let name = self.name.as_deref().unwrap_or(&own);
        let mut card = ModelCard::of(&self.checkpoint, name, config)?;
        card.license = self.license.as_deref();
        card.results = self.results.iter().map(|path| read_json(path)).collect::<Result<_, _>>()?;
        Ok(card.render())
    }
}

/// The tokenizer of a model directory, with the control tokens that its configs name.
fn tokenizer_files(dir: &Path) -> Result<TokenizerFiles, Failure> {
    let config = read_json(&dir.join("config.json"))?;
    let tokenizer = read_json(&dir.join("tokenizer_config.json")).unwrap_or_default();
    let id = |key: &str| {
        let found = match &config[key] {
            Value::Array(ids) => ids.first().and_then(Value::as_u64),
            one => one.as_u64(),
        };
        found.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            Failure::incompatible(format!(
                "{}: {key} is missing",
                dir.join("config.json").display()
            ))
            .hint(format!("add {key} to config.json"))
        })
    };
    let specials =
        Specials { eos: id("eos_token_id")?, pad: id("pad_token_id")?, mask: id("mask_token_id")? };
    let length = tokenizer["model_max_length"].as_u64().and_then(|n| u32::try_from(n).ok());
    let path = dir.join("tokenizer.json");
    Ok(TokenizerFiles { path, specials, row_length: length.unwrap_or(8192) })
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let text = fs::read(path)
        .map_err(|error| Failure::from_error(Exit::Io, &FileError::new("read", path, error)))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::incompatible(format!("{}: {error}", path.display())))
}
