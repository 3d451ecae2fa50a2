//! The loop: forward, choose, reveal, until nothing is masked.

use super::{
    Algorithm, Choice, choose,
    reveal::{order_draws, quota, reveal_confident, reveal_origin, token_draws},
};
use serde::Serialize;

/// The settings of sampling (method §6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampler {
    /// The number of steps.
    pub steps: u32,
    /// The last time; the first is 1.
    pub eps: f64,
    /// How positions are chosen.
    pub algorithm: Algorithm,
    /// Above 0, positions are drawn instead of ranked.
    pub alg_temp: f64,
    /// Above 0, tokens are drawn instead of the best taken.
    pub temperature: f64,
    /// The share of probability that tokens are drawn from.
    pub top_p: Option<f64>,
    /// The number of tokens that are drawn from.
    pub top_k: Option<usize>,
    /// Every draw is keyed by (seed, sample, step, position).
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            steps: 512,
            eps: 1e-3,
            algorithm: Algorithm::default(),
            alg_temp: 0.0,
            temperature: 0.0,
            top_p: None,
            top_k: None,
            seed: 17,
        }
    }
}

impl Sampler {
    /// Chooses one position's token from its logits, of which the mask's is taken out.
    pub(super) fn choice(&self, logits: &mut [f32], mask_id: u32, draw: f64) -> Choice {
        logits[mask_id as usize] = f32::NEG_INFINITY;
        let Self { algorithm, temperature, top_p, top_k, .. } = *self;
        choose(logits, algorithm, temperature, top_p, top_k, draw)
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// From 0.
    pub step: u32,
    /// All ids after the step; the mask id where nothing is revealed yet.
    pub tokens: Vec<u32>,
    /// The positions that this step revealed, ascending.
    pub revealed: Vec<usize>,
    /// The probability of the token at each of them, when it was chosen.
    pub probabilities: Vec<f32>,
}

/// Fills every mask id of `ids`.
///
/// `logits` gives, for the ids and a list of positions, the model's outputs at these positions one
/// after the other. The output at `j - 1` predicts position `j`; position 0 keeps its own. The mask
/// id itself is never chosen. `sample` numbers the samples of one seed. `seen` is told every step,
/// also those that reveal nothing (their forward is not computed: it could change nothing).
///
/// # Errors
/// What `logits` fails with.
///
/// # Panics
/// If `logits` gives less than a row of logits, with the mask id in it, for every position.
pub fn denoise<E>(
    ids: &mut [u32],
    mask_id: u32,
    sampler: &Sampler,
    sample: u64,
    mut logits: impl FnMut(&[u32], &[usize]) -> Result<Vec<f32>, E>,
    mut seen: impl FnMut(&Step),
) -> Result<(), E> {
    for step in 0..sampler.steps {
        let masked: Vec<usize> = (0..ids.len()).filter(|&j| ids[j] == mask_id).collect();
        let order = order_draws(sampler.seed, sample, step);
        // `origin` does not look at confidences, so only what it reveals needs logits at all.
        let (wanted, count) = if sampler.algorithm == Algorithm::Origin {
            let indices = reveal_origin(&masked, step, sampler.steps, sampler.eps, order);
            let wanted: Vec<usize> = indices.into_iter().map(|index| masked[index]).collect();
            let count = wanted.len();
            (wanted, count)
        } else {
            let count = quota(masked.len(), step, sampler.steps, sampler.eps);
            (masked, count)
        };
        let (mut revealed, mut probabilities) = (Vec::new(), Vec::new());
        if count > 0 {
            let sources: Vec<usize> = wanted.iter().map(|&j| j.saturating_sub(1)).collect();
            let mut rows = logits(ids, &sources)?;
            let vocabulary = rows.len() / sources.len();
            let draws = token_draws(sampler.seed, sample, step);
            let choices: Vec<_> = wanted
                .iter()
                .zip(rows.chunks_exact_mut(vocabulary))
                .map(|(&at, row)| sampler.choice(row, mask_id, draws.unit_at(at as u64)))
                .collect();
            let chosen = if sampler.algorithm == Algorithm::Origin {
                (0..choices.len()).collect()
            } else {
                reveal_confident(&wanted, &choices, count, sampler.alg_temp, order)
            };
            for index in chosen {
                ids[wanted[index]] = choices[index].token;
                revealed.push(wanted[index]);
                probabilities.push(choices[index].probability);
            }
        }
        seen(&Step { step, tokens: ids.to_vec(), revealed, probabilities });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Sampler, Step, denoise};
    use std::convert::Infallible;

    const MASK: u32 = 5;

    /// Fixed logits: position `j` prefers token `j mod 5`, more so the higher `j` is; the mask id
    /// would win everywhere if it were allowed to.
    #[allow(clippy::unnecessary_wraps, reason = "the signature of a model")]
    fn model(_: &[u32], positions: &[usize]) -> Result<Vec<f32>, Infallible> {
        let row = |&source: &usize| {
            let mut row = [0.0_f32; 6];
            row[(source + 1) % 5] = 1.0 + source as f32;
            row[MASK as usize] = 100.0;
            row
        };
        Ok(positions.iter().flat_map(row).collect())
    }

    fn run(ids: &mut [u32], sampler: &Sampler) -> Vec<Step> {
        let mut steps = Vec::new();
        let Ok(()) = denoise(ids, MASK, sampler, 0, model, |step| steps.push(step.clone()));
        steps
    }

    #[test]
    fn the_output_before_a_position_predicts_it() {
        let mut ids = [0, MASK, MASK, MASK, MASK];
        run(&mut ids, &Sampler { steps: 1, ..Sampler::default() });
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        // Position 0 reads its own output, which here prefers token 1.
        let mut ids = [MASK, 3];
        run(&mut ids, &Sampler { steps: 1, ..Sampler::default() });
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn the_surest_come_first_and_nothing_revealed_changes() {
        for algorithm in [Algorithm::MaskgitPlus, Algorithm::TopkMargin, Algorithm::Entropy] {
            let mut ids = [0, MASK, MASK, 4, MASK, MASK];
            let steps =
                run(&mut ids, &Sampler { steps: 4, eps: 0.0, algorithm, ..Sampler::default() });
            let revealed: Vec<&[usize]> = steps.iter().map(|s| s.revealed.as_slice()).collect();
            assert_eq!(revealed, [[5].as_slice(), &[4], &[2], &[1]], "{algorithm:?}");
            assert_eq!(ids, [0, 1, 2, 4, 4, 0]);
        }
    }

    #[test]
    fn infilling_leaves_what_is_not_masked() {
        for (_, algorithm) in Algorithm::NAMES {
            for steps in [1, 3, 7, 64] {
                let sampler = Sampler {
                    steps,
                    algorithm,
                    temperature: 0.7,
                    alg_temp: 0.5,
                    top_p: Some(0.9),
                    top_k: Some(3),
                    ..Sampler::default()
                };
                let mut ids: Vec<u32> =
                    (0..40).map(|i| if i % 3 == 0 { 2 } else { MASK }).collect();
                let trace = run(&mut ids, &sampler);
                assert!(!ids.contains(&MASK), "{algorithm:?} {steps}");
                assert!(ids.iter().step_by(3).all(|&id| id == 2));
                let mut all: Vec<usize> = trace.iter().flat_map(|s| s.revealed.clone()).collect();
                all.sort_unstable();
                assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "revealed twice");
                assert_eq!(all.len(), 26);
                assert_eq!(trace.len(), steps as usize);
            }
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        let sampler = |seed| Sampler { steps: 5, temperature: 3.0, seed, ..Sampler::default() };
        let sampled = |seed| {
            let mut ids = [MASK; 30];
            run(&mut ids, &sampler(seed));
            ids
        };
        assert_eq!(sampled(1), sampled(1));
        assert_ne!(sampled(1), sampled(2));
    }
}
