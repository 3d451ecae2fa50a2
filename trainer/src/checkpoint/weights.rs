//! Reading models: a Hugging Face directory becomes parameters.

use super::{CheckpointError, SafetensorsFile, manifest::is_plain_name};
use crate::model::{ConfigError, ModelConfig, Params, layout};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

/// All weights in one file.
pub const MODEL_FILE: &str = "model.safetensors";
/// Which weights lie in which file.
pub const MODEL_INDEX_FILE: &str = "model.safetensors.index.json";
/// The head, which tied models do not have.
const HEAD: &str = "lm_head.weight";

/// Whether a directory looks like a model.
#[must_use]
pub fn is_model_dir(dir: &Path) -> bool {
    dir.join(MODEL_FILE).is_file() || dir.join(MODEL_INDEX_FILE).is_file()
}

/// The weights of a Hugging Face directory, found but not yet read.
#[derive(Debug)]
pub struct HfWeights {
    dir: PathBuf,
    config: ModelConfig,
    files: Vec<SafetensorsFile>,
}

impl HfWeights {
    /// Opens `config.json` and the weights, one file or several with an index, and holds them
    /// against each other: every tensor of the model is there once, with its shape, and no other.
    /// Whether the head is tied is what the weights say, not the config.
    ///
    /// # Errors
    /// If something is missing, damaged or does not fit.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let not_one = |missing: &str| CheckpointError::NotOne {
            dir: dir.to_path_buf(),
            missing: missing.to_owned(),
        };
        if !dir.join("config.json").is_file() {
            return Err(not_one("config.json"));
        }
        let mut config = ModelConfig::from_dir(dir).map_err(|error| config_error(dir, error))?;
        let index = dir.join(MODEL_INDEX_FILE);
        let files = if dir.join(MODEL_FILE).is_file() {
            vec![SafetensorsFile::open(&dir.join(MODEL_FILE))?]
        } else if index.is_file() {
            open_indexed(dir, &index)?
        } else {
            return Err(not_one(MODEL_FILE));
        };
        config.tie_word_embeddings = !files.iter().any(|file| file.tensors().contains_key(HEAD));
        let weights = Self { dir: dir.to_path_buf(), config, files };
        weights.check()?;
        Ok(weights)
    }

    /// The model's shape.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The files that hold the weights.
    #[must_use]
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// Reads all weights as `f32`.
    ///
    /// # Errors
    /// If reading fails.
    pub fn read(self) -> Result<(ModelConfig, Params), CheckpointError> {
        let mut values = Vec::new();
        for tensor in layout(&self.config) {
            // `check` has seen every tensor in one of the files.
            let files = self.files.iter();
            for file in files.filter(|file| file.tensors().contains_key(&tensor.name)) {
                values.push(file.read_f32(&tensor.name)?);
            }
        }
        let params = Params::from_values(&self.config, values);
        Ok((self.config, params))
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let misfit = |problem: String| {
            CheckpointError::misfit(
                &self.dir,
                problem,
                "the weights must be those of the Qwen3-like model that config.json describes",
            )
        };
        let mut found = BTreeMap::new();
        for file in &self.files {
            for (name, info) in file.tensors() {
                if found.insert(name.as_str(), info.shape.as_slice()).is_some() {
                    return Err(misfit(format!("the tensor {name} is in two files")));
                }
            }
        }
        for tensor in layout(&self.config) {
            match found.remove(tensor.name.as_str()) {
                None => return Err(misfit(format!("the tensor {} is missing", tensor.name))),
                Some(shape) if shape != tensor.shape => {
                    return Err(misfit(format!(
                        "{} has shape {shape:?}, config.json asks for {:?}",
                        tensor.name, tensor.shape
                    )));
                }
                Some(_) => {}
            }
        }
        match found.into_keys().next() {
            Some(name) => Err(misfit(format!("the tensor {name} is not part of the model"))),
            None => Ok(()),
        }
    }
}

fn config_error(dir: &Path, error: ConfigError) -> CheckpointError {
    let path = dir.join("config.json");
    match error {
        ConfigError::Read { source, .. } => CheckpointError::file("read", &path, source),
        error => {
            let cause = std::error::Error::source(&error).map(|c| format!(": {c}"));
            CheckpointError::misfit(
                &path,
                format!("{error}{}", cause.unwrap_or_default()),
                "config.json must have the fields of a Hugging Face Qwen3 config",
            )
        }
    }
}

fn open_indexed(dir: &Path, index: &Path) -> Result<Vec<SafetensorsFile>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(index, problem);
    let text = fs::read(index).map_err(|error| CheckpointError::file("read", index, error))?;
    let parsed: IndexFile =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let names: BTreeSet<&String> = parsed.weight_map.0.values().collect();
    let mut files = Vec::new();
    for name in names {
        if !is_plain_name(name) {
            return Err(damaged(format!("{name:?} is not a file name")));
        }
        let file = SafetensorsFile::open(&dir.join(name))?;
        if let Some(surplus) =
            file.tensors().keys().find(|tensor| parsed.weight_map.0.get(*tensor) != Some(name))
        {
            return Err(damaged(format!("{surplus} lies in {name}, which the index does not say")));
        }
        files.push(file);
    }
    for (tensor, name) in &parsed.weight_map.0 {
        if !files.iter().any(|file| file.tensors().contains_key(tensor)) {
            return Err(damaged(format!("{tensor} is not in {name}")));
        }
    }
    Ok(files)
}

#[derive(Deserialize)]
struct IndexFile {
    weight_map: WeightMap,
}

/// A map that refuses to say something twice.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NoDuplicates;
        impl<'de> Visitor<'de> for NoDuplicates {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    if all.insert(tensor.clone(), file).is_some() {
                        return Err(serde::de::Error::custom(format!("{tensor} comes twice")));
                    }
                }
                Ok(WeightMap(all))
            }
        }
        deserializer.deserialize_map(NoDuplicates)
    }
}

#[cfg(test)]
mod tests {
    use super::{HfWeights, MODEL_FILE, MODEL_INDEX_FILE};
    use crate::{
        checkpoint::{TensorSource, WeightType, write_safetensors},
        model::{ModelConfig, Params, layout},
    };
    use std::{collections::BTreeMap, fs, path::Path};

    fn config() -> ModelConfig {
        ModelConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            intermediate_size: 12,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            vocab_size: 10,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            mask_token_id: Some(9),
        }
    }

    fn write(path: &Path, tensors: &[TensorSource<'_>]) {
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, tensors, &BTreeMap::new(), WeightType::F32).expect("bytes");
        fs::write(path, bytes).expect("write");
    }

    fn sources(params: &Params) -> Vec<TensorSource<'_>> {
        params
            .iter()
            .map(|(name, shape, values)| TensorSource {
                name: name.to_owned(),
                shape: shape.to_vec(),
                values,
            })
            .collect()
    }

    fn dir_with_config() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        // The released config says tied although the weights are not.
        let said = ModelConfig { tie_word_embeddings: true, ..config() };
        fs::write(dir.path().join("config.json"), said.to_json()).expect("write");
        dir
    }

    #[test]
    fn the_weights_say_whether_the_head_is_tied() {
        let dir = dir_with_config();
        let params = Params::init(&config(), 3);
        write(&dir.path().join(MODEL_FILE), &sources(&params));
        let (read_config, read) = HfWeights::open(dir.path()).expect("fits").read().expect("read");
        assert_eq!(read_config, config());
        assert!(params.iter().eq(read.iter()));
        let tied = sources(&params)[..params.len() - 1].to_vec();
        write(&dir.path().join(MODEL_FILE), &tied);
        assert!(HfWeights::open(dir.path()).expect("fits").config().tie_word_embeddings);
    }

    #[test]
    fn several_files_with_an_index() {
        let dir = dir_with_config();
        let params = Params::init(&config(), 3);
        let sources = sources(&params);
        let (first, second) = sources.split_at(5);
        let name = |part| format!("model-0000{part}-of-00002.safetensors");
        write(&dir.path().join(name(1)), first);
        write(&dir.path().join(name(2)), second);
        let map = |tensors: &[TensorSource<'_>], part| -> Vec<(String, String)> {
            tensors.iter().map(|t| (t.name.clone(), name(part))).collect()
        };
        let mut all: BTreeMap<String, String> =
            map(first, 1).into_iter().chain(map(second, 2)).collect();
        let index = |map: &BTreeMap<String, String>| {
            let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
            fs::write(dir.path().join(MODEL_INDEX_FILE), text.to_string()).expect("write");
        };
        index(&all);
        let (_, read) = HfWeights::open(dir.path()).expect("fits").read().expect("read");
        assert!(params.iter().eq(read.iter()));
        let refused = || HfWeights::open(dir.path()).expect_err("refused").to_string();

        let head = all.remove("lm_head.weight").expect("the head");
        index(&all);
        assert!(refused().contains("lm_head.weight lies in"), "{}", refused());
        for path in ["../outside.safetensors", "/etc/passwd", "a/b.safetensors"] {
            all.insert("lm_head.weight".to_owned(), path.to_owned());
            index(&all);
            assert!(refused().contains("is not a file name"), "{}", refused());
        }
        all.insert("lm_head.weight".to_owned(), head);
        all.insert("ghost".to_owned(), name(1));
        index(&all);
        assert!(refused().contains("ghost is not in"), "{}", refused());
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let dir = dir_with_config();
        let params = Params::init(&config(), 3);
        let path = dir.path().join(MODEL_FILE);
        let refused = |tensors: &[TensorSource<'_>]| {
            write(&path, tensors);
            HfWeights::open(dir.path()).expect_err("refused").to_string()
        };
        let all = sources(&params);
        assert!(refused(&all[1..]).contains("model.embed_tokens.weight is missing"));
        let mut surplus = all.clone();
        surplus.push(TensorSource {
            name: "model.bias".to_owned(),
            shape: vec![1],
            values: &[1.0],
        });
        assert!(refused(&surplus).contains("model.bias is not part of the model"));
        let mut wrong = all.clone();
        wrong[0].shape.reverse();
        assert!(refused(&wrong).contains("has shape [8, 10], config.json asks for [10, 8]"));
        assert_eq!(layout(&config()).len(), all.len());
    }
}
