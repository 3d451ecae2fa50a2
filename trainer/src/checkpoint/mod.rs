//! Checkpoints: Hugging Face directories with the state of training beside the weights.
//!
//! ```text
//! OUT/checkpoints/step-000200/
//!     model.safetensors  config.json  generation_config.json  tokenizer.json  tokenizer_config.json
//!     train_state.safetensors     the optimizer's state
//!     run.json                    step, shard set, recipe: what a resumed run must agree with
//!     checkpoint.json             every file's length and BLAKE3; written last
//! OUT/checkpoints/latest          the name of the newest one
//! OUT/final/                      the model of a finished run, without the state of training
//! ```
//!
//! A directory without a whole `checkpoint.json` is not a checkpoint of ours; `--init` and the
//! reading commands also take plain Hugging Face directories.

mod error;
mod manifest;
mod safetensors;
mod save;
mod store;
mod weights;

pub use error::CheckpointError;
pub use manifest::{CHECKPOINT_FILE, CheckpointManifest, FileRecord};
pub use safetensors::{
    Dtype, SafetensorsFile, TensorInfo, TensorSource, WeightType, write_safetensors,
};
pub use save::{Identity, RunState, TokenizerFiles, export_model, save_checkpoint, save_model};
pub use store::{Found, Store};
pub use weights::{HfWeights, MODEL_FILE, MODEL_INDEX_FILE, is_model_dir};
