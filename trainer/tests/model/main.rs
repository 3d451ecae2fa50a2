//! The model against a reference that shares nothing with it: plain loops in f64.
#![allow(clippy::cast_possible_truncation, reason = "tests draw small numbers and work in f32")]

mod cached;
mod invariance;
mod oracle;
mod reference;

use coda_random::{Purpose, Stream};
use coda_trainer::{
    engine::{Batch, CpuEngine, Engine, EngineError, Ids},
    model::{Grads, ModelConfig, Params, RecomputePolicy},
};
use reference::Reference;

/// The id that stands for a masked token in these tests.
const MASK: u32 = 36;

fn config(tied: bool, kv_heads: usize) -> ModelConfig {
    ModelConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        intermediate_size: 20,
        num_attention_heads: 4,
        num_key_value_heads: kv_heads,
        head_dim: 6,
        vocab_size: 37,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: tied,
        mask_token_id: Some(MASK),
    }
}

/// Parameters large enough that every part of the model matters; norms are not all one.
fn params(config: &ModelConfig) -> Params {
    let mut params = Params::init(config, 3);
    let draws = Stream::new(4, 0, 0, Purpose::ParameterInit);
    let mut next = 0;
    for values in params.slices_mut() {
        for value in values {
            let is_norm = (*value - 1.0).abs() < f32::EPSILON;
            let noise = draws.unit_at(next) as f32 - 0.5;
            *value = if is_norm { 1.0 + 0.4 * noise } else { *value * 12.0 };
            next += 1;
        }
    }
    params
}

/// A batch with about half of its tokens masked, the first of a row among them.
fn batch(rows: usize, len: usize, segments: bool) -> Batch {
    let draws = Stream::new(5, 0, 0, Purpose::TokenMask);
    let input_ids: Vec<u32> = (0..rows * len).map(|i| draws.below_at(i as u64, MASK)).collect();
    let noised_ids = input_ids
        .iter()
        .enumerate()
        .map(|(i, &id)| {
            let masked = i % len == 0 || draws.unit_at((10_000 + i) as u64) < 0.5;
            if masked { MASK } else { id }
        })
        .collect();
    let sigma = (0..rows).map(|r| 0.3 + 0.2 * r as f64).collect();
    // Documents of uneven lengths, other ones in each row.
    let segment = |i: usize| ((i % len * 3 + i / len) / 7 + (i % len) / 5) as u32;
    let segment_ids = segments.then(|| (0..rows * len).map(segment).collect());
    Batch { rows, len, input_ids, noised_ids, sigma, segment_ids }
}

fn gradients(
    config: &ModelConfig,
    params: &Params,
    batch: &Batch,
    policy: RecomputePolicy,
) -> (f64, Grads) {
    let mut grads = Grads::zeros(params);
    let denominator = (batch.rows * batch.len) as f64;
    let mut engine = CpuEngine::new(config.clone(), policy);
    let output = engine.loss_and_grads(params, batch, MASK, denominator, &mut grads).expect("runs");
    (output.loss, grads)
}

/// Loss and logits equal the reference's; the gradient of sampled values of every tensor equals the
/// reference's central difference.
fn holds(tied: bool, kv_heads: usize, len: usize, segments: bool) {
    let config = config(tied, kv_heads);
    let params = params(&config);
    let batch = batch(2, len, segments);
    let mut reference = Reference::new(&config, &params);
    let expected = reference.loss(&batch, MASK);
    let (loss, grads) = gradients(&config, &params, &batch, RecomputePolicy::None);
    assert!((loss - expected).abs() < 2e-6 * expected, "loss {loss}, reference {expected}");

    let logits = CpuEngine::new(config.clone(), RecomputePolicy::None)
        .logits(&params, &batch.noised(), None)
        .expect("runs");
    for (at, (got, want)) in logits.iter().zip(reference.logits(&batch)).enumerate() {
        assert!((f64::from(*got) - want).abs() < 2e-4, "logit {at}: {got}, reference {want}");
    }

    let pick = Stream::new(6, 0, 0, Purpose::SampleOrder);
    for (tensor, (name, _, values)) in params.iter().enumerate() {
        let scale = grads.get(tensor).iter().fold(0.0f32, |most, g| most.max(g.abs()));
        assert!(scale > 0.0, "{name} has a gradient");
        for sample in 0..6u64 {
            let at = pick.below_at(tensor as u64 * 6 + sample, values.len() as u32) as usize;
            let expected = reference.derivative(&batch, MASK, tensor, at);
            let got = f64::from(grads.get(tensor)[at]);
            // Where all tokens are alike, attention's gradient is rounding alone.
            let allowed = 1e-7 + 2e-5 * f64::from(scale) + 2e-4 * expected.abs();
            assert!((got - expected).abs() < allowed, "{name}[{at}]: {got}, reference {expected}");
        }
    }
}

#[test]
fn a_tied_model_with_grouped_heads() {
    holds(true, 2, 9, false);
}

#[test]
fn an_untied_model_with_a_key_head_for_each_query_head() {
    holds(false, 4, 11, false);
}

#[test]
fn documents_that_do_not_see_each_other() {
    holds(false, 2, 17, true);
}

#[test]
fn one_key_head_for_all_and_a_row_of_three_tokens() {
    holds(true, 1, 3, false);
}

#[test]
fn nothing_masked_costs_nothing() {
    let config = config(true, 2);
    let params = params(&config);
    let mut batch = batch(2, 6, false);
    batch.noised_ids.clone_from(&batch.input_ids);
    let (loss, grads) = gradients(&config, &params, &batch, RecomputePolicy::None);
    assert!(loss.abs() < f64::EPSILON);
    assert_eq!(grads, Grads::zeros(&params));
}

#[test]
fn the_first_token_of_a_row_is_never_scored() {
    let config = config(true, 2);
    let params = params(&config);
    let mut batch = batch(3, 5, false);
    batch.noised_ids.clone_from(&batch.input_ids);
    for row in 0..3 {
        batch.noised_ids[row * 5] = MASK;
    }
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let output = engine.loss(&params, &batch, MASK, 15.0).expect("runs");
    assert_eq!(output.scored, 0);
}

#[test]
fn malformed_batches_are_refused_by_name() {
    let config = config(true, 2);
    let params = params(&config);
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let mut refused = |change: &dyn Fn(&mut Batch)| {
        let mut batch = batch(2, 6, true);
        change(&mut batch);
        let mut grads = Grads::zeros(&params);
        let error =
            engine.loss_and_grads(&params, &batch, MASK, 12.0, &mut grads).expect_err("refused");
        assert_eq!(grads, Grads::zeros(&params), "a refusal leaves the gradients alone");
        assert!(matches!(error, EngineError::Batch(_)));
        error.to_string()
    };
    assert!(refused(&|b| b.noised_ids[7] = 37).contains("id 37 at row 1, position 1"));
    assert!(refused(&|b| b.sigma[1] = 0.0).contains("sigma 0"));
    assert!(refused(&|b| b.sigma[1] = f64::NAN).contains("sigma NaN"));
    assert!(refused(&|b| b.input_ids.truncate(11)).contains("need 12 ids"));
    assert!(refused(&|b| b.segment_ids.as_mut().unwrap()[1] = 90).contains("never fall"));
    assert!(
        refused(&|b| {
            b.input_ids[3] = 99;
            b.noised_ids[3] = MASK;
        })
        .contains("target 99")
    );
    let ids = [1u32, 2, 3];
    let ids = Ids { rows: 1, len: 3, ids: &ids, segment_ids: None };
    let error = engine.logits(&params, &ids, Some(&[3])).expect_err("refused");
    assert!(error.to_string().contains("position 3 of 3"));
}
