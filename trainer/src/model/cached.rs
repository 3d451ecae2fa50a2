//! The forward pass of some positions of a row, with the keys and values of the others kept from
//! earlier passes (method §6, block sampling).

use super::{ModelConfig, Network};
use crate::ops::{AttentionShape, KvRow, NoneTape, Rotary, Var, cached_attention, embed, rms_norm};
use std::ops::Range;

/// The keys and values of one row, for each layer `[len, K · head_dim]`.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    len: usize,
    layers: Vec<[Vec<f32>; 2]>,
}

/// Positions of a row to compute.
pub(crate) struct CachedRow<'a> {
    /// All ids of the row.
    pub(crate) ids: &'a [u32],
    /// The positions that are computed; their keys and values are overwritten.
    pub(crate) window: Range<usize>,
    /// The row's keys and values.
    pub(crate) cache: KvCache,
}

impl KvCache {
    /// Room for a row of `len` tokens, to be filled by a pass over all of it.
    pub(crate) fn new(config: &ModelConfig, len: usize) -> Self {
        let empty = || vec![0.0; len * config.kv_width()];
        Self { len, layers: (0..config.num_hidden_layers).map(|_| [empty(), empty()]).collect() }
    }

    /// The row's tokens.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Network {
    /// The final hidden states of the windows, one row's after the other's, then of `padding` tokens
    /// that nobody reads: `[n, D]`. A window over the whole row gives what [`Network::hidden`] does.
    ///
    /// # Panics
    /// If a window does not lie in its row, a cache is of another length, or the tables of `rotary`
    /// do not reach so far.
    pub(crate) fn hidden_of_windows(
        &self,
        config: &ModelConfig,
        rotary: &Rotary,
        rows: &mut [CachedRow<'_>],
        padding: usize,
    ) -> Var {
        let tape = &mut NoneTape;
        let shape = AttentionShape {
            rows: 1,
            len: 0,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        let width = config.kv_width();
        let mut ids: Vec<u32> = Vec::new();
        for row in rows.iter() {
            assert_eq!(row.ids.len(), row.cache.len, "a cache has the length of its row");
            ids.extend_from_slice(&row.ids[row.window.clone()]);
        }
        ids.resize(ids.len() + padding, 0);
        let windows = rows.iter().flat_map(|row| row.window.clone());
        let rotary = rotary.at(windows.chain(std::iter::repeat_n(0, padding)));
        let mut x = embed(tape, &self.weights.embedding, &ids);
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let [q, k, v] = layer.project(tape, &x, &rotary, self.eps);
            let mut from = 0;
            for row in rows.iter_mut() {
                let (at, len) = (row.window.start * width, row.window.len() * width);
                for (kept, new) in row.cache.layers[index].iter_mut().zip([&k, &v]) {
                    kept[at..at + len].copy_from_slice(&new.data()[from..from + len]);
                }
                from += len;
            }
            let kept: Vec<KvRow<'_>> = rows
                .iter()
                .map(|row| {
                    let [keys, values] = &row.cache.layers[index];
                    KvRow { queries: row.window.len(), keys, values }
                })
                .collect();
            let read = cached_attention(&q, &kept, shape);
            x = layer.finish(tape, &x, &read, self.eps);
        }
        rms_norm(tape, &x, &self.weights.norm, self.eps)
    }
}
