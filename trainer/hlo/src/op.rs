//! The operations that a node can be.

use crate::graph::{Graph, Value};
use crate::sharding::Sharding;
use std::ops::Range;

/// An operation on one value, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Logistic,
    Sine,
    Cosine,
    Abs,
    Floor,
    IsFinite,
    Not,
}

/// An operation on two values of one shape, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    Pow,
    And,
    Or,
}

/// How two elements are compared. With a NaN only [`Comparison::Ne`] is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// Which way a scan goes over the leading axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first slice on.
    Forward,
    /// From the last slice back.
    Reverse,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// Which axes of two operands a dot product pairs and sums over. The result has the batch axes, then
/// the other axes of the left operand, then those of the right one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DotAxes {
    /// Batch axes of the left operand.
    pub lhs_batch: Vec<usize>,
    /// Their partners on the right.
    pub rhs_batch: Vec<usize>,
    /// Axes of the left operand that are summed over.
    pub lhs_contract: Vec<usize>,
    /// Their partners on the right.
    pub rhs_contract: Vec<usize>,
}

impl DotAxes {
    /// No batch, one pair of axes summed over: `contract(1, 0)` is the product of two matrices.
    #[must_use]
    pub fn contract(lhs: usize, rhs: usize) -> Self {
        Self { lhs_contract: vec![lhs], rhs_contract: vec![rhs], ..Self::default() }
    }

    /// The axes of an operand of this rank that are neither batch nor contracted, ascending.
    pub(crate) fn free(rank: usize, batch: &[usize], contract: &[usize]) -> Vec<usize> {
        (0..rank).filter(|axis| !batch.contains(axis) && !contract.contains(axis)).collect()
    }
}

/// A loop: the body's parameters are the carries, one slice of each `xs`, the constants. Its outputs
/// are the next carries and what is stacked.
#[derive(Clone, Debug)]
pub(crate) struct ScanOp {
    pub body: Graph,
    pub outputs: Vec<Value>,
    pub carries: usize,
    pub xs: usize,
    pub length: usize,
    pub direction: Direction,
    /// Whether the node's last input says after how many steps to stop.
    pub has_trips: bool,
}

impl ScanOp {
    /// How many stacked outputs the body has.
    pub(crate) fn stacked(&self) -> usize {
        self.outputs.len() - self.carries
    }

    /// How many constants the body has.
    pub(crate) fn constants(&self) -> usize {
        self.body.parameters().len() - self.carries - self.xs
    }
}

/// What a node does with its inputs.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Parameter,
    /// One number everywhere.
    Constant(f64),
    /// The index along an axis.
    Iota(usize),
    Unary(Unary),
    Binary(Binary),
    Compare(Comparison),
    Select,
    Convert,
    StopGradient,
    Dot(DotAxes),
    Sum(Vec<usize>),
    Max(Vec<usize>),
    Broadcast(Vec<usize>),
    Reshape,
    Transpose(Vec<usize>),
    Slice(Vec<Range<usize>>),
    Pad(Vec<(usize, usize)>),
    Concat(usize),
    /// table `[N, D]`, ids `[..]`
    Take,
    /// base `[N, D]`, ids `[..]`, updates `[.., D]`
    ScatterAdd,
    /// values `[G, N, D]`, ids `[G, K]`
    TakeAlong,
    /// base `[G, N, D]`, ids `[G, K]`, updates `[G, K, D]`
    ScatterAddAlong,
    /// operand, one start per axis
    DynamicSlice,
    /// operand, update, one start per axis
    DynamicUpdateSlice,
    Constrain(Sharding),
    /// carries, xs, constants, and the number of steps if there is one
    Scan(Box<ScanOp>),
}
