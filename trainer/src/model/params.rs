//! Parameters and gradients: ordered lists of flat f32 tensors under their Hugging Face names.

use super::ModelConfig;
use crate::optim::TensorShape;
use coda_random::{Purpose, Stream};
use rayon::prelude::*;
use std::sync::Arc;

/// Standard deviation of fresh weights (`initializer_range` of HF's `Qwen3Config`).
const INITIAL_STD: f64 = 0.02;

/// The head of a model whose head is not tied.
const HEAD: &str = "lm_head.weight";

/// The parameters of a model. Matrices are row-major `[out, in]`, as HF stores them.
///
/// Order: embedding, then for each layer `input_layernorm`, `q_proj`, `k_proj`, `v_proj`, `q_norm`,
/// `k_norm`, `o_proj`, `post_attention_layernorm`, `gate_proj`, `up_proj`, `down_proj`, then the
/// final norm, then the head unless it is tied.
#[derive(Clone, Debug)]
pub struct Params {
    layout: Vec<TensorShape>,
    /// Shared with the tape while a step runs, so that no copy is made for it.
    values: Vec<Arc<Vec<f32>>>,
}

/// Gradients, in the order and shape of [`Params`].
#[derive(Clone, Debug, PartialEq)]
pub struct Grads {
    pub(crate) values: Vec<Vec<f32>>,
}

/// Names and shapes of a model's parameters, in order.
#[must_use]
pub fn layout(config: &ModelConfig) -> Vec<TensorShape> {
    let (d, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let (q, kv, h) = (config.query_width(), config.kv_width(), config.head_dim);
    let tensor = |name: String, shape: &[usize]| TensorShape { name, shape: shape.to_vec() };
    let mut list = vec![tensor("model.embed_tokens.weight".into(), &[v, d])];
    for layer in 0..config.num_hidden_layers {
        let parts: [(&str, &[usize]); 11] = [
            ("input_layernorm", &[d]),
            ("self_attn.q_proj", &[q, d]),
            ("self_attn.k_proj", &[kv, d]),
            ("self_attn.v_proj", &[kv, d]),
            ("self_attn.q_norm", &[h]),
            ("self_attn.k_norm", &[h]),
            ("self_attn.o_proj", &[d, q]),
            ("post_attention_layernorm", &[d]),
            ("mlp.gate_proj", &[f, d]),
            ("mlp.up_proj", &[f, d]),
            ("mlp.down_proj", &[d, f]),
        ];
        for (part, shape) in parts {
            list.push(tensor(format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    list.push(tensor("model.norm.weight".into(), &[d]));
    if !config.tie_word_embeddings {
        list.push(tensor(HEAD.into(), &[v, d]));
    }
    list
}

impl Params {
    /// Fresh parameters: norms are 1, everything else is normal with standard deviation 0.02,
    /// a pure function of `seed` and the parameter's place.
    #[must_use]
    pub fn init(config: &ModelConfig, seed: u64) -> Self {
        let layout = layout(config);
        let values = layout
            .iter()
            .enumerate()
            .map(|(i, tensor)| {
                if tensor.shape.len() == 1 {
                    vec![1.0; tensor.elements()]
                } else {
                    normal(
                        Stream::new(seed, i as u64, 0, Purpose::ParameterInit),
                        tensor.elements(),
                    )
                }
            })
            .map(Arc::new)
            .collect();
        Self { layout, values }
    }

    /// Parameters from tensors in the order of [`layout`].
    ///
    /// # Panics
    /// If number or sizes differ from the layout: a loader checks them first.
    #[must_use]
    pub fn from_values(config: &ModelConfig, values: Vec<Vec<f32>>) -> Self {
        let layout = layout(config);
        assert_eq!(values.len(), layout.len(), "one tensor for each parameter");
        for (tensor, value) in layout.iter().zip(&values) {
            assert_eq!(value.len(), tensor.elements(), "size of {}", tensor.name);
        }
        Self { layout, values: values.into_iter().map(Arc::new).collect() }
    }

    /// Parameters from tensors of this layout that others may hold too.
    pub(crate) fn from_shared(layout: Vec<TensorShape>, values: Vec<Arc<Vec<f32>>>) -> Self {
        Self { layout, values }
    }

    /// Gives a tied model a head of its own that begins as a copy of the embedding.
    ///
    /// # Panics
    /// If the head is not tied.
    pub fn untie(&mut self) {
        let tied = self.layout.iter().all(|tensor| tensor.name != HEAD);
        assert!(tied, "the model has a head of its own");
        let shape = self.layout[0].shape.clone();
        self.layout.push(TensorShape { name: HEAD.to_owned(), shape });
        self.values.push(Arc::new(self.values[0].to_vec()));
    }

    /// Names and shapes, in order.
    #[must_use]
    pub fn layout(&self) -> &[TensorShape] {
        &self.layout
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no tensors (never the case for a model).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every tensor with its name and shape, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layout
            .iter()
            .zip(&self.values)
            .map(|(t, v)| (t.name.as_str(), t.shape.as_slice(), v.as_slice()))
    }

    /// The values of tensor `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> &[f32] {
        &self.values[index]
    }

    /// The values of every tensor, to be changed in place.
    ///
    /// No copy is made unless a tape still holds a tensor, which no engine lets happen.
    pub fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        self.values.iter_mut().map(|v| Arc::make_mut(v).as_mut_slice()).collect()
    }

    /// Tensor `index`, shared.
    pub(crate) fn shared(&self, index: usize) -> Arc<Vec<f32>> {
        Arc::clone(&self.values[index])
    }
}

impl Grads {
    /// Gradients of nothing yet: all zero.
    #[must_use]
    pub fn zeros(params: &Params) -> Self {
        Self { values: params.layout.iter().map(|t| vec![0.0; t.elements()]).collect() }
    }

    /// Sets everything back to zero, keeping the memory.
    pub fn reset(&mut self) {
        for value in &mut self.values {
            value.par_chunks_mut(1 << 16).for_each(|chunk| chunk.fill(0.0));
        }
    }

    /// Adds other gradients of the same model.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, values) in self.values.iter_mut().zip(&other.values) {
            sum.par_chunks_mut(1 << 16).zip(values.par_chunks(1 << 16)).for_each(
                |(sum, values)| {
                    for (sum, value) in sum.iter_mut().zip(values) {
                        *sum += *value;
                    }
                },
            );
        }
    }

    /// The gradient of tensor `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> &[f32] {
        &self.values[index]
    }

    /// All gradients, in order.
    #[must_use]
    pub fn slices(&self) -> Vec<&[f32]> {
        self.values.iter().map(Vec::as_slice).collect()
    }

    /// All gradients, to be scaled in place.
    pub fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        self.values.iter_mut().map(Vec::as_mut_slice).collect()
    }
}

/// `n` normal draws with standard deviation [`INITIAL_STD`]: Box–Muller on pairs of uniforms.
fn normal(draws: Stream, n: usize) -> Vec<f32> {
    const CHUNK: usize = 1 << 12;
    let mut values = vec![0.0; n];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut raw = vec![0u32; values.len().next_multiple_of(2)];
        draws.fill((chunk * CHUNK) as u64, &mut raw);
        for (pair, value) in raw.chunks_exact(2).zip(values.chunks_mut(2)) {
            // The half keeps the logarithm away from zero.
            let u = (f64::from(pair[0]) + 0.5) / 4_294_967_296.0;
            let angle = f64::from(pair[1]) / 4_294_967_296.0 * std::f64::consts::TAU;
            let radius = INITIAL_STD * (-2.0 * u.ln()).sqrt();
            #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
            for (value, normal) in value.iter_mut().zip([angle.cos(), angle.sin()]) {
                *value = (radius * normal) as f32;
            }
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::{Grads, Params};
    use crate::model::config::tiny;

    #[test]
    fn fresh_weights_are_normal_and_norms_are_one() {
        let config = crate::model::ModelConfig { vocab_size: 4000, ..tiny() };
        let params = Params::init(&config, 7);
        let embedding = params.get(0);
        let n = embedding.len() as f64;
        let mean = embedding.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
        assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((std - 0.02).abs() < 5.0 * 0.02 / (2.0 * n).sqrt(), "{std}");
        let norm = params.iter().find(|(name, ..)| name.ends_with("q_norm.weight")).unwrap().2;
        assert!(norm.iter().all(|&x| (x - 1.0).abs() < f32::EPSILON));
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let bits = |seed| Params::init(&tiny(), seed).get(2).to_vec();
        assert_eq!(bits(1), bits(1));
        assert_ne!(bits(1), bits(2));
    }

    #[test]
    fn tying_takes_the_head_away() {
        let tied = Params::init(&tiny(), 1);
        let untied =
            Params::init(&crate::model::ModelConfig { tie_word_embeddings: false, ..tiny() }, 1);
        assert_eq!(tied.len() + 1, untied.len());
        assert_eq!(untied.layout().last().unwrap().name, "lm_head.weight");
    }

    #[test]
    fn an_untied_head_begins_as_the_embedding() {
        let mut params = Params::init(&tiny(), 1);
        params.untie();
        let untied = crate::model::ModelConfig { tie_word_embeddings: false, ..tiny() };
        assert_eq!(params.layout(), super::layout(&untied));
        assert_eq!(params.get(params.len() - 1), params.get(0));
    }

    #[test]
    fn gradients_follow_the_parameters() {
        let params = Params::init(&tiny(), 1);
        let mut grads = Grads::zeros(&params);
        grads.slices_mut()[3][0] = 2.0;
        assert!((grads.get(3)[0] - 2.0).abs() < f32::EPSILON);
        grads.reset();
        assert_eq!(grads, Grads::zeros(&params));
    }
}
