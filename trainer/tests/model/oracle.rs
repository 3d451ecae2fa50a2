//! Fused operations against the same mathematics in dfdx's own operations: values and gradients.

use coda_random::{Purpose, Stream};
use coda_trainer::ops::{
    Cpu, DfdxTape as _, OwnedTape, Scored, Var, Weight, linear, linear_cross_entropy, rms_norm,
    swiglu,
};
use dfdx::prelude::*;
use std::{cell::RefCell, rc::Rc, sync::Arc};

type Matrix = Tensor<(usize, usize), f32, Cpu>;

const ROWS: usize = 7;

fn values(n: usize, salt: u64) -> Vec<f32> {
    let draws = Stream::new(salt, 0, 0, Purpose::ParameterInit);
    (0..n).map(|i| 2.0 * draws.unit_at(i as u64) as f32 - 1.0).collect()
}

fn weight(values: &[f32], rows: usize, width: usize) -> (Weight, Rc<RefCell<Vec<f32>>>) {
    let grad = Rc::new(RefCell::new(vec![0.0; values.len()]));
    (Weight::new(Arc::new(values.to_vec()), Rc::clone(&grad), rows, width), grad)
}

fn close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() < 2e-6 + 2e-5 * b.abs(), "{what}[{i}]: {a}, dfdx {b}");
    }
}

/// Runs a tape of our operations backwards from `Σ y · pull`.
fn pull_back(mut tape: OwnedTape<f32, Cpu>, y: &Var, pull: Vec<f32>) {
    let y = y.clone();
    tape.add_backward_op(move |_| {
        y.add_grad(pull);
        Ok(())
    });
    Cpu::default().tensor(0.0f32).put_tape(tape).backward();
}

#[test]
fn rms_norm_equals_dfdx() {
    let (d, eps) = (37, 1e-3);
    let (x, w, pull) = (values(ROWS * d, 1), values(d, 2), values(ROWS * d, 3));
    let (ours, w_grad) = weight(&w, 1, d);
    let mut tape = OwnedTape::<f32, Cpu>::default();
    let input = Var::new(x.clone(), ROWS, d);
    let y = rms_norm(&mut tape, &input, &ours, eps);

    let dev = Cpu::default();
    let shape = (ROWS, d);
    let (tx, tp): (Matrix, Matrix) = (dev.tensor((x, shape)), dev.tensor((pull.clone(), shape)));
    let tw: Tensor<(usize,), f32, Cpu> = dev.tensor((w, (d,)));
    let squares = tx.leaky_trace().square().mean::<(usize,), Axis<1>>();
    let scale = (squares + eps).sqrt().recip().broadcast_like::<_, Axis<1>>(&shape);
    let (scale, tape_so_far) = scale.split_tape();
    let normal = scale.put_tape(tape_so_far) * tx.clone();
    let wide = tw.leaky_trace().broadcast_like::<_, Axis<0>>(&shape);
    let expected = normal * wide;
    close("y", y.data(), &expected.as_vec());
    let grads = (expected * tp).sum::<Rank0, _>().backward();
    pull_back(tape, &y, pull);
    close("gx", &input.take_grad(), &grads.get(&tx).as_vec());
    close("gw", &w_grad.borrow(), &grads.get(&tw).as_vec());
}

#[test]
fn swiglu_equals_dfdx() {
    let f = 41;
    let (gate, up, pull) = (values(ROWS * f, 4), values(ROWS * f, 5), values(ROWS * f, 6));
    let mut tape = OwnedTape::<f32, Cpu>::default();
    let (g, u) = (Var::new(gate.clone(), ROWS, f), Var::new(up.clone(), ROWS, f));
    let y = swiglu(&mut tape, &g, &u);

    let dev = Cpu::default();
    let shape = (ROWS, f);
    let tensor = |v: Vec<f32>| -> Matrix { dev.tensor((v, shape)) };
    let (tg, tu, tp) = (tensor(gate), tensor(up), tensor(pull.clone()));
    let expected = tg.leaky_trace().sigmoid() * tg.clone() * tu.clone();
    close("y", y.data(), &expected.as_vec());
    let grads = (expected * tp).sum::<Rank0, _>().backward();
    pull_back(tape, &y, pull);
    close("g_gate", &g.take_grad(), &grads.get(&tg).as_vec());
    close("g_up", &u.take_grad(), &grads.get(&tu).as_vec());
}

#[test]
fn a_linear_map_with_a_residual_equals_dfdx() {
    let (inner, outer) = (19, 23);
    let (x, w) = (values(ROWS * inner, 7), values(outer * inner, 8));
    let (residual, pull) = (values(ROWS * outer, 9), values(ROWS * outer, 10));
    let (ours, w_grad) = weight(&w, outer, inner);
    let mut tape = OwnedTape::<f32, Cpu>::default();
    let (input, base) = (Var::new(x.clone(), ROWS, inner), Var::new(residual.clone(), ROWS, outer));
    let y = linear(&mut tape, &input, &ours, Some(&base));

    let dev = Cpu::default();
    let tx: Matrix = dev.tensor((x, (ROWS, inner)));
    let tw: Matrix = dev.tensor((w, (outer, inner)));
    let tr: Matrix = dev.tensor((residual, (ROWS, outer)));
    let tp: Matrix = dev.tensor((pull.clone(), (ROWS, outer)));
    let turned = tw.leaky_trace().permute::<_, Axes2<1, 0>>();
    let expected = tx.leaky_trace().matmul(turned) + tr.clone();
    close("y", y.data(), &expected.as_vec());
    let grads = (expected * tp).sum::<Rank0, _>().backward();
    pull_back(tape, &y, pull.clone());
    close("gx", &input.take_grad(), &grads.get(&tx).as_vec());
    close("gw", &w_grad.borrow(), &grads.get(&tw).as_vec());
    close("g_residual", &base.take_grad(), &pull);
}

/// Chunks of 512 tokens: more than one, and one that is not full.
#[test]
fn the_chunked_cross_entropy_equals_dfdx_on_all_logits() {
    let (n, d, v) = (700, 11, 29);
    let (x, w) = (values(n * d, 11), values(v * d, 12));
    let draws = Stream::new(13, 0, 0, Purpose::TokenMask);
    let scored: Vec<Scored> = (0..n)
        .filter(|&i| i % 8 != 3)
        .map(|i| Scored {
            output: i,
            row: i / 100,
            target: draws.below_at(i as u64, v as u32),
            weight: 1.0 + (i / 100) as f32,
        })
        .collect();
    assert!(scored.len() > 512);
    let (head, w_grad) = weight(&w, v, d);
    let input = Var::new(x.clone(), n, d);
    let tape = OwnedTape::<f32, Cpu>::default();
    let (loss, row_sums) = linear_cross_entropy(tape, &input, &head, &scored, 7, 700.0);
    assert!((row_sums.iter().sum::<f64>() / 700.0 - f64::from(loss.array())).abs() < 1e-6);

    let dev = Cpu::default();
    let tx: Matrix = dev.tensor((x, (n, d)));
    let tw: Matrix = dev.tensor((w, (v, d)));
    let mut picks = vec![0.0; n * v];
    for token in &scored {
        picks[token.output * v + token.target as usize] = -token.weight / 700.0;
    }
    let picks: Matrix = dev.tensor((picks, (n, v)));
    let turned = tw.leaky_trace().permute::<_, Axes2<1, 0>>();
    let logits = tx.leaky_trace().matmul(turned);
    let expected = (logits.log_softmax::<Axis<1>>() * picks).sum::<Rank0, _>();
    assert!((loss.array() - expected.array()).abs() < 1e-5 * expected.array());
    let grads = expected.backward();
    loss.backward();
    close("gx", &input.take_grad(), &grads.get(&tx).as_vec());
    close("gw", &w_grad.borrow(), &grads.get(&tw).as_vec());
}
