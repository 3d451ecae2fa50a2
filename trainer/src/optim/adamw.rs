//! `AdamW` (Loshchilov and Hutter, 2019), as `torch.optim.AdamW` computes it.

use super::{CHUNK, StateError, StateTensor, TensorShape};
use rayon::prelude::*;

/// The settings of `AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, times the learning rate; matrices only, as the Hugging Face trainer
    /// leaves out norms and biases.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// `AdamW`'s state: both moments of every element.
#[derive(Clone, Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    steps: u64,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// What one step multiplies by, rounded once.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) beta1: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) eps: f32,
    pub(crate) step_size: f32,
    pub(crate) root_of_correction: f32,
    pub(crate) keep: f32,
}

impl AdamW {
    /// Before the first step.
    #[must_use]
    pub fn new(settings: AdamWSettings, shapes: &[TensorShape]) -> Self {
        let tensor = |shape: &TensorShape| Tensor {
            name: shape.name.clone(),
            shape: shape.shape.clone(),
            first: vec![0.0; shape.elements()],
            second: vec![0.0; shape.elements()],
        };
        Self { settings, steps: 0, tensors: shapes.iter().map(tensor).collect() }
    }

    /// Steps made so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at learning rate `lr`.
    ///
    /// # Panics
    /// If the tensors are not those that the optimizer was made for.
    pub fn step(&mut self, lr: f64, params: &mut [&mut [f32]], grads: &[&[f32]]) {
        assert_eq!(params.len(), self.tensors.len(), "one slice for every parameter");
        assert_eq!(grads.len(), self.tensors.len(), "one gradient for every parameter");
        self.steps += 1;
        for ((tensor, param), grad) in self.tensors.iter_mut().zip(params).zip(grads) {
            assert_eq!(param.len(), tensor.first.len(), "{}: another shape", tensor.name);
            assert_eq!(grad.len(), tensor.first.len(), "{}: another shape", tensor.name);
            let decay = if tensor.shape.len() >= 2 { self.settings.weight_decay } else { 0.0 };
            let factors = Factors::at(&self.settings, self.steps, lr, decay);
            let moments =
                tensor.first.par_chunks_mut(CHUNK).zip(tensor.second.par_chunks_mut(CHUNK));
            param.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)).zip(moments).for_each(
                |((param, grad), (first, second))| factors.apply(param, grad, first, second),
            );
        }
    }

    /// The state, for a checkpoint: `<name>.first` and `<name>.second`.
    #[must_use]
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        let part =
            |tensor: &Tensor, part: &str| (format!("{}.{part}", tensor.name), tensor.shape.clone());
        self.tensors
            .iter()
            .flat_map(|tensor| {
                [("first", &tensor.first), ("second", &tensor.second)].map(|(which, values)| {
                    let (name, shape) = part(tensor, which);
                    StateTensor { name, shape, values }
                })
            })
            .collect()
    }

    /// Takes up a state that [`AdamW::state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn restore(
        &mut self,
        steps: u64,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, StateError>,
    ) -> Result<(), StateError> {
        for own in &mut self.tensors {
            own.first = tensor(&format!("{}.first", own.name), &own.shape)?;
            own.second = tensor(&format!("{}.second", own.name), &own.shape)?;
        }
        self.steps = steps;
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "parameters and state are f32")]
impl Factors {
    pub(crate) fn at(settings: &AdamWSettings, step: u64, lr: f64, decay: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            beta1: settings.beta1 as f32,
            one_minus_beta1: (1.0 - settings.beta1) as f32,
            beta2: settings.beta2 as f32,
            one_minus_beta2: (1.0 - settings.beta2) as f32,
            eps: settings.eps as f32,
            step_size: (lr / correction(settings.beta1)) as f32,
            root_of_correction: correction(settings.beta2).sqrt() as f32,
            keep: (1.0 - lr * decay) as f32,
        }
    }

    fn apply(self, param: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32]) {
        for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(first).zip(second) {
            *m = self.beta1 * *m + self.one_minus_beta1 * g;
            *v = self.beta2 * *v + self.one_minus_beta2 * g * g;
            let root = v.sqrt() / self.root_of_correction + self.eps;
            *p = *p * self.keep - self.step_size * (*m / root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AdamW, AdamWSettings};
    use crate::optim::TensorShape;

    #[test]
    fn ten_steps_agree_with_the_definition() {
        let settings = AdamWSettings { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
        let shapes = [
            TensorShape { name: "w".to_owned(), shape: vec![40, 7] },
            TensorShape { name: "norm".to_owned(), shape: vec![9] },
        ];
        let mut ours = AdamW::new(settings, &shapes);
        let mut params = [vec![0.3_f32; 280], vec![1.0_f32; 9]];
        let mut plain: Vec<Vec<[f64; 3]>> = params
            .iter()
            .map(|tensor| tensor.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect())
            .collect();
        for step in 1..=10_i32 {
            let grad = |i: usize| (i as f32 * 0.37 + step as f32).sin() * 0.02;
            let grads: Vec<Vec<f32>> =
                params.iter().map(|tensor| (0..tensor.len()).map(grad).collect()).collect();
            let [w, norm] = &mut params;
            ours.step(3e-3, &mut [w, norm], &[&grads[0], &grads[1]]);
            for (t, tensor) in plain.iter_mut().enumerate() {
                for (i, [p, m, v]) in tensor.iter_mut().enumerate() {
                    let g = f64::from(grad(i));
                    *p -= 3e-3 * if t == 0 { 0.1 } else { 0.0 } * *p;
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.95 * *v + 0.05 * g * g;
                    let m_hat = *m / (1.0 - 0.9_f64.powi(step));
                    let v_hat = *v / (1.0 - 0.95_f64.powi(step));
                    *p -= 3e-3 * m_hat / (v_hat.sqrt() + 1e-8);
                }
            }
        }
        for (tensor, plain) in params.iter().zip(&plain) {
            for (ours, [plain, ..]) in tensor.iter().zip(plain) {
                assert!((f64::from(*ours) - plain).abs() < 3e-7, "{ours} {plain}");
            }
        }
    }

    #[test]
    fn the_first_step_is_the_learning_rate_with_the_gradients_sign() {
        let shapes = [TensorShape { name: "b".to_owned(), shape: vec![2] }];
        let mut ours =
            AdamW::new(AdamWSettings { weight_decay: 1.0, ..Default::default() }, &shapes);
        let mut b = [1.0_f32, 1.0];
        ours.step(0.25, &mut [&mut b], &[&[4.0, -0.5]]);
        assert!((b[0] - 0.75).abs() < 1e-6 && (b[1] - 1.25).abs() < 1e-6, "{b:?}");
    }
}
