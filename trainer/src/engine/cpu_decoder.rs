//! Sampling on the CPU with kept keys and values.

use super::{Decoder, EngineError, Span, decoder::check_spans};
use crate::{
    model::{CachedRow, KvCache, ModelConfig, Network, Params},
    ops::{LinearMap, NoneTape, Rotary, Var, linear, linear_of_few},
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

    /// The fewest tokens with which the kernels chosen for a product do not depend on how many rows go
    /// through together: a row's bits are then the same in any company.
    fn fewest_tokens(&self) -> usize {
        let ModelConfig { hidden_size, intermediate_size, .. } = self.config;
        let widths = [hidden_size, intermediate_size, self.config.kv_width()];
        let narrowest = widths.into_iter().min().unwrap_or(1);
        fewest_rows(narrowest)
    }

    /// The logits of spans whose windows all are small, or all are not.
    fn logits(&mut self, spans: &[&Span<'_>], small: bool) -> Vec<f32> {
        let mut rows: Vec<CachedRow<'_>> = spans
            .iter()
            .map(|span| {
                let kept =
                    self.slots.remove(&span.slot).filter(|kept| kept.len() == span.row.len());
                CachedRow {
                    ids: span.row,
                    window: span.window.clone(),
                    outputs: span.outputs,
                    cache: kept.unwrap_or_else(|| KvCache::new(&self.config, span.row.len())),
                }
            })
            .collect();
        let map: LinearMap<NoneTape> = if small { linear_of_few } else { linear };
        let fewest = if small { 0 } else { self.fewest_tokens() };
        let (network, config) = (&self.network, &self.config);
        let hidden = network.hidden_of_outputs(config, &self.rotary, &mut rows, fewest, map);
        for (span, row) in spans.iter().zip(rows) {
            self.slots.insert(span.slot, row.cache);
        }
        let outputs: usize = spans.iter().map(|span| span.outputs.len()).sum();
        let fewest = if small { 0 } else { fewest_rows(self.config.vocab_size) };
        let (n, d) = (outputs.max(fewest), self.config.hidden_size);
        let mut chosen = hidden.data()[..outputs * d].to_vec();
        chosen.resize(n * d, 0.0);
        let logits = map(&mut NoneTape, &Var::new(chosen, n, d), self.network.head(), None);
        logits.data()[..outputs * self.config.vocab_size].to_vec()
    }
}

/// Windows of so many positions are small, unless they are the whole row: [`linear_of_few`] takes less
/// time for them than [`linear`]. A row's own window decides, so that company changes no bit.
const SMALL_WINDOW: usize = 20;

fn small(span: &Span<'_>) -> bool {
    span.window.len() <= SMALL_WINDOW && span.window.len() < span.row.len()
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
        let mut logits: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for of_small in [true, false] {
            let some: Vec<&Span<'_>> =
                spans.iter().filter(|span| small(span) == of_small).collect();
            if some.is_empty() {
                continue;
            }
            let all = self.logits(&some, of_small);
            if some.len() == spans.len() {
                return Ok(all);
            }
            let mut rest = all.as_slice();
            for span in some {
                let (own, others) = rest.split_at(span.outputs.len() * self.config.vocab_size);
                logits.insert(span.slot, own.to_vec());
                rest = others;
            }
        }
        Ok(spans.iter().flat_map(|span| logits.remove(&span.slot).unwrap_or_default()).collect())
    }

    fn forget(&mut self, slot: usize) {
        self.slots.remove(&slot);
    }
}
