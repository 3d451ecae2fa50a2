//! Matrix products: a checked face for the `gemm` crate.

use gemm::Parallelism;
use multiversion::multiversion;
use rayon::prelude::*;

/// A matrix in a slice, by strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix in a slice, row-major with a row stride, to be written.
#[derive(Debug)]
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

fn inside(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

impl<'a> View<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(inside(data.len(), rows, cols, row_stride, 1), "a view must lie in its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(crate) const fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Some columns, which must be there.
    fn columns(self, first: usize, cols: usize) -> Self {
        Self { data: &self.data[first * self.col_stride..], cols, ..self }
    }
}

impl<'a> ViewMut<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    pub(crate) fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        assert!(inside(data.len(), rows, cols, row_stride, 1), "a view must lie in its slice");
        assert!(row_stride >= cols, "rows of an output must not overlap");
        Self { data, rows, cols, row_stride }
    }

    /// Some columns, which must be there.
    fn columns(&mut self, first: usize, cols: usize) -> ViewMut<'_> {
        ViewMut { data: &mut self.data[first..], cols, ..*self }
    }

    /// To be read.
    const fn view(&self) -> View<'_> {
        let Self { ref data, rows, cols, row_stride } = *self;
        View { data, rows, cols, row_stride, col_stride: 1 }
    }
}

/// `out = scale · a · b`, or `out += scale · a · b` when `accumulate`.
///
/// `threads` is 1 inside work that is already parallel. The result does not depend on it: threads
/// divide rows and columns of `out`, never the inner sum.
#[allow(clippy::needless_pass_by_value, reason = "the output is consumed, like any mutable borrow")]
pub(crate) fn matmul(
    mut out: ViewMut<'_>,
    accumulate: bool,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    threads: usize,
) {
    assert_eq!((a.rows, b.cols), (out.rows, out.cols), "shape of the product");
    assert_eq!(a.cols, b.rows, "inner width of the product");
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    // The kernels want `out`, or its transpose, to be contiguous where the left factor is, and copy that
    // factor where it lies otherwise: for `a · bᵀ` all of `b`. With few rows that takes longer than the
    // product, and the transpose of `out` is less to copy.
    if b.row_stride == 1 && b.col_stride > 1 && out.rows <= a.cols / FEW {
        turned(&mut out, accumulate, a, b, scale, threads);
    } else {
        product(&mut out, accumulate, a, b, scale, threads);
    }
}

/// A product has few rows when they are at most one for so many of its inner sums' terms.
const FEW: usize = 2;

/// Elements of the transpose that are held at a time.
const HELD: usize = 1 << 20;

/// [`product`] by way of the transpose of `out`, some columns at a time. The same bits.
fn turned(
    out: &mut ViewMut<'_>,
    accumulate: bool,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    threads: usize,
) {
    let rows = out.rows;
    let step = (HELD / rows).next_multiple_of(SQUARE).min(out.cols);
    let mut held = vec![0.0; step * rows];
    for first in (0..out.cols).step_by(step) {
        let cols = step.min(out.cols - first);
        let held = &mut held[..cols * rows];
        let (mut out, b) = (out.columns(first, cols), b.columns(first, cols));
        if accumulate {
            turn(&mut ViewMut::new(held, cols, rows), out.view(), threads);
        }
        product(&mut ViewMut::new(held, cols, rows), accumulate, b.t(), a.t(), scale, threads);
        turn(&mut out, View::new(held, cols, rows), threads);
    }
}

/// Side of the squares that are transposed in registers and in the nearest cache.
const SQUARE: usize = 16;

/// Elements that are worth a thread.
const SHARE: usize = 1 << 15;

/// `out = aᵀ`; `a` is row-major.
pub(super) fn turn(out: &mut ViewMut<'_>, a: View<'_>, threads: usize) {
    let (cols, stride) = (out.cols, out.row_stride);
    if out.rows == 0 || cols == 0 {
        return;
    }
    let shares = (out.rows * cols / SHARE).clamp(1, threads.max(1));
    let share = out.rows.div_ceil(shares).next_multiple_of(SQUARE);
    let data = &mut out.data[..(out.rows - 1) * stride + cols];
    if shares == 1 {
        turn_rows(data, stride, cols, a, 0);
    } else {
        let parts = data.par_chunks_mut(share * stride).enumerate();
        parts.for_each(|(part, data)| turn_rows(data, stride, cols, a, part * share));
    }
}

/// Rows of the transpose, from `first` on.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn turn_rows(out: &mut [f32], stride: usize, cols: usize, a: View<'_>, first: usize) {
    for (some, out) in out.chunks_mut(SQUARE * stride).enumerate() {
        let (from, wide) = (first + some * SQUARE, out.len().div_ceil(stride));
        for at in (0..cols).step_by(SQUARE) {
            let high = SQUARE.min(cols - at);
            let mut square = [[0.0; SQUARE]; SQUARE];
            for (row, values) in square.iter_mut().take(high).enumerate() {
                values[..wide].copy_from_slice(&a.data[(at + row) * a.row_stride + from..][..wide]);
            }
            for (col, out) in out.chunks_mut(stride).enumerate() {
                for (row, out) in out[at..at + high].iter_mut().enumerate() {
                    *out = square[row][col];
                }
            }
        }
    }
}

/// One product by the crate.
fn product(
    out: &mut ViewMut<'_>,
    accumulate: bool,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    threads: usize,
) {
    let parallelism = if threads <= 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let stride = |s: usize| isize::try_from(s).expect("a stride fits in isize");
    // SAFETY: the constructors of the views, of which these may be some columns, have checked that every
    // element addressed by rows, columns and strides lies inside its slice; `out` is borrowed mutably, so it overlaps neither
    // input; its rows do not overlap.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            stride(out.row_stride),
            accumulate,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{View, ViewMut, matmul, product, turned};
    use proptest::prelude::*;

    type Way = fn(&mut ViewMut<'_>, bool, View<'_>, View<'_>, f32, usize);

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + salt * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn equals_three_loops(
            m in 1usize..40, n in 1usize..40, k in 1usize..40, transposed: bool, accumulate: bool,
        ) {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let mut out = values(m * n, 3);
            let mut expected: Vec<f64> =
                out.iter().map(|&x| if accumulate { f64::from(x) } else { 0.0 }).collect();
            for i in 0..m {
                for j in 0..n {
                    for l in 0..k {
                        let right = if transposed { b[j * k + l] } else { b[l * n + j] };
                        expected[i * n + j] += 0.5 * f64::from(a[i * k + l]) * f64::from(right);
                    }
                }
            }
            let right = if transposed { View::new(&b, n, k).t() } else { View::new(&b, k, n) };
            matmul(ViewMut::new(&mut out, m, n), accumulate, View::new(&a, m, k), right, 0.5, 2);
            for (got, want) in out.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} {}", got, want);
            }
        }
    }

    #[test]
    fn threads_and_neighbours_change_no_bit() {
        for (m, n, k) in [(300, 96, 257), (64, 1000, 33), (7, 5, 600), (513, 128, 256)] {
            let (a, b) = (values(m * k, 4), values(k * n, 5));
            let run = |rows: usize, threads| {
                let mut out = vec![0.0; rows * n];
                let a = View::new(&a[..rows * k], rows, k);
                matmul(
                    ViewMut::new(&mut out, rows, n),
                    false,
                    a,
                    View::new(&b, k, n),
                    1.0,
                    threads,
                );
                out
            };
            let whole = run(m, 1);
            assert_eq!(whole, run(m, 2));
            assert_eq!(whole, run(m, 5));
            // Fewer rows: the rows that remain keep their bits.
            assert_eq!(whole[..m / 3 * n], run(m / 3, 2)[..]);
        }
    }

    #[test]
    fn the_way_by_the_transpose_changes_no_bit() {
        for (m, n, k) in [
            (1, 1, 2),
            (1, 700, 300),
            (2, 17, 5),
            (3, 33, 64),
            (9, 1000, 256),
            (16, 16, 16),
            (17, 640, 3000),
            (40, 31, 1),
            (128, 9000, 257),
            (200, 515, 4096),
        ] {
            let (a, b) = (values(m * k, 4), values(n * k, 5));
            let (a, b) = (View::new(&a, m, k), View::new(&b, n, k).t());
            for accumulate in [false, true] {
                // Rows of the output may have something between them, which stays.
                for stride in [n, n + 3] {
                    let run = |way: Way, threads| {
                        let mut out = values((m - 1) * stride + n, 6);
                        way(
                            &mut ViewMut::strided(&mut out, m, n, stride),
                            accumulate,
                            a,
                            b,
                            0.5,
                            threads,
                        );
                        out
                    };
                    let want = run(product, 1);
                    assert_eq!(run(turned, 1), want, "{m}, {n}, {k}");
                    assert_eq!(run(turned, 3), want, "{m}, {n}, {k}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "must lie in its slice")]
    fn a_view_past_its_slice_is_refused() {
        let _ = View::strided(&[0.0; 10], 3, 4, 4);
    }
}
