//! Rows that need no shard set, and what a learner holds.

use coda_trainer::{
    engine::{Batch, Learner},
    model::Params,
    optim::Optimizer,
};

/// The mask's id, behind 42 others.
pub(crate) const MASK: u32 = 42;

/// Made-up rows, of which somewhat less than half is masked.
pub(crate) fn batch(rows: usize, len: usize, seed: usize) -> Batch {
    let id = |i: usize| u32::try_from((i * 37 + seed * 11) % 42).expect("small");
    let clean: Vec<u32> = (0..rows * len).map(id).collect();
    let masked = |i: usize| (i * 2_654_435_761 + seed * 97) % 100 < 45;
    let noised = clean.iter().enumerate().map(|(i, &id)| if masked(i) { MASK } else { id });
    Batch {
        rows,
        len,
        noised_ids: noised.collect(),
        sigma: (0..rows).map(|row| 0.3 + 0.1 * ((row + seed) % 7) as f64).collect(),
        segment_ids: None,
        input_ids: clean,
    }
}

/// A learner's parameters and optimizer.
pub(crate) fn held(learner: &mut dyn Learner) -> (Params, Optimizer) {
    let (params, optimizer) = learner.state().expect("state").expect("in this process");
    (params.clone(), optimizer.clone())
}

/// Everything that a learner holds, as bits.
pub(crate) fn bits(learner: &mut dyn Learner) -> Vec<(String, Vec<u32>)> {
    let (params, optimizer) = held(learner);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    let weights = params.iter().map(|(name, _, values)| (name.to_owned(), bits(values)));
    let state = optimizer.state();
    let state = state.into_iter().map(|tensor| (tensor.name, bits(tensor.values)));
    let steps = u32::try_from(optimizer.steps()).expect("few");
    weights.chain(state).chain([("steps".to_owned(), vec![steps])]).collect()
}
