//! What holds for every schedule that waits for a loss, whatever the losses are.

use coda_curriculum::{Clocks, Curriculum, HoldPath, HoldRule, HoldState, Progress, Settings};
use coda_manifests::{
    ConditionedSpan, HeldOutLoss, Hold, MaskBlocks, Profile, Schedule, SourceCurriculum,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn curriculum(p3: Schedule<f64>, block_sizes: Schedule<Vec<u32>>) -> Curriculum {
    Curriculum {
        profile: Profile::CodaPaper,
        seed: 17,
        p1: Schedule::Constant(0.1),
        p2: Schedule::Constant(0.1),
        p3,
        block_sizes,
        mask_blocks: MaskBlocks::Tokens,
        sampling_eps: Schedule::Constant(1e-3),
        conditioned_span: ConditionedSpan::Off,
        score_pads: true,
        sources: BTreeMap::new(),
    }
}

fn held<T>(schedule: Schedule<T>, hold: Hold) -> Schedule<T> {
    Schedule::Held { schedule: Box::new(schedule), hold }
}

fn hold(patience: u32, min_delta: f64, max_hold: u64) -> Hold {
    Hold { on: HeldOutLoss::S3, patience, min_delta, max_hold }
}

/// A run of `total` steps whose epochs have `epoch` steps.
fn progress(total: u64, epoch: u64) -> impl Fn(u64) -> Progress {
    move |step| Progress {
        step,
        total_steps: total,
        epoch: u32::try_from(step / epoch).expect("few epochs"),
    }
}

/// The one rule of a curriculum.
fn rule(p3: Schedule<f64>, total: u64, epoch: u64) -> HoldRule {
    let rules = curriculum(p3, Schedule::Constant(vec![4])).holds(total, &progress(total, epoch));
    let [rule] = rules.try_into().expect("one rule");
    rule
}

/// The states after 0, 1, 2 … steps; a loss is measured after the steps that `losses` has.
fn run(rule: &HoldRule, total: u64, losses: &BTreeMap<u64, f64>) -> Vec<HoldState> {
    let mut states = Vec::new();
    let mut state = HoldState::default();
    for step in 0..=total {
        if let Some(&loss) = losses.get(&step) {
            state = rule.observe(state, loss);
        }
        if step > 0 {
            state = rule.advance(state);
        }
        states.push(state);
    }
    states
}

/// The same from all losses since the last gate, without any state but these and the clock.
fn naive_clocks(rule: &HoldRule, total: u64, losses: &BTreeMap<u64, f64>) -> Vec<u64> {
    let (mut clock, mut waited, mut seen) = (0, 0, Vec::new());
    let mut clocks = Vec::new();
    for step in 0..=total {
        seen.extend(losses.get(&step));
        if step > 0 {
            // The best so far at each measurement, in the sense of the rule; how long since it changed.
            let (mut best, mut since) = (f64::INFINITY, 0_u32);
            for &loss in &seen {
                if best == f64::INFINITY || best - loss > rule.hold.min_delta {
                    (best, since) = (loss, 0);
                } else {
                    since += 1;
                }
            }
            if !rule.gates.contains(&(clock + 1)) {
                clock += 1;
            } else if since >= rule.hold.patience || waited == rule.hold.max_hold {
                clock += 1;
                waited = 0;
                seen.clear();
            } else {
                waited += 1;
            }
        }
        clocks.push(clock);
    }
    clocks
}

fn schedules() -> impl Strategy<Value = Schedule<f64>> {
    let values = prop::collection::vec(0.0..1.0, 2..6);
    prop_oneof![
        values.clone().prop_map(Schedule::Phases),
        values.clone().prop_map(Schedule::Epochs),
        values.prop_map(Schedule::EpochCycle),
        prop::collection::btree_map(0u64..200, 0.0..1.0, 2..6)
            .prop_map(|points| Schedule::Piecewise(points.into_iter().collect())),
    ]
}

prop_compose! {
    /// A rule, the steps of its run, and losses that mostly fall.
    fn runs()(
        schedule in schedules(),
        total in 1u64..300,
        epoch in 1u64..90,
        every in 1u64..40,
        patience in 1u32..5,
        min_delta in prop_oneof![Just(0.0), 0.0..0.2],
        max_hold in 1u64..120,
        falls in prop::collection::vec(-0.1f64..0.3, 301),
    ) -> (HoldRule, u64, BTreeMap<u64, f64>) {
        let rule = rule(held(schedule, hold(patience, min_delta, max_hold)), total, epoch);
        let mut loss = 9.0;
        let mut losses = BTreeMap::new();
        for (step, fall) in (0..=total).zip(falls) {
            if step.is_multiple_of(every) {
                loss -= fall;
                losses.insert(step, loss);
            }
        }
        (rule, total, losses)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_clock_stands_only_before_gates_and_never_too_long((rule, total, losses) in runs()) {
        let states = run(&rule, total, &losses);
        for pair in states.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            prop_assert!(after.held <= rule.hold.max_hold);
            let at_gate = rule.gates.contains(&(before.clock + 1));
            if after.clock == before.clock {
                prop_assert!(at_gate);
                prop_assert_eq!(after.held, before.held + 1);
            } else {
                prop_assert_eq!(after.clock, before.clock + 1);
                prop_assert_eq!(after.held, 0);
            }
        }
        prop_assert!(states[usize::try_from(total).unwrap()].clock <= total);
    }

    #[test]
    fn a_clock_is_the_naive_one((rule, total, losses) in runs()) {
        let clocks: Vec<u64> = run(&rule, total, &losses).iter().map(|state| state.clock).collect();
        prop_assert_eq!(clocks, naive_clocks(&rule, total, &losses));
    }

    /// What a run writes at its evaluations gives the clock of every step, also while it still runs.
    #[test]
    fn recorded_states_give_every_clock((rule, total, losses) in runs(), done in 0u64..300) {
        let done = done.min(total);
        let states = run(&rule, total, &losses);
        let at = |step: u64| states[usize::try_from(step).unwrap()];
        let recorded: BTreeMap<u64, HoldState> =
            losses.keys().filter(|step| **step <= done).map(|&step| (step, at(step))).collect();
        let path = HoldPath::recorded(&rule, &recorded, done).unwrap();
        for step in 0..=done {
            prop_assert_eq!(path.clock(step), at(step).clock, "step {}", step);
        }
        for step in done..total {
            prop_assert!(path.clock(step + 1) == path.clock(step) + 1, "no wait is assumed");
        }
        for step in 0..done {
            let clock = path.clock(step);
            prop_assert!(path.step_of(clock) <= step && path.clock(path.step_of(clock)) == clock);
        }
    }

    /// A hold that was given to a run on its way: its clock began at the step.
    #[test]
    fn a_hold_that_comes_later_is_recorded_from_then_on(
        (rule, total, losses) in runs(),
        begun in 1u64..200,
    ) {
        let begun = begun.min(total);
        let mut state = HoldState { clock: begun, ..HoldState::default() };
        let mut clocks: BTreeMap<u64, u64> = (0..=begun).map(|step| (step, step)).collect();
        let mut recorded = BTreeMap::new();
        for step in begun + 1..=total {
            if let Some(&loss) = losses.get(&step) {
                state = rule.observe(state, loss);
            }
            state = rule.advance(state);
            clocks.insert(step, state.clock);
            if losses.contains_key(&step) || step == begun + 1 {
                recorded.insert(step, state);
            }
        }
        if let Some(&first) = recorded.keys().next() {
            let path = HoldPath::recorded(&rule, &recorded, total).unwrap();
            for step in 0..=total {
                prop_assert_eq!(path.clock(step), clocks[&step], "step {} of {}", step, first);
            }
        }
    }

    #[test]
    fn a_state_goes_through_json_bit_for_bit((rule, total, losses) in runs(), cut in 0u64..300) {
        let states = run(&rule, total, &losses);
        let cut = cut.min(total);
        let saved = serde_json::to_string(&states[usize::try_from(cut).unwrap()]).unwrap();
        let mut state: HoldState = serde_json::from_str(&saved).unwrap();
        for step in cut + 1..=total {
            if let Some(&loss) = losses.get(&step) {
                state = rule.observe(state, loss);
            }
            state = rule.advance(state);
            prop_assert_eq!(state, states[usize::try_from(step).unwrap()]);
        }
    }

    #[test]
    fn the_earliest_and_the_latest_way_are_those_of_runs((rule, total, _losses) in runs()) {
        let (earliest, latest) = (HoldPath::earliest(&rule), HoldPath::latest(&rule));
        let falling = (0..=total).map(|step| (step, -(step as f64))).collect();
        let rising: BTreeMap<u64, f64> = (0..=total).map(|step| (step, step as f64)).collect();
        for (step, state) in (0..).zip(run(&rule, total, &falling)) {
            prop_assert_eq!(earliest.clock(step), step);
            prop_assert_eq!(latest.clock(step), state.clock);
        }
        // A loss that rises from the start has stopped falling before any gate after the patience.
        let patient = rule.gates.windows(2).all(|g| g[1] - g[0] > u64::from(rule.hold.patience) + 1)
            && rule.gates.first().is_none_or(|&gate| gate > u64::from(rule.hold.patience));
        if patient {
            for (step, state) in (0..).zip(run(&rule, total, &rising)) {
                prop_assert_eq!(state.clock, step);
            }
        }
    }

    /// A new value of a table begins at a gate and nowhere else.
    #[test]
    fn gates_are_where_a_table_changes(values in 2usize..8, total in 1u64..200, epoch in 1u64..50) {
        let table: Vec<Vec<u32>> = (1..=values).map(|i| vec![u32::try_from(i).unwrap()]).collect();
        let points = table.iter().enumerate().map(|(i, v)| (i as u64 * 13, v.clone())).collect();
        for schedule in [
            Schedule::Phases(table.clone()),
            Schedule::Epochs(table.clone()),
            Schedule::EpochCycle(table.clone()),
            Schedule::Piecewise(points),
        ] {
            let held = curriculum(Schedule::Constant(0.1), held(schedule, hold(1, 0.0, 9)));
            let progress = progress(total, epoch);
            let rules = held.holds(total, &progress);
            let changes: Vec<u64> = (1..total)
                .filter(|&step| {
                    let sizes = |step| held.settings(progress(step)).block_sizes;
                    sizes(step) != sizes(step - 1)
                })
                .collect();
            prop_assert_eq!(&rules[0].gates, &changes);
        }
    }
}

/// Numbers between points: the clock stands on a point, and goes on from there when the loss rises.
#[test]
fn a_ramp_waits_on_its_points() {
    let points = vec![(0, 0.1), (4, 0.3), (8, 0.5)];
    let hold = hold(2, 0.5, 100);
    let rule = rule(held(Schedule::Piecewise(points), hold), 100, 100);
    assert_eq!(rule.gates, [5]);
    // 0.4 less is no fall; the loss of step 8 is the second in a row that is none.
    let losses = BTreeMap::from([(0, 9.0), (2, 8.0), (4, 7.0), (6, 6.6), (8, 6.7), (10, 1.0)]);
    let clocks: Vec<u64> = run(&rule, 12, &losses).iter().map(|state| state.clock).collect();
    assert_eq!(clocks, [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9]);
    let state = run(&rule, 7, &losses)[7];
    assert_eq!(state, HoldState { clock: 4, best: Some(7.0), stale: 1, held: 3 });
}

#[test]
fn a_loss_that_is_no_number_has_not_fallen() {
    let rule = rule(held(Schedule::Phases(vec![0.1, 0.2]), hold(1, 0.0, 9)), 10, 10);
    let state = rule.observe(HoldState::default(), f64::NAN);
    assert_eq!(state, HoldState { stale: 1, ..HoldState::default() });
    let state = rule.observe(rule.observe(HoldState::default(), 3.0), f64::NAN);
    assert_eq!(state, HoldState { best: Some(3.0), stale: 1, ..HoldState::default() });
}

#[test]
fn states_of_another_schedule_are_refused() {
    let rule = rule(held(Schedule::Phases(vec![0.1, 0.2]), hold(1, 0.0, 3)), 10, 10);
    let at = |clock| HoldState { clock, ..HoldState::default() };
    let refused = |states: &[(u64, u64)]| {
        let states = states.iter().map(|&(step, clock)| (step, at(clock))).collect();
        HoldPath::recorded(&rule, &states, 10).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[(2, 1)]),
        "curriculum.p3: after step 2 the clock stands at 1, which this hold does not lead to"
    );
    assert!(refused(&[(1, 2)]).contains("step 1 the clock stands at 2"));
    assert!(refused(&[(1, u64::MAX)]).contains("step 1"));
    assert!(refused(&[(0, u64::MAX)]).contains("after step 0"));
    // It stands before the gate at 5, but for a step longer than it may.
    assert!(refused(&[(4, 4), (5, 4), (6, 4), (7, 4), (8, 4)]).contains("step 8"));
}

/// Each schedule goes by its own clock, a source's by that of the source.
#[test]
fn settings_are_read_at_the_clocks() {
    let hold = hold(1, 0.0, 9);
    let phases = || held(Schedule::Phases(vec![0.1, 0.2, 0.3, 0.4]), hold);
    let mut curriculum = curriculum(phases(), Schedule::Phases(vec![vec![2], vec![4]]));
    let own = SourceCurriculum { p1: Some(phases()), ..SourceCurriculum::default() };
    curriculum.sources.insert("code".to_owned(), own);
    let progress = progress(40, 40);
    let keys: Vec<String> =
        curriculum.holds(40, &progress).into_iter().map(|rule| rule.key).collect();
    assert_eq!(keys, ["p3", "sources.code.p1"]);
    let at = |clocks: &[(&str, u64)], source: &str| -> Settings {
        let clocks: Clocks = clocks.iter().map(|&(key, clock)| (key.to_owned(), clock)).collect();
        curriculum.at(&clocks, &progress).of_source(source).settings(progress(30))
    };
    let read = |settings: Settings| [settings.p1, settings.p3];
    let clocks = [("p3", 9), ("sources.code.p1", 19)];
    assert_eq!(read(at(&clocks, "code")).map(f64::to_bits), [0.2, 0.1].map(f64::to_bits));
    assert_eq!(read(at(&clocks, "text")).map(f64::to_bits), [0.1, 0.1].map(f64::to_bits));
    assert_eq!(at(&clocks, "text").block_sizes, [4], "without a hold: at the step");
    // Without clocks: as if nothing waited.
    assert_eq!(read(at(&[], "code")).map(f64::to_bits), [0.4, 0.4].map(f64::to_bits));
}
