//! The model's operations on a card, each with its backward pass on the tape.

use super::{
    tape::{Held, Run, Var},
    weights::Weight,
};
use crate::ops::{Rotary, Tape};
use coda_cuda::{
    AttentionSizes, Block, Card, Columns, CudaError, Element, Order, Product, RopeTables, Span,
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

/// So many heads among the columns of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// The first column.
    pub(super) from: usize,
    pub(super) heads: usize,
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
        card.embedding_backward(y.of_grad(&gy)?, lists, width, embedding.grad(card)?)
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
        add_product_of_rows(card, g, x.hold(card)?.span()?, n, &weight)?;
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

/// Adds `gyᵀ · x` to a weight's gradient, for `n` rows of `gy` and `x`.
pub(super) fn add_product_of_rows(
    card: &Card,
    gy: Span<'_>,
    x: Span<'_>,
    n: usize,
    weight: &Weight,
) -> Result<(), CudaError> {
    let (left, right) = (Order::Transposed, Order::Plain);
    let product = Product { rows: weight.rows, columns: weight.width, inner: n, left, right };
    weight.fill_grad(|grad, holds| card.multiply(product, gy, x, holds.then_some(grad), grad))
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
            card.rms_norm_backward(gy, x, w, scales, gx, holds, weight.grad(card)?)
        })
    });
    Ok(out)
}

/// RMSNorm over heads, which are columns of `x` from `from` on, then the rotation by position. Nothing else
/// may use those columns.
pub(super) fn head_norm_rope<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    x: &Var,
    Heads { from, heads }: Heads,
    weight: &Weight,
    eps: f32,
    rope: &Rc<Rope>,
) -> Result<Var, CudaError> {
    let width = heads * weight.width;
    let make = {
        let (x, weight, rope) = (x.clone(), weight.clone(), Rc::clone(rope));
        move |card: &Card| {
            let out = card.room(Element::Bf16, x.rows * width)?;
            let y = Span::of(&out, Element::Bf16, 0, x.rows * width)?;
            let held = x.hold(card)?;
            let x = Columns { matrix: held.span()?, width: x.width, from };
            card.head_norm_rope(x, weight.span()?, eps, heads, rope.tables()?, y)?;
            Ok(out)
        }
    };
    let out = Var::new(make(&run.card)?, x.rows, width).remade_by(make);
    let (x, weight, y, rope) = (x.clone(), weight.clone(), out.clone(), Rc::clone(rope));
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let held = x.hold(card)?;
        let columns = Columns { matrix: held.span()?, width: x.width, from };
        // Other columns are another's to write, who may have done so.
        x.fill_grad(card, |gx, _| {
            let (gy, w, tables) = (y.of_grad(&gy)?, weight.span()?, rope.tables()?);
            let grad = weight.grad(card)?;
            card.head_norm_rope_backward(gy, columns, w, eps, heads, tables, gx, grad)
        })
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

/// `silu(gate) · up`, where `gate_up` has the gate's columns in front.
pub(super) fn swiglu<T: Tape>(
    tape: &mut T,
    run: &Rc<Run>,
    gate_up: &Var,
) -> Result<Var, CudaError> {
    let (rows, inner) = (gate_up.rows, gate_up.width / 2);
    let make = {
        let gate_up = gate_up.clone();
        move |card: &Card| {
            let out = card.room(Element::Bf16, rows * inner)?;
            let y = Span::of(&out, Element::Bf16, 0, rows * inner)?;
            card.swiglu(gate_up.hold(card)?.span()?, inner, y)?;
            Ok(out)
        }
    };
    let out = Var::new(make(&run.card)?, rows, inner).remade_by(make);
    let (gate_up, y) = (gate_up.clone(), out.clone());
    run.backward(tape, move |card| {
        let gy = y.take_grad(card)?;
        let back = card.room(Element::Bf16, gate_up.len())?;
        let held = gate_up.hold(card)?;
        card.swiglu_backward(y.of_grad(&gy)?, held.span()?, inner, gate_up.of_grad(&back)?)?;
        gate_up.add_grad(card, back)
    });
    Ok(out)
}
