//! Sampling on the CPU with kept keys and values.

use super::{Decoder, EngineError, Span, decoder::check_spans};
use crate::{
    model::{CachedRow, KvCache, ModelConfig, Network, Params},
    ops::{Rotary, View, ViewMut, matmul},
};
use std::collections::BTreeMap;

/// Products of at most this many values go through kernels that add in another order.
const SMALL_PRODUCT: usize = 256;

/// The CPU's [`Decoder`]: f32, all cores. Windows of any number of rows go through the linear maps
/// together; attention goes row by row.
pub struct CpuDecoder {
    config: ModelConfig,
    network: Network,
    rotary: Rotary,
    slots: BTreeMap<usize, KvCache>,
}

impl CpuDecoder {
    /// A decoder of a model; the parameters are shared, not copied.
    ///
    /// # Panics
    /// If the parameters are not laid out for `config`.
    #[must_use]
    pub fn new(config: &ModelConfig, params: &Params) -> Self {
        Self {
            config: config.clone(),
            network: Network::new(config, params, None),
            rotary: Rotary::new(0, config.head_dim, config.rope_theta),
            slots: BTreeMap::new(),
        }
    }

    /// Tokens to add to `tokens` so that the kernels chosen for a product do not depend on how many
    /// rows go through together: a row's bits are then the same in any company.
    fn padding(&self, tokens: usize) -> usize {
        let ModelConfig { hidden_size, intermediate_size, .. } = self.config;
        let widths = [hidden_size, intermediate_size, self.config.kv_width()];
        let narrowest = widths.into_iter().min().unwrap_or(1);
        fewest_rows(narrowest).saturating_sub(tokens)
    }

    fn head(&self, mut chosen: Vec<f32>, outputs: usize) -> Vec<f32> {
        let (d, v) = (self.config.hidden_size, self.config.vocab_size);
        let n = outputs.max(fewest_rows(v));
        chosen.resize(n * d, 0.0);
        let mut logits = vec![0.0; n * v];
        matmul(
            ViewMut::new(&mut logits, n, v),
            false,
            View::new(&chosen, n, d),
            View::new(self.network.head().data(), v, d).t(),
            1.0,
            rayon::current_num_threads(),
        );
        logits.truncate(outputs * v);
        logits
    }
}

/// The fewest rows of a product of this width that do not go through a kernel for small ones. One row
/// alone would be a product with a vector.
const fn fewest_rows(width: usize) -> usize {
    let rows = SMALL_PRODUCT / width + 1;
    if rows < 2 { 2 } else { rows }
}

impl Decoder for CpuDecoder {
    fn decode(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, EngineError> {
        let filled = |slot| self.slots.get(&slot).map(KvCache::len);
        check_spans(spans, self.config.vocab_size, filled)?;
        let longest = spans.iter().map(|span| span.row.len()).max().unwrap_or(0);
        if longest > self.rotary.len() {
            let len = longest.next_multiple_of(256);
            self.rotary = Rotary::new(len, self.config.head_dim, self.config.rope_theta);
        }
        let mut rows: Vec<CachedRow<'_>> = spans
            .iter()
            .map(|span| {
                let kept =
                    self.slots.remove(&span.slot).filter(|kept| kept.len() == span.row.len());
                CachedRow {
                    ids: span.row,
                    window: span.window.clone(),
                    cache: kept.unwrap_or_else(|| KvCache::new(&self.config, span.row.len())),
                }
            })
            .collect();
        let padding = self.padding(spans.iter().map(|span| span.window.len()).sum());
        let hidden = self.network.hidden_of_windows(&self.config, &self.rotary, &mut rows, padding);
        for (span, row) in spans.iter().zip(rows) {
            self.slots.insert(span.slot, row.cache);
        }
        let d = self.config.hidden_size;
        let (mut chosen, mut first, mut outputs) = (Vec::new(), 0, 0);
        for span in spans {
            for &at in span.outputs {
                let token = first + at - span.window.start;
                chosen.extend_from_slice(&hidden.data()[token * d..][..d]);
            }
            first += span.window.len();
            outputs += span.outputs.len();
        }
        Ok(self.head(chosen, outputs))
    }

    fn forget(&mut self, slot: usize) {
        self.slots.remove(&slot);
    }
}
