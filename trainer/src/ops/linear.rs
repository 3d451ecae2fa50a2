//! Linear maps without bias.

use super::{Tape, Var, View, ViewMut, Weight, matmul};
use rayon::current_num_threads;

/// `y = x · Wᵀ (+ residual)`: `x` `[n, in]`, `weight` `[out, in]` (the layout of HF and PyTorch),
/// `residual` and `y` `[n, out]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear<T: Tape>(tape: &mut T, x: &Var, weight: &Weight, residual: Option<&Var>) -> Var {
    let (n, inner, outer) = (x.rows, weight.width, weight.rows);
    assert_eq!(x.width, inner, "input width of a linear map");
    let mut y = residual.map_or_else(|| vec![0.0; n * outer], |r| r.data.to_vec());
    matmul(
        ViewMut::new(&mut y, n, outer),
        residual.is_some(),
        View::new(&x.data, n, inner),
        View::new(&weight.data, outer, inner).t(),
        1.0,
        current_num_threads(),
    );
    let out = Var::new(y, n, outer);
    let (x, weight, residual, y) = (x.clone(), weight.clone(), residual.cloned(), out.clone());
    tape.add_backward_op(move |_| {
        let gy = y.take_grad();
        let threads = current_num_threads();
        let g = View::new(&gy, n, outer);
        matmul(
            ViewMut::new(&mut weight.grad_buffer(), outer, inner),
            true,
            g.t(),
            View::new(&x.data, n, inner),
            1.0,
            threads,
        );
        let (mut gx, holds) = x.grad_buffer();
        let w = View::new(&weight.data, outer, inner);
        matmul(ViewMut::new(&mut gx, n, inner), holds, g, w, 1.0, threads);
        drop(gx);
        if let Some(residual) = residual {
            residual.add_grad(gy);
        }
        Ok(())
    });
    out
}
