//! An optimizer whose state lives in a card's memory.

use super::weights::Places;
use crate::optim::{
    AdafactorSettings, AdamWFactors, AdamWSettings, Optimizer, OptimizerSettings, StateError,
};
use coda_cuda::{
    AdafactorStep, AdamwStep, Block, Card, CudaError, Element, FactoredMoments, Parameter, Span,
};
use std::collections::HashMap;

/// The state of one parameter, and the names of its parts.
#[derive(Debug)]
enum Moments {
    Adam { first: Block, second: Block },
    Factored { row: Block, column: Block },
    Full { square: Block },
}

/// The state of the parameters that a rank owns.
#[derive(Debug)]
pub(super) struct DeviceOptimizer {
    settings: OptimizerSettings,
    moments: Vec<Moments>,
    pub(super) steps: u64,
}

/// What a step reads and changes.
pub(super) struct Trained<'a> {
    /// Of each parameter with state, in order, its place among all.
    pub(super) owned: &'a [usize],
    /// Where all of them lie in `weights` and `grads`.
    pub(super) places: &'a Places,
    pub(super) weights: &'a Block,
    pub(super) grads: &'a Block,
    /// The f32 values of those with state, and where they lie. Without them the bf16 weights are what is
    /// trained.
    pub(super) master: Option<(&'a Block, &'a Places)>,
}

fn all(block: &Block) -> Result<Span<'_>, CudaError> {
    Span::of(block, Element::F32, 0, block.bytes() / Element::F32.bytes())
}

impl DeviceOptimizer {
    /// Brings an optimizer's state of these parameters to a card.
    pub(super) fn upload(
        card: &Card,
        settings: &OptimizerSettings,
        optimizer: &Optimizer,
        places: &Places,
    ) -> Result<Self, CudaError> {
        let state = optimizer.state();
        let by_name: HashMap<&str, &[f32]> =
            state.iter().map(|tensor| (tensor.name.as_str(), tensor.values)).collect();
        let moments = (0..places.len()).map(|index| {
            let shape = places.shape(index);
            let part = |part: &str| {
                let values = by_name[format!("{}.{part}", shape.name).as_str()];
                if optimizer.steps() > 0 {
                    return card.upload(values);
                }
                // What has made no step is all zeros, which need not be sent.
                let block = card.room(Element::F32, values.len())?;
                card.zero(all(&block)?)?;
                Ok(block)
            };
            Ok(match settings {
                OptimizerSettings::AdamW(_) => {
                    Moments::Adam { first: part("first")?, second: part("second")? }
                }
                OptimizerSettings::Adafactor(_) if shape.shape.len() == 2 => {
                    Moments::Factored { row: part("row")?, column: part("column")? }
                }
                OptimizerSettings::Adafactor(_) => Moments::Full { square: part("square")? },
            })
        });
        let moments = moments.collect::<Result<_, CudaError>>()?;
        Ok(Self { settings: settings.clone(), moments, steps: optimizer.steps() })
    }

    /// Brings the state back, into an optimizer of the same kind and shapes.
    pub(super) fn fetch(
        &self,
        card: &Card,
        places: &Places,
        mut optimizer: Optimizer,
    ) -> Result<Optimizer, CudaError> {
        let mut parts: HashMap<String, Vec<f32>> = HashMap::new();
        for (index, moments) in self.moments.iter().enumerate() {
            let mut fetch = |part: &str, block: &Block| {
                let name = format!("{}.{part}", places.shape(index).name);
                parts.insert(name, card.read(all(block)?)?);
                Ok::<(), CudaError>(())
            };
            match moments {
                Moments::Adam { first, second } => {
                    fetch("first", first)?;
                    fetch("second", second)?;
                }
                Moments::Factored { row, column } => {
                    fetch("row", row)?;
                    fetch("column", column)?;
                }
                Moments::Full { square } => fetch("square", square)?,
            }
        }
        let missing = |name: &str| StateError {
            name: name.to_owned(),
            problem: "it is not on the card".to_owned(),
        };
        optimizer
            .restore(self.steps, |name, _| parts.remove(name).ok_or_else(|| missing(name)))
            .map_err(|error| CudaError::Shape(error.to_string()))?;
        Ok(optimizer)
    }

    /// One step at learning rate `lr` with gradients times `clip`.
    pub(super) fn step(
        &mut self,
        card: &Card,
        trained: &Trained<'_>,
        lr: f64,
        clip: f64,
    ) -> Result<(), CudaError> {
        let Trained { owned, places, weights, grads, master } = *trained;
        self.steps += 1;
        for (place, (moments, &index)) in self.moments.iter().zip(owned).enumerate() {
            let master = master
                .map(|(block, places)| places.span(block, Element::F32, place))
                .transpose()?;
            let parameter =
                Parameter { master, weights: places.span(weights, Element::Bf16, index)? };
            let grad = places.span(grads, Element::F32, index)?;
            let matrix = places.shape(index).shape.len() >= 2;
            match (&self.settings, moments) {
                (OptimizerSettings::AdamW(settings), Moments::Adam { first, second }) => {
                    let step = adamw_step(settings, self.steps, lr, matrix, clip);
                    card.adamw(parameter, grad, [all(first)?, all(second)?], &step)?;
                }
                (OptimizerSettings::Adafactor(settings), Moments::Factored { row, column }) => {
                    let moments = FactoredMoments { row: all(row)?, column: all(column)? };
                    let step = adafactor_step(settings, self.steps, lr, clip);
                    card.adafactor_matrix(parameter, grad, moments, &step)?;
                }
                (OptimizerSettings::Adafactor(settings), Moments::Full { square }) => {
                    let step = adafactor_step(settings, self.steps, lr, clip);
                    card.adafactor_vector(parameter, grad, all(square)?, &step)?;
                }
                _ => unreachable!("the state was made for these settings"),
            }
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
fn adamw_step(settings: &AdamWSettings, step: u64, lr: f64, matrix: bool, clip: f64) -> AdamwStep {
    let decay = if matrix { settings.weight_decay } else { 0.0 };
    let factors = AdamWFactors::at(settings, step, lr, decay);
    AdamwStep {
        clip: clip as f32,
        beta1: [factors.beta1, factors.one_minus_beta1],
        beta2: [factors.beta2, factors.one_minus_beta2],
        eps: factors.eps,
        step_size: factors.step_size,
        root_of_correction: factors.root_of_correction,
        keep: factors.keep,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
fn adafactor_step(settings: &AdafactorSettings, step: u64, lr: f64, clip: f64) -> AdafactorStep {
    AdafactorStep {
        clip: clip as f32,
        beta2: 1.0 - (step as f64).powf(settings.decay_rate),
        eps: settings.eps,
        lr,
        threshold: settings.clip_threshold,
        keep: (1.0 - lr * settings.weight_decay) as f32,
    }
}
