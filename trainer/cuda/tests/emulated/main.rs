//! The kernels' own text, run on the CPU by the emulator, held against plain loops in f64. With
//! `CODA_TEST_CARD` set they run on the machine's first card instead; `CODA_TEST_SEED` is a number that
//! gives other values, and other sizes where those are drawn.
//!
//! Every operation runs twice, the threads of its blocks in opposite orders, and must give the same
//! bits: a barrier that is missing, or a sum whose order depends on chance, shows. What a product of
//! bf16 values gives may differ from f64 by the rounding of its result: `2^-9` of its size.

mod attention;
mod cards;
mod norm;
mod optimizer;
mod pointwise;
mod products;
mod streams;

use coda_cuda::{Block, Card, Element, Span, Value};
use half::bf16;

/// Whether a real card is to be used.
fn on_card() -> bool {
    std::env::var_os("CODA_TEST_CARD").is_some()
}

/// A card of the emulator, or the first of this machine.
fn card() -> Card {
    if on_card() {
        return Card::open(0).expect("a card");
    }
    coda_cuda::look_in(coda_cuda_emulator::folder());
    Card::open_with_cache(0, None).expect("the emulator's card")
}

/// Draws that depend on `seed` and on `CODA_TEST_SEED`.
fn draws(seed: u64) -> impl FnMut() -> u64 {
    let told = std::env::var("CODA_TEST_SEED").map_or(0, |text| text.parse().expect("a number"));
    let seed = seed + 1000 * told;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Values in (-1, 1), rounded to bf16, which the references see too.
fn noise(n: usize, seed: u64) -> Vec<bf16> {
    let mut next = draws(seed);
    let unit = |draw: u64| (draw >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    (0..n).map(|_| bf16::from_f64(unit(next()))).collect()
}

/// A size from `from` to `to`.
fn size(seed: u64, from: usize, to: usize) -> usize {
    let mut next = draws(77 + seed);
    next();
    from + usize::try_from(next() >> 20).expect("44 bits") % (to + 1 - from)
}

fn wide(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|v| f64::from(f32::from(*v))).collect()
}

fn floats(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|v| f32::from(*v)).collect()
}

fn all<T: Value>(block: &Block) -> Span<'_> {
    Span::of(block, T::ELEMENT, 0, block.bytes() / T::ELEMENT.bytes()).expect("the whole block")
}

/// Runs `body` with both orders of threads and returns what it gave, which must be the same.
fn twice<T: PartialEq + std::fmt::Debug>(mut body: impl FnMut(&Card) -> T) -> T {
    let card = card();
    let reverse = |order| {
        if !on_card() {
            coda_cuda_emulator::reverse(order);
        }
    };
    reverse(false);
    let forward = body(&card);
    reverse(true);
    let backward = body(&card);
    assert!(forward == backward, "the order of threads decides the result");
    forward
}

fn room(card: &Card, element: Element, n: usize) -> Block {
    card.room(element, n).expect("room")
}

fn read_bf16(card: &Card, block: &Block) -> Vec<bf16> {
    card.read(all::<bf16>(block)).expect("values")
}

fn read_f32(card: &Card, block: &Block) -> Vec<u32> {
    // By their bits, so that they can be compared for equality.
    card.read::<f32>(all::<f32>(block)).expect("values").into_iter().map(f32::to_bits).collect()
}

/// Relative distance in the Euclidean norm.
fn distance(found: impl IntoIterator<Item = f64>, wanted: &[f64]) -> f64 {
    let (mut off, mut size, mut n) = (0.0, 0.0, 0);
    for (found, wanted) in found.into_iter().zip(wanted) {
        off += (found - wanted).powi(2);
        size += wanted.powi(2);
        n += 1;
    }
    assert_eq!(n, wanted.len(), "as many values as wanted");
    assert!(size > 0.0, "there is something to compare");
    (off / size).sqrt()
}

#[track_caller]
fn close_bf16(found: &[bf16], wanted: &[f64], limit: f64) {
    let distance = distance(found.iter().map(|v| f64::from(f32::from(*v))), wanted);
    assert!(distance < limit, "relative distance {distance}");
}

#[track_caller]
fn close_f32(found: &[u32], wanted: &[f64], limit: f64) {
    let distance = distance(found.iter().map(|v| f64::from(f32::from_bits(*v))), wanted);
    assert!(distance < limit, "relative distance {distance}");
}
