//! The learning rate at a step.

use coda_manifests::LrSchedule;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// The learning rate of a run, as Hugging Face's schedulers define it.
///
/// With `s` the step counted from 0, `W` the warm-up, `T` all steps and `m` the last share:
/// `peak · s / W` for `s < W`; after it, with `t = min(1, (s - W) / (T - W))`,
/// `peak · (m + (1 - m) · f(t))` where `f` is `1 - t` (linear), `(1 + cos πt) / 2` (cosine) or
/// 1 (constant).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// Its highest value.
    pub peak: f64,
    /// How it falls after the warm-up.
    pub schedule: LrSchedule,
    /// Steps over which it rises from 0 (W).
    pub warmup_steps: u64,
    /// Its value at the end as a share of the peak (m).
    pub min_ratio: f64,
}

impl LearningRate {
    /// The rate of step `step` (the first is 0) of `total_steps`.
    #[must_use]
    pub fn at(&self, step: u64, total_steps: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step as f64 / self.warmup_steps as f64);
        }
        let span = total_steps.saturating_sub(self.warmup_steps).max(1);
        let t = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let share = match self.schedule {
            LrSchedule::Linear => 1.0 - t,
            LrSchedule::Cosine => 0.5 * (1.0 + (PI * t).cos()),
            LrSchedule::Constant => 1.0,
        };
        self.peak * (self.min_ratio + (1.0 - self.min_ratio) * share)
    }
}
