//! How an optimizer's state goes into a checkpoint and comes back.

/// One tensor of an optimizer's state.
#[derive(Clone, Debug)]
pub struct StateTensor<'a> {
    /// `<parameter>.<part>`, for example `model.norm.weight.square`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: &'a [f32],
}

/// A state that does not fit the optimizer.
#[derive(Debug, thiserror::Error)]
#[error("optimizer state {name}: {problem}")]
pub struct StateError {
    /// The tensor.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}
