//! What sampling needs of a model directory.

use super::{PromptError, prompt::with_masks};
use crate::{
    checkpoint::{HfWeights, Store},
    model::{ModelConfig, Params},
};
use coda_cli::{Exit, Failure};
use coda_shards::commit::FileError;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

/// A model with its tokenizer.
pub struct SamplingModel {
    /// The model directory.
    pub dir: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    /// Its weights.
    pub params: Params,
    /// Its control tokens.
    pub controls: Controls,
    /// Matches control tokens where a text spells them.
    pub tokenizer: Tokenizer,
    /// Takes spelled control tokens as plain text.
    plain: Tokenizer,
}

/// The control tokens of a model directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    /// The mask's id.
    pub mask: u32,
    /// How a text spells the mask.
    pub mask_name: String,
    /// The ids that end a text.
    pub ends: Vec<u32>,
}

impl SamplingModel {
    /// Reads a checkpoint, a Hugging Face directory or a run's newest checkpoint.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit the others.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let dir = Store::locate(path)?;
        let (config, params) = HfWeights::open(&dir)?.read()?;
        let tokenizer = load_tokenizer(&dir)?;
        let controls = Controls::read(&dir, config.mask_token_id, &tokenizer)?;
        let mut plain = tokenizer.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { dir, config, params, controls, tokenizer, plain })
    }

    /// The id of a token by its name.
    #[must_use]
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The ids of a text, control tokens and masks where it spells them.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        with_masks(&self.tokenizer, (&self.controls.mask_name, self.controls.mask), text)
    }

    /// The ids of a text whose control tokens are plain text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn plain_ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.plain.encode(text, false);
        let encoding = encoding.map_err(|error| PromptError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, without control tokens.
    ///
    /// # Errors
    /// If an id is not the tokenizer's.
    pub fn text(&self, ids: &[u32]) -> Result<String, Failure> {
        self.tokenizer.decode(ids, true).map_err(|error| {
            Failure::incompatible(format!("the tokens cannot be decoded: {error}"))
        })
    }

    /// Refuses ids for which the model has no embedding.
    ///
    /// # Errors
    /// With the first such id.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), Failure> {
        let rows = self.config.vocab_size;
        match ids.iter().find(|&&id| id as usize >= rows) {
            Some(id) => Err(Failure::incompatible(format!(
                "the tokenizer gives id {id}, the model has {rows} rows in its embedding"
            ))),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::from_error(Exit::Io, &FileError::new("read", path, error)))
}

/// The tokenizer of a model directory.
fn load_tokenizer(dir: &Path) -> Result<Tokenizer, Failure> {
    let path = dir.join("tokenizer.json");
    if !path.is_file() {
        return Err(Failure::incompatible(format!("{} is missing", path.display()))
            .hint("copy the tokenizer.json of the model into the directory"));
    }
    Tokenizer::from_file(&path).map_err(|error| {
        Failure::incompatible(format!("{} is not a tokenizer: {error}", path.display()))
    })
}

impl Controls {
    fn read(dir: &Path, mask: Option<u32>, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let mask = mask.ok_or_else(|| {
            Failure::incompatible(format!(
                "{} names no mask_token_id",
                dir.join("config.json").display()
            ))
            .hint("add the id of the mask token to config.json")
        })?;
        // Without a name no text can spell it.
        let mask_name = tokenizer.id_to_token(mask).unwrap_or_else(|| "<|mask|>".to_owned());
        let path = dir.join("generation_config.json");
        let value: Value = if path.is_file() {
            serde_json::from_str(&read(&path)?)
                .map_err(|e| Failure::incompatible(format!("{}: {e}", path.display())))?
        } else {
            Value::Null
        };
        let ends = end_ids(&value);
        Ok(Self { mask, mask_name, ends })
    }
}

/// The ids that end a text, as a config names them: one or several.
pub(crate) fn end_ids(config: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}
