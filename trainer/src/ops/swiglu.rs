//! SwiGLU.

use super::{
    Tape, Var,
    elementwise::{CHUNK, exp},
};
use multiversion::multiversion;
use rayon::prelude::*;

/// `y = silu(gate) · up`, all `[n, F]`.
///
/// # Panics
/// If the shapes differ.
pub fn swiglu<T: Tape>(tape: &mut T, gate: &Var, up: &Var) -> Var {
    assert_eq!((gate.rows, gate.width), (up.rows, up.width), "gate and up");
    let mut y = vec![0.0; gate.data.len()];
    if y.len() <= CHUNK {
        forward(&mut y, &gate.data, &up.data);
    } else {
        y.par_chunks_mut(CHUNK)
            .zip(gate.data.par_chunks(CHUNK))
            .zip(up.data.par_chunks(CHUNK))
            .for_each(|((y, gate), up)| forward(y, gate, up));
    }
    let out = Var::new(y, gate.rows, gate.width);
    let (gate, up, y) = (gate.clone(), up.clone(), out.clone());
    tape.add_backward_op(move |_| {
        let gy = y.take_grad();
        let ((mut g_gate, _), (mut g_up, _)) = (gate.grad_buffer(), up.grad_buffer());
        g_gate
            .par_chunks_mut(CHUNK)
            .zip(g_up.par_chunks_mut(CHUNK))
            .zip(gy.par_chunks(CHUNK))
            .zip(gate.data.par_chunks(CHUNK))
            .zip(up.data.par_chunks(CHUNK))
            .for_each(|((((g_gate, g_up), gy), gate), up)| backward(g_gate, g_up, gy, gate, up));
        Ok(())
    });
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((y, &g), u) in y.iter_mut().zip(gate).zip(up) {
        *y = g / (1.0 + exp(-g)) * u;
    }
}

/// With `s = sigmoid(gate)`: `g_gate += gy · up · (s + gate·s·(1-s))`, `g_up += gy · gate · s`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward(g_gate: &mut [f32], g_up: &mut [f32], gy: &[f32], gate: &[f32], up: &[f32]) {
    let grads = g_gate.iter_mut().zip(g_up.iter_mut()).zip(gy);
    for (((g_gate, g_up), gy), (&g, u)) in grads.zip(gate.iter().zip(up)) {
        let s = 1.0 / (1.0 + exp(-g));
        let silu = g * s;
        *g_gate += gy * u * (s + silu * (1.0 - s));
        *g_up += gy * silu;
    }
}
