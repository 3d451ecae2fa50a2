//! The forward pass: a Qwen3-like transformer that looks both ways (method §1).

use super::{
    Grads, ModelConfig, Params,
    weights::{Layer, Weights},
};
use crate::ops::{
    AttentionShape, Block, LinearMap, Rotary, Tape, Var, Weight, attention, embed, head_norm_rope,
    linear, recompute, rms_norm, segment_ranges, swiglu,
};
use std::{cell::RefCell, mem, ops::Range, rc::Rc};

/// What the backward pass keeps of the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecomputePolicy {
    /// Every activation.
    #[default]
    None,
    /// On a card, all but what lies between the products and costs little to make again: normalized and
    /// rotated values, the product of `SwiGLU`. Elsewhere every activation.
    Pointwise,
    /// Each layer's input; the layer runs again.
    Layer,
}

/// The parameters of one step, with cells for their gradients.
#[derive(Debug)]
pub struct Network {
    pub(super) weights: Weights<Weight>,
    cells: Vec<Rc<RefCell<Vec<f32>>>>,
    pub(super) eps: f32,
}

/// The sizes and tables that all layers share for one batch.
#[derive(Clone, Debug)]
struct Setting {
    shape: AttentionShape,
    rotary: Rotary,
    segments: Option<Rc<Vec<Range<usize>>>>,
    eps: f32,
}

/// A layer with its setting: what recomputation runs again.
struct LayerBlock {
    layer: Layer<Weight>,
    setting: Setting,
}

impl Network {
    /// Takes the parameters, shared, and the gradients, to be added into; give the latter back with
    /// [`Network::give_back`]. Without gradients the network can only run forward.
    ///
    /// # Panics
    /// If the parameters are not laid out for `config`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the model computes in f32")]
    pub fn new(config: &ModelConfig, params: &Params, grads: Option<&mut Grads>) -> Self {
        let cells: Vec<Rc<RefCell<Vec<f32>>>> = match grads {
            Some(grads) => {
                grads.values.iter_mut().map(|g| Rc::new(RefCell::new(mem::take(g)))).collect()
            }
            None => (0..params.len()).map(|_| Rc::default()).collect(),
        };
        let mut next = 0;
        let weight = || {
            let shape = &params.layout()[next].shape;
            let (rows, width) =
                if let [width] = shape[..] { (1, width) } else { (shape[0], shape[1]) };
            next += 1;
            Weight::new(params.shared(next - 1), Rc::clone(&cells[next - 1]), rows, width)
        };
        let weights = Weights::in_order(config, weight);
        assert_eq!(next, params.len(), "the parameters are laid out for this shape");
        Self { weights, cells, eps: config.rms_norm_eps as f32 }
    }

    /// Puts the gradients back where [`Network::new`] took them from.
    pub fn give_back(self, grads: &mut Grads) {
        for (value, cell) in grads.values.iter_mut().zip(&self.cells) {
            *value = cell.take();
        }
    }

    /// The head `[V, D]`; the embedding when it is tied.
    #[must_use]
    pub fn head(&self) -> &Weight {
        &self.weights.head
    }

    /// The final hidden states `[B·L, D]`, after the last norm, of ids `[B, L]`.
    pub fn hidden<T: Tape>(
        &self,
        tape: &mut T,
        config: &ModelConfig,
        ids: &crate::engine::Ids<'_>,
        policy: RecomputePolicy,
    ) -> Var {
        let setting = Setting {
            shape: AttentionShape {
                rows: ids.rows,
                len: ids.len,
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            rotary: Rotary::new(ids.len, config.head_dim, config.rope_theta),
            segments: ids.segment_ids.map(|s| Rc::new(segment_ranges(s, ids.len))),
            eps: self.eps,
        };
        let mut x = embed(tape, &self.weights.embedding, ids.ids);
        for layer in &self.weights.layers {
            let block = LayerBlock { layer: layer.clone(), setting: setting.clone() };
            x = match policy {
                RecomputePolicy::None | RecomputePolicy::Pointwise => block.forward(tape, &x),
                RecomputePolicy::Layer => recompute(tape, &x, block),
            };
        }
        rms_norm(tape, &x, &self.weights.norm, self.eps)
    }
}

impl Layer<Weight> {
    /// Queries, keys and values of the layer's input, normalised and rotated.
    pub(super) fn project<T: Tape>(
        &self,
        tape: &mut T,
        x: &Var,
        rotary: &Rotary,
        eps: f32,
        map: LinearMap<T>,
    ) -> [Var; 3] {
        let h = rms_norm(tape, x, &self.input_norm, eps);
        let q = self.queries(tape, &h, rotary, eps, map);
        let [k, v] = self.keys_values(tape, &h, rotary, eps, map);
        [q, k, v]
    }

    /// Queries of the layer's normalised input.
    pub(super) fn queries<T: Tape>(
        &self,
        tape: &mut T,
        h: &Var,
        rotary: &Rotary,
        eps: f32,
        map: LinearMap<T>,
    ) -> Var {
        let q = map(tape, h, &self.q, None);
        head_norm_rope(tape, &q, &self.q_norm, eps, rotary)
    }

    /// Keys and values of the layer's normalised input.
    pub(super) fn keys_values<T: Tape>(
        &self,
        tape: &mut T,
        h: &Var,
        rotary: &Rotary,
        eps: f32,
        map: LinearMap<T>,
    ) -> [Var; 2] {
        let k = map(tape, h, &self.k, None);
        let k = head_norm_rope(tape, &k, &self.k_norm, eps, rotary);
        [k, map(tape, h, &self.v, None)]
    }

    /// The layer's output, from its input `x` and what attention read.
    pub(super) fn finish<T: Tape>(
        &self,
        tape: &mut T,
        x: &Var,
        read: &Var,
        eps: f32,
        map: LinearMap<T>,
    ) -> Var {
        let x = map(tape, read, &self.o, Some(x));
        let h = rms_norm(tape, &x, &self.post_norm, eps);
        let gate = map(tape, &h, &self.gate, None);
        let up = map(tape, &h, &self.up, None);
        let f = swiglu(tape, &gate, &up);
        map(tape, &f, &self.down, Some(&x))
    }
}

impl Block for LayerBlock {
    fn forward<T: Tape>(&self, tape: &mut T, x: &Var) -> Var {
        let Self { layer, setting: Setting { shape, rotary, segments, eps } } = self;
        let [q, k, v] = layer.project(tape, x, rotary, *eps, linear);
        let read = attention(tape, &q, &k, &v, *shape, segments.as_ref());
        layer.finish(tape, x, &read, *eps, linear)
    }
}
