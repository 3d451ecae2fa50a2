//! What must not change a result.

use super::{MASK, batch, config, gradients, params};
use coda_trainer::{
    engine::{Batch, CpuEngine, Engine, Ids},
    model::{Grads, ModelConfig, RecomputePolicy},
};

/// A shape with more queries than the attention holds scores of at a time, and with products large
/// enough to be divided among threads.
fn wide() -> ModelConfig {
    ModelConfig { hidden_size: 48, intermediate_size: 96, head_dim: 16, ..config(false, 2) }
}

fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(run)
}

#[test]
fn recomputation_changes_no_bit() {
    let config = wide();
    let params = params(&config);
    for segments in [false, true] {
        let batch = batch(2, 61, segments);
        let plain = gradients(&config, &params, &batch, RecomputePolicy::None);
        let again = gradients(&config, &params, &batch, RecomputePolicy::Layer);
        assert_eq!(plain, again);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let config = wide();
    let params = params(&config);
    let batch = batch(3, 301, true);
    let run = |threads| {
        with_threads(threads, || gradients(&config, &params, &batch, RecomputePolicy::None))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

fn only(batch: &Batch, row: usize) -> Batch {
    let tokens = row * batch.len..(row + 1) * batch.len;
    Batch {
        rows: 1,
        len: batch.len,
        input_ids: batch.input_ids[tokens.clone()].to_vec(),
        noised_ids: batch.noised_ids[tokens.clone()].to_vec(),
        sigma: vec![batch.sigma[row]],
        segment_ids: batch.segment_ids.as_ref().map(|s| s[tokens].to_vec()),
    }
}

/// A row's loss does not depend on its neighbours beyond rounding, and gradients add up.
#[test]
fn a_batch_is_the_sum_of_its_rows() {
    let config = wide();
    let params = params(&config);
    let whole = batch(3, 301, false);
    let denominator = f64::from(3 * 301);
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let mut together = Grads::zeros(&params);
    let output =
        engine.loss_and_grads(&params, &whole, MASK, denominator, &mut together).expect("runs");
    let mut apart = Grads::zeros(&params);
    for row in 0..3 {
        let one = engine
            .loss_and_grads(&params, &only(&whole, row), MASK, denominator, &mut apart)
            .expect("runs");
        let (a, b) = (one.row_sums[0], output.row_sums[row]);
        assert!((a - b).abs() <= 1e-7 * b, "row {row}: {a} alone, {b} in the batch");
    }
    for ((name, _, _), (a, b)) in params.iter().zip(together.slices().iter().zip(apart.slices())) {
        let norm =
            |x: &dyn Fn(usize) -> f64| (0..a.len()).map(|i| x(i).powi(2)).sum::<f64>().sqrt();
        let difference = norm(&|i| f64::from(a[i]) - f64::from(b[i]));
        assert!(difference <= 1e-5 * norm(&|i| f64::from(a[i])), "{name}: {difference}");
    }
}

#[test]
fn the_loss_alone_is_the_loss_with_gradients() {
    let config = wide();
    let params = params(&config);
    let batch = batch(2, 40, true);
    let (with, _) = gradients(&config, &params, &batch, RecomputePolicy::None);
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let alone = engine.loss(&params, &batch, MASK, 80.0).expect("runs").loss;
    assert_eq!(with.to_bits(), alone.to_bits());
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let config = config(true, 2);
    let params = params(&config);
    let batch = batch(2, 9, false);
    let (_, once) = gradients(&config, &params, &batch, RecomputePolicy::None);
    let mut twice = once.clone();
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    engine.loss_and_grads(&params, &batch, MASK, 18.0, &mut twice).expect("runs");
    for (a, b) in once.slices().concat().iter().zip(twice.slices().concat()) {
        assert!((2.0 * a - b).abs() <= 1e-6 + 1e-5 * b.abs(), "{a} {b}");
    }
}

/// Changing one document leaves the outputs of the others as they were, bit for bit.
#[test]
fn documents_do_not_leak() {
    let config = wide();
    let params = params(&config);
    let len = 300;
    let segments: Vec<u32> = (0..len).map(|i| u32::from(i >= 120) + u32::from(i >= 270)).collect();
    let ids: Vec<u32> = (0..len as u32).map(|i| i * 7 % 36).collect();
    let mut changed = ids.clone();
    for id in &mut changed[120..270] {
        *id = (*id + 5) % 36;
    }
    let mut engine = CpuEngine::new(config.clone(), RecomputePolicy::None);
    let mut logits = |ids: &[u32], segments: Option<&[u32]>| {
        let ids = Ids { rows: 1, len, ids, segment_ids: segments };
        engine.logits(&params, &ids, None).expect("runs")
    };
    let v = config.vocab_size;
    let (before, after) = (logits(&ids, Some(&segments)), logits(&changed, Some(&segments)));
    assert_eq!(before[..120 * v], after[..120 * v]);
    assert_eq!(before[270 * v..], after[270 * v..]);
    assert_ne!(before[120 * v..270 * v], after[120 * v..270 * v]);
    // Without documents everything sees everything.
    assert_ne!(logits(&ids, None)[..v], logits(&changed, None)[..v]);
}

#[test]
fn chosen_positions_are_rows_of_all_logits() {
    let config = wide();
    let params = params(&config);
    let batch = batch(2, 33, false);
    let mut engine = CpuEngine::new(config.clone(), RecomputePolicy::None);
    let all = engine.logits(&params, &batch.noised(), None).expect("runs");
    let chosen = [0, 7, 33, 65];
    let some = engine.logits(&params, &batch.noised(), Some(&chosen)).expect("runs");
    let v = config.vocab_size;
    for (i, at) in chosen.into_iter().enumerate() {
        for (a, b) in some[i * v..][..v].iter().zip(&all[at * v..][..v]) {
            assert!((a - b).abs() <= 1e-5, "{a} {b}");
        }
    }
}
