//! How many of a step's candidates are taken when their number is not given by a schedule.

use super::{Accept, Choice};

/// The indices of the choices that a step takes, ascending, by the threshold or the factor rule
/// (method §6, after Fast-dLLM): by the threshold all whose probability reaches it; by the factor the
/// `n` most probable, `n` being the largest with `p_(n) >= 1 - f / (n + 1)`. When that is none, the one
/// of the highest confidence, so that every step takes at least one. Ties go to the lowest position.
///
/// A threshold of 1 takes one token a step, also where the model's probability rounds to 1.
#[must_use]
pub fn accept(rule: Accept, choices: &[Choice]) -> Vec<usize> {
    let mut taken: Vec<usize> = match rule {
        Accept::Schedule => Vec::new(),
        Accept::Threshold(threshold) => (0..choices.len())
            .filter(|&i| threshold < 1.0 && f64::from(choices[i].probability) >= threshold)
            .collect(),
        Accept::Factor(factor) => {
            let mut order = ranked(choices, |choice| choice.probability);
            let reaches = |n: usize| {
                let p = f64::from(choices[order[n - 1]].probability);
                p >= 1.0 - factor / (n as f64 + 1.0)
            };
            let n = (1..=choices.len()).rev().find(|&n| reaches(n)).unwrap_or(0);
            order.truncate(n);
            order
        }
    };
    if taken.is_empty() {
        taken.extend(ranked(choices, |choice| choice.confidence).first());
    }
    taken.sort_unstable();
    taken
}

/// Indices from the highest score to the lowest, equal ones in ascending order.
fn ranked(choices: &[Choice], score: impl Fn(&Choice) -> f32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    order.sort_by(|&a, &b| score(&choices[b]).total_cmp(&score(&choices[a])));
    order
}

#[cfg(test)]
mod tests {
    use super::{Accept, Choice, accept};

    fn choices(probabilities: &[f32]) -> Vec<Choice> {
        let choice = |&probability| Choice { token: 0, confidence: probability, probability };
        probabilities.iter().map(choice).collect()
    }

    #[test]
    fn the_threshold_takes_all_that_reach_it_and_at_least_the_best() {
        let choices = choices(&[0.5, 0.95, 0.9, 0.2, 0.95]);
        assert_eq!(accept(Accept::Threshold(0.9), &choices[..3]), [1]);
        assert_eq!(accept(Accept::Threshold(0.5), &choices), [0, 1, 2, 4]);
        assert_eq!(accept(Accept::Threshold(0.99), &choices), [1]);
        assert_eq!(accept(Accept::Threshold(0.0), &choices), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_threshold_of_1_takes_one_even_where_all_are_certain() {
        assert_eq!(accept(Accept::Threshold(1.0), &choices(&[0.3, 1.0, 1.0])), [1]);
    }

    #[test]
    fn the_factor_by_hand() {
        // f = 1: n = 1 needs 1/2, n = 2 needs 2/3, n = 3 needs 3/4, n = 4 needs 4/5.
        let take = |probabilities: &[f32]| accept(Accept::Factor(1.0), &choices(probabilities));
        assert_eq!(take(&[0.4, 0.3]), [0]);
        assert_eq!(take(&[0.6, 0.6, 0.1]), [0]);
        assert_eq!(take(&[0.7, 0.1, 0.68]), [0, 2]);
        // The largest n counts, though n = 2 alone would fall short by its own second.
        assert_eq!(take(&[0.9, 0.76, 0.8, 0.2]), [0, 1, 2]);
        assert_eq!(take(&[0.9, 0.74, 0.8, 0.85]), [0, 2, 3]);
    }

    #[test]
    fn when_none_reaches_the_algorithm_says_which_is_best() {
        let of = |confidence, probability| Choice { token: 0, confidence, probability };
        let choices = [of(-2.0, 0.6), of(-1.0, 0.5)];
        assert_eq!(accept(Accept::Threshold(0.9), &choices), [1]);
        assert_eq!(accept(Accept::Threshold(0.55), &choices), [0]);
    }
}
