//! The model's operations on a card, each with its backward pass on the tape.

use super::{
    tape::{Held, Run, Var},
    weights::Weight,
};
use crate::ops::{Rotary, Tape};
use coda_cuda::{
    AttentionSizes, Block, Card, CudaError, Element, Order, Product, RopeTables, Span,
};
use std::rc::Rc;

/// Cosines and sines of the rotary angles for rows of one length.
#[derive(Debug)]
pub(super) struct Rope {
    pub(super) cosines: Block,
    pub(super) sines: Block,
    pub(super) len: usize,
    pub(super) half: usize,
}

impl Rope {
    /// Brings the tables of rotary angles to a card.
    pub(super) fn upload(card: &Card, rotary: &Rotary, head: usize) -> Result<Self, CudaError> {
        let [cosines, sines] = rotary.tables();
        let (cosines, sines) = (card.upload(cosines)?, card.upload(sines)?);
        Ok(Self { cosines, sines, len: rotary.len(), half: head / 2 })
    }

    /// The tables of `n` positions from `start` on.
    pub(super) fn part(&self, start: usize, n: usize) -> Result<RopeTables<'_>, CudaError> {
        let table = |block| Span::of(block, Element::F32, start * self.half, n * self.half);
        Ok(RopeTables { cosines: table(&self.cosines)?, sines: table(&self.sines)?, len: n })
    }

    fn tables(&self) -> Result<RopeTables<'_>, CudaError> {
        self.part(0, self.len)
    }
}

/// Values of one kind in a block that several share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) block: Rc<Block>,
    pub(super) element: Element,
    pub(super) from: usize,
    pub(super) len: usize,
}

impl Shared {
    pub(super) fn span(&self) -> Result<Span<'_>, CudaError> {
        Span::of(&self.block, self.element, self.from, self.len)
    }
}

/// The places of equal ids: see [`Card::embedding_backward`].
#[derive(Clone, Debug)]
pub(super) struct TokensById {
    pub(super) ids: Shared,
    pub(super) starts: Shared,
    pub(super) tokens: Shared,
}

/// Row `ids[i]` of the embedding for every `i`.
pub(super) fn embed<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    embedding: &Weight,
    ids: &Shared,
    by_id: &TokensById,
) -> Result<Var, CudaError> {
    let (n, width) = (ids.len, embedding.width);
    let out = Var::new(run.card.room(Element::Bf16, n * width)?, n, width);
    run.card.gather(embedding.span()?, ids.span()?, width, out.hold(&run.card)?.span()?)?;
    let (y, embedding, by_id) = (out.clone(), embedding.clone(), by_id.clone());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let lists = [by_id.ids.span()?, by_id.starts.span()?, by_id.tokens.span()?];
        card.embedding_backward(y.of_grad(&gy)?, lists, width, embedding.grad()?)
    });
    Ok(out)
}

/// `y = x · Wᵀ (+ residual)`.
pub(super) fn linear<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    x: &Var,
    weight: &Weight,
    residual: Option<&Var>,
) -> Result<Var, CudaError> {
    let card = &run.card;
    let (n, inner, outer) = (x.rows, weight.width, weight.rows);
    let out = Var::new(card.room(Element::Bf16, n * outer)?, n, outer);
    let (left, right) = (Order::Plain, Order::Transposed);
    let product = Product { rows: n, columns: outer, inner, left, right };
    let (x_held, out_held) = (x.hold(card)?, out.hold(card)?);
    let added = residual.map(|residual| residual.hold(card)).transpose()?;
    let add = added.as_ref().map(Held::span).transpose()?;
    card.multiply(product, x_held.span()?, weight.span()?, add, out_held.span()?)?;
    let (x, weight, residual, y) = (x.clone(), weight.clone(), residual.cloned(), out.clone());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let g = y.of_grad(&gy)?;
        add_product_of_rows(card, g, x.hold(card)?.span()?, [n, outer, inner], weight.grad()?)?;
        x.fill_grad(card, |gx, holds| {
            let (left, right) = (Order::Plain, Order::Plain);
            let product = Product { rows: n, columns: inner, inner: outer, left, right };
            card.multiply(product, g, weight.span()?, holds.then_some(gx), gx)
        })?;
        match residual {
            Some(residual) => residual.add_grad(card, gy),
            None => Ok(()),
        }
    });
    Ok(out)
}

/// `grad += gyᵀ · x` for `gy` `[n, outer]` and `x` `[n, inner]`: a weight's gradient.
pub(super) fn add_product_of_rows(
    card: &Card,
    gy: Span<'_>,
    x: Span<'_>,
    [n, outer, inner]: [usize; 3],
    grad: Span<'_>,
) -> Result<(), CudaError> {
    let (left, right) = (Order::Transposed, Order::Plain);
    let product = Product { rows: outer, columns: inner, inner: n, left, right };
    card.multiply(product, gy, x, Some(grad), grad)
}

/// RMSNorm over rows.
pub(super) fn rms_norm<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    x: &Var,
    weight: &Weight,
    eps: f32,
) -> Result<Var, CudaError> {
    let rows = x.rows;
    let scales = Rc::new(run.card.room(Element::F32, rows)?);
    let make = {
        let (x, weight, scales) = (x.clone(), weight.clone(), Rc::clone(&scales));
        move |card: &Card| {
            let out = card.room(Element::Bf16, x.len())?;
            let scales = Span::of(&scales, Element::F32, 0, rows)?;
            card.rms_norm(x.hold(card)?.span()?, weight.span()?, eps, x.of_grad(&out)?, scales)?;
            Ok(out)
        }
    };
    let out = Var::new(make(&run.card)?, rows, x.width).remade_by(make);
    let (x, weight, y) = (x.clone(), weight.clone(), out.clone());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let scales = Span::of(&scales, Element::F32, 0, rows)?;
        let held = x.hold(card)?;
        x.fill_grad(card, |gx, holds| {
            let (gy, x, w) = (y.of_grad(&gy)?, held.span()?, weight.span()?);
            card.rms_norm_backward(gy, x, w, scales, gx, holds, weight.grad()?)
        })
    });
    Ok(out)
}

/// RMSNorm over heads, then the rotation by position.
pub(super) fn head_norm_rope<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    x: &Var,
    weight: &Weight,
    eps: f32,
    rope: &Rc<Rope>,
) -> Result<Var, CudaError> {
    let heads = x.width / weight.width;
    let make = {
        let (x, weight, rope) = (x.clone(), weight.clone(), Rc::clone(rope));
        move |card: &Card| {
            let out = card.room(Element::Bf16, x.len())?;
            let (x_held, y, tables) = (x.hold(card)?, x.of_grad(&out)?, rope.tables()?);
            card.head_norm_rope(x_held.span()?, weight.span()?, eps, heads, tables, y)?;
            Ok(out)
        }
    };
    let out = Var::new(make(&run.card)?, x.rows, x.width).remade_by(make);
    let (x, weight, y, rope) = (x.clone(), weight.clone(), out.clone(), Rc::clone(rope));
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let gx = card.room(Element::Bf16, x.len())?;
        card.head_norm_rope_backward(
            y.of_grad(&gy)?,
            x.hold(card)?.span()?,
            weight.span()?,
            eps,
            heads,
            rope.tables()?,
            x.of_grad(&gx)?,
            weight.grad()?,
        )?;
        x.add_grad(card, gx)
    });
    Ok(out)
}

/// Attention in both directions, inside `ranges` if there are any.
pub(super) fn attention<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    [q, k, v]: [&Var; 3],
    sizes: AttentionSizes,
    ranges: Option<&Shared>,
) -> Result<Var, CudaError> {
    let card = &run.card;
    let out = Var::new(card.room(Element::Bf16, q.len())?, q.rows, q.width);
    let at = ranges.map(Shared::span).transpose()?;
    let held = [q.hold(card)?, k.hold(card)?, v.hold(card)?];
    let inputs = [held[0].span()?, held[1].span()?, held[2].span()?];
    let statistics = card.attention(inputs, &sizes, at, out.hold(card)?.span()?)?;
    let (q, k, v, y, ranges) = (q.clone(), k.clone(), v.clone(), out.clone(), ranges.cloned());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let room = |var: &Var| card.room(Element::Bf16, var.len());
        let (gq, gk, gv) = (room(&q)?, room(&k)?, room(&v)?);
        let held = [q.hold(card)?, k.hold(card)?, v.hold(card)?, y.hold(card)?];
        let [q_at, k_at, v_at, y_at] = &held;
        let inputs = [q_at.span()?, k_at.span()?, v_at.span()?, y_at.span()?, y.of_grad(&gy)?];
        let outputs = [q.of_grad(&gq)?, k.of_grad(&gk)?, v.of_grad(&gv)?];
        let at = ranges.as_ref().map(Shared::span).transpose()?;
        card.attention_backward(inputs, &statistics, &sizes, at, outputs)?;
        q.add_grad(card, gq)?;
        k.add_grad(card, gk)?;
        v.add_grad(card, gv)
    });
    Ok(out)
}

/// `silu(gate) · up`.
pub(super) fn swiglu<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    gate: &Var,
    up: &Var,
) -> Result<Var, CudaError> {
    let make = {
        let (gate, up) = (gate.clone(), up.clone());
        move |card: &Card| {
            let out = card.room(Element::Bf16, gate.len())?;
            let (gate_held, up_held) = (gate.hold(card)?, up.hold(card)?);
            card.swiglu(gate_held.span()?, up_held.span()?, gate.of_grad(&out)?)?;
            Ok(out)
        }
    };
    let out = Var::new(make(&run.card)?, gate.rows, gate.width).remade_by(make);
    let (gate, up, y) = (gate.clone(), up.clone(), out.clone());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let room = |var: &Var| card.room(Element::Bf16, var.len());
        let (g_gate, g_up) = (room(&gate)?, room(&up)?);
        let outputs = (gate.of_grad(&g_gate)?, up.of_grad(&g_up)?);
        let (gate_held, up_held) = (gate.hold(card)?, up.hold(card)?);
        let inputs = (gate_held.span()?, up_held.span()?);
        card.swiglu_backward(y.of_grad(&gy)?, inputs.0, inputs.1, outputs.0, outputs.1)?;
        gate.add_grad(card, g_gate)?;
        up.add_grad(card, g_up)
    });
    Ok(out)
}
