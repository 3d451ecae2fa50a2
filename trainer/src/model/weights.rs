//! Which parameter is which: the order of [`super::layout`], read once for every engine that runs the
//! layers one by one.

use super::ModelConfig;

/// The parameters of a model, whatever an engine takes for one.
#[derive(Clone, Debug)]
pub(crate) struct Weights<W> {
    /// `[V, D]`.
    pub(crate) embedding: W,
    /// One after the other.
    pub(crate) layers: Vec<Layer<W>>,
    /// The norm behind the last layer.
    pub(crate) norm: W,
    /// `[V, D]`; the embedding when it is tied.
    pub(crate) head: W,
}

/// The parameters of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer<W> {
    pub(crate) input_norm: W,
    pub(crate) q: W,
    pub(crate) k: W,
    pub(crate) v: W,
    pub(crate) q_norm: W,
    pub(crate) k_norm: W,
    pub(crate) o: W,
    pub(crate) post_norm: W,
    pub(crate) gate: W,
    pub(crate) up: W,
    pub(crate) down: W,
}

impl<W: Clone> Weights<W> {
    /// Takes the parameters from `next`, which gives them in the order of [`super::layout`].
    pub(crate) fn in_order(config: &ModelConfig, mut next: impl FnMut() -> W) -> Self {
        let embedding = next();
        let layers = (0..config.num_hidden_layers)
            .map(|_| Layer {
                input_norm: next(),
                q: next(),
                k: next(),
                v: next(),
                q_norm: next(),
                k_norm: next(),
                o: next(),
                post_norm: next(),
                gate: next(),
                up: next(),
                down: next(),
            })
            .collect();
        let norm = next();
        let head = if config.tie_word_embeddings { embedding.clone() } else { next() };
        Self { embedding, layers, norm, head }
    }
}
