//! The kernels' own text, run on the CPU by the emulator, held against plain loops in f64.
//!
//! Every operation runs twice, the threads of its blocks in opposite orders, and must give the same
//! bits: a barrier that is missing, or a sum whose order depends on chance, shows. What a product of
//! bf16 values gives may differ from f64 by the rounding of its result: `2^-9` of its size.

mod attention;
mod norm;
mod optimizer;
mod pointwise;
mod products;
mod streams;

use coda_cuda::{Block, Card, Element, Span, Value};
use half::bf16;

/// A card of the emulator.
fn card() -> Card {
    coda_cuda::look_in(coda_cuda_emulator::folder());
    Card::open_with_cache(0, None).expect("the emulator's card")
}

/// Deterministic values in (-1, 1), rounded to bf16, which the references see too.
fn noise(n: usize, seed: u64) -> Vec<bf16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bf16::from_f64((state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
    };
    (0..n).map(|_| next()).collect()
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
    coda_cuda_emulator::reverse(false);
    let forward = body(&card);
    coda_cuda_emulator::reverse(true);
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
