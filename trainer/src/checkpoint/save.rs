//! Writing checkpoints and models.

use super::{
    CheckpointError, MODEL_FILE, TensorSource, WeightType, manifest::CheckpointManifest,
    write_safetensors,
};
use crate::{
    model::{ModelConfig, Params},
    optim::Optimizer,
};
use coda_curriculum::HoldState;
use coda_shards::{
    Specials,
    commit::{AtomicDir, write_atomic},
};
use coda_stages::Recipe;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The optimizer's state.
pub(crate) const STATE_FILE: &str = "train_state.safetensors";
/// What a resumed run must agree with.
pub(crate) const RUN_FILE: &str = "run.json";
/// The optimizer's kind in the header of [`STATE_FILE`].
pub(crate) const STATE_KIND: &str = "optimizer";

/// What decides a run besides the number of steps done: a checkpoint goes on only under the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The fingerprint of the shard set.
    pub shard_set: String,
    /// The recipe, less what changes only speed and bookkeeping.
    pub recipe: Value,
    /// The sources' rows, held-out rows and weights: with the seed, the whole row order.
    pub order: Value,
}

impl Identity {
    /// The identity of a recipe over a shard set.
    #[must_use]
    pub fn new(recipe: &Recipe, shard_set: &str, order: Value) -> Self {
        let waits = !recipe.holds().is_empty();
        let mut recipe = plain(recipe);
        if let Some(keys) = recipe.as_object_mut() {
            // `micro_batch`, `recompute` and the engine with its keys change the order and the
            // rounding of additions, not what is added.
            for key in [
                "name",
                "engine",
                "recompute",
                "cuda",
                "xla",
                "init",
                "eval_by_strategy",
                "eval_nll_levels",
                "checkpoint_every",
                "checkpoint_keep",
                "log_every",
            ] {
                keys.shift_remove(key);
            }
            // Where a schedule waits for a held-out loss, what measures it decides the masks.
            if !waits {
                for key in ["micro_batch", "eval_every", "eval_batches"] {
                    keys.shift_remove(key);
                }
            }
        }
        Self { shard_set: shard_set.to_owned(), recipe, order }
    }

    /// The BLAKE3 of it all, hex.
    #[must_use]
    pub fn hash(&self) -> String {
        let text = plain(self).to_string();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// What differs from another, in words: `recipe.lr.peak is 0.001, was 0.002`.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.shard_set != before.shard_set {
            found.push(format!("the shard set is {}, was {}", self.shard_set, before.shard_set));
        }
        compare("recipe", &self.recipe, &before.recipe, &mut found);
        if self.order != before.order {
            found.push("the sources' rows, held-out rows or weights are others".to_owned());
        }
        found
    }
}

/// Data without maps of odd keys always becomes JSON.
fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data becomes JSON")
}

fn compare(path: &str, now: &Value, before: &Value, found: &mut Vec<String>) {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => {
            let keys = now.keys().chain(before.keys().filter(|key| !now.contains_key(*key)));
            for key in keys {
                let value = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                compare(&format!("{path}.{key}"), &value(now), &value(before), found);
            }
        }
        _ if now == before => {}
        _ => found.push(format!("{path} is {now}, was {before}")),
    }
}

/// `run.json` of a checkpoint: all that is not weights or the optimizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Optimizer steps done.
    pub step: u64,
    /// The next position of the row order: all there is to know about where the data stands.
    pub position: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Where the schedules with a hold stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<String, HoldState>,
    /// What must stay the same.
    pub identity: Identity,
    /// Its hash.
    pub identity_hash: String,
    /// The whole recipe.
    pub recipe: Recipe,
    /// The version of CODA that wrote it.
    pub version: String,
}

/// The tokenizer that a model goes with.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// Its `tokenizer.json`.
    pub path: PathBuf,
    /// The ids of its control tokens.
    pub specials: Specials,
    /// Tokens per row in training.
    pub row_length: u32,
}

/// Writes a model as a Hugging Face directory into `dir`, which exists.
///
/// # Errors
/// If a file cannot be read or written.
pub fn save_model(
    dir: &Path,
    config: &ModelConfig,
    params: &Params,
    tokenizer: &TokenizerFiles,
    weight_type: WeightType,
) -> Result<(), CheckpointError> {
    let tensors: Vec<TensorSource<'_>> = params
        .iter()
        .map(|(name, shape, values)| TensorSource {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        })
        .collect();
    // `transformers` looks for this entry.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_atomic(&dir.join(MODEL_FILE), |out| {
        write_safetensors(out, &tensors, &metadata, weight_type)
    })?;
    write_text(&dir.join("config.json"), &config_json(config, tokenizer.specials, weight_type))?;
    let Specials { eos, pad, mask } = tokenizer.specials;
    write_json(
        &dir.join("generation_config.json"),
        &json!({
            "alg": "entropy", "alg_temp": null, "do_sample": true, "eos_token_id": [eos, pad],
            "eps": 1e-3,
            "mask_token_id": mask, "pad_token_id": pad, "steps": 512, "temperature": 0.1,
            "top_p": 0.9,
        }),
    )?;
    let path = dir.join("tokenizer.json");
    fs::copy(&tokenizer.path, &path)
        .map_err(|error| CheckpointError::file("copy", &tokenizer.path, error))?;
    let names = id_names(&path)?;
    let name = |id| names.get(&id).cloned();
    write_json(
        &dir.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name(eos),
            "pad_token": name(pad), "mask_token": name(mask),
            "model_max_length": tokenizer.row_length, "clean_up_tokenization_spaces": false,
        }),
    )
}

fn config_json(config: &ModelConfig, specials: Specials, weight_type: WeightType) -> String {
    let text = config.to_json();
    let mut value: Value = serde_json::from_str(&text).expect("a config is JSON");
    value["eos_token_id"] = json!(specials.eos);
    value["pad_token_id"] = json!(specials.pad);
    value["bos_token_id"] = json!(specials.pad);
    value["mask_token_id"] = json!(specials.mask);
    // Newer releases of transformers write and read `dtype`, older ones `torch_dtype`.
    value["dtype"] = json!(weight_type.torch_name());
    value["torch_dtype"] = json!(weight_type.torch_name());
    serde_json::to_string_pretty(&value).expect("JSON") + "\n"
}

/// The spelled names of added tokens in a `tokenizer.json`.
fn id_names(path: &Path) -> Result<BTreeMap<u32, String>, CheckpointError> {
    let text = fs::read(path).map_err(|error| CheckpointError::file("read", path, error))?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|error| CheckpointError::damaged(path, error.to_string()))?;
    let added = value["added_tokens"].as_array().cloned().unwrap_or_default();
    let entry = |token: &Value| {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok())?;
        Some((id, token["content"].as_str()?.to_owned()))
    };
    Ok(added.iter().filter_map(entry).collect())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CheckpointError> {
    let text = serde_json::to_string_pretty(value).expect("plain data becomes JSON") + "\n";
    write_text(path, &text)
}

fn write_text(path: &Path, text: &str) -> Result<(), CheckpointError> {
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
}

/// Writes a model without training state: the directory appears under `target` complete, or not at
/// all. `step` is how far it was trained.
///
/// # Errors
/// If a file cannot be read or written.
pub fn export_model(
    target: &Path,
    config: &ModelConfig,
    params: &Params,
    tokenizer: &TokenizerFiles,
    step: u64,
) -> Result<(), CheckpointError> {
    let dir = AtomicDir::create(target)?;
    save_model(dir.path(), config, params, tokenizer, WeightType::F32)?;
    CheckpointManifest::write(dir.path(), step)?;
    Ok(dir.commit()?)
}

/// Writes a whole checkpoint: it appears under `target` complete, or not at all.
///
/// # Errors
/// If a file cannot be read or written.
pub fn save_checkpoint(
    target: &Path,
    config: &ModelConfig,
    params: &Params,
    optimizer: &Optimizer,
    tokenizer: &TokenizerFiles,
    run: &RunState,
) -> Result<(), CheckpointError> {
    let dir = AtomicDir::create(target)?;
    save_model(dir.path(), config, params, tokenizer, WeightType::F32)?;
    let state = optimizer.state();
    let tensors: Vec<TensorSource<'_>> = state
        .into_iter()
        .map(|tensor| TensorSource {
            name: tensor.name,
            shape: tensor.shape,
            values: tensor.values,
        })
        .collect();
    let metadata = BTreeMap::from([
        (STATE_KIND.to_owned(), optimizer.kind().to_owned()),
        ("steps".to_owned(), optimizer.steps().to_string()),
    ]);
    write_atomic(&dir.path().join(STATE_FILE), |out| {
        write_safetensors(out, &tensors, &metadata, WeightType::F32)
    })?;
    write_json(&dir.path().join(RUN_FILE), run)?;
    CheckpointManifest::write(dir.path(), run.step)?;
    Ok(dir.commit()?)
}

#[cfg(test)]
mod tests {
    use super::compare;
    use serde_json::json;

    #[test]
    fn differences_name_the_key_and_both_values() {
        let mut found = Vec::new();
        compare(
            "recipe",
            &json!({"lr": {"peak": 0.1, "warmup": 2}, "steps": 5}),
            &json!({"lr": {"peak": 0.2, "warmup": 2}, "seed": 1}),
            &mut found,
        );
        assert_eq!(
            found,
            [
                "recipe.lr.peak is 0.1, was 0.2",
                "recipe.steps is 5, was null",
                "recipe.seed is null, was 1"
            ]
        );
    }
}
