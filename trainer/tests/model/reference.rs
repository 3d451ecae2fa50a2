//! The model of method §1 and the loss of method §2 in f64, one loop after the other.

use coda_trainer::{
    engine::Batch,
    model::{ModelConfig, Params},
};
use std::ops::Range;

/// The model with its parameters in f64.
pub(crate) struct Reference {
    config: ModelConfig,
    params: Vec<Vec<f64>>,
}

type Rows = Vec<Vec<f64>>;

/// Keys and values of every layer, by position.
pub(crate) type Memory = Vec<[Rows; 2]>;

impl Reference {
    pub(crate) fn new(config: &ModelConfig, params: &Params) -> Self {
        let params = params
            .iter()
            .map(|(_, _, values)| values.iter().map(|&x| f64::from(x)).collect())
            .collect();
        Self { config: config.clone(), params }
    }

    /// The derivative of the loss by one value, as a central difference.
    pub(crate) fn derivative(&mut self, batch: &Batch, mask: u32, tensor: usize, at: usize) -> f64 {
        const STEP: f64 = 1e-5;
        let kept = self.params[tensor][at];
        self.params[tensor][at] = kept + STEP;
        let above = self.loss(batch, mask);
        self.params[tensor][at] = kept - STEP;
        let below = self.loss(batch, mask);
        self.params[tensor][at] = kept;
        (above - below) / (2.0 * STEP)
    }

    pub(crate) fn loss(&self, batch: &Batch, mask: u32) -> f64 {
        let logits = self.logits(batch);
        let v = self.config.vocab_size;
        let mut loss = 0.0;
        for row in 0..batch.rows {
            for j in 1..batch.len {
                let at = row * batch.len + j;
                if batch.noised_ids[at] == mask {
                    let logits = &logits[(at - 1) * v..at * v];
                    let total: f64 = logits.iter().map(|x| x.exp()).sum();
                    let target = batch.input_ids[at] as usize;
                    loss += (total.ln() - logits[target]) / batch.sigma[row];
                }
            }
        }
        loss / (batch.rows * batch.len) as f64
    }

    /// All logits `[B, L, V]`, unshifted.
    pub(crate) fn logits(&self, batch: &Batch) -> Vec<f64> {
        (0..batch.rows).flat_map(|row| self.row(batch, row)).collect()
    }

    fn row(&self, batch: &Batch, row: usize) -> Vec<f64> {
        let len = batch.len;
        let ids = &batch.noised_ids[row * len..][..len];
        let segment = |at: usize| batch.segment_ids.as_ref().map(|s| s[row * len + at]);
        self.pass(ids, 0..len, &mut Memory::new(), |i, j| segment(i) == segment(j))
    }

    /// The logits of a window of a row, `[window, V]`. Keys and values of the window's positions are
    /// put into the memory, those of all others are read from it, however old they are.
    pub(crate) fn window(
        &self,
        ids: &[u32],
        window: Range<usize>,
        memory: &mut Memory,
    ) -> Vec<f64> {
        self.pass(ids, window, memory, |_, _| true)
    }

    fn pass(
        &self,
        ids: &[u32],
        window: Range<usize>,
        memory: &mut Memory,
        sees: impl Fn(usize, usize) -> bool,
    ) -> Vec<f64> {
        let c = &self.config;
        let (d, len) = (c.hidden_size, ids.len());
        memory.resize(c.num_hidden_layers, [vec![Vec::new(); len], vec![Vec::new(); len]]);
        let mut x: Rows = ids[window.clone()]
            .iter()
            .map(|&id| self.params[0][id as usize * d..][..d].to_vec())
            .collect();
        for (layer, [k, v]) in memory.iter_mut().enumerate() {
            let w = |part: usize| self.params[1 + layer * 11 + part].as_slice();
            let h: Rows = x.iter().map(|x| self.norm(x, w(0))).collect();
            let q = self.heads(&h, window.start, w(1), w(4));
            k.splice(window.clone(), self.heads(&h, window.start, w(2), w(5)));
            v.splice(window.clone(), h.iter().map(|h| map(h, w(3))));
            for i in window.clone() {
                let mut mixed = Vec::new();
                for head in 0..c.num_attention_heads {
                    let kv = head / (c.num_attention_heads / c.num_key_value_heads);
                    let part =
                        |x: &[f64], head: usize| x[head * c.head_dim..][..c.head_dim].to_vec();
                    let seen: Vec<usize> = (0..len).filter(|&j| sees(i, j)).collect();
                    let scores: Vec<f64> = seen
                        .iter()
                        .map(|&j| {
                            let s: f64 = part(&q[i - window.start], head)
                                .iter()
                                .zip(part(&k[j], kv))
                                .map(|(a, b)| a * b)
                                .sum();
                            (s / (c.head_dim as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = scores.iter().sum();
                    let mut out = vec![0.0; c.head_dim];
                    for (&j, score) in seen.iter().zip(&scores) {
                        for (out, v) in out.iter_mut().zip(part(&v[j], kv)) {
                            *out += score / total * v;
                        }
                    }
                    mixed.extend(out);
                }
                for (x, o) in x[i - window.start].iter_mut().zip(map(&mixed, w(6))) {
                    *x += o;
                }
            }
            for x in &mut x {
                let h = self.norm(x, w(7));
                let gated: Vec<f64> = map(&h, w(8))
                    .iter()
                    .zip(map(&h, w(9)))
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                for (x, o) in x.iter_mut().zip(map(&gated, w(10))) {
                    *x += o;
                }
            }
        }
        let norm = &self.params[1 + c.num_hidden_layers * 11];
        let head =
            if c.tie_word_embeddings { &self.params[0] } else { self.params.last().unwrap() };
        x.iter().flat_map(|x| map(&self.norm(x, norm), head)).collect()
    }

    fn norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.config.rms_norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }

    /// Projection, norm of each head, rotation by the position, the first of which is `start`.
    fn heads(&self, h: &Rows, start: usize, weight: &[f64], norm: &[f64]) -> Rows {
        let d = self.config.head_dim;
        h.iter()
            .enumerate()
            .map(|(index, h)| {
                let position = start + index;
                let projected = map(h, weight);
                let rotated = projected.chunks(d).flat_map(|head| {
                    let head = self.norm(head, norm);
                    (0..d)
                        .map(|i| {
                            let pair = i % (d / 2);
                            let frequency =
                                self.config.rope_theta.powf(-2.0 * pair as f64 / d as f64);
                            let angle = position as f64 * frequency;
                            if i < d / 2 {
                                head[i] * angle.cos() - head[i + d / 2] * angle.sin()
                            } else {
                                head[i] * angle.cos() + head[i - d / 2] * angle.sin()
                            }
                        })
                        .collect::<Vec<f64>>()
                });
                rotated.collect()
            })
            .collect()
    }
}

/// `weight · x` for a weight `[out, in]`.
fn map(x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}
