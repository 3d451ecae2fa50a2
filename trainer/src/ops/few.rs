//! Linear maps of few rows, for sampling: a block's positions, or one.
//!
//! A general product has a vector's lanes for as many rows, and with fewer some lanes are idle. Here lanes
//! are terms of the inner sum, and every weight is read once for a tile of rows, where it lies.

use super::{Tape, Var, View, ViewMut, Weight, elementwise::add, matmul::turn};
use multiversion::{multiversion, target::target_cfg_f};
use rayon::prelude::*;

/// Lanes of every sum. Part of the result.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// Rows of `x` that stay in a near cache while the weights pass by.
const BLOCK: usize = 36;

/// Multiplications that are worth a thread.
const SHARE: usize = 1 << 17;

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
    let shares = (n * inner * outer / SHARE).min(rayon::current_num_threads());
    if shares > 1 {
        let share = outer.div_ceil(shares).next_multiple_of(4);
        columns
            .par_chunks_mut(share * n)
            .zip(weight.data.par_chunks(share * inner))
            .for_each(|(columns, weight)| products(columns, values, weight, inner));
    } else {
        products(&mut columns, values, &weight.data, inner);
    }
    let mut y = vec![0.0; n * outer];
    turn(&mut ViewMut::new(&mut y, n, outer), View::new(&columns, outer, n), shares);
    y.truncate(rows * outer);
    if let Some(residual) = residual {
        add(&mut y, residual.data());
    }
    Var::new(y, rows, outer)
}

/// `columns` `[outer, n]` `= weight` `[outer, inner]` `· xᵀ`, `x` `[n, inner]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn products(columns: &mut [f32], x: &[f32], weight: &[f32], inner: usize) {
    // As many sums as there are registers for.
    if target_cfg_f!(target_feature = "avx512f") {
        tiles::<4, 4>(columns, x, weight, inner);
    } else {
        tiles::<2, 3>(columns, x, weight, inner);
    }
}

/// [`products`] in tiles of `W` rows of the weight and at most `R` rows of `x`, as equal as can be.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn tiles<const W: usize, const R: usize>(
    columns: &mut [f32],
    x: &[f32],
    weight: &[f32],
    inner: usize,
) {
    let n = x.len() / inner;
    for (block, x) in x.chunks(BLOCK * inner).enumerate() {
        for (some, weight) in weight.chunks(W * inner).enumerate() {
            let columns = &mut columns[some * W * n..];
            let (mut at, mut rest) = (block * BLOCK, x);
            while !rest.is_empty() {
                let rows = rest.len() / inner;
                let height = rows.div_ceil(rows.div_ceil(R));
                let (x, later) = rest.split_at(height * inner);
                if weight.len() == W * inner {
                    match height {
                        1 => tile::<W, 1>(columns, n, at, x, weight, inner),
                        2 => tile::<W, 2>(columns, n, at, x, weight, inner),
                        3 => tile::<W, 3>(columns, n, at, x, weight, inner),
                        _ => tile::<W, R>(columns, n, at, x, weight, inner),
                    }
                } else {
                    for (w, weight) in weight.chunks(inner).enumerate() {
                        for (r, x) in x.chunks(inner).enumerate() {
                            tile::<1, 1>(&mut columns[w * n..], n, at + r, x, weight, inner);
                        }
                    }
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
    const { assert!(W * R <= LANES, "the sums of a tile are folded together") };
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
    let mut all = [[0.0; LANES]; LANES];
    for w in 0..W {
        for r in 0..R {
            all[w * R + r] = sums[w][r];
        }
    }
    let sums = folded(all);
    for w in 0..W {
        for r in 0..R {
            let mut rest = 0.0;
            for i in whole..inner {
                rest += weight[w * inner + i] * x[r * inner + i];
            }
            columns[w * n + at + r] = sums[w * R + r] + rest;
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

/// The sum of each one's lanes, halves on halves. Two vectors are folded into one at a time, so that no
/// lane is idle: what is eight lanes of one and eight of another becomes four of four, and so on. The
/// first halves' order turns the bits of the places around, and so they begin turned.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn folded(all: [Lanes; LANES]) -> Lanes {
    let mut eights = [[0.0; LANES]; 8];
    for i in 0..8 {
        eights[i] = pair::<16>(&all[TURNED[2 * i]], &all[TURNED[2 * i + 1]]);
    }
    let mut fours = [[0.0; LANES]; 4];
    for i in 0..4 {
        fours[i] = pair::<8>(&eights[2 * i], &eights[2 * i + 1]);
    }
    let twos = [pair::<4>(&fours[0], &fours[1]), pair::<4>(&fours[2], &fours[3])];
    pair::<2>(&twos[0], &twos[1])
}

/// The places of a vector with the bits of their numbers turned around.
const TURNED: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];

/// Groups of `WIDTH` lanes of two vectors, each folded to half its width, in turns.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into the versions for each instruction set")]
fn pair<const WIDTH: usize>(a: &Lanes, b: &Lanes) -> Lanes {
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for at in 0..LANES {
        let (group, lane) = (at / WIDTH * WIDTH, at % WIDTH);
        let from = if lane < WIDTH / 2 { a } else { b };
        first[at] = from[group + lane % (WIDTH / 2)];
        second[at] = from[group + lane % (WIDTH / 2) + WIDTH / 2];
    }
    for at in 0..LANES {
        first[at] += second[at];
    }
    first
}

#[cfg(test)]
mod tests {
    use super::{LANES, folded, linear_of_few};
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
        for (outer, inner) in [(1, 5), (2, 16), (4, 16), (7, 33), (64, 48), (129, 200)] {
            let weight = weight(outer, inner);
            for n in [0, 1, 2, 3, 4, 5, 6, 7, 9, 40] {
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
    fn folding_together_is_folding_each() {
        let all: [[f32; LANES]; LANES] =
            std::array::from_fn(|i| std::array::from_fn(|j| ((i * 67 + j * 29) % 97) as f32 / 7.0));
        let alone = all.map(|mut lanes| {
            for width in [8, 4, 2, 1] {
                for lane in 0..width {
                    lanes[lane] += lanes[lane + width];
                }
            }
            lanes[0].to_bits()
        });
        assert_eq!(folded(all).map(f32::to_bits), alone);
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
