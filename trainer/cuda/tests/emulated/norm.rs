//! RMSNorm over rows and over heads.

use crate::{all, close_bf16, close_f32, noise, read_bf16, read_f32, room, size, twice, wide};
use coda_cuda::{Columns, Element, RopeTables};
use half::bf16;

const EPS: f64 = 1e-6;

/// `y`, `gx` and `g_weight` of one norm by its definition, over rows of `weight`'s width.
fn reference(x: &[f64], weight: &[f64], gy: &[f64]) -> [Vec<f64>; 3] {
    let d = weight.len();
    let (mut y, mut gx, mut gw) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; d]);
    for (row, x) in x.chunks_exact(d).enumerate() {
        let at = row * d;
        let s = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / d as f64 + EPS).sqrt();
        let m = (0..d).map(|i| gy[at + i] * weight[i] * x[i]).sum::<f64>() / d as f64;
        for i in 0..d {
            y[at + i] = x[i] * s * weight[i];
            gx[at + i] = s * (gy[at + i] * weight[i] - x[i] * m * s * s);
            gw[i] += gy[at + i] * x[i] * s;
        }
    }
    [y, gx, gw]
}

#[test]
fn rows_of_many_widths_forward_and_backward() {
    let drawn = (size(1, 1, 60), 8 * size(2, 1, 1024));
    for (rows, width) in [(1, 8), (37, 64), (19, 2048), (5, 2056), (3, 6144), drawn] {
        let (x, w, gy, old) = (
            noise(rows * width, 1),
            noise(width, 2),
            noise(rows * width, 3),
            noise(rows * width, 4),
        );
        let (y, gx, fresh, gw) = twice(|card| {
            let block = |values: &[bf16]| card.upload(values).unwrap();
            let (x, w, gy) = (block(&x), block(&w), block(&gy));
            let (y, scales) =
                (room(card, Element::Bf16, rows * width), room(card, Element::F32, rows));
            let (x, w, gy) = (all::<bf16>(&x), all::<bf16>(&w), all::<bf16>(&gy));
            card.rms_norm(x, w, 1e-6, all::<bf16>(&y), all::<f32>(&scales)).unwrap();
            let (gx, fresh) = (block(&old), room(card, Element::Bf16, rows * width));
            let gw = card.upload(&vec![1.0_f32; width]).unwrap();
            let unused = room(card, Element::F32, width);
            card.zero(all::<f32>(&unused)).unwrap();
            let scales = all::<f32>(&scales);
            card.rms_norm_backward(gy, x, w, scales, all::<bf16>(&gx), true, all::<f32>(&gw))
                .unwrap();
            card.rms_norm_backward(
                gy,
                x,
                w,
                scales,
                all::<bf16>(&fresh),
                false,
                all::<f32>(&unused),
            )
            .unwrap();
            (
                read_bf16(card, &y),
                read_bf16(card, &gx),
                read_bf16(card, &fresh),
                read_f32(card, &gw),
            )
        });
        let [ry, rgx, rgw] = reference(&wide(&x), &wide(&w), &wide(&gy));
        close_bf16(&y, &ry, 3e-3);
        close_bf16(&fresh, &rgx, 3e-3);
        let added: Vec<f64> = rgx.iter().zip(wide(&old)).map(|(g, old)| g + old).collect();
        close_bf16(&gx, &added, 3e-3);
        let added: Vec<f64> = rgw.iter().map(|g| g + 1.0).collect();
        close_f32(&gw, &added, 1e-5);
    }
}

#[test]
fn heads_are_normed_and_turned() {
    let drawn = (128, size(3, 1, 3), size(4, 1, 40), size(5, 1, 16), 8 * size(6, 0, 20));
    // Heads alone, or behind other columns and before eight more.
    for (head, rows, len, heads, from) in [(64, 2, 13, 3, 0), (128, 2, 13, 3, 136), drawn] {
        let half = head / 2;
        let angle = |p: usize, i: usize| p as f64 / 1e4_f64.powf(2.0 * i as f64 / head as f64);
        #[allow(clippy::cast_possible_truncation, reason = "tables are f32")]
        let table = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..len * half).map(|n| f(angle(n / half, n % half)) as f32).collect()
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let n = rows * len * heads * head;
        let (x, w, gy) = (noise(n, 5), noise(head, 6), noise(n, 7));
        let width = if from == 0 { heads * head } else { from + heads * head + 8 };
        let among = |values: &[bf16]| -> Vec<bf16> {
            let mut rows = vec![bf16::from_f32(7.0); rows * len * width];
            for (row, values) in rows.chunks_exact_mut(width).zip(values.chunks_exact(heads * head))
            {
                row[from..][..heads * head].copy_from_slice(values);
            }
            rows
        };
        let (y, gx, gw) = twice(|card| {
            let block = |values: &[bf16]| card.upload(values).unwrap();
            let (x, w, gy) = (block(&among(&x)), block(&w), block(&gy));
            let (cosines, sines) = (card.upload(&cos).unwrap(), card.upload(&sin).unwrap());
            let tables =
                RopeTables { cosines: all::<f32>(&cosines), sines: all::<f32>(&sines), len };
            let (y, gx) = (room(card, Element::Bf16, n), block(&among(&vec![bf16::ZERO; n])));
            let gw = card.upload(&vec![0.5_f32; head]).unwrap();
            let (x, w, gy) = (all::<bf16>(&x), all::<bf16>(&w), all::<bf16>(&gy));
            let x = Columns { matrix: x, width, from };
            card.head_norm_rope(x, w, 1e-6, heads, tables, all::<bf16>(&y)).unwrap();
            card.head_norm_rope_backward(
                gy,
                x,
                w,
                1e-6,
                heads,
                tables,
                all::<bf16>(&gx),
                all::<f32>(&gw),
            )
            .unwrap();
            (read_bf16(card, &y), read_bf16(card, &gx), read_f32(card, &gw))
        });
        let turned = |values: &[f64], sign: f64| -> Vec<f64> {
            let mut out = values.to_vec();
            for (item, out) in out.chunks_exact_mut(head).enumerate() {
                let position = item / heads % len;
                for i in 0..half {
                    let (c, s) = (
                        f64::from(cos[position * half + i]),
                        sign * f64::from(sin[position * half + i]),
                    );
                    let (a, b) = (out[i], out[half + i]);
                    (out[i], out[half + i]) = (a * c - b * s, b * c + a * s);
                }
            }
            out
        };
        let back = turned(&wide(&gy), -1.0);
        let [normed, rgx, rgw] = reference(&wide(&x), &wide(&w), &back);
        close_bf16(&y, &turned(&normed, 1.0), 3e-3);
        // What lies beside is not touched.
        let written: Vec<bf16> = (0..rows * len)
            .flat_map(|token| gx[token * width + from..][..heads * head].to_vec())
            .collect();
        assert!(gx == among(&written));
        close_bf16(&written, &rgx, 3e-3);
        let added: Vec<f64> = rgw.iter().map(|g| g + 0.5).collect();
        close_f32(&gw, &added, 1e-5);
    }
}
