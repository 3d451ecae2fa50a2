//! The forward pass of some positions of a row, with the keys and values of the others kept from
//! earlier passes (method §6, block sampling).

use super::{ModelConfig, Network};
use crate::ops::{
    AttentionShape, KvRow, LinearMap, NoneTape, Rotary, Var, cached_attention, embed, rms_norm,
};
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
    /// The positions in the window whose final hidden states are wanted, ascending.
    pub(crate) outputs: &'a [usize],
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
    /// The final hidden states of the outputs, one row's after the other's, then of tokens that nobody
    /// reads: `[n, D]`. As many tokens are added as `fewest` asks for, to the windows and to the outputs.
    /// A window over the whole row, all of it wanted, gives what [`Network::hidden`] does.
    ///
    /// `map` computes the products.
    ///
    /// The last layer needs the keys and values of all that is computed, and nothing else but of the
    /// outputs.
    ///
    /// # Panics
    /// If a window does not lie in its row, an output not in its window, a cache is of another length,
    /// or the tables of `rotary` do not reach so far.
    pub(crate) fn hidden_of_outputs(
        &self,
        config: &ModelConfig,
        rotary: &Rotary,
        rows: &mut [CachedRow<'_>],
        fewest: usize,
        map: LinearMap<NoneTape>,
    ) -> Var {
        let tape = &mut NoneTape;
        let mut ids: Vec<u32> = Vec::new();
        let (mut wanted, mut places): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for row in rows.iter() {
            assert_eq!(row.ids.len(), row.cache.len, "a cache has the length of its row");
            wanted.extend(row.outputs.iter().map(|at| ids.len() + at - row.window.start));
            places.extend(row.outputs);
            ids.extend_from_slice(&row.ids[row.window.clone()]);
        }
        ids.resize(ids.len().max(fewest), 0);
        wanted.resize(wanted.len().max(fewest), ids.len() - 1);
        places.resize(wanted.len(), 0);
        let windows = rows.iter().flat_map(|row| row.window.clone());
        let rotary_of_windows = rotary.at(windows.chain(std::iter::repeat(0)).take(ids.len()));
        let mut x = embed(tape, &self.weights.embedding, &ids);
        let (last, others) = self.weights.layers.split_last().expect("a model has layers");
        for (index, layer) in others.iter().enumerate() {
            let [q, k, v] = layer.project(tape, &x, &rotary_of_windows, self.eps, map);
            keep(rows, index, [&k, &v], config.kv_width());
            let read = read(rows, index, &q, config, |row| row.window.len());
            x = layer.finish(tape, &x, &read, self.eps, map);
        }
        let h = rms_norm(tape, &x, &last.input_norm, self.eps);
        let [k, v] = last.keys_values(tape, &h, &rotary_of_windows, self.eps, map);
        keep(rows, others.len(), [&k, &v], config.kv_width());
        let (x, h) = (x.select(&wanted), h.select(&wanted));
        let q = last.queries(tape, &h, &rotary.at(places.into_iter()), self.eps, map);
        let read = read(rows, others.len(), &q, config, |row| row.outputs.len());
        let x = last.finish(tape, &x, &read, self.eps, map);
        rms_norm(tape, &x, &self.weights.norm, self.eps)
    }
}

/// Puts a layer's new keys and values into the caches.
fn keep(rows: &mut [CachedRow<'_>], layer: usize, new: [&Var; 2], width: usize) {
    let mut from = 0;
    for row in rows {
        let (at, len) = (row.window.start * width, row.window.len() * width);
        for (kept, new) in row.cache.layers[layer].iter_mut().zip(new) {
            kept[at..at + len].copy_from_slice(&new.data()[from..from + len]);
        }
        from += len;
    }
}

/// What the queries, so many of each row, read from a layer's kept keys and values.
fn read(
    rows: &[CachedRow<'_>],
    layer: usize,
    q: &Var,
    config: &ModelConfig,
    queries: impl Fn(&CachedRow<'_>) -> usize,
) -> Var {
    let shape = AttentionShape {
        rows: 1,
        len: 0,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    };
    let kept: Vec<KvRow<'_>> = rows
        .iter()
        .map(|row| {
            let [keys, values] = &row.cache.layers[layer];
            KvRow { queries: queries(row), keys, values }
        })
        .collect();
    cached_attention(q, &kept, shape)
}
