//! `coda-trainer check`: loss and gradients of one given batch (design §3).

use super::engines::EngineArgs;
use crate::{
    checkpoint::{HfWeights, SafetensorsFile, Store, TensorSource, WeightType, write_safetensors},
    engine::{Batch, EngineError},
    model::Grads,
};
use clap::{Args, ValueEnum};
use coda_cli::{Exit, Failure, print_json, print_text};
use coda_manifests::{Engine as EngineKey, Recompute};
use coda_shards::commit::write_atomic;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The options of a check.
#[derive(Args)]
pub(super) struct Check {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// A safetensors file: `input_ids` and `noised_ids` i32 [B, L], `sigma` f32 [B], and perhaps
    /// `segment_ids` i32 [B, L].
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Where to write `loss`, `grad.NAME` and perhaps `logits`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the logits too, unshifted [B, L, V].
    #[arg(long)]
    logits: bool,
    /// The mask id, when the checkpoint's config.json names none.
    #[arg(long, value_name = "ID")]
    mask_id: Option<u32>,
    /// Compute activations again in the backward pass instead of keeping them: inside layers, or on a card
    /// only what lies between products (train.recompute).
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, default_missing_value = "layer",
          default_value = "none", require_equals = true)]
    recompute: RecomputeArg,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `train.recompute` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RecomputeArg {
    None,
    Pointwise,
    Layer,
}

impl Check {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        self.engine.check(EngineKey::Auto)?;
        let dir = Store::locate(&self.checkpoint)?;
        let (config, params) = HfWeights::open(&dir)?.read()?;
        let mask = self.mask_id.or(config.mask_token_id).ok_or_else(|| {
            Failure::usage("config.json names no mask_token_id").hint("give --mask-id")
        })?;
        let batch = read_batch(&self.batch)?;
        let recompute = match self.recompute {
            RecomputeArg::None => Recompute::None,
            RecomputeArg::Pointwise => Recompute::Pointwise,
            RecomputeArg::Layer => Recompute::Layer,
        };
        let mut engine = self.engine.open(&config, recompute)?;
        let failed = |error: EngineError| Failure::from_error(Exit::Incompatible, &error);
        let mut grads = Grads::zeros(&params);
        let denominator = (batch.rows * batch.len) as f64;
        let output = engine
            .loss_and_grads(&params, &batch, mask, denominator, &mut grads)
            .map_err(failed)?;
        let logits = if self.logits {
            engine.logits(&params, &batch.noised(), None).map_err(failed)?
        } else {
            Vec::new()
        };
        #[allow(clippy::cast_possible_truncation, reason = "the contract says f32")]
        let loss = [output.loss as f32];
        let tensor = |name: String, shape: &[usize], values| TensorSource {
            name,
            shape: shape.to_vec(),
            values,
        };
        let mut tensors = vec![tensor("loss".to_owned(), &[], loss.as_slice())];
        if self.logits {
            let shape = [batch.rows, batch.len, config.vocab_size];
            tensors.push(tensor("logits".to_owned(), &shape, &logits));
        }
        for (index, (name, shape, _)) in params.iter().enumerate() {
            tensors.push(tensor(format!("grad.{name}"), shape, grads.get(index)));
        }
        let metadata = BTreeMap::from([("loss_f64".to_owned(), output.loss.to_string())]);
        write_atomic(&self.out, |out| write_safetensors(out, &tensors, &metadata, WeightType::F32))
            .map_err(|error| Failure::from_error(Exit::Io, &error))?;
        if self.json {
            print_json(&json!({"loss": output.loss, "scored": output.scored, "out": self.out}))?;
        } else {
            print_text(&format!("loss {} over {} scored tokens\n", output.loss, output.scored))?;
        }
        Ok(Exit::Done)
    }
}

fn read_batch(path: &Path) -> Result<Batch, Failure> {
    let file = SafetensorsFile::open(path)?;
    let shape = |name: &str| file.tensors().get(name).map(|info| info.shape.clone());
    let misfit = |problem: String| {
        Failure::incompatible(format!("{}: {problem}", path.display())).hint(
            "input_ids and noised_ids are i32 [B, L], sigma is f32 [B], segment_ids i32 [B, L]",
        )
    };
    let Some([rows, len]) = shape("input_ids").and_then(|shape| <[usize; 2]>::try_from(shape).ok())
    else {
        return Err(misfit("input_ids is missing or has no two dimensions".to_owned()));
    };
    for (name, wanted) in [("noised_ids", vec![rows, len]), ("sigma", vec![rows])] {
        if shape(name).as_ref() != Some(&wanted) {
            return Err(misfit(format!("{name} is missing or not {wanted:?}")));
        }
    }
    let segments = shape("segment_ids");
    if segments.as_ref().is_some_and(|shape| *shape != [rows, len]) {
        return Err(misfit(format!("segment_ids is not {:?}", [rows, len])));
    }
    Ok(Batch {
        rows,
        len,
        input_ids: file.read_ids("input_ids")?,
        noised_ids: file.read_ids("noised_ids")?,
        sigma: file.read_f32("sigma")?.into_iter().map(f64::from).collect(),
        segment_ids: segments.map(|_| file.read_ids("segment_ids")).transpose()?,
    })
}
