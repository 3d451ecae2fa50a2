//! The value of a schedule at a point of training (method §4).

use coda_manifests::{ConditionedSpan, Schedule};

/// How far training is. The one clock that schedules read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Optimizer steps done before this one: the first step is 0.
    pub step: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Passes over the training rows completed before this step.
    pub epoch: u32,
}

/// A value that a schedule may hold.
pub trait Scheduled: Clone {
    /// The value a fraction `t` in `[0, 1)` of the way between two others.
    #[must_use]
    fn between(from: &Self, to: &Self, t: f64) -> Self;

    /// Whether there are values between two others.
    const HAS_MIDDLE: bool;
}

impl Scheduled for f64 {
    const HAS_MIDDLE: bool = true;

    fn between(from: &Self, to: &Self, t: f64) -> Self {
        from + (to - from) * t
    }
}

/// Lists have no middle: the first holds until the next value's step. [`crate::Curriculum::check`]
/// refuses ramps of block sizes, which a table says more plainly.
impl Scheduled for Vec<u32> {
    const HAS_MIDDLE: bool = false;

    fn between(from: &Self, _to: &Self, _t: f64) -> Self {
        from.clone()
    }
}

/// The value of `schedule` at `progress`.
///
/// * constant: the value;
/// * linear: `from + (to - from) · min(1, step / steps)`;
/// * cosine: `from + (to - from) · c(step / steps)`, where `c` is [`half_cosine`], then `to`;
/// * piecewise: between the points `(s, v)` and `(S, V)`, `v + (V - v) · ((step - s) / (S - s))`, lists
///   `v`; before the first point its value, after the last one its own;
/// * epochs: entry `epoch`, the last one holds;
/// * epoch cycle: entry `epoch mod n`;
/// * phases: `n` equal phases of the total steps, entry `floor(step · n / total_steps)`, the last
///   one holds;
/// * with a hold: as if it never waited ([`crate::Curriculum::at`] reads it at its own clock).
///
/// # Panics
/// If a table is empty; [`crate::Curriculum::check`] refuses those.
#[must_use]
pub fn value_at<T: Scheduled>(schedule: &Schedule<T>, progress: Progress) -> T {
    match schedule {
        Schedule::Constant(value) => value.clone(),
        Schedule::Linear { from, to, steps } => {
            if progress.step >= *steps {
                to.clone()
            } else {
                T::between(from, to, progress.step as f64 / *steps as f64)
            }
        }
        Schedule::Cosine { from, to, steps } => {
            if progress.step >= *steps {
                to.clone()
            } else {
                T::between(from, to, half_cosine(progress.step as f64 / *steps as f64))
            }
        }
        Schedule::Piecewise(points) => piecewise(points, progress.step),
        Schedule::Epochs(table) => entry(table, u64::from(progress.epoch)),
        Schedule::EpochCycle(table) => entry(table, u64::from(progress.epoch) % len(table)),
        Schedule::Phases(table) => entry(table, phase(progress, len(table))),
        Schedule::Held { schedule, .. } => value_at(schedule, progress),
    }
}

/// `(-1)^i (π/2)^(2i + 1) / (2i + 1)!`: the series of `sin(π t / 2)` in odd powers of `t`.
const SINE: [f64; 9] = [
    std::f64::consts::FRAC_PI_2,
    -0.645_964_097_506_246_3,
    0.079_692_626_246_167_05,
    -0.004_681_754_135_318_688,
    0.000_160_441_184_787_359_83,
    -3.598_843_235_212_085e-6,
    5.692_172_921_967_927e-8,
    -6.688_035_109_811_468e-10,
    6.066_935_731_106_195_5e-12,
];

/// `(1 - cos(π t)) / 2` for `t` in `[0, 1]`: 0 at 0, 1/2 at 1/2, 1 at 1.
///
/// Not the platform's cosine, which differs in its last bits from machine to machine, but
/// multiplications and additions of f64, each rounded (no fused multiply-add), in this order: for
/// `t > 1/2` it is `1 - half_cosine(1 - t)`; else, with `z = t · t`, `p = SINE[8]`, then
/// `p = p · z + SINE[i]` for `i` from 7 down to 0, and `s = p · t`, it is `s · s`. Within 1e-15 of the
/// true value.
#[must_use]
pub fn half_cosine(t: f64) -> f64 {
    if t > 0.5 {
        return 1.0 - half_cosine(1.0 - t);
    }
    let z = t * t;
    let s = SINE.iter().rev().fold(0.0, |p, coefficient| p * z + coefficient) * t;
    s * s
}

fn piecewise<T: Scheduled>(points: &[(u64, T)], step: u64) -> T {
    let next = points.partition_point(|&(at, _)| at <= step);
    match (next.checked_sub(1).map(|last| &points[last]), points.get(next)) {
        (Some((from, a)), Some((to, b))) => {
            T::between(a, b, (step - from) as f64 / (to - from) as f64)
        }
        (Some((_, value)), None) | (None, Some((_, value))) => value.clone(),
        (None, None) => panic!("a schedule's points are at least one"),
    }
}

/// The index of the phase, of `phases` equal ones, that `progress` lies in.
#[must_use]
pub fn phase(progress: Progress, phases: u64) -> u64 {
    let total = u128::from(progress.total_steps.max(1));
    let index = u128::from(progress.step) * u128::from(phases) / total;
    u64::try_from(index).unwrap_or(u64::MAX).min(phases.saturating_sub(1))
}

/// The first step of phase `index` of `phases` equal ones: the least step for which [`phase`] gives
/// `index`.
#[must_use]
pub fn phase_start(index: u64, phases: u64, total_steps: u64) -> u64 {
    let start = (u128::from(index) * u128::from(total_steps)).div_ceil(u128::from(phases.max(1)));
    u64::try_from(start).unwrap_or(u64::MAX)
}

/// The first step below `total` for which `holds`, which then goes on to hold.
#[must_use]
pub fn first_step(total: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (0, total);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low < total).then_some(low)
}

/// The share of a prompt that is protected (method §5): `r = clamp(step / max(1, total_steps · R), 0, 1)`,
/// and 1 when annealing is off.
#[must_use]
pub fn span_ratio(span: ConditionedSpan, progress: Progress) -> f64 {
    match span {
        ConditionedSpan::Off => 1.0,
        ConditionedSpan::Ratio(ratio) => {
            let steps = (progress.total_steps as f64 * ratio).max(1.0);
            (progress.step as f64 / steps).clamp(0.0, 1.0)
        }
    }
}

fn len<T>(table: &[T]) -> u64 {
    table.len() as u64
}

fn entry<T: Clone>(table: &[T], index: u64) -> T {
    let last = table.len().checked_sub(1).expect("a schedule's table has entries");
    table[usize::try_from(index).map_or(last, |index| index.min(last))].clone()
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "schedules give exact values")]
mod tests {
    use super::{Progress, half_cosine, phase, phase_start, span_ratio, value_at};
    use coda_manifests::{ConditionedSpan, Schedule};
    use proptest::prelude::*;

    fn at(step: u64, epoch: u32) -> Progress {
        Progress { step, total_steps: 100, epoch }
    }

    #[test]
    fn constants_and_ramps() {
        assert_eq!(value_at(&Schedule::Constant(0.25), at(70, 3)), 0.25);
        let ramp = Schedule::Linear { from: 0.0, to: 0.3, steps: 40 };
        let values: Vec<f64> = [0, 10, 39, 40, 99].map(|s| value_at(&ramp, at(s, 0))).into();
        assert_eq!(values, [0.0, 0.3 * 0.25, 0.3 * (39.0 / 40.0), 0.3, 0.3]);
        let instant = Schedule::Linear { from: 0.5, to: 1.0, steps: 0 };
        assert_eq!(value_at(&instant, at(0, 0)), 1.0);
    }

    /// Known answers, bit for bit: those of the plain Python in `docs/curriculum.md`.
    #[test]
    fn half_a_cosine_is_the_same_everywhere() {
        let known: [(f64, u64); 7] = [
            (0.0, 0x0000_0000_0000_0000),
            (0.1, 0x3f99_0f1e_cbba_b00a),
            (0.25, 0x3fc2_bec3_3301_8867),
            (1.0 / 3.0, 0x3fd0_0000_0000_0000),
            (0.5, 0x3fdf_ffff_ffff_fffe),
            (0.75, 0x3feb_504f_333f_9de6),
            (1.0, 0x3ff0_0000_0000_0000),
        ];
        for (t, bits) in known {
            assert_eq!(half_cosine(t).to_bits(), bits, "{t}: {}", half_cosine(t));
        }
    }

    #[test]
    fn cosines_and_points() {
        let wave = Schedule::Cosine { from: 0.1, to: 0.5, steps: 40 };
        let values = [0, 20, 40, 90].map(|s| value_at(&wave, at(s, 0)));
        assert!((values[1] - 0.3).abs() < 1e-15);
        assert_eq!([values[0], values[2], values[3]], [0.1, 0.5, 0.5]);
        let points = Schedule::Piecewise(vec![(10, 0.0), (20, 1.0), (60, 0.5)]);
        let values = [0, 10, 15, 20, 30, 60, 99].map(|s| value_at(&points, at(s, 0)));
        assert_eq!(values, [0.0, 0.0, 0.5, 1.0, 0.875, 0.5, 0.5]);
        let sizes = Schedule::Piecewise(vec![(5, vec![4]), (9, vec![8, 16])]);
        let values = [0, 5, 8, 9, 99].map(|s| value_at(&sizes, at(s, 0)));
        assert_eq!(values, [vec![4], vec![4], vec![4], vec![8, 16], vec![8, 16]]);
    }

    #[test]
    fn tables_by_epoch_hold_or_cycle() {
        let values = vec![0.01, 0.05, 0.2];
        let held = Schedule::Epochs(values.clone());
        let cycled = Schedule::EpochCycle(values);
        let list = |schedule| (0..5).map(|e| value_at(schedule, at(0, e))).collect::<Vec<_>>();
        assert_eq!(list(&held), [0.01, 0.05, 0.2, 0.2, 0.2]);
        assert_eq!(list(&cycled), [0.01, 0.05, 0.2, 0.01, 0.05]);
    }

    #[test]
    fn phases_of_block_sizes() {
        let phases = Schedule::Phases(vec![vec![2, 4], vec![8, 16], vec![32]]);
        let sizes = |step| value_at(&phases, at(step, 0));
        assert_eq!([sizes(0), sizes(33)], [[2, 4], [2, 4]]);
        assert_eq!([sizes(34), sizes(66)], [[8, 16], [8, 16]]);
        assert_eq!([sizes(67), sizes(100), sizes(u64::MAX)], [[32], [32], [32]]);
    }

    #[test]
    fn the_conditioned_span_opens_over_its_share_of_the_steps() {
        let at = |span, step| span_ratio(span, Progress { step, total_steps: 1000, epoch: 0 });
        let tenth = ConditionedSpan::Ratio(0.1);
        assert_eq!([0, 50, 100, 900].map(|s| at(tenth, s)), [0.0, 0.5, 1.0, 1.0]);
        let none = ConditionedSpan::Ratio(0.0);
        assert_eq!([0, 1, 2].map(|s| at(none, s)), [0.0, 1.0, 1.0]);
        assert_eq!(at(ConditionedSpan::Off, 0), 1.0);
    }

    proptest! {
        #[test]
        fn half_a_cosine_is_one(t in 0.0f64..=1.0) {
            let exact = f64::midpoint(1.0, -(std::f64::consts::PI * t).cos());
            prop_assert!((half_cosine(t) - exact).abs() < 1e-15);
        }

        #[test]
        fn a_phase_starts_where_it_says(total in 1u64..5000, phases in 1u64..40) {
            for index in 0..phases.min(total) {
                let start = phase_start(index, phases, total);
                let phase_at = |step| phase(Progress { step, total_steps: total, epoch: 0 }, phases);
                prop_assert!(phase_at(start) >= index);
                prop_assert!(start == 0 || phase_at(start - 1) < index);
            }
        }
    }
}
