//! SwiGLU, sums, casts, moving rows, embeddings, the loss.

use crate::{
    all, card, close_bf16, close_f32, floats, noise, read_bf16, read_f32, room, size, twice, wide,
};
use coda_cuda::Element;
use half::bf16;

#[test]
fn swiglu_forward_and_backward() {
    for (rows, inner) in [(3, 8), (2, 2056), (size(1, 1, 9), 8 * size(2, 1, 300))] {
        let n = rows * inner;
        let (gate_up, gy) = (noise(2 * n, 1), noise(n, 3));
        let gate_up: Vec<bf16> =
            gate_up.iter().map(|g| bf16::from_f32(f32::from(*g) * 8.0)).collect();
        let (y, g_gate_up) = twice(|card| {
            let (gate_up, gy) = (card.upload(&gate_up).unwrap(), card.upload(&gy).unwrap());
            let (y, back) = (room(card, Element::Bf16, n), room(card, Element::Bf16, 2 * n));
            let gate_up = all::<bf16>(&gate_up);
            card.swiglu(gate_up, inner, all::<bf16>(&y)).unwrap();
            card.swiglu_backward(all::<bf16>(&gy), gate_up, inner, all::<bf16>(&back)).unwrap();
            (read_bf16(card, &y), read_bf16(card, &back))
        });
        let silu = |g: f64| g / (1.0 + (-g).exp());
        let slope = |g: f64| {
            let s = 1.0 / (1.0 + (-g).exp());
            s + g * s * (1.0 - s)
        };
        let (gate_up, gy) = (wide(&gate_up), wide(&gy));
        let (mut right, mut back) = (Vec::new(), Vec::new());
        for (row, gy) in gate_up.chunks_exact(2 * inner).zip(gy.chunks_exact(inner)) {
            let (gate, up) = row.split_at(inner);
            right.extend((0..inner).map(|i| silu(gate[i]) * up[i]));
            back.extend((0..inner).map(|i| gy[i] * up[i] * slope(gate[i])));
            back.extend((0..inner).map(|i| gy[i] * silu(gate[i])));
        }
        close_bf16(&y, &right, 3e-3);
        close_bf16(&g_gate_up, &back, 3e-3);
    }
}

#[test]
fn casts_round_to_nearest_and_ties_to_even() {
    let mut values: Vec<f32> = (0..3000).map(|i| (i as f32 * 0.37).sin() * 10.0).collect();
    values.extend([
        0.0,
        -0.0,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        f32::MAX,
        f32::INFINITY,
        1e-40,
    ]);
    let found = twice(|card| {
        let (from, into) = (card.upload(&values).unwrap(), room(card, Element::Bf16, values.len()));
        card.round(all::<f32>(&from), all::<bf16>(&into)).unwrap();
        read_bf16(card, &into).into_iter().map(bf16::to_bits).collect::<Vec<_>>()
    });
    let wanted: Vec<u16> = values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
    assert_eq!(found, wanted);
}

#[test]
fn floats_are_added() {
    for n in [1, 5, 1024, 4999] {
        let (into, from) = (floats(&noise(n, 1)), floats(&noise(n, 2)));
        let sum = twice(|card| {
            let (into, from) = (card.upload(&into).unwrap(), card.upload(&from).unwrap());
            card.add_floats(all::<f32>(&into), all::<f32>(&from)).unwrap();
            read_f32(card, &into)
        });
        for ((sum, a), b) in sum.into_iter().zip(&into).zip(&from) {
            assert_eq!(sum, (a + b).to_bits());
        }
    }
}

#[test]
fn rows_are_moved_and_added() {
    let (width, rows) = (40, 11);
    let (x, y) = (noise(rows * width, 1), noise(rows * width, 2));
    let chosen = [7_u32, 0, 10, 3];
    let (gathered, scattered, sum) = twice(|card| {
        let (x, y, indices) =
            (card.upload(&x).unwrap(), card.upload(&y).unwrap(), card.upload(&chosen).unwrap());
        let (out, back) =
            (room(card, Element::Bf16, 4 * width), room(card, Element::Bf16, rows * width));
        let indices = all::<u32>(&indices);
        card.gather(all::<bf16>(&x), indices, width, all::<bf16>(&out)).unwrap();
        card.zero(all::<bf16>(&back)).unwrap();
        card.scatter(all::<bf16>(&out), indices, width, all::<bf16>(&back)).unwrap();
        card.add(all::<bf16>(&x), all::<bf16>(&y)).unwrap();
        (read_bf16(card, &out), read_bf16(card, &back), read_bf16(card, &x))
    });
    for (i, row) in chosen.iter().map(|row| *row as usize).enumerate() {
        assert_eq!(gathered[i * width..][..width], x[row * width..][..width]);
    }
    for row in 0..rows {
        let there = chosen.contains(&u32::try_from(row).unwrap());
        for c in row * width..(row + 1) * width {
            assert_eq!(scattered[c], if there { x[c] } else { bf16::ZERO });
        }
    }
    for ((sum, x), y) in sum.iter().zip(&x).zip(&y) {
        assert_eq!(*sum, bf16::from_f32(f32::from(*x) + f32::from(*y)));
    }
}

#[test]
fn the_gradient_of_embeddings_is_summed_by_id() {
    let (width, vocabulary) = (264, 9);
    // Id 4 comes often, as the mask does.
    let ids_at = |token: u32| [4, 4, 1, 4, 4, 8, 4, 4, 1, 4][token as usize % 10];
    let ids: Vec<u32> = (0..40).map(ids_at).collect();
    let gy = noise(ids.len() * width, 3);
    let distinct = [1_u32, 4, 8];
    let places = |id| (0_u32..40).filter(move |token| ids_at(*token) == id);
    let tokens: Vec<u32> = distinct.into_iter().flat_map(places).collect();
    let starts = [0_u32, 8, 36, 40];
    let grad = twice(|card| {
        let grad = card.upload(&vec![0.25_f32; vocabulary * width]).unwrap();
        let gy = card.upload(&gy).unwrap();
        let (a, b, c) = (
            card.upload(&distinct).unwrap(),
            card.upload(&starts).unwrap(),
            card.upload(&tokens).unwrap(),
        );
        let lists = [all::<u32>(&a), all::<u32>(&b), all::<u32>(&c)];
        card.embedding_backward(all::<bf16>(&gy), lists, width, all::<f32>(&grad)).unwrap();
        read_f32(card, &grad)
    });
    let mut wanted = vec![0.25; vocabulary * width];
    for (token, id) in ids.iter().enumerate() {
        for c in 0..width {
            wanted[*id as usize * width + c] += f64::from(f32::from(gy[token * width + c]));
        }
    }
    close_f32(&grad, &wanted, 1e-6);
}

#[test]
fn cross_entropy_and_its_gradient() {
    // A vocabulary that no power of two divides, and one smaller than a block.
    for (n, vocabulary) in [(5, 1009), (3, 40), (size(2, 1, 9), size(3, 2, 5000))] {
        let mut logits: Vec<f32> =
            floats(&noise(n * vocabulary, 1)).iter().map(|x| x * 30.0).collect();
        logits[7] = -1e30;
        let targets: Vec<u32> =
            (0..n).map(|i| u32::try_from(i * 13 % vocabulary).unwrap()).collect();
        let scales: Vec<f32> = (0..n).map(|i| 0.5 + i as f32).collect();
        let (losses, alone, grad) = twice(|card| {
            let (logits, targets, scales) = (
                card.upload(&logits).unwrap(),
                card.upload(&targets).unwrap(),
                card.upload(&scales).unwrap(),
            );
            let (losses, alone) = (room(card, Element::F32, n), room(card, Element::F32, n));
            let grad = room(card, Element::Bf16, n * vocabulary);
            let (l, t, s) = (all::<f32>(&logits), all::<u32>(&targets), all::<f32>(&scales));
            card.cross_entropy(l, t, s, all::<f32>(&losses), Some(all::<bf16>(&grad))).unwrap();
            card.cross_entropy(l, t, s, all::<f32>(&alone), None).unwrap();
            (read_f32(card, &losses), read_f32(card, &alone), read_bf16(card, &grad))
        });
        assert_eq!(losses, alone);
        let (mut wanted, mut wanted_grad) = (Vec::new(), Vec::new());
        for (i, row) in logits.chunks_exact(vocabulary).enumerate() {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            let log_sum = most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
            wanted.push(log_sum - row[targets[i] as usize]);
            wanted_grad.extend(row.iter().enumerate().map(|(v, x)| {
                let hit = f64::from(u8::from(v == targets[i] as usize));
                ((x - log_sum).exp() - hit) * f64::from(scales[i])
            }));
        }
        close_f32(&losses, &wanted, 1e-6);
        close_bf16(&grad, &wanted_grad, 3e-3);
    }
}

#[test]
fn sizes_that_no_kernel_takes_are_refused() {
    let card = card();
    let x = room(&card, Element::Bf16, 12);
    assert!(card.add(all::<bf16>(&x), all::<bf16>(&x)).unwrap_err().to_string().contains("of 8"));
    let y = room(&card, Element::Bf16, 16);
    assert!(card.swiglu(all::<bf16>(&x), 8, all::<bf16>(&y)).is_err());
}
