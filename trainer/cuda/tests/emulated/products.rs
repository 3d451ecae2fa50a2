//! Products: that cuBLASLt is asked for what is meant.

use crate::{all, card, close_bf16, close_f32, noise, read_bf16, read_f32, room, size, wide};
use coda_cuda::{Card, Element, Order, Product};
use half::bf16;

fn stored(
    values: &[f64],
    order: Order,
    height: usize,
    width: usize,
) -> impl Fn(usize, usize) -> f64 {
    move |i, j| match order {
        Order::Plain => values[i * width + j],
        Order::Transposed => values[j * height + i],
    }
}

#[test]
fn products_of_all_orders_agree_with_plain_loops() {
    let card = card();
    let drawn = [8 * size(1, 1, 20), 8 * size(2, 1, 20), 8 * size(3, 1, 40)];
    for [rows, columns, inner] in [[24, 16, 40], drawn] {
        agree(&card, rows, columns, inner);
    }
}

fn agree(card: &Card, rows: usize, columns: usize, inner: usize) {
    for (left, right) in [
        (Order::Plain, Order::Plain),
        (Order::Plain, Order::Transposed),
        (Order::Transposed, Order::Plain),
        (Order::Transposed, Order::Transposed),
    ] {
        let product = Product { rows, columns, inner, left, right };
        let (a, b, c) =
            (noise(rows * inner, 1), noise(inner * columns, 2), noise(rows * columns, 3));
        let (aw, bw, cw) = (wide(&a), wide(&b), wide(&c));
        let (at, bt) = (stored(&aw, left, rows, inner), stored(&bw, right, inner, columns));
        let plain: Vec<f64> = (0..rows * columns)
            .map(|n| (0..inner).map(|k| at(n / columns, k) * bt(k, n % columns)).sum())
            .collect();
        let (a, b, c) =
            (card.upload(&a).unwrap(), card.upload(&b).unwrap(), card.upload(&c).unwrap());
        let (a, b) = (all::<bf16>(&a), all::<bf16>(&b));

        let out = room(card, Element::F32, rows * columns);
        card.multiply(product, a, b, None, all::<f32>(&out)).unwrap();
        card.multiply(product, a, b, Some(all::<f32>(&out)), all::<f32>(&out)).unwrap();
        let doubled: Vec<f64> = plain.iter().map(|x| 2.0 * x).collect();
        close_f32(&read_f32(card, &out), &doubled, 1e-6);

        let out = room(card, Element::Bf16, rows * columns);
        card.multiply(product, a, b, Some(all::<bf16>(&c)), all::<bf16>(&out)).unwrap();
        let added: Vec<f64> = plain.iter().zip(&cw).map(|(x, c)| x + c).collect();
        close_bf16(&read_bf16(card, &out), &added, 3e-3);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let card = card();
    let a = card.upload(&noise(64, 1)).unwrap();
    let out = room(&card, Element::F32, 64);
    let product =
        |rows| Product { rows, columns: 8, inner: 8, left: Order::Plain, right: Order::Plain };
    let a = all::<bf16>(&a);
    assert!(card.multiply(product(8), a, a, None, all::<f32>(&out)).is_ok());
    let error = card.multiply(product(9), a, a, None, all::<f32>(&out)).unwrap_err();
    assert!(error.to_string().contains("product: 72 values of F32 wanted"), "{error}");
    assert!(card.multiply(product(8), a, all::<f32>(&out), None, a).is_err());
}
