//! Adafactor (Shazeer and Stern, 2018) with the settings of method §5: no relative step, no scaling
//! by the parameter, no first moment.

use super::{CHUNK, StateError, StateTensor, TensorShape, clip::sum_of_squares};
use rayon::prelude::*;

/// The settings of Adafactor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSettings {
    /// Added to squared gradients.
    pub eps: f64,
    /// The largest root mean square of an update before the learning rate.
    pub clip_threshold: f64,
    /// Exponent of the decay: `beta2 = 1 - step^decay_rate`.
    pub decay_rate: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdafactorSettings {
    /// Method §5: eps 1e-30, threshold 1, decay -0.8, no weight decay.
    fn default() -> Self {
        Self { eps: 1e-30, clip_threshold: 1.0, decay_rate: -0.8, weight_decay: 0.0 }
    }
}

/// Adafactor's state: averages of squared gradients, by row and by column for matrices.
#[derive(Clone, Debug)]
pub struct Adafactor {
    settings: AdafactorSettings,
    steps: u64,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    moment: Moment,
}

#[derive(Clone, Debug)]
enum Moment {
    Factored { row: Vec<f32>, column: Vec<f32> },
    Full(Vec<f32>),
}

impl Adafactor {
    /// Before the first step.
    #[must_use]
    pub fn new(settings: AdafactorSettings, shapes: &[TensorShape]) -> Self {
        let tensor = |shape: &TensorShape| Tensor {
            name: shape.name.clone(),
            shape: shape.shape.clone(),
            moment: match *shape.shape.as_slice() {
                [rows, columns] => {
                    Moment::Factored { row: vec![0.0; rows], column: vec![0.0; columns] }
                }
                _ => Moment::Full(vec![0.0; shape.elements()]),
            },
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
        let beta2 = 1.0 - (self.steps as f64).powf(self.settings.decay_rate);
        for ((tensor, param), grad) in self.tensors.iter_mut().zip(params).zip(grads) {
            assert_eq!(param.len(), grad.len(), "{}: gradient and parameter differ", tensor.name);
            match &mut tensor.moment {
                Moment::Factored { row, column } => {
                    factored(&self.settings, beta2, lr, (row, column), param, grad);
                }
                Moment::Full(square) => full(&self.settings, beta2, lr, square, param, grad),
            }
        }
    }

    /// The state, for a checkpoint: `<name>.row` and `<name>.column`, or `<name>.square`.
    #[must_use]
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        let part = |tensor: &Tensor, part: &str, values| StateTensor {
            name: format!("{}.{part}", tensor.name),
            shape: part_shape(tensor, part),
            values,
        };
        let mut state = Vec::new();
        for tensor in &self.tensors {
            match &tensor.moment {
                Moment::Factored { row, column } => {
                    state.push(part(tensor, "row", row.as_slice()));
                    state.push(part(tensor, "column", column.as_slice()));
                }
                Moment::Full(square) => state.push(part(tensor, "square", square.as_slice())),
            }
        }
        state
    }

    /// Takes up a state that [`Adafactor::state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn restore(
        &mut self,
        steps: u64,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, StateError>,
    ) -> Result<(), StateError> {
        for own in &mut self.tensors {
            let mut part =
                |part: &str| tensor(&format!("{}.{part}", own.name), &part_shape(own, part));
            own.moment = match own.moment {
                Moment::Factored { .. } => {
                    Moment::Factored { row: part("row")?, column: part("column")? }
                }
                Moment::Full(_) => Moment::Full(part("square")?),
            };
        }
        self.steps = steps;
        Ok(())
    }
}

fn part_shape(tensor: &Tensor, part: &str) -> Vec<usize> {
    match part {
        "row" => vec![tensor.shape[0]],
        "column" => vec![tensor.shape[1]],
        _ => tensor.shape.clone(),
    }
}

/// A matrix: the second moment of an element is `row · column / mean(row)`.
fn factored(
    settings: &AdafactorSettings,
    beta2: f64,
    lr: f64,
    (row, column): (&mut [f32], &mut [f32]),
    param: &mut [f32],
    grad: &[f32],
) {
    let (rows, columns) = (row.len(), column.len());
    assert_eq!(param.len(), rows * columns, "the matrix has the shape of its state");
    if param.is_empty() {
        return;
    }
    let rows_per_chunk = (CHUNK / columns).max(1);
    let piece = rows_per_chunk * columns;

    // Squares summed by row and, for every chunk of rows, by column.
    let sums: Vec<(Vec<f64>, Vec<f64>)> =
        grad.par_chunks(piece).map(|chunk| squares_by_row_and_column(chunk, columns)).collect();
    let mut column_sums = vec![0.0_f64; columns];
    let row_sums = sums.iter().flat_map(|(by_row, _)| by_row);
    for (value, sum) in row.iter_mut().zip(row_sums) {
        *value = average(*value, beta2, sum / columns as f64 + settings.eps);
    }
    for (_, by_column) in &sums {
        for (total, sum) in column_sums.iter_mut().zip(by_column) {
            *total += sum;
        }
    }
    for (value, sum) in column.iter_mut().zip(&column_sums) {
        *value = average(*value, beta2, sum / rows as f64 + settings.eps);
    }

    let row_mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / rows as f64;
    let row_factor: Vec<f32> =
        row.iter().map(|&v| narrow((row_mean / f64::from(v)).sqrt())).collect();
    let column_factor: Vec<f32> =
        column.iter().map(|&v| narrow(f64::from(v).sqrt().recip())).collect();

    // Once to learn the size of the update, once more to apply it: cheaper than keeping it.
    let update = |index: usize, grads: &[f32], out: &mut [f32]| {
        let first_row = index * rows_per_chunk;
        for (r, (grads, out)) in
            grads.chunks_exact(columns).zip(out.chunks_exact_mut(columns)).enumerate()
        {
            let factor = row_factor[first_row + r];
            for ((out, &g), &c) in out.iter_mut().zip(grads).zip(&column_factor) {
                *out = g * factor * c;
            }
        }
    };
    let squares: Vec<f64> = grad
        .par_chunks(piece)
        .enumerate()
        .map_init(Vec::new, |buffer, (index, grads)| {
            buffer.resize(grads.len(), 0.0);
            update(index, grads, buffer);
            sum_of_squares(buffer)
        })
        .collect();
    let size = size_of_step(settings, lr, squares.iter().sum(), grad.len());
    let keep = narrow(1.0 - lr * settings.weight_decay);
    param.par_chunks_mut(piece).zip(grad.par_chunks(piece)).enumerate().for_each_init(
        Vec::new,
        |buffer, (index, (param, grads))| {
            buffer.resize(grads.len(), 0.0);
            update(index, grads, buffer);
            for (p, &u) in param.iter_mut().zip(buffer.iter()) {
                *p = *p * keep - size * u;
            }
        },
    );
}

fn squares_by_row_and_column(chunk: &[f32], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let mut by_row = Vec::with_capacity(chunk.len() / columns);
    let mut by_column = vec![0.0_f64; columns];
    for line in chunk.chunks_exact(columns) {
        by_row.push(sum_of_squares(line));
        for (sum, &g) in by_column.iter_mut().zip(line) {
            *sum += f64::from(g) * f64::from(g);
        }
    }
    (by_row, by_column)
}

/// A vector: every element has its own second moment.
fn full(
    settings: &AdafactorSettings,
    beta2: f64,
    lr: f64,
    square: &mut [f32],
    param: &mut [f32],
    grad: &[f32],
) {
    assert_eq!(param.len(), square.len(), "the vector has the shape of its state");
    let update: Vec<f32> = square
        .iter_mut()
        .zip(grad)
        .map(|(v, &g)| {
            *v = average(*v, beta2, f64::from(g) * f64::from(g) + settings.eps);
            narrow(f64::from(g) / f64::from(*v).sqrt())
        })
        .collect();
    let squares = update.chunks(CHUNK).map(sum_of_squares).sum();
    let size = size_of_step(settings, lr, squares, grad.len());
    let keep = narrow(1.0 - lr * settings.weight_decay);
    for (p, u) in param.iter_mut().zip(update) {
        *p = *p * keep - size * u;
    }
}

/// The learning rate over `max(1, rms(update) / clip_threshold)`.
fn size_of_step(settings: &AdafactorSettings, lr: f64, squares: f64, elements: usize) -> f32 {
    let rms = (squares / elements.max(1) as f64).sqrt();
    narrow(lr / (rms / settings.clip_threshold).max(1.0))
}

fn average(old: f32, beta: f64, new: f64) -> f32 {
    narrow(beta * f64::from(old) + (1.0 - beta) * new)
}

#[allow(clippy::cast_possible_truncation, reason = "parameters and state are f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::{Adafactor, AdafactorSettings};
    use crate::optim::{StateError, TensorShape};
    use proptest::prelude::*;

    fn shape(name: &str, shape: &[usize]) -> TensorShape {
        TensorShape { name: name.to_owned(), shape: shape.to_vec() }
    }

    /// Method §5, word for word, in f64, one matrix or vector.
    struct Plain {
        steps: i32,
        row: Vec<f64>,
        column: Vec<f64>,
        square: Vec<f64>,
    }

    impl Plain {
        fn step(&mut self, lr: f64, param: &mut [f64], grad: &[f64], columns: Option<usize>) {
            self.steps += 1;
            let beta2 = 1.0 - f64::from(self.steps).powf(-0.8);
            let n = grad.len();
            let g2: Vec<f64> = grad.iter().map(|g| g * g + 1e-30).collect();
            let mut update = vec![0.0; n];
            if let Some(columns) = columns {
                let rows = n / columns;
                for r in 0..rows {
                    let mean = (0..columns).map(|c| g2[r * columns + c]).sum::<f64>()
                        / f64::from(u32::try_from(columns).expect("small"));
                    self.row[r] = beta2 * self.row[r] + (1.0 - beta2) * mean;
                }
                for c in 0..columns {
                    let mean = (0..rows).map(|r| g2[r * columns + c]).sum::<f64>()
                        / f64::from(u32::try_from(rows).expect("small"));
                    self.column[c] = beta2 * self.column[c] + (1.0 - beta2) * mean;
                }
                let mean =
                    self.row.iter().sum::<f64>() / f64::from(u32::try_from(rows).expect("small"));
                for r in 0..rows {
                    for c in 0..columns {
                        update[r * columns + c] = grad[r * columns + c]
                            / (self.row[r] / mean).sqrt()
                            / self.column[c].sqrt();
                    }
                }
            } else {
                for i in 0..n {
                    self.square[i] = beta2 * self.square[i] + (1.0 - beta2) * g2[i];
                    update[i] = grad[i] / self.square[i].sqrt();
                }
            }
            let rms = (update.iter().map(|u| u * u).sum::<f64>()
                / f64::from(u32::try_from(n).expect("small")))
            .sqrt();
            for (p, u) in param.iter_mut().zip(update) {
                *p -= lr * u / rms.max(1.0);
            }
        }
    }

    fn noise(i: usize, step: usize) -> f32 {
        let x = (i * 7919 + step * 104_729 + 13) % 1009;
        (f32::from(u16::try_from(x).expect("below 1009")) / 504.5 - 1.0) * 0.01
    }

    #[test]
    fn ten_steps_agree_with_the_definition() {
        let (rows, columns) = (37, 53);
        let shapes = [shape("w", &[rows, columns]), shape("b", &[columns])];
        let mut ours = Adafactor::new(AdafactorSettings::default(), &shapes);
        let mut w: Vec<f32> = (0..rows * columns).map(|i| noise(i, 99)).collect();
        let mut b = vec![1.0_f32; columns];
        let mut plain_w: Vec<f64> = w.iter().map(|&v| f64::from(v)).collect();
        let mut plain_b: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
        let zero = |n| vec![0.0; n];
        let mut of_w =
            Plain { steps: 0, row: zero(rows), column: zero(columns), square: Vec::new() };
        let mut of_b =
            Plain { steps: 0, row: Vec::new(), column: Vec::new(), square: zero(columns) };
        for step in 0..10 {
            let gw: Vec<f32> = (0..rows * columns).map(|i| noise(i, step)).collect();
            let gb: Vec<f32> = (0..columns).map(|i| noise(i * 3, step)).collect();
            let wide = |g: &[f32]| g.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            ours.step(1e-2, &mut [&mut w, &mut b], &[&gw, &gb]);
            of_w.step(1e-2, &mut plain_w, &wide(&gw), Some(columns));
            of_b.step(1e-2, &mut plain_b, &wide(&gb), None);
        }
        for (ours, plain) in w.iter().chain(&b).zip(plain_w.iter().chain(&plain_b)) {
            // Ten roundings of a parameter near 1, half an f32 ulp (6e-8) each.
            assert!(
                (f64::from(*ours) - plain).abs() < 6e-7 * plain.abs().max(0.1),
                "{ours} {plain}"
            );
        }
    }

    #[test]
    fn the_first_step_by_hand() {
        // beta2 is 0 at step 1. Squares: rows mean 5 and 5 (eps vanishes), columns 2.5 and 7.5.
        // Update: g / sqrt(5/5) / sqrt(column): 1/sqrt2.5, 3/sqrt7.5, -2/sqrt2.5, sqrt6/sqrt7.5.
        // Its squares sum to 0.4 + 1.2 + 1.6 + 0.8 = 4, so its rms is 1: nothing is clipped.
        let mut ours = Adafactor::new(AdafactorSettings::default(), &[shape("w", &[2, 2])]);
        let mut w = [0.0_f32; 4];
        ours.step(0.1, &mut [&mut w], &[&[1.0, 3.0, -2.0, 6.0_f32.sqrt()]]);
        let expected = [-0.063_245_55, -0.109_544_51, 0.126_491_1, -0.089_442_72];
        for (value, expected) in w.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-7, "{w:?}");
        }
    }

    proptest! {
        #[test]
        fn threads_do_not_change_a_bit(
            rows in 1_usize..200, columns in 1_usize..300, seed in 0_usize..1000,
        ) {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("pool").install(|| {
                    let settings = AdafactorSettings { weight_decay: 0.1, ..Default::default() };
                    let mut ours = Adafactor::new(settings, &[shape("w", &[rows, columns])]);
                    let mut w = vec![0.5_f32; rows * columns];
                    for step in 0..3 {
                        let g: Vec<f32> = (0..w.len()).map(|i| noise(i, seed + step)).collect();
                        ours.step(1e-2, &mut [&mut w], &[&g]);
                    }
                    w.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                })
            };
            prop_assert_eq!(run(1), run(3));
        }
    }

    #[test]
    fn a_restored_state_goes_on_alike() {
        let shapes = [shape("w", &[5, 3]), shape("b", &[4])];
        let mut first = Adafactor::new(AdafactorSettings::default(), &shapes);
        let (mut w, mut b) = (vec![0.1_f32; 15], vec![0.2_f32; 4]);
        let grads = |step| {
            ((0..15).map(|i| noise(i, step)).collect(), (0..4).map(|i| noise(i, step)).collect())
        };
        let (gw, gb): (Vec<f32>, Vec<f32>) = grads(0);
        first.step(1e-2, &mut [&mut w, &mut b], &[&gw, &gb]);
        let mut second = Adafactor::new(AdafactorSettings::default(), &shapes);
        let saved = first.state();
        assert_eq!(
            saved.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
            ["w.row", "w.column", "b.square"]
        );
        second
            .restore(first.steps(), |name, shape| {
                let found = saved.iter().find(|t| t.name == name && t.shape == shape);
                found.map(|t| t.values.to_vec()).ok_or_else(|| StateError {
                    name: name.to_owned(),
                    problem: "missing".to_owned(),
                })
            })
            .expect("the state is whole");
        let (mut w2, mut b2) = (w.clone(), b.clone());
        let (gw, gb): (Vec<f32>, Vec<f32>) = grads(1);
        first.step(1e-2, &mut [&mut w, &mut b], &[&gw, &gb]);
        second.step(1e-2, &mut [&mut w2, &mut b2], &[&gw, &gb]);
        assert_eq!((w, b), (w2, b2));
    }
}
