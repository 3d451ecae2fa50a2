//! The head and the cross entropy in one, over scored tokens, some of them at a time.

use super::{
    batch::Ready,
    ops::add_product_of_rows,
    tape::{Run, Var},
    weights::Weight,
};
use coda_cuda::{Block, Card, CudaError, Element, Order, Product, Span};

/// The share of a card's memory that logits and their gradients may take.
const SHARE: u64 = 32;

/// Scored tokens whose logits are held at a time on a card of so many bytes.
pub(crate) fn tokens_at_once(memory: u64, vocabulary: usize) -> usize {
    // f32 logits and bf16 gradients
    let fit = usize::try_from(memory / SHARE).unwrap_or(usize::MAX) / (6 * vocabulary);
    (fit / 128 * 128).max(128)
}

/// The cross entropy of every scored token, unweighted, `[scored]` in f32; with `grads`, also the
/// gradient of the weighted sum, added to that of the hidden states and of the head.
pub(super) fn linear_cross_entropy(
    run: &Run,
    hidden: &Var,
    head: &Weight,
    batch: &Ready,
    grads: bool,
) -> Result<Block, CudaError> {
    let card = &run.card;
    let (d, v, n) = (head.width, head.rows, batch.targets.len);
    let losses = card.room(Element::F32, n)?;
    let gx = grads.then(|| hidden.take_grad(card)).transpose()?;
    let at_once = tokens_at_once(card.info().memory, v).min(n);
    let chunk = |element, values| card.room(element, at_once * values);
    let (inputs, logits) = (chunk(Element::Bf16, d)?, chunk(Element::F32, v)?);
    let g_logits = grads.then(|| chunk(Element::Bf16, v)).transpose()?;
    let g_inputs = grads.then(|| chunk(Element::Bf16, d)).transpose()?;
    for from in (0..n).step_by(at_once.max(1)) {
        let part = from..n.min(from + at_once);
        let m = part.len();
        let rows = |block, element, width| Span::of(block, element, 0, m * width);
        let outputs = batch.outputs.span()?.part(part.clone())?;
        let x = rows(&inputs, Element::Bf16, d)?;
        card.gather(hidden.hold(card)?.span()?, outputs, d, x)?;
        let out = rows(&logits, Element::F32, v)?;
        logits_of(card, x, head, m, out)?;
        let grad = g_logits.as_ref().map(|block| rows(block, Element::Bf16, v)).transpose()?;
        card.cross_entropy(
            out,
            batch.targets.span()?.part(part.clone())?,
            batch.scales.span()?.part(part.clone())?,
            Span::of(&losses, Element::F32, part.start, m)?,
            grad,
        )?;
        if let (Some(g), Some(g_inputs), Some(gx)) = (grad, &g_inputs, &gx) {
            let into = rows(g_inputs, Element::Bf16, d)?;
            let (left, right) = (Order::Plain, Order::Plain);
            let product = Product { rows: m, columns: d, inner: v, left, right };
            card.multiply(product, g, head.span()?, None, into)?;
            add_product_of_rows(card, g, x, m, head)?;
            // Each output predicts one token, so nothing is written twice.
            card.scatter(into, outputs, d, hidden.of_grad(gx)?)?;
        }
    }
    if let Some(gx) = gx {
        hidden.add_grad(card, gx)?;
    }
    Ok(losses)
}

/// `x · headᵀ` in f32, for `tokens` rows of `x`.
pub(super) fn logits_of(
    card: &Card,
    x: Span<'_>,
    head: &Weight,
    tokens: usize,
    out: Span<'_>,
) -> Result<(), CudaError> {
    let (left, right) = (Order::Plain, Order::Transposed);
    let product = Product { rows: tokens, columns: head.rows, inner: head.width, left, right };
    card.multiply(product, x, head.span()?, None, out)
}

#[cfg(test)]
mod tests {
    use super::{SHARE, tokens_at_once};

    #[test]
    fn logits_keep_to_their_room() {
        for (memory, vocabulary) in
            [(141_000_000_000, 151_936), (8 << 30, 4096), (4 << 30, 1 << 24)]
        {
            let at_once = tokens_at_once(memory, vocabulary);
            let bytes = (at_once * vocabulary * 6) as u64;
            assert!(at_once == 128 || bytes <= memory / SHARE, "{at_once}");
            assert!(at_once.is_multiple_of(128));
        }
        // A row of 8192 tokens with every second one scored, on an H200: at once.
        assert!(tokens_at_once(141_000_000_000, 151_936) > 4096);
    }
}
