//! One step: which of the masked positions take their tokens.

use super::Choice;
use coda_random::{Purpose, Stream, bernoulli_threshold};
use serde::Serialize;
use std::str::FromStr;

/// How positions are chosen (method §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Every masked position with the same probability.
    Origin,
    /// The positions whose token is most probable.
    MaskgitPlus,
    /// The positions whose best token is furthest ahead of the second.
    TopkMargin,
    /// The positions of lowest entropy.
    #[default]
    Entropy,
}

impl Algorithm {
    /// Every algorithm by its name.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("origin", Self::Origin),
        ("maskgit_plus", Self::MaskgitPlus),
        ("topk_margin", Self::TopkMargin),
        ("entropy", Self::Entropy),
    ];
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|&(_, algorithm)| algorithm).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("there is no algorithm {name}, only {}", names.join(", "))
        })
    }
}

/// The time before step `i` of `steps`: from 1 down to `eps`, evenly.
pub(crate) fn time(i: u32, steps: u32, eps: f64) -> f64 {
    1.0 + (eps - 1.0) * f64::from(i) / f64::from(steps)
}

/// The share of masked positions that step `i` reveals: `1 - s/t`, all on the last step.
pub(crate) fn share(i: u32, steps: u32, eps: f64) -> f64 {
    if i + 1 == steps { 1.0 } else { 1.0 - time(i + 1, steps, eps) / time(i, steps, eps) }
}

/// How many of `masked` positions step `i` of `steps` reveals: `floor(masked · (1 - s/t))`, all on
/// the last step.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
pub fn quota(masked: usize, i: u32, steps: u32, eps: f64) -> usize {
    ((masked as f64 * share(i, steps, eps)).floor() as usize).min(masked)
}

/// `origin`: the indices of the revealed positions, each taken with probability `1 - s/t`.
#[must_use]
pub fn reveal_origin(
    positions: &[usize],
    i: u32,
    steps: u32,
    eps: f64,
    draws: Stream,
) -> Vec<usize> {
    let threshold = bernoulli_threshold(share(i, steps, eps));
    (0..positions.len())
        .filter(|&index| u64::from(draws.u32_at(positions[index] as u64)) < threshold)
        .collect()
}

/// The others: the indices of the `count` choices of highest confidence, ascending; ties go to the
/// lowest position. With `temperature` above 0 they are drawn without replacement from
/// softmax(confidence / temperature), by adding Gumbel noise and taking the largest.
#[must_use]
pub fn reveal_confident(
    positions: &[usize],
    choices: &[Choice],
    count: usize,
    temperature: f64,
    draws: Stream,
) -> Vec<usize> {
    let score = |index: usize| {
        let confidence = f64::from(choices[index].confidence);
        if temperature > 0.0 {
            // The draw is moved to the middle of its step of 2^-32, so that it is never 0.
            let unit = draws.unit_at(positions[index] as u64) + 0.5 / 4_294_967_296.0;
            confidence / temperature - (-unit.ln()).ln()
        } else {
            confidence
        }
    };
    let mut ranked: Vec<(usize, f64)> = (0..choices.len()).map(|i| (i, score(i))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut revealed: Vec<usize> = ranked.into_iter().take(count).map(|(i, _)| i).collect();
    revealed.sort_unstable();
    revealed
}

/// The draws of step `i`: which positions.
pub(crate) fn order_draws(seed: u64, row: u64, i: u32) -> Stream {
    Stream::new(seed, row, i, Purpose::SampleOrder)
}

/// The draws of step `i`: which tokens.
pub(crate) fn token_draws(seed: u64, row: u64, i: u32) -> Stream {
    Stream::new(seed, row, i, Purpose::SampleToken)
}

#[cfg(test)]
mod tests {
    use super::{Choice, order_draws, quota, reveal_confident, reveal_origin};

    fn choices(confidences: &[f32]) -> Vec<Choice> {
        let choice = |&confidence| Choice { token: 0, confidence, probability: confidence };
        confidences.iter().map(choice).collect()
    }

    #[test]
    fn quotas_by_hand() {
        // eps 0, four steps: times 1, 3/4, 1/2, 1/4; shares 1/4, 1/3, 1/2, all.
        assert_eq!(quota(8, 0, 4, 0.0), 2);
        assert_eq!(quota(7, 1, 4, 0.0), 2);
        assert_eq!(quota(5, 2, 4, 0.0), 2);
        assert_eq!(quota(3, 3, 4, 0.0), 3);
        assert_eq!(quota(9, 0, 1, 1e-3), 9);
        // As many steps as positions: the share times the rest is a little under 1.
        assert_eq!(quota(64, 0, 64, 1e-3), 0);
    }

    #[test]
    fn steps_that_do_not_divide_the_length_reveal_everything_once() {
        for (length, steps) in [(10_usize, 3_u32), (7, 16), (100, 7), (1, 1), (5, 5)] {
            let mut left = length;
            for i in 0..steps {
                left -= quota(left, i, steps, 1e-3);
            }
            assert_eq!(left, 0, "{length} positions in {steps} steps");
        }
    }

    #[test]
    fn the_surest_first_and_ties_to_the_lowest_position() {
        let draws = order_draws(1, 0, 0);
        let choices = choices(&[0.2, 0.9, 0.5, 0.9, 0.5]);
        let positions = [3, 4, 8, 9, 11];
        let revealed = |count| reveal_confident(&positions, &choices, count, 0.0, draws);
        assert_eq!(revealed(1), [1]);
        assert_eq!(revealed(3), [1, 2, 3]);
        assert_eq!(revealed(0), [0_usize; 0]);
    }

    #[test]
    fn with_a_temperature_positions_are_drawn_by_their_softmax() {
        // Confidences ln 1, ln 2, ln 5 at temperature 1: first draws at 1/8, 2/8, 5/8.
        let choices = choices(&[0.0, 2.0_f32.ln(), 5.0_f32.ln()]);
        let mut first = [0_u32; 3];
        for seed in 0..8000 {
            for i in reveal_confident(&[0, 1, 2], &choices, 1, 1.0, order_draws(seed, 0, 3)) {
                first[i] += 1;
            }
        }
        for (count, expected) in first.iter().zip([1000.0, 2000.0, 5000.0]) {
            let deviation =
                (f64::from(*count) - expected) / (expected * (1.0 - expected / 8000.0)).sqrt();
            assert!(deviation.abs() < 4.0, "{first:?}");
        }
        // Two of them without replacement: P(0 is left out) = 2/8·5/6 + 5/8·2/3 = 0.625.
        let left_out = (0..8000)
            .filter(|&seed| {
                !reveal_confident(&[0, 1, 2], &choices, 2, 1.0, order_draws(seed, 0, 3))
                    .contains(&0)
            })
            .count();
        assert!((left_out as f64 - 5000.0).abs() < 4.0 * 43.3, "{left_out}");
    }

    #[test]
    fn origin_reveals_at_its_rate_and_everything_at_the_end() {
        let positions: Vec<usize> = (0..40_000).collect();
        let revealed = |i| reveal_origin(&positions, i, 4, 0.0, order_draws(7, 0, i)).len();
        assert!((revealed(0) as f64 - 10_000.0).abs() < 4.0 * 86.7);
        assert!((revealed(2) as f64 - 20_000.0).abs() < 4.0 * 100.0);
        assert_eq!(revealed(3), 40_000);
    }
}
