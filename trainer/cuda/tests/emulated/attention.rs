//! Attention by tiles against attention by its definition.

use crate::{all, card, close_bf16, noise, on_card, read_bf16, room, size, twice, wide};
use coda_cuda::{AttentionSizes, Element};
use half::bf16;
use std::collections::BTreeSet;

/// `y`, `gq`, `gk` and `gv`, with `ranges` the keys that a token reads.
fn reference(
    [q, k, v, gy]: [&[f64]; 4],
    sizes: &AttentionSizes,
    ranges: &[[i32; 2]],
) -> [Vec<f64>; 4] {
    let AttentionSizes { rows, len, heads, kv_heads, head } = *sizes;
    let scale = 1.0 / (head as f64).sqrt();
    let [mut y, mut gq] = [0; 2].map(|_| vec![0.0; q.len()]);
    let [mut gk, mut gv] = [0; 2].map(|_| vec![0.0; k.len()]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(ranges.len(), rows * len);
    for (token, range) in ranges.iter().enumerate() {
        let start = token / len * len;
        let range = range.map(|key| start + usize::try_from(key).unwrap());
        for h in 0..heads {
            let at = (token * heads + h) * head;
            let of = |key: usize| (key * kv_heads + h / (heads / kv_heads)) * head;
            let keys: Vec<usize> = (range[0]..range[1]).collect();
            let scores: Vec<f64> = keys
                .iter()
                .map(|&key| dot(&q[at..][..head], &k[of(key)..][..head]) * scale)
                .collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| (s - most).exp() / total).collect();
            for (&key, p) in keys.iter().zip(&p) {
                for c in 0..head {
                    y[at + c] += p * v[of(key) + c];
                }
            }
            let delta = dot(&y[at..][..head], &gy[at..][..head]);
            for (&key, p) in keys.iter().zip(&p) {
                let gs = p * (dot(&gy[at..][..head], &v[of(key)..][..head]) - delta) * scale;
                for c in 0..head {
                    gv[of(key) + c] += p * gy[at + c];
                    gq[at + c] += gs * k[of(key) + c];
                    gk[of(key) + c] += gs * q[at + c];
                }
            }
        }
    }
    [y, gq, gk, gv]
}

fn check(sizes: AttentionSizes, cuts: &[usize]) {
    let AttentionSizes { rows, len, heads, kv_heads, head } = sizes;
    let (n, m) = (rows * len * heads * head, rows * len * kv_heads * head);
    // Larger queries make probabilities that differ.
    let q: Vec<bf16> = noise(n, 1).iter().map(|x| bf16::from_f32(f32::from(*x) * 3.0)).collect();
    let (k, v, gy) = (noise(m, 2), noise(m, 3), noise(n, 4));
    let range = |token: usize| {
        let at = token % len;
        let begin = cuts.iter().copied().filter(|&cut| cut <= at).max().unwrap_or(0);
        let end = cuts.iter().copied().find(|&cut| cut > at).unwrap_or(len);
        [begin, end].map(|key| i32::try_from(key).unwrap())
    };
    let ranges: Vec<[i32; 2]> = (0..rows * len).map(range).collect();
    let found = twice(|card| {
        let block = |values: &[bf16]| card.upload(values).unwrap();
        let (q, k, v, gy) = (block(&q), block(&k), block(&v), block(&gy));
        let table = card.upload(&ranges).unwrap();
        let table = (!cuts.is_empty()).then(|| all::<[i32; 2]>(&table));
        let (y, gq) = (room(card, Element::Bf16, n), room(card, Element::Bf16, n));
        let (gk, gv) = (room(card, Element::Bf16, m), room(card, Element::Bf16, m));
        let inputs = [&q, &k, &v].map(|b| all::<bf16>(b));
        let statistics = card.attention(inputs, &sizes, table, all::<bf16>(&y)).unwrap();
        let inputs = [&q, &k, &v, &y, &gy].map(|b| all::<bf16>(b));
        let outputs = [&gq, &gk, &gv].map(|b| all::<bf16>(b));
        card.attention_backward(inputs, &statistics, &sizes, table, outputs).unwrap();
        [&y, &gq, &gk, &gv].map(|b| read_bf16(card, b))
    });
    let (q, k, v, gy) = (wide(&q), wide(&k), wide(&v), wide(&gy));
    let wanted = reference([&q, &k, &v, &gy], &sizes, &ranges);
    for (found, wanted) in found.iter().zip(&wanted) {
        if wanted.iter().all(|x| x.abs() < 1e-12) {
            // A token that reads itself alone sends nothing back to queries and keys.
            assert!(found.iter().all(|x| f32::from(*x).abs() < 0.01));
            continue;
        }
        // Probabilities are rounded to bf16 before the second product, as in every such kernel.
        close_bf16(found, wanted, 8e-3);
    }
}

#[test]
fn whole_rows_of_many_lengths() {
    let sizes = |len, heads, kv_heads, head| AttentionSizes { rows: 1, len, heads, kv_heads, head };
    check(sizes(64, 1, 1, 64), &[]);
    check(sizes(1, 2, 1, 64), &[]);
    check(sizes(150, 2, 1, 64), &[]);
    check(AttentionSizes { rows: 2, ..sizes(77, 2, 2, 128) }, &[]);
    check(sizes(129, 4, 2, 128), &[]);
}

#[test]
fn segments_of_many_lengths() {
    let sizes = AttentionSizes { rows: 2, len: 150, heads: 2, kv_heads: 1, head: 64 };
    check(sizes, &[75]);
    check(sizes, &[1, 2, 3, 64, 128, 149]);
    check(AttentionSizes { head: 128, ..sizes }, &[10, 100]);
}

#[test]
fn some_queries_of_a_row_read_all_of_its_keys() {
    for (len, from, queries, head) in [(150, 130, 20, 64), (77, 0, 1, 128), (300, 5, 140, 64)] {
        let sizes = AttentionSizes { rows: 1, len, heads: 4, kv_heads: 2, head };
        let (width, kv_width) = (4 * head, 2 * head);
        let (q, k, v) = (noise(len * width, 1), noise(len * kv_width, 2), noise(len * kv_width, 3));
        let found = twice(|card| {
            let block = |values: &[bf16]| card.upload(values).unwrap();
            let (part, k, v) = (block(&q[from * width..][..queries * width]), block(&k), block(&v));
            let y = room(card, Element::Bf16, queries * width);
            let inputs = [&part, &k, &v].map(|b| all::<bf16>(b));
            card.attention_of(inputs, &sizes, queries, all::<bf16>(&y)).unwrap();
            read_bf16(card, &y)
        });
        let ranges = vec![[0, i32::try_from(len).unwrap()]; len];
        let zeros = vec![0.0; len * width];
        let [y, ..] = reference([&wide(&q), &wide(&k), &wide(&v), &zeros], &sizes, &ranges);
        close_bf16(&found, &y[from * width..][..queries * width], 8e-3);
    }
}

#[test]
fn sizes_that_are_drawn() {
    let longest = if on_card() { 900 } else { 200 };
    for seed in 0..2 {
        let kv_heads = size(10 + seed, 1, 3);
        let sizes = AttentionSizes {
            rows: size(20 + seed, 1, 2),
            len: size(30 + seed, 2, longest),
            heads: kv_heads * size(40 + seed, 1, 3),
            kv_heads,
            head: 64 * size(50 + seed, 1, 2),
        };
        check(sizes, &[]);
        let cut = |n| size(60 + 4 * seed + n, 1, sizes.len - 1);
        let cuts: BTreeSet<usize> = (0..4).map(cut).collect();
        let cuts: Vec<usize> = cuts.into_iter().collect();
        check(sizes, &cuts);
    }
}

#[test]
fn heads_of_other_widths_are_refused() {
    let card = card();
    let x = room(&card, Element::Bf16, 32);
    let x = all::<bf16>(&x);
    let sizes = AttentionSizes { rows: 1, len: 1, heads: 1, kv_heads: 1, head: 32 };
    let error = card.attention([x, x, x], &sizes, None, x).unwrap_err();
    assert!(error.to_string().contains("heads of 64 and 128"), "{error}");
}
