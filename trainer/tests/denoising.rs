//! Sampling in blocks, with caches and in company, held to the plain sampler.

use coda_random::{Purpose, Stream};
use coda_trainer::{
    engine::{CpuDecoder, CpuEngine, Engine, Ids, Uncached},
    model::{ModelConfig, Params, RecomputePolicy},
    sample::{
        Accept, Algorithm, Cache, Decoding, Denoiser, Sampler, Step, denoise, denoise_rows,
        most_confident,
    },
};
use proptest::prelude::*;

const MASK: u32 = 36;

fn model() -> (ModelConfig, Params) {
    let config = ModelConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        intermediate_size: 48,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        vocab_size: 37,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        mask_token_id: Some(MASK),
    };
    let mut params = Params::init(&config, 3);
    for values in params.slices_mut() {
        for value in values.iter_mut().filter(|value| (**value - 1.0).abs() > f32::EPSILON) {
            *value *= 12.0;
        }
    }
    (config, params)
}

fn canvas(len: usize, salt: u64, masked: impl Fn(usize) -> bool) -> Vec<u32> {
    let draws = Stream::new(salt, 0, 0, Purpose::TokenMask);
    (0..len).map(|i| if masked(i) { MASK } else { draws.below_at(i as u64, MASK) }).collect()
}

/// The plain sampler: one row, whole forwards, no blocks.
fn plain(ids: &[u32], sampler: &Sampler, sample: u64) -> Vec<Step> {
    let (config, params) = model();
    let mut engine = CpuEngine::new(config, RecomputePolicy::None);
    let (mut ids, mut steps) = (ids.to_vec(), Vec::new());
    denoise(
        &mut ids,
        MASK,
        sampler,
        sample,
        |ids, positions| {
            let input = Ids { rows: 1, len: ids.len(), ids, segment_ids: None };
            engine.logits(&params, &input, Some(positions))
        },
        |step| steps.push(step.clone()),
    )
    .expect("runs");
    steps
}

fn sampled(rows: &[Denoiser]) -> (Vec<Denoiser>, Vec<Vec<Step>>) {
    let (config, params) = model();
    let (mut rows, mut steps) = (rows.to_vec(), vec![Vec::new(); rows.len()]);
    let mut decoder = CpuDecoder::new(&config, &params);
    denoise_rows(&mut decoder, &mut rows, |row, step| steps[row].push(step.clone())).expect("runs");
    (rows, steps)
}

fn alone(ids: &[u32], decoding: Decoding) -> (Denoiser, Vec<Step>) {
    let (mut rows, mut steps) = sampled(&[Denoiser::new(ids.to_vec(), MASK, decoding, 0, &[])]);
    (rows.remove(0), steps.remove(0))
}

/// The same tokens at the same positions in the same steps.
fn same(what: &str, got: &[Step], want: &[Step]) {
    for (got, want) in got.iter().zip(want) {
        assert_eq!(
            (got.step, &got.tokens, &got.revealed),
            (want.step, &want.tokens, &want.revealed),
            "{what}"
        );
    }
    // `origin` may be done before its last step.
    assert!(want[got.len()..].iter().all(|step| step.revealed.is_empty()), "{what}");
}

fn samplers() -> Vec<Sampler> {
    let mut list = Vec::new();
    for (_, algorithm) in Algorithm::NAMES {
        list.push(Sampler { steps: 7, algorithm, ..Sampler::default() });
        list.push(Sampler {
            steps: 30,
            algorithm,
            temperature: 0.8,
            alg_temp: 0.4,
            top_p: Some(0.9),
            top_k: Some(9),
            ..Sampler::default()
        });
    }
    list
}

#[test]
fn without_blocks_it_is_the_plain_sampler() {
    let continuing = canvas(40, 1, |i| i >= 21);
    let infilling = canvas(40, 2, |i| i % 5 < 2);
    for ids in [continuing, infilling] {
        for sampler in samplers() {
            let decoding = Decoding { sampler, ..Decoding::default() };
            same(&format!("{sampler:?}"), &alone(&ids, decoding).1, &plain(&ids, &sampler, 0));
        }
    }
}

#[test]
fn one_block_of_the_whole_length_with_a_cache_is_the_plain_sampler() {
    let ids = canvas(40, 3, |i| i >= 9 && i != 30);
    for sampler in samplers() {
        let want = plain(&ids, &sampler, 0);
        for cache in [Cache::None, Cache::Prefix, Cache::Dual] {
            for length in [40, 1000] {
                let decoding = Decoding {
                    sampler,
                    block_length: Some(length),
                    cache,
                    accept: Accept::Schedule,
                };
                same(&format!("{decoding:?}"), &alone(&ids, decoding).1, &want);
            }
        }
    }
}

#[test]
fn a_threshold_of_1_reveals_one_token_a_step() {
    let ids = canvas(33, 4, |i| i > 3);
    for cache in [Cache::None, Cache::Prefix, Cache::Dual] {
        let decoding = Decoding {
            accept: Accept::Threshold(1.0),
            block_length: Some(8),
            cache,
            ..Decoding::default()
        };
        let (row, steps) = alone(&ids, decoding);
        assert_eq!(steps.len(), 29);
        assert!(steps.iter().all(|step| step.revealed.len() == 1));
        assert_eq!((row.tally().forwards, row.tally().revealed), (29, 29));
    }
    // Without a cache it is what as many steps as tokens give, when times are spread for just that.
    let sampler = Sampler { steps: 29, eps: 0.0, ..Sampler::default() };
    let one = Decoding { accept: Accept::Threshold(1.0), ..Decoding::default() };
    let (_, steps) = alone(&ids, one);
    let order = |steps: &[Step]| -> Vec<(usize, Vec<u32>)> {
        let revealing = steps.iter().filter(|step| step.revealed.len() == 1);
        revealing.map(|step| (step.revealed[0], step.tokens.clone())).collect()
    };
    // The shares of its last steps may round to none and then two.
    let plain = order(&plain(&ids, &sampler, 0));
    assert!(plain.len() >= 27, "{} steps", plain.len());
    assert_eq!(order(&steps)[..plain.len()], plain);
}

#[test]
fn a_low_threshold_needs_a_forward_a_block() {
    let ids = canvas(70, 5, |i| i >= 6);
    let decoding = Decoding {
        accept: Accept::Threshold(1e-9),
        block_length: Some(16),
        cache: Cache::Dual,
        ..Decoding::default()
    };
    let (row, steps) = alone(&ids, decoding);
    assert_eq!(row.tally().forwards, 4);
    assert_eq!(steps[0].revealed, (6..22).collect::<Vec<_>>());
}

#[test]
fn windows_are_as_wide_as_the_cache_says() {
    let ids = canvas(64, 6, |i| i >= 20);
    let computed = |cache| {
        let decoding = Decoding {
            accept: Accept::Threshold(1.0),
            block_length: Some(11),
            cache,
            ..Decoding::default()
        };
        alone(&ids, decoding).0.tally().computed
    };
    // Four blocks of 11, which begin at 20, 31, 42 and 53; each needs one whole forward and ten of
    // its own, which begin one position before it.
    assert_eq!(computed(Cache::None), 44 * 64);
    assert_eq!(computed(Cache::Dual), 4 * 64 + 40 * 12);
    assert_eq!(computed(Cache::Prefix), 4 * 64 + 10 * ((45 + 34 + 23) + 12));
}

#[test]
fn blocks_without_a_length_are_fitted_to_what_is_masked() {
    // Two holes that are near, and one too far for the same block.
    let ids = canvas(300, 9, |i| (20..24).contains(&i) || (40..45).contains(&i) || i == 200);
    let run = |cache| {
        let accept = Accept::Threshold(1.0);
        alone(&ids, Decoding { accept, cache, ..Decoding::default() })
    };
    // What the forwards after a block's first compute: one position early, from the first to the last that
    // was masked when its keys and values were computed the last time.
    let windows = |steps: &[Step]| -> Vec<std::ops::Range<usize>> {
        let window = |step: &Step| {
            let open =
                |&at: &usize| at < 50 && (step.tokens[at] == MASK || step.revealed.contains(&at));
            (0..300).find(open).expect("one") - 1..(0..300).rfind(open).expect("one") + 1
        };
        steps.iter().map(window).collect()
    };
    // The near ones are filled together: nine forwards, of which the first is whole, as is the far one's.
    let (row, steps) = run(Cache::Dual);
    let narrow = windows(&steps[..8]);
    assert!(narrow[0] == (19..45) && narrow[7].len() < 26, "{narrow:?}");
    let narrow: usize = narrow.iter().map(ExactSizeIterator::len).sum();
    let tally = row.tally();
    assert_eq!((tally.forwards, tally.computed), (10, (300 + narrow + 300) as u64));
    assert_eq!(steps[9].revealed, [200]);
    let (row, steps) = run(Cache::Prefix);
    let narrow: usize = windows(&steps[..8]).iter().map(|window| 300 - window.start).sum();
    assert_eq!(row.tally().computed, (300 + narrow + 300) as u64);
    assert_eq!(run(Cache::None).0.tally().computed, 10 * 300);
}

#[test]
fn an_open_end_is_done_when_an_end_token_stands_with_nothing_masked_before_it() {
    let ids = canvas(60, 7, |i| i >= 12);
    for accept in [Accept::Schedule, Accept::Threshold(0.3)] {
        let sampler = Sampler { steps: 48, ..Sampler::default() };
        let decoding = Decoding { sampler, accept, block_length: Some(8), ..Decoding::default() };
        let (whole, steps) = alone(&ids, decoding);
        let text = &whole.ids()[12..];
        // An end that stands in the middle of what is written without one.
        let end = text[20];
        let first = 12 + text.iter().position(|&id| id == end).expect("it stands there");
        let row = Denoiser::new(ids.clone(), MASK, decoding, 0, &[end]);
        let (rows, stopped) = sampled(&[row]);
        assert_eq!(rows[0].ids()[..=first], whole.ids()[..=first]);
        let stops = stopped[0].len();
        assert!(stops < steps.len(), "{stops} of {} steps", steps.len());
        assert_eq!(stopped[0][..], steps[..stopped[0].len()], "it only stops earlier");
        // A hole that does not reach the end is filled whole.
        let mut hole = ids.clone();
        hole.push(1);
        let (rows, _) = sampled(&[Denoiser::new(hole, MASK, decoding, 0, &[end])]);
        assert!(!rows[0].ids().contains(&MASK));
    }
}

#[test]
fn an_engine_without_caches_runs_whole_rows() {
    let (config, params) = model();
    let decoding =
        Decoding { accept: Accept::Threshold(0.2), block_length: Some(9), ..Decoding::default() };
    let rows: Vec<Denoiser> = [30, 41, 30]
        .into_iter()
        .zip(0..)
        .map(|(len, salt)| Denoiser::new(canvas(len, salt, |i| i > 4), MASK, decoding, salt, &[]))
        .collect();
    let (want, want_steps) = sampled(&rows);
    let mut engine = CpuEngine::new(config.clone(), RecomputePolicy::None);
    let mut uncached = Uncached::new(&mut engine, &params, config.vocab_size);
    let (mut got, mut steps) = (rows, vec![Vec::new(); 3]);
    denoise_rows(&mut uncached, &mut got, |row, step| steps[row].push(step.clone())).expect("runs");
    for row in 0..3 {
        assert_eq!(got[row].ids(), want[row].ids());
        same("uncached", &steps[row], &want_steps[row]);
    }
}

#[test]
fn the_surest_row_is_the_one_whose_tokens_were_most_probable_on_the_mean() {
    let decoding = Decoding { accept: Accept::Threshold(0.5), ..Decoding::default() };
    let rows: Vec<Denoiser> = [4, 9, 17]
        .into_iter()
        .map(|span| {
            let ids = canvas(30 + span, 8, |i| (15..15 + span).contains(&i));
            Denoiser::new(ids, MASK, decoding, 0, &[])
        })
        .collect();
    let (rows, steps) = sampled(&rows);
    let means: Vec<f64> = steps
        .iter()
        .map(|steps| {
            let all: Vec<f64> = steps
                .iter()
                .flat_map(|step| step.probabilities.iter().map(|&p| f64::from(p).ln()))
                .collect();
            all.iter().sum::<f64>() / all.len() as f64
        })
        .collect();
    let best = (0..3).max_by(|&a, &b| means[a].total_cmp(&means[b])).expect("three");
    assert_eq!(most_confident(&rows), best, "{means:?}");
    for (row, mean) in rows.iter().zip(means) {
        assert!((row.tally().mean_log_probability() - mean).abs() < 1e-12);
    }
}

type Setting = (usize, u64, u8, u8, u8, Option<usize>, u32);

/// Settings of every kind, with what belongs to a row.
fn setting() -> impl Strategy<Value = Setting> {
    let block = proptest::option::weighted(0.8, 1_usize..20);
    (2_usize..50, 0..1000_u64, 0..4_u8, 0..3_u8, 0..3_u8, block, 1..40_u32)
}

fn settled((len, salt, kind, accept, cache, block, steps): Setting) -> Denoiser {
    let draws = Stream::new(salt, 1, 0, Purpose::TokenMask);
    let ids = canvas(len, salt, |i| draws.unit_at(i as u64) < 0.6);
    let accept = match accept {
        0 => Accept::Schedule,
        1 => Accept::Threshold(0.4),
        _ => Accept::Factor(0.8),
    };
    let kind = usize::from(kind);
    let algorithm =
        if accept == Accept::Schedule { Algorithm::NAMES[kind].1 } else { Algorithm::Entropy };
    let decoding = Decoding {
        sampler: Sampler {
            steps,
            algorithm,
            temperature: 0.5 * kind as f64,
            seed: salt,
            ..Sampler::default()
        },
        accept,
        block_length: block,
        cache: [Cache::None, Cache::Prefix, Cache::Dual][usize::from(cache)],
    };
    assert_eq!(decoding.check(), Ok(()));
    Denoiser::new(ids, MASK, decoding, salt, &[3, 5])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn rows_in_company_are_rows_by_themselves(
        settings in proptest::collection::vec(setting(), 1..6),
    ) {
        let rows: Vec<Denoiser> = settings.into_iter().map(settled).collect();
        let (together, all_steps) = sampled(&rows);
        for ((row, together), steps) in rows.iter().zip(&together).zip(&all_steps) {
            let (alone, own_steps) = sampled(std::slice::from_ref(row));
            prop_assert_eq!(alone[0].ids(), together.ids());
            prop_assert_eq!(alone[0].tally(), together.tally());
            prop_assert_eq!(&own_steps[0], steps);
            // What was given stays, what is revealed stays, and everything is filled.
            let mut now = row.ids().to_vec();
            for step in steps {
                for (&at, p) in step.revealed.iter().zip(&step.probabilities) {
                    prop_assert_eq!(now[at], MASK);
                    prop_assert!(*p > 0.0 && *p <= 1.0);
                    now[at] = step.tokens[at];
                }
                prop_assert_eq!(&now, &step.tokens);
            }
            prop_assert!(together.done());
        }
    }
}
