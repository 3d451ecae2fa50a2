//! The model's shape, as the `config.json` of a Hugging Face directory says it.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The shape of a Qwen3-like transformer (method §1). Fields carry the names of HF's `Qwen3Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Width of the residual stream (D).
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Inner width of the feed-forward network (F).
    pub intermediate_size: usize,
    /// Query heads (H).
    pub num_attention_heads: usize,
    /// Key and value heads (K); divides H.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Rows of the embedding and of the head (V).
    pub vocab_size: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Epsilon of every RMSNorm.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Whether the head shares the embedding's weights. What a checkpoint holds decides, not this
    /// field: released configs are known to say the wrong thing (method §1).
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The id that stands for a masked token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_token_id: Option<u32>,
}

const fn rope_theta() -> f64 {
    1e6
}

const fn rms_norm_eps() -> f64 {
    1e-6
}

/// Why a model's shape cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The `config.json`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the JSON of a Qwen3-like config.
    #[error("{} is not a Qwen3-like config", path.display())]
    Parse {
        /// The `config.json`.
        path: PathBuf,
        /// Where and why parsing failed.
        source: serde_json::Error,
    },
    /// The numbers do not fit together.
    #[error("the model's shape is impossible: {0}")]
    Shape(String),
}

impl ModelConfig {
    /// Reads `DIR/config.json`. Keys that do not shape the model are passed over; a `rope_theta`
    /// under `rope_parameters` (newer transformers) is found too.
    ///
    /// # Errors
    /// If the file is missing, is not a config, or describes an impossible shape.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let parse = |source| ConfigError::Parse { path: path.clone(), source };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(parse)?;
        let theta =
            value.pointer("/rope_parameters/rope_theta").and_then(serde_json::Value::as_f64);
        let mut config: Self = serde_json::from_value(value).map_err(parse)?;
        if let Some(theta) = theta {
            config.rope_theta = theta;
        }
        config.check()?;
        Ok(config)
    }

    /// The `config.json` text for this shape, readable by `transformers` as `Qwen3ForCausalLM`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut value = serde_json::json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_act": "silu",
            "attention_bias": false,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "max_position_embeddings": 40960,
            "use_cache": false,
            "use_sliding_window": false,
        });
        if let (Some(value), Ok(serde_json::Value::Object(own))) =
            (value.as_object_mut(), serde_json::to_value(self))
        {
            value.extend(own);
        }
        format!("{value:#}\n")
    }

    /// Refuses shapes that no model can have.
    ///
    /// # Errors
    /// With the first thing that does not fit.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(ConfigError::Shape(format!("{name} is 0")));
            }
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(ConfigError::Shape(format!(
                "{kv_heads} key and value heads do not divide {heads} query heads"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            let odd = self.head_dim;
            return Err(ConfigError::Shape(format!(
                "head_dim {odd} is odd; rotary halves need it even"
            )));
        }
        if !(self.rope_theta > 0.0 && self.rms_norm_eps > 0.0) {
            return Err(ConfigError::Shape("rope_theta and rms_norm_eps must be above 0".into()));
        }
        match self.mask_token_id {
            Some(id) if id as usize >= self.vocab_size => Err(ConfigError::Shape(format!(
                "mask_token_id {id} is not below vocab_size {}",
                self.vocab_size
            ))),
            _ => Ok(()),
        }
    }

    /// Width of all query heads together.
    #[must_use]
    pub const fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads (or of all value heads) together.
    #[must_use]
    pub const fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Parameters in the matrices of the layers: those that every token is multiplied with, the head's not
    /// among them.
    #[must_use]
    pub const fn layer_matrices(&self) -> usize {
        let attention = 2 * (self.query_width() + self.kv_width());
        self.num_hidden_layers * self.hidden_size * (attention + 3 * self.intermediate_size)
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        super::params::layout(self).iter().map(|t| t.elements() as u64).sum()
    }
}

#[cfg(test)]
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        intermediate_size: 24,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 50,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        mask_token_id: Some(49),
    }
}

/// CoDA-1.7B (method §1).
#[cfg(test)]
pub(crate) fn published() -> ModelConfig {
    ModelConfig {
        hidden_size: 2048,
        num_hidden_layers: 28,
        intermediate_size: 6144,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        head_dim: 128,
        vocab_size: 151_936,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        mask_token_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, ModelConfig, published, tiny};

    #[test]
    fn a_config_survives_its_own_json() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), tiny().to_json()).unwrap();
        assert_eq!(ModelConfig::from_dir(dir.path()).unwrap(), tiny());
    }

    #[test]
    fn the_published_shape_has_the_published_size() {
        let config = published();
        // 311 tensors and about 2.03 billion parameters (method §1).
        assert_eq!(super::super::params::layout(&config).len(), 311);
        assert_eq!(config.parameters(), 2_031_739_904);
    }

    #[test]
    fn the_matrices_of_the_layers_are_those_of_the_layout() {
        for config in [tiny(), published()] {
            let layout = super::super::params::layout(&config);
            let in_layers = layout.iter().filter(|tensor| {
                tensor.shape.len() == 2 && tensor.name.starts_with("model.layers.")
            });
            let found: usize = in_layers.map(crate::optim::TensorShape::elements).sum();
            assert_eq!(config.layer_matrices(), found);
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let refused = |config: ModelConfig| {
            let error = config.check().expect_err("refused");
            assert!(matches!(error, ConfigError::Shape(_)));
            error.to_string()
        };
        assert!(
            refused(ModelConfig { num_key_value_heads: 3, ..tiny() }).contains("do not divide")
        );
        assert!(refused(ModelConfig { head_dim: 7, ..tiny() }).contains("odd"));
        assert!(refused(ModelConfig { hidden_size: 0, ..tiny() }).contains("hidden_size is 0"));
        assert!(refused(ModelConfig { mask_token_id: Some(50), ..tiny() }).contains("vocab_size"));
    }
}
