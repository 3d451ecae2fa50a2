//! Each operation by its definition.

use super::tensor::{Tensor, places};
use super::{index, layout};
use crate::op::{Binary, Comparison, DotAxes, Op, Unary};
use crate::shape::{ElementType, Shape};

/// The result of an operation with one output.
pub(super) fn evaluate(op: &Op, given: &[&Tensor], shape: &Shape) -> Tensor {
    match op {
        Op::Constant(number) => Tensor::filled(shape.clone(), *number),
        Op::Iota(axis) => Tensor::from_places(shape, |place| place[*axis] as f64),
        Op::Unary(op) => each(given, shape, |x| unary(*op, x[0])),
        Op::Binary(op) => each(given, shape, |x| binary(*op, x[0], x[1], shape.element)),
        Op::Compare(comparison) => each(given, shape, |x| compare(*comparison, x[0], x[1])),
        Op::Select => select(given, shape),
        Op::Convert => each(given, shape, |x| match shape.element {
            ElementType::I32 => x[0].trunc(),
            ElementType::Bool => f64::from(u8::from(x[0] != 0.0)),
            _ => x[0],
        }),
        Op::StopGradient | Op::Constrain(_) => given[0].clone(),
        Op::Dot(axes) => dot(given[0], given[1], axes, shape),
        Op::Sum(axes) => reduce(given[0], axes, shape, 0.0, |total, x| total + x),
        Op::Max(axes) => reduce(given[0], axes, shape, f64::NEG_INFINITY, f64::max),
        Op::Broadcast(axes) => layout::broadcast(given[0], axes, shape),
        Op::Reshape => Tensor::new(shape.clone(), given[0].values.clone()),
        Op::Transpose(order) => layout::transpose(given[0], order, shape),
        Op::Slice(ranges) => layout::slice(given[0], ranges, shape),
        Op::Pad(margins) => layout::pad(given[0], margins, shape),
        Op::Concat(axis) => layout::concat(given[0], given[1], *axis, shape),
        Op::Take => index::take(given[0], given[1], shape),
        Op::ScatterAdd => index::scatter_add(given[0], given[1], given[2]),
        Op::TakeAlong => index::take_along(given[0], given[1], shape),
        Op::ScatterAddAlong => index::scatter_add_along(given[0], given[1], given[2]),
        Op::DynamicSlice => index::dynamic_slice(given[0], &given[1..], shape),
        Op::DynamicUpdateSlice => index::dynamic_update_slice(given[0], given[1], &given[2..]),
        Op::Parameter | Op::Scan(_) => unreachable!("not one operation"),
    }
}

fn each(given: &[&Tensor], shape: &Shape, number: impl Fn(&[f64]) -> f64) -> Tensor {
    let values = (0..shape.size()).map(|at| {
        let operands: Vec<f64> = given.iter().map(|tensor| tensor.values[at]).collect();
        number(&operands)
    });
    Tensor::new(shape.clone(), values.collect())
}

fn truth(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Logistic => 1.0 / (1.0 + (-x).exp()),
        Unary::Sine => x.sin(),
        Unary::Cosine => x.cos(),
        Unary::Abs => x.abs(),
        Unary::Floor => x.floor(),
        Unary::IsFinite => truth(x.is_finite()),
        Unary::Not => truth(x == 0.0),
    }
}

fn binary(op: Binary, a: f64, b: f64, element: ElementType) -> f64 {
    // a NaN wins, as it does on devices
    let either = |chosen: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { chosen };
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if element == ElementType::I32 => (a / b).trunc(),
        Binary::Div => a / b,
        Binary::Maximum => either(a.max(b)),
        Binary::Minimum => either(a.min(b)),
        Binary::Pow => a.powf(b),
        Binary::And => truth(a != 0.0 && b != 0.0),
        Binary::Or => truth(a != 0.0 || b != 0.0),
    }
}

#[expect(clippy::float_cmp, reason = "it is what the operation does")]
fn compare(comparison: Comparison, a: f64, b: f64) -> f64 {
    truth(match comparison {
        Comparison::Eq => a == b,
        Comparison::Ne => a != b,
        Comparison::Lt => a < b,
        Comparison::Le => a <= b,
        Comparison::Gt => a > b,
        Comparison::Ge => a >= b,
    })
}

fn select(given: &[&Tensor], shape: &Shape) -> Tensor {
    let condition = given[0];
    let values = (0..shape.size()).map(|at| {
        let decides = if condition.shape.dims.is_empty() { 0 } else { at };
        given[if condition.values[decides] == 0.0 { 2 } else { 1 }].values[at]
    });
    Tensor::new(shape.clone(), values.collect())
}

fn reduce(
    given: &Tensor,
    axes: &[usize],
    shape: &Shape,
    start: f64,
    fold: impl Fn(f64, f64) -> f64,
) -> Tensor {
    let mut result = Tensor::filled(shape.clone(), start);
    for place in places(&given.shape.dims) {
        let kept = place.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        let kept: Vec<usize> = kept.map(|(_, at)| *at).collect();
        let offset = result.offset(&kept);
        result.values[offset] = fold(result.values[offset], given.at(&place));
    }
    result
}

fn dot(lhs: &Tensor, rhs: &Tensor, axes: &DotAxes, shape: &Shape) -> Tensor {
    let left_free = DotAxes::free(lhs.shape.rank(), &axes.lhs_batch, &axes.lhs_contract);
    let right_free = DotAxes::free(rhs.shape.rank(), &axes.rhs_batch, &axes.rhs_contract);
    let summed: Vec<usize> = axes.lhs_contract.iter().map(|axis| lhs.shape.dims[*axis]).collect();
    let batch = axes.lhs_batch.len();
    Tensor::from_places(shape, |place| {
        let (mut left, mut right) = (vec![0; lhs.shape.rank()], vec![0; rhs.shape.rank()]);
        for k in 0..batch {
            left[axes.lhs_batch[k]] = place[k];
            right[axes.rhs_batch[k]] = place[k];
        }
        for (axis, at) in left_free.iter().zip(&place[batch..]) {
            left[*axis] = *at;
        }
        for (axis, at) in right_free.iter().zip(&place[batch + left_free.len()..]) {
            right[*axis] = *at;
        }
        let mut total = 0.0;
        for term in places(&summed) {
            for (k, at) in term.iter().enumerate() {
                left[axes.lhs_contract[k]] = *at;
                right[axes.rhs_contract[k]] = *at;
            }
            total += lhs.at(&left) * rhs.at(&right);
        }
        total
    })
}
