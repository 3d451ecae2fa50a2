//! Copies beside work, times, and memory that runs out.

use crate::{all, card, noise, read_bf16};
use coda_cuda::{Element, Order, PinnedBytes, Product, Span};
use half::bf16;

#[test]
fn what_was_sent_is_there_once_it_was_received() {
    let card = card();
    let values = noise(64, 1);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    let mut host = PinnedBytes::new(&card);
    let starts = host.fill(&[&[1, 2, 3], &bytes]).unwrap();
    assert_eq!(starts, [0, 16]);
    let sent = card.send(&host).unwrap();
    card.receive(&sent).unwrap();
    let sum = card.upload(&[bf16::ONE; 64]).unwrap();
    let arrived = Span::of(&sent.block, Element::Bf16, 8, 64).unwrap();
    card.add(all::<bf16>(&sum), arrived).unwrap();
    for (sum, value) in read_bf16(&card, &sum).iter().zip(&values) {
        assert_eq!(*sum, bf16::from_f32(f32::from(*value) + 1.0));
    }
}

#[test]
fn a_card_that_is_full_says_so() {
    let card = card();
    let error = card.room(Element::F32, 1 << 40).unwrap_err();
    assert!(error.to_string().contains("no room for 4398046511104 bytes"), "{error}");
    assert!(error.hint().unwrap().contains("train.micro_batch"));
    // It can go on.
    let x = card.upload(&[1.0_f32; 8]).unwrap();
    assert_eq!(card.read::<f32>(all::<f32>(&x)).unwrap(), [1.0; 8]);
}

#[test]
fn a_timeline_names_what_ran_in_order() {
    let card = card();
    let (a, b) = (card.upload(&[bf16::ONE; 64]).unwrap(), card.upload(&[bf16::ONE; 64]).unwrap());
    let add = || card.add(all::<bf16>(&a), all::<bf16>(&b)).unwrap();
    add();
    card.stream().start_timeline().unwrap();
    card.zero(all::<bf16>(&b)).unwrap();
    add();
    let side = 8;
    let (left, right) = (Order::Plain, Order::Transposed);
    let product = Product { rows: side, columns: side, inner: side, left, right };
    let out = card.room(Element::F32, side * side).unwrap();
    card.multiply(product, all::<bf16>(&a), all::<bf16>(&b), None, all::<f32>(&out)).unwrap();
    let timed = card.stream().stop_timeline().unwrap();
    let names: Vec<&str> = timed.iter().map(|timed| &*timed.name).collect();
    assert_eq!(names, ["zero", "add_into", "product 8x8 . 8x8ᵀ f32"]);
    assert!(timed.iter().all(|timed| timed.seconds > 0.0), "{timed:?}");
    add();
    assert!(card.stream().stop_timeline().unwrap().is_empty(), "it was stopped");
}
