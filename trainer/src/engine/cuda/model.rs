//! The model on a card: the same layers as [`crate::model::Network`], from the card's operations.

use super::{
    batch::Ready,
    ops::{self, Heads, Rope, Shared},
    tape::{Run, Var},
    weights::{Places, Sums, Weight},
};
use crate::{
    model::{Layer, ModelConfig, RecomputePolicy, Weights},
    ops::{Cpu, NoneTape, OwnedTape, Tape},
};
use coda_cuda::{AttentionSizes, Block, CudaError};
use std::rc::Rc;

/// Parameters as the forward pass needs them.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) weights: Weights<Weight>,
    pub(super) eps: f32,
}

/// What all layers share for one batch.
#[derive(Clone)]
struct Setting {
    run: Rc<Run>,
    sizes: AttentionSizes,
    rope: Rc<Rope>,
    ranges: Option<Shared>,
    eps: f32,
    /// Whether what lies between the products is made again in the backward pass.
    forgets: bool,
}

impl Network {
    /// The parameters in `weights`, with gradients in `grads` if there is to be a backward pass.
    #[allow(clippy::cast_possible_truncation, reason = "the model computes in f32")]
    pub(super) fn new(
        config: &ModelConfig,
        places: &Places,
        weights: &Rc<Block>,
        grads: Option<&Rc<Sums>>,
    ) -> Self {
        let mut indices = 0..places.len();
        let weight = || {
            let index = indices.next().expect("the layout is that of the config");
            Weight::new(places, index, weights, grads)
        };
        let weights = Weights::in_order(config, weight);
        Self { weights, eps: config.rms_norm_eps as f32 }
    }

    /// The final hidden states `[B·L, D]`, after the last norm.
    pub(super) fn hidden<T: Tape>(
        &self,
        tape: &mut T,
        run: &Rc<Run>,
        config: &ModelConfig,
        batch: &Ready,
        rope: &Rc<Rope>,
        policy: RecomputePolicy,
    ) -> Result<Var, CudaError> {
        let setting = Setting {
            run: Rc::clone(run),
            sizes: AttentionSizes {
                rows: batch.rows,
                len: batch.len,
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head: config.head_dim,
            },
            rope: Rc::clone(rope),
            ranges: batch.ranges.clone(),
            eps: self.eps,
            forgets: policy == RecomputePolicy::Pointwise,
        };
        let mut x = ops::embed(tape, run, &self.weights.embedding, &batch.ids, &batch.by_id)?;
        for layer in &self.weights.layers {
            x = match policy {
                RecomputePolicy::None | RecomputePolicy::Pointwise => {
                    layer.forward(tape, &setting, &x)?
                }
                RecomputePolicy::Layer => recompute(tape, layer, &setting, &x)?,
            };
        }
        ops::rms_norm(tape, run, &x, &self.weights.norm, self.eps)
    }
}

impl Layer<Weight> {
    fn forward<T: Tape>(&self, tape: &mut T, setting: &Setting, x: &Var) -> Result<Var, CudaError> {
        let Setting { run, sizes, rope, ranges, eps, forgets } = setting;
        let h = ops::rms_norm(tape, run, x, &self.input_norm, *eps)?;
        // Queries and keys come from one product, as do gate and up: larger ones are faster.
        let qk = ops::linear(tape, run, &h, &self.q.with(&self.k), None)?;
        let queries = Heads { from: 0, heads: sizes.heads };
        let keys = Heads { from: self.q.rows, heads: sizes.kv_heads };
        let q = ops::head_norm_rope(tape, run, &qk, queries, &self.q_norm, *eps, rope)?;
        let k = ops::head_norm_rope(tape, run, &qk, keys, &self.k_norm, *eps, rope)?;
        let v = ops::linear(tape, run, &h, &self.v, None)?;
        let a = ops::attention(tape, run, [&q, &k, &v], *sizes, ranges.as_ref())?;
        if *forgets {
            for made in [&h, &q, &k] {
                made.forget();
            }
        }
        let x = ops::linear(tape, run, &a, &self.o, Some(x))?;
        let h = ops::rms_norm(tape, run, &x, &self.post_norm, *eps)?;
        let gate_up = ops::linear(tape, run, &h, &self.gate.with(&self.up), None)?;
        let f = ops::swiglu(tape, run, &gate_up)?;
        let y = ops::linear(tape, run, &f, &self.down, Some(&x))?;
        if *forgets {
            for made in [&h, &f] {
                made.forget();
            }
        }
        Ok(y)
    }
}

/// Runs a layer without recording its inside; the backward pass runs it once more on a tape of its
/// own. The kernels give the same bits again, so the gradients are those of the plain run.
fn recompute<T: Tape>(
    tape: &mut T,
    layer: &Layer<Weight>,
    setting: &Setting,
    x: &Var,
) -> Result<Var, CudaError> {
    let out = layer.forward(&mut NoneTape, setting, x)?;
    let (layer, setting, x, y) = (layer.clone(), setting.clone(), x.clone(), out.clone());
    let run = Rc::clone(&setting.run);
    run.backward(tape, move |card| {
        let inner_x = x.detached();
        let mut inner = OwnedTape::<f32, Cpu>::default();
        let inner_y = layer.forward(&mut inner, &setting, &inner_x)?;
        inner_y.add_grad(card, y.take_grad(card)?)?;
        drop(inner_y);
        setting.run.run_backward(inner)?;
        x.add_grad(card, inner_x.take_grad(card)?)
    });
    Ok(out)
}
