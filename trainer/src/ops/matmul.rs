//! Matrix products: a checked face for the `gemm` crate.

use gemm::Parallelism;

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
}

/// `out = scale · a · b`, or `out += scale · a · b` when `accumulate`.
///
/// `threads` is 1 inside work that is already parallel. The result does not depend on it: threads
/// divide rows and columns of `out`, never the inner sum.
#[allow(clippy::needless_pass_by_value, reason = "the output is consumed, like any mutable borrow")]
pub(crate) fn matmul(
    out: ViewMut<'_>,
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
    let parallelism = if threads <= 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let stride = |s: usize| isize::try_from(s).expect("a stride fits in isize");
    // SAFETY: the constructors of the views have checked that every element addressed by rows,
    // columns and strides lies inside its slice; `out` is borrowed mutably, so it overlaps neither
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
    use super::{View, ViewMut, matmul};
    use proptest::prelude::*;

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
    #[should_panic(expected = "must lie in its slice")]
    fn a_view_past_its_slice_is_refused() {
        let _ = View::strided(&[0.0; 10], 3, 4, 4);
    }
}
