//! What a learner holds.

use coda_trainer::{engine::Learner, model::Params, optim::Optimizer};

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
