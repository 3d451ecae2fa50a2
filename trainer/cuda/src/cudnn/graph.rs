//! Attention, forward and backward, as graphs of cuDNN's operations.
//!
//! A graph is data: [`super::plan`] hands it to cuDNN, the tests below compute it. Tensors have the
//! four axes `[rows, heads, tokens, width]`, and strides for our order in memory
//! (`[rows, tokens, heads, width]`).
//!
//! Where a tensor has fewer heads than the one it meets, consecutive heads share: head `h` of `H`
//! reads head `h·K/H` of `K`.

use super::SumOrder;
use crate::{AttentionSizes, Element};

/// What a tensor outside a graph is. Its number is the tensor's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Q = 1,
    K,
    V,
    Y,
    /// `ln Σ exp(score)` of each query: `[rows, heads, tokens, 1]`.
    Statistics,
    /// `1 / sqrt(width)`, read from the host.
    Scale,
    /// 1, read from the host.
    One,
    Gy,
    /// `Σ gy · y` of each query.
    Deltas,
    /// Sums of `gq` in f32, which blocks of keys add to.
    GqSums,
    Gq,
    Gk,
    Gv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, under a role.
    Memory(Role),
    /// A number that is given with each call.
    Host(Role),
    /// Nowhere: an operation hands it to the next.
    Inside,
}

#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) sizes: [i64; 4],
    pub(super) strides: [i64; 4],
    pub(super) element: Element,
    pub(super) place: Place,
}

/// A tensor of a graph, by its place in the list.
pub(super) type At = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointwise {
    Multiply,
    Subtract,
    Exp,
    Copy,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Attention with its statistics, as one operation.
    Attention { q: At, k: At, v: At, y: At, statistics: At, scale: At },
    /// `y = x ∘ b`; axes of `b` that are 1 are repeated.
    Pointwise { mode: Pointwise, x: At, b: Option<At>, y: At },
    /// Sums over what `y` has less of: a whole axis, or the heads that share one.
    Sum { x: At, y: At },
    /// Products of the last two axes.
    Product { left: At, right: At, out: At },
    /// The same memory under other sizes and strides.
    View { x: At, y: At },
}

/// Operations in order, and the tensors between them.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) tensors: Vec<Tensor>,
    pub(super) nodes: Vec<Node>,
}

/// The sizes, as cuDNN counts.
#[derive(Clone, Copy)]
struct Sizes {
    rows: i64,
    heads: i64,
    kv_heads: i64,
    len: i64,
    head: i64,
}

impl From<&AttentionSizes> for Sizes {
    fn from(sizes: &AttentionSizes) -> Self {
        let int = |n| i64::try_from(n).expect("sizes of this machine");
        Self {
            rows: int(sizes.rows),
            heads: int(sizes.heads),
            kv_heads: int(sizes.kv_heads),
            len: int(sizes.len),
            head: int(sizes.head),
        }
    }
}

/// `[rows, heads, a, b]` without gaps.
const fn dense(sizes: [i64; 4]) -> [i64; 4] {
    [sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1]
}

const fn transposed([a, b, c, d]: [i64; 4]) -> [i64; 4] {
    [a, b, d, c]
}

impl Sizes {
    /// Sizes and strides of heads in our order.
    const fn heads_of(self, heads: i64) -> ([i64; 4], [i64; 4]) {
        let Self { rows, len, head, .. } = self;
        ([rows, heads, len, head], [len * heads * head, head, heads * head, 1])
    }

    const fn per_query(self) -> [i64; 4] {
        [self.rows, self.heads, self.len, 1]
    }

    const fn scores(self) -> [i64; 4] {
        [self.rows, self.heads, self.len, self.len]
    }
}

impl Graph {
    fn tensor(
        &mut self,
        (sizes, strides): ([i64; 4], [i64; 4]),
        element: Element,
        place: Place,
    ) -> At {
        self.tensors.push(Tensor { sizes, strides, element, place });
        self.tensors.len() - 1
    }

    fn heads(&mut self, role: Role, sizes: Sizes, heads: i64) -> At {
        self.tensor(sizes.heads_of(heads), Element::Bf16, Place::Memory(role))
    }

    /// Keys or values as `[rows, heads, width, tokens]`.
    fn heads_transposed(&mut self, role: Role, sizes: Sizes) -> At {
        let (dims, strides) = sizes.heads_of(sizes.kv_heads);
        let flipped = (transposed(dims), transposed(strides));
        self.tensor(flipped, Element::Bf16, Place::Memory(role))
    }

    fn dense(&mut self, role: Role, sizes: [i64; 4]) -> At {
        self.tensor((sizes, dense(sizes)), Element::F32, Place::Memory(role))
    }

    fn number(&mut self, role: Role) -> At {
        self.tensor(([1; 4], [1; 4]), Element::F32, Place::Host(role))
    }

    fn inside(&mut self, sizes: [i64; 4]) -> At {
        self.tensor((sizes, dense(sizes)), Element::F32, Place::Inside)
    }

    fn apply(&mut self, mode: Pointwise, x: At, b: Option<At>) -> At {
        let y = self.inside(self.tensors[x].sizes);
        self.nodes.push(Node::Pointwise { mode, x, b, y });
        y
    }

    fn product(&mut self, left: At, right: At, out: At) {
        self.nodes.push(Node::Product { left, right, out });
    }

    /// The last two axes exchanged, in bf16, as the tensor cores want a factor.
    fn flip(&mut self, x: At) -> At {
        let Tensor { sizes, strides, .. } = self.tensors[x];
        let flipped = (transposed(sizes), transposed(strides));
        let y = self.tensor(flipped, Element::Bf16, Place::Inside);
        self.nodes.push(Node::View { x, y });
        y
    }

    /// `leftᵀ · right` of every query head, summed over the heads that share one of `out`.
    fn product_to_shared(&mut self, left: At, right: At, out: At, sizes: Sizes) {
        let left = self.flip(left);
        if sizes.heads == sizes.kv_heads {
            return self.product(left, right, out);
        }
        let all = [sizes.rows, sizes.heads, sizes.len, sizes.head];
        let every = self.tensor((all, dense(all)), Element::Bf16, Place::Inside);
        self.product(left, right, every);
        self.nodes.push(Node::Sum { x: every, y: out });
    }

    /// `y` and the statistics from `q`, `k` and `v`.
    pub(super) fn forward(sizes: &AttentionSizes) -> Self {
        let (mut graph, sizes) = (Self::default(), Sizes::from(sizes));
        let node = Node::Attention {
            q: graph.heads(Role::Q, sizes, sizes.heads),
            k: graph.heads(Role::K, sizes, sizes.kv_heads),
            v: graph.heads(Role::V, sizes, sizes.kv_heads),
            y: graph.heads(Role::Y, sizes, sizes.heads),
            statistics: graph.dense(Role::Statistics, sizes.per_query()),
            scale: graph.number(Role::Scale),
        };
        graph.nodes.push(node);
        graph
    }

    /// The gradients of `q`, `k` and `v`. cuDNN knows this pattern, for every generation of cards that
    /// the tests describe.
    ///
    /// With `p = exp(scale · q·kᵀ − statistics)` and `ds = p ∘ (gy·vᵀ − Σ gy∘y) · scale`:
    /// `gv = pᵀ·gy`, `gk = dsᵀ·q`, `gq = ds·k`.
    pub(super) fn backward(sizes: &AttentionSizes, order: SumOrder) -> Self {
        use Pointwise::{Copy, Exp, Multiply, Subtract};
        let (mut graph, sizes) = (Self::default(), Sizes::from(sizes));
        let g = &mut graph;
        let [q, y, gy] = [Role::Q, Role::Y, Role::Gy].map(|role| g.heads(role, sizes, sizes.heads));
        let [k, v] = [Role::K, Role::V].map(|role| g.heads_transposed(role, sizes));
        let statistics = g.dense(Role::Statistics, sizes.per_query());
        let [scale, one] = [Role::Scale, Role::One].map(|role| g.number(role));
        let [gk, gv] = [Role::Gk, Role::Gv].map(|role| g.heads(role, sizes, sizes.kv_heads));
        let gq = g.heads(Role::Gq, sizes, sizes.heads);

        let dot = g.apply(Multiply, gy, Some(y));
        let sums = g.inside(sizes.per_query());
        g.nodes.push(Node::Sum { x: dot, y: sums });
        // The pattern has a factor here, for dropout.
        let deltas = g.dense(Role::Deltas, sizes.per_query());
        g.nodes.push(Node::Pointwise { mode: Multiply, x: sums, b: Some(one), y: deltas });

        let scores = g.inside(sizes.scores());
        g.product(q, k, scores);
        let scores = g.apply(Multiply, scores, Some(scale));
        let scores = g.apply(Subtract, scores, Some(statistics));
        let p = g.apply(Exp, scores, None);
        g.product_to_shared(p, gy, gv, sizes);

        let gp = g.inside(sizes.scores());
        g.product(gy, v, gp);
        let gp = g.apply(Subtract, gp, Some(deltas));
        let ds = g.apply(Multiply, gp, Some(p));
        let ds = g.apply(Multiply, ds, Some(scale));
        g.product_to_shared(ds, q, gk, sizes);

        let k = g.flip(k);
        match order {
            SumOrder::Any => {
                let (all, _) = sizes.heads_of(sizes.heads);
                let sums = g.dense(Role::GqSums, all);
                g.product(ds, k, sums);
                g.nodes.push(Node::Pointwise { mode: Copy, x: sums, b: None, y: gq });
            }
            SumOrder::Fixed => g.product(ds, k, gq),
        }
        graph
    }

    /// Tensors outside the graph that only it uses, with their bytes.
    pub(super) fn scratch(&self) -> Vec<(Role, usize)> {
        let bytes = |tensor: &Tensor| {
            let len: i64 = tensor.sizes.iter().product();
            usize::try_from(len).expect("sizes of this machine") * tensor.element.bytes()
        };
        self.tensors
            .iter()
            .filter_map(|tensor| match tensor.place {
                Place::Memory(role @ (Role::Deltas | Role::GqSums)) => Some((role, bytes(tensor))),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
