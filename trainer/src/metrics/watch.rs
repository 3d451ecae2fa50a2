//! Whether the masks of a run come to what its curriculum expects.
//!
//! Every row has the expectation of its own shape ([`coda_curriculum::expected`]), so over many rows
//! what is observed less what is expected is a sum of independent terms with mean 0. Its distance from 0
//! in standard deviations is what the watch looks at: of the strategies the deviation is that of draws
//! with known probabilities, of the masked positions it is estimated from the steps themselves.

use std::fmt;

/// So many standard deviations are not chance, however often one looks: with a sum that is normal, a run
/// of a million steps passes 6 about once in a hundred thousand runs.
const DEVIATIONS: f64 = 6.0;
/// Before the variance of a count has reached this, its sum is too skewed to be judged by deviations.
const LEAST_VARIANCE: f64 = 20.0;
/// Fewer steps do not tell how much masked positions scatter.
const LEAST_STEPS: u64 = 50;

/// A count of one step next to its expectation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// What was drawn.
    pub observed: f64,
    /// The mean over all draws.
    pub expected: f64,
    /// The variance over all draws.
    pub variance: f64,
}

impl Count {
    /// Counts a draw with a known probability.
    pub fn draw(&mut self, taken: bool, probability: f64) {
        self.observed += f64::from(u8::from(taken));
        self.expected += probability;
        self.variance += probability * (1.0 - probability);
    }
}

/// What the steps since the start of the process came to.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    steps: u64,
    rows: f64,
    positions: f64,
    /// S1, S2, S3, and masked positions.
    sums: [Count; 4],
    /// Whether it was said already.
    said: [bool; 4],
}

/// Something whose share is not what the curriculum expects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parting {
    /// What is counted.
    pub what: &'static str,
    /// The share observed.
    pub observed: f64,
    /// The share expected.
    pub expected: f64,
    /// Standard deviations between the two; infinite for what cannot be.
    pub deviations: f64,
    /// Optimizer steps looked at.
    pub steps: u64,
}

const WHAT: [&str; 4] = ["rows with S1", "rows with S2", "rows with S3", "masked positions"];

impl Watch {
    /// Takes the counts of a step: rows, rows of S1 to S3, positions, masked positions (their variance
    /// is not looked at). Gives what has parted from its expectation, each once.
    pub fn step(
        &mut self,
        rows: u64,
        strategies: [Count; 3],
        positions: u64,
        masked: Count,
    ) -> Vec<Parting> {
        self.steps += 1;
        self.rows += rows as f64;
        self.positions += positions as f64;
        let scatter = (masked.observed - masked.expected).powi(2);
        let [s1, s2, s3] = strategies;
        for (sum, count) in
            self.sums.iter_mut().zip([s1, s2, s3, Count { variance: scatter, ..masked }])
        {
            sum.observed += count.observed;
            sum.expected += count.expected;
            sum.variance += count.variance;
        }
        let mut parted = Vec::new();
        for (place, said) in self.said.iter_mut().enumerate().filter(|(_, said)| !**said) {
            let Count { observed, expected, variance } = self.sums[place];
            let is_masked = place == 3;
            let enough =
                if is_masked { self.steps >= LEAST_STEPS } else { variance >= LEAST_VARIANCE };
            let difference = (observed - expected).abs();
            // A strategy that is off takes no row, and one that is always on takes all.
            let impossible = !is_masked && variance == 0.0 && difference > 0.5;
            let deviations = difference / variance.sqrt();
            if impossible || (enough && deviations > DEVIATIONS) {
                *said = true;
                let of = if is_masked { self.positions } else { self.rows };
                parted.push(Parting {
                    what: WHAT[place],
                    observed: observed / of,
                    expected: expected / of,
                    deviations,
                    steps: self.steps,
                });
            }
        }
        parted
    }
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, observed, expected, deviations, steps } = self;
        write!(
            f,
            "{what}: {:.3} % over {steps} steps, the curriculum expects {:.3} % ",
            observed * 100.0,
            expected * 100.0
        )?;
        if deviations.is_finite() {
            write!(f, "({deviations:.1} standard deviations away)")
        } else {
            write!(f, "(this cannot be chance)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Parting, Watch};
    use coda_random::{Purpose, Stream};

    /// Steps of 8 rows of 100 positions: S1 with `p`, every position masked with a level drawn for its row
    /// from 0 to `top`. Expected are `expected_p` and half of 1.
    fn run(seed: u64, steps: u64, p: f64, expected_p: f64, top: f64) -> Vec<Parting> {
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for step in 0..steps {
            let (mut s1, mut masked) = (Count::default(), Count::default());
            for row in 0..8 {
                let draws = Stream::new(seed, step * 8 + row, 0, Purpose::TokenMask);
                s1.draw(draws.unit_at(0) < p, expected_p);
                let level = draws.unit_at(1) * top;
                masked.observed += (2..102).filter(|&i| draws.unit_at(i) < level).count() as f64;
                masked.expected += 50.0;
            }
            let off = Count::default();
            found.extend(watch.step(8, [s1, off, off], 800, masked));
        }
        found
    }

    #[test]
    fn what_is_as_expected_is_not_reported() {
        for seed in 0..40 {
            assert_eq!(run(seed, 1000, 0.25, 0.25, 1.0), []);
            assert_eq!(run(seed, 1000, 0.01, 0.01, 1.0), []);
        }
    }

    #[test]
    fn what_parts_is_reported_once_with_both_shares() {
        let found = run(1, 4000, 0.25, 0.22, 1.0);
        let [parting] = found[..] else { panic!("{found:?}") };
        assert_eq!(parting.what, "rows with S1");
        assert!((parting.expected - 0.22).abs() < 1e-9 && parting.deviations > 6.0);
        assert!((parting.observed - 0.25).abs() < 0.02, "{parting}");
        let found = run(1, 4000, 0.25, 0.25, 0.9);
        let [parting] = found[..] else { panic!("{found:?}") };
        assert_eq!(parting.what, "masked positions");
        assert!(parting.to_string().contains("the curriculum expects 50.000 %"), "{parting}");
    }

    #[test]
    fn what_cannot_be_is_reported_at_once() {
        let mut watch = Watch::default();
        let mut s2 = Count::default();
        s2.draw(true, 0.0);
        let off = Count::default();
        let found = watch.step(1, [off, s2, off], 8, off);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("cannot be chance"), "{}", found[0]);
        assert_eq!(watch.step(1, [off, s2, off], 8, off), []);
    }
}
