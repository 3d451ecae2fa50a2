//! Linear maps of few rows, for sampling: a block's positions, or one.
//!
//! A general product first copies the weights into the order that its kernel wants. For few rows that
//! takes longer than the product. Here every weight is read once for a tile of rows, where it lies.

use super::{Tape, Var, Weight};
use multiversion::multiversion;
use rayon::prelude::*;

/// Lanes of every sum. Part of the result.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// Rows of `x` that stay in a near cache while the weights pass by.
const BLOCK: usize = 36;

/// Multiplications that are not worth a second thread.
const ALONE: usize = 1 << 22;

/// What [`linear`](super::linear()) computes, without a backward pass. A row of the result does not depend
/// on the other rows, to the bit; it may differ from `linear`'s by rounding.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn linear_of_few<T: Tape>(
    _: &mut T,
    x: &Var,
    weight: &Weight,
    residual: Option<&Var>,
) -> Var {
    let (rows, inner, outer) = (x.rows, weight.width, weight.rows);
    assert_eq!(x.width, inner, "input width of a linear map");
    // One row alone would not be made vectors of: it goes through twice.
    let twice = (rows == 1).then(|| x.data.repeat(2));
    let values = twice.as_deref().unwrap_or_else(|| x.data());
    let n = values.len() / inner;
    // The product's transpose, so that threads can share its rows.
    let mut columns = vec![0.0; outer * n];
    if n > 0 && n * inner * outer > ALONE {
        let share = outer.div_ceil(rayon::current_num_threads()).next_multiple_of(2);
        columns
            .par_chunks_mut(share * n)
            .zip(weight.data.par_chunks(share * inner))
            .for_each(|(columns, weight)| products(columns, values, weight, inner));
    } else {
        products(&mut columns, values, &weight.data, inner);
    }
    let mut y = residual.map_or_else(|| vec![0.0; rows * outer], |r| r.data.to_vec());
    // Turned a few rows at a time, so that what is read and what is written stays near.
    for (block, y) in y.chunks_mut(LANES * outer).enumerate() {
        let some = block * LANES..block * LANES + y.len() / outer;
        for (at, column) in columns.chunks_exact(n).enumerate() {
            for (y, value) in y[at..].iter_mut().step_by(outer).zip(&column[some.clone()]) {
                *y += value;
            }
        }
    }
    Var::new(y, rows, outer)
}

/// `columns` `[outer, n]` `= weight` `[outer, inner]` `· xᵀ`, `x` `[n, inner]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn products(columns: &mut [f32], x: &[f32], weight: &[f32], inner: usize) {
    let n = x.len() / inner;
    for (block, x) in x.chunks(BLOCK * inner).enumerate() {
        for (pair, weight) in weight.chunks(2 * inner).enumerate() {
            let columns = &mut columns[pair * 2 * n..];
            let (mut at, mut rest) = (block * BLOCK, x);
            while !rest.is_empty() {
                // Tiles of at most three rows, as equal as can be.
                let rows = rest.len() / inner;
                let height = rows.div_ceil(rows.div_ceil(3));
                let (x, later) = rest.split_at(height * inner);
                match (weight.len() / inner, height) {
                    (2, 3) => tile::<2, 3>(columns, n, at, x, weight, inner),
                    (2, 2) => tile::<2, 2>(columns, n, at, x, weight, inner),
                    (2, _) => tile::<2, 1>(columns, n, at, x, weight, inner),
                    (_, 3) => tile::<1, 3>(columns, n, at, x, weight, inner),
                    (_, 2) => tile::<1, 2>(columns, n, at, x, weight, inner),
                    (_, _) => tile::<1, 1>(columns, n, at, x, weight, inner),
                }
                (at, rest) = (at + height, later);
            }
        }
    }
}

/// `W` rows of the weight times `R` rows of `x`, to the places from `at` on of `W` columns.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn tile<const W: usize, const R: usize>(
    columns: &mut [f32],
    n: usize,
    at: usize,
    x: &[f32],
    weight: &[f32],
    inner: usize,
) {
    let (chunks, whole) = (inner / LANES, inner / LANES * LANES);
    let mut weights: [&[Lanes]; W] = [&[]; W];
    let mut xs: [&[Lanes]; R] = [&[]; R];
    for w in 0..W {
        weights[w] = weight[w * inner..][..whole].as_chunks().0;
    }
    for r in 0..R {
        xs[r] = x[r * inner..][..whole].as_chunks().0;
    }
    let mut sums = [[[0.0_f32; LANES]; R]; W];
    for chunk in 0..chunks {
        for w in 0..W {
            let weight = &weights[w][chunk];
            for r in 0..R {
                sums[w][r] = plus_product(sums[w][r], weight, &xs[r][chunk]);
            }
        }
    }
    for w in 0..W {
        for r in 0..R {
            let mut rest = 0.0;
            for i in whole..inner {
                rest += weight[w * inner + i] * x[r * inner + i];
            }
            columns[w * n + at + r] = folded(sums[w][r]) + rest;
        }
    }
}

/// `sums + a · b`, lane by lane. A function of its own, because the compiler makes vectors of that, and
/// not of the same loop in the middle of the others.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn plus_product(mut sums: Lanes, a: &Lanes, b: &Lanes) -> Lanes {
    for lane in 0..LANES {
        sums[lane] += a[lane] * b[lane];
    }
    sums
}

/// The sum of the lanes, halves on halves.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn folded(mut lanes: Lanes) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::linear_of_few;
    use crate::ops::{NoneTape, Var, Weight, linear};
    use std::{cell::RefCell, rc::Rc, sync::Arc};

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + salt * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    fn weight(outer: usize, inner: usize) -> Weight {
        let data = Arc::new(values(outer * inner, 2));
        Weight::new(data, Rc::new(RefCell::default()), outer, inner)
    }

    #[test]
    fn it_is_the_general_product_but_for_rounding() {
        // Odd and even numbers of weights, inner widths with a rest, more rows than a block.
        for (outer, inner) in [(1, 5), (2, 16), (7, 33), (64, 48), (129, 200)] {
            let weight = weight(outer, inner);
            for n in [0, 1, 2, 3, 4, 5, 7, 9, 40] {
                let x = Var::new(values(n * inner, 1), n, inner);
                let residual = (n % 2 == 1).then(|| Var::new(values(n * outer, 3), n, outer));
                let got = linear_of_few(&mut NoneTape, &x, &weight, residual.as_ref());
                let want = linear(&mut NoneTape, &x, &weight, residual.as_ref());
                for (got, want) in got.data().iter().zip(want.data()) {
                    assert!((got - want).abs() < 1e-4, "{n}x{inner}x{outer}: {got}, {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_company_and_on_any_number_of_threads() {
        // Large enough to be shared among threads when all rows go through together.
        let (n, inner, outer) = (40, 256, 515);
        let (weight, x) = (weight(outer, inner), values(n * inner, 4));
        let all = linear_of_few(&mut NoneTape, &Var::new(x.clone(), n, inner), &weight, None);
        for (row, wanted) in all.data().chunks_exact(outer).enumerate() {
            let x = Var::new(x[row * inner..][..inner].to_vec(), 1, inner);
            let alone = linear_of_few(&mut NoneTape, &x, &weight, None);
            assert_eq!(alone.data(), wanted, "row {row}");
        }
    }
}
