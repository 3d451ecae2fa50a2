//! Sampling on a card with kept keys and values.

use super::{
    LOGITS_AT_ONCE,
    loss::logits_of,
    model::Network,
    ops::Rope,
    tape::Run,
    weights::{Places, Weight},
};
use crate::{
    engine::{Decoder, EngineError, Span as RowSpan, decoder::check_spans},
    model::{Layer, ModelConfig},
    ops::Rotary,
};
use coda_cuda::{AttentionSizes, Block, Card, Columns, CudaError, Element, Order, Product, Span};
use std::{collections::BTreeMap, rc::Rc};

/// A card's [`Decoder`]: bf16 with sums in f32, keys and values in the card's memory. Windows of any
/// number of rows go through the linear maps together; attention goes row by row.
///
/// cuBLASLt may choose other kernels for more rows, so that the rows beside a row can change its logits
/// by rounding.
pub(super) struct CudaDecoder {
    config: ModelConfig,
    run: Rc<Run>,
    network: Network,
    rope: Option<Rope>,
    slots: BTreeMap<usize, Slot>,
}

/// Keys and values of a row, layer by layer, `[len, kv_width]` each.
struct Slot {
    len: usize,
    layers: Vec<[Block; 2]>,
}

/// A row's window among the tokens that are computed.
struct Window<'a> {
    span: &'a RowSpan<'a>,
    /// Its first token.
    first: usize,
}

fn bf16(block: &Block, from: usize, len: usize) -> Result<Span<'_>, CudaError> {
    Span::of(block, Element::Bf16, from, len)
}

impl CudaDecoder {
    pub(super) fn new(
        config: &ModelConfig,
        run: &Rc<Run>,
        places: &Places,
        weights: &Rc<Block>,
    ) -> Self {
        Self {
            config: config.clone(),
            run: Rc::clone(run),
            network: Network::new(config, places, weights, None),
            rope: None,
            slots: BTreeMap::new(),
        }
    }

    /// Tables of rotary angles for rows of at least `len` tokens.
    fn grow_rope(&mut self, len: usize) -> Result<(), CudaError> {
        if self.rope.as_ref().is_none_or(|rope| rope.len < len) {
            let len = len.next_multiple_of(256);
            let rotary = Rotary::new(len, self.config.head_dim, self.config.rope_theta);
            self.rope = Some(Rope::upload(&self.run.card, &rotary, self.config.head_dim)?);
        }
        Ok(())
    }

    fn slot(&self, len: usize) -> Result<Slot, CudaError> {
        let room = || self.run.card.room(Element::Bf16, len * self.config.kv_width());
        let layers = (0..self.config.num_hidden_layers).map(|_| Ok([room()?, room()?]));
        Ok(Slot { len, layers: layers.collect::<Result<_, CudaError>>()? })
    }

    /// Keys and values of a window into their slots, and what its queries read: `[tokens, query_width]`.
    fn attend(
        &self,
        windows: &[Window<'_>],
        layer: usize,
        of: &Layer<Weight>,
        [q, k, v]: [&Block; 3],
        out: &Block,
    ) -> Result<(), CudaError> {
        let (card, config) = (&self.run.card, &self.config);
        let rope = self.rope.as_ref().expect("grown before");
        let (wide, narrow) = (config.query_width(), config.kv_width());
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let eps = self.network.eps;
        for Window { span, first } in windows {
            let n = span.window.len();
            let tables = rope.part(span.window.start, n)?;
            let slot = &self.slots[&span.slot];
            let [keys, values] = &slot.layers[layer];
            let new = |block| bf16(block, span.window.start * narrow, n * narrow);
            let given = |block, width: usize| bf16(block, first * width, n * width);
            let turned = card.room(Element::Bf16, n * wide)?;
            let queries = bf16(&turned, 0, n * wide)?;
            let q = Columns::all(given(q, wide)?, wide);
            card.head_norm_rope(q, of.q_norm.span()?, eps, heads, tables, queries)?;
            let k = Columns::all(given(k, narrow)?, narrow);
            card.head_norm_rope(k, of.k_norm.span()?, eps, kv_heads, tables, new(keys)?)?;
            card.copy(given(v, narrow)?, new(values)?)?;
            let sizes =
                AttentionSizes { rows: 1, len: slot.len, heads, kv_heads, head: config.head_dim };
            let all = |block| bf16(block, 0, slot.len * narrow);
            let inputs = [queries, all(keys)?, all(values)?];
            card.attention_of(inputs, &sizes, n, given(out, wide)?)?;
        }
        Ok(())
    }

    /// The states of all windows' tokens after the last norm, `[tokens, D]`.
    fn hidden(&self, windows: &[Window<'_>], ids: &[u32]) -> Result<Block, CudaError> {
        let (card, d, n) = (&self.run.card, self.config.hidden_size, ids.len());
        let weights = &self.network.weights;
        let mut x = card.room(Element::Bf16, n * d)?;
        let at = card.upload(ids)?;
        let at = Span::of(&at, Element::U32, 0, n)?;
        card.gather(weights.embedding.span()?, at, d, bf16(&x, 0, n * d)?)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            let h = norm(card, &x, n, &layer.input_norm, self.network.eps)?;
            let project = |weight| linear(card, &h, n, weight, None);
            let (q, k, v) = (project(&layer.q)?, project(&layer.k)?, project(&layer.v)?);
            let a = card.room(Element::Bf16, n * layer.q.rows)?;
            self.attend(windows, index, layer, [&q, &k, &v], &a)?;
            x = linear(card, &a, n, &layer.o, Some(&x))?;
            let h = norm(card, &x, n, &layer.post_norm, self.network.eps)?;
            let gate_up = linear(card, &h, n, &layer.gate.with(&layer.up), None)?;
            let inner = layer.gate.rows;
            let f = card.room(Element::Bf16, n * inner)?;
            card.swiglu(bf16(&gate_up, 0, 2 * n * inner)?, inner, bf16(&f, 0, n * inner)?)?;
            x = linear(card, &f, n, &layer.down, Some(&x))?;
        }
        norm(card, &x, n, &weights.norm, self.network.eps)
    }

    fn logits(&self, hidden: &Block, tokens: usize, chosen: &[u32]) -> Result<Vec<f32>, CudaError> {
        let card = &self.run.card;
        let (d, v) = (self.config.hidden_size, self.config.vocab_size);
        let hidden = bf16(hidden, 0, tokens * d)?;
        let mut logits = Vec::with_capacity(chosen.len() * v);
        for part in chosen.chunks(LOGITS_AT_ONCE) {
            let n = part.len();
            let at = card.upload(part)?;
            let (x, out) = (card.room(Element::Bf16, n * d)?, card.room(Element::F32, n * v)?);
            let (x, out) = (bf16(&x, 0, n * d)?, Span::of(&out, Element::F32, 0, n * v)?);
            card.gather(hidden, Span::of(&at, Element::U32, 0, n)?, d, x)?;
            logits_of(card, x, &self.network.weights.head, n, out)?;
            logits.extend(card.read::<f32>(out)?);
        }
        Ok(logits)
    }
}

/// `x · Wᵀ (+ residual)` for `n` rows.
fn linear(
    card: &Card,
    x: &Block,
    n: usize,
    weight: &Weight,
    residual: Option<&Block>,
) -> Result<Block, CudaError> {
    let (inner, outer) = (weight.width, weight.rows);
    let out = card.room(Element::Bf16, n * outer)?;
    let (left, right) = (Order::Plain, Order::Transposed);
    let product = Product { rows: n, columns: outer, inner, left, right };
    let add = residual.map(|block| bf16(block, 0, n * outer)).transpose()?;
    let (x, y) = (bf16(x, 0, n * inner)?, bf16(&out, 0, n * outer)?);
    card.multiply(product, x, weight.span()?, add, y)?;
    Ok(out)
}

fn norm(card: &Card, x: &Block, n: usize, weight: &Weight, eps: f32) -> Result<Block, CudaError> {
    let len = n * weight.width;
    let (out, scales) = (card.room(Element::Bf16, len)?, card.room(Element::F32, n)?);
    let scales = Span::of(&scales, Element::F32, 0, n)?;
    card.rms_norm(bf16(x, 0, len)?, weight.span()?, eps, bf16(&out, 0, len)?, scales)?;
    Ok(out)
}

impl Decoder for CudaDecoder {
    fn decode(&mut self, spans: &[RowSpan<'_>]) -> Result<Vec<f32>, EngineError> {
        let filled = |slot| self.slots.get(&slot).map(|slot| slot.len);
        check_spans(spans, self.config.vocab_size, filled)?;
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        self.grow_rope(spans.iter().map(|span| span.row.len()).max().unwrap_or(0))?;
        let (mut windows, mut ids, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            if self.slots.get(&span.slot).is_none_or(|slot| slot.len != span.row.len()) {
                let slot = self.slot(span.row.len())?;
                self.slots.insert(span.slot, slot);
            }
            let first = ids.len();
            windows.push(Window { span, first });
            ids.extend_from_slice(&span.row[span.window.clone()]);
            for &at in span.outputs {
                let token = first + at - span.window.start;
                chosen.push(u32::try_from(token).map_err(|_| {
                    EngineError::Batch(format!("{token} tokens are too many for one forward"))
                })?);
            }
        }
        let hidden = self.hidden(&windows, &ids)?;
        Ok(self.logits(&hidden, ids.len(), &chosen)?)
    }

    fn forget(&mut self, slot: usize) {
        self.slots.remove(&slot);
    }
}
