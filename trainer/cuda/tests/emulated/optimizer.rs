//! The norm and one step of each optimizer.

use crate::{all, close_f32, floats, noise, read_bf16, read_f32, room, size, twice};
use coda_cuda::{AdafactorStep, AdamwStep, Element, FactoredMoments, Parameter};
use half::bf16;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn the_norm_is_summed_in_one_order() {
    let values = floats(&noise(70_001, 1));
    let found = twice(|card| {
        let (x, out) = (card.upload(&values).unwrap(), room(card, Element::F64, 1));
        card.sum_of_squares(all::<f32>(&x), all::<f64>(&out)).unwrap();
        card.read::<f64>(all::<f64>(&out)).unwrap()[0]
    });
    let wanted: f64 = wide(&values).iter().map(|v| v * v).sum();
    assert!((found / wanted - 1.0).abs() < 1e-13, "{found} {wanted}");
}

#[test]
fn adamw_moves_weights_and_their_master() {
    let n = size(1, 1, 2000);
    let (p, g, m) = (floats(&noise(n, 1)), floats(&noise(n, 2)), floats(&noise(n, 3)));
    let v: Vec<f32> = m.iter().map(|m| m * m + 0.01).collect();
    let step = AdamwStep {
        clip: 0.5,
        beta1: [0.9, 0.1],
        beta2: [0.95, 0.05],
        eps: 1e-8,
        step_size: 0.01,
        root_of_correction: 0.7,
        keep: 0.999,
    };
    let run = |with_master: bool| {
        twice(|card| {
            let (master, grad) = (card.upload(&p).unwrap(), card.upload(&g).unwrap());
            let weights = room(card, Element::Bf16, n);
            card.round(all::<f32>(&master), all::<bf16>(&weights)).unwrap();
            let (first, second) = (card.upload(&m).unwrap(), card.upload(&v).unwrap());
            let parameter = Parameter {
                master: with_master.then(|| all::<f32>(&master)),
                weights: all::<bf16>(&weights),
            };
            let moments = [all::<f32>(&first), all::<f32>(&second)];
            card.adamw(parameter, all::<f32>(&grad), moments, &step).unwrap();
            let lists = [&master, &first, &second].map(|block| read_f32(card, block));
            (lists, read_bf16(card, &weights))
        })
    };
    let (mut first, mut second, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let g = f64::from(g[i]) * 0.5;
        first.push(0.9 * f64::from(m[i]) + 0.1 * g);
        second.push(0.95 * f64::from(v[i]) + 0.05 * g * g);
        let root = second[i].sqrt() / 0.7 + 1e-8;
        moved.push(f64::from(p[i]) * 0.999 - 0.01 * first[i] / root);
    }
    let ([master, new_first, new_second], weights) = run(true);
    close_f32(&new_first, &first, 1e-6);
    close_f32(&new_second, &second, 1e-6);
    close_f32(&master, &moved, 1e-6);
    let rounded: Vec<bf16> =
        master.iter().map(|bits| bf16::from_f32(f32::from_bits(*bits))).collect();
    assert_eq!(weights, rounded);
    // The weights began as bf16 values, so that without a master copy the step is the same, rounded.
    let ([untouched, ..], alone) = run(false);
    assert_eq!(alone, rounded);
    assert_eq!(untouched, p.iter().map(|p| p.to_bits()).collect::<Vec<_>>());
}

#[test]
fn adafactor_of_matrices_and_vectors() {
    let (rows, columns) = (size(2, 1, 300), size(3, 1, 300));
    let n = rows * columns;
    let (p, g) = (floats(&noise(n, 1)), floats(&noise(n, 2)));
    let (row, column) = (vec![0.02_f32; rows], vec![0.03_f32; columns]);
    let step =
        AdafactorStep { clip: 0.25, beta2: 0.8, eps: 1e-30, lr: 0.05, threshold: 0.9, keep: 0.99 };
    let (new_row, new_column, master) = twice(|card| {
        let (master, grad) = (card.upload(&p).unwrap(), card.upload(&g).unwrap());
        let (row, column) = (card.upload(&row).unwrap(), card.upload(&column).unwrap());
        let weights = room(card, Element::Bf16, n);
        let parameter =
            Parameter { master: Some(all::<f32>(&master)), weights: all::<bf16>(&weights) };
        let moments = FactoredMoments { row: all::<f32>(&row), column: all::<f32>(&column) };
        card.adafactor_matrix(parameter, all::<f32>(&grad), moments, &step).unwrap();
        (read_f32(card, &row), read_f32(card, &column), read_f32(card, &master))
    });
    let g: Vec<f64> = wide(&g).iter().map(|g| g * 0.25).collect();
    let by_row: Vec<f64> = (0..rows)
        .map(|r| {
            let mean =
                (0..columns).map(|c| g[r * columns + c].powi(2)).sum::<f64>() / columns as f64;
            0.8 * 0.02 + 0.2 * mean
        })
        .collect();
    let by_column: Vec<f64> = (0..columns)
        .map(|c| {
            let mean = (0..rows).map(|r| g[r * columns + c].powi(2)).sum::<f64>() / rows as f64;
            0.8 * 0.03 + 0.2 * mean
        })
        .collect();
    close_f32(&new_row, &by_row, 1e-6);
    close_f32(&new_column, &by_column, 1e-6);
    let mean = by_row.iter().sum::<f64>() / rows as f64;
    let update: Vec<f64> = (0..n)
        .map(|i| g[i] * (mean / by_row[i / columns]).sqrt() / by_column[i % columns].sqrt())
        .collect();
    let moved = |p: &[f32], update: &[f64]| -> Vec<f64> {
        let rms = (update.iter().map(|u| u * u).sum::<f64>() / update.len() as f64).sqrt();
        let size = 0.05 / (rms / 0.9).max(1.0);
        p.iter().zip(update).map(|(p, u)| f64::from(*p) * 0.99 - size * u).collect()
    };
    close_f32(&master, &moved(&p, &update), 1e-6);

    let (p, square) = (&p[..700], vec![0.5_f32; 700]);
    let raw: Vec<f32> = floats(&noise(700, 9));
    let (new_square, master) = twice(|card| {
        let (master, grad) = (card.upload(p).unwrap(), card.upload(&raw).unwrap());
        let square = card.upload(&square).unwrap();
        let weights = room(card, Element::Bf16, 700);
        let parameter =
            Parameter { master: Some(all::<f32>(&master)), weights: all::<bf16>(&weights) };
        card.adafactor_vector(parameter, all::<f32>(&grad), all::<f32>(&square), &step).unwrap();
        (read_f32(card, &square), read_f32(card, &master))
    });
    let g: Vec<f64> = wide(&raw).iter().map(|g| g * 0.25).collect();
    let squares: Vec<f64> = g.iter().map(|g| 0.8 * 0.5 + 0.2 * g * g).collect();
    close_f32(&new_square, &squares, 1e-6);
    let update: Vec<f64> = g.iter().zip(&squares).map(|(g, s)| g / s.sqrt()).collect();
    close_f32(&master, &moved(p, &update), 1e-6);
}
