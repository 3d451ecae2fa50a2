//! Schedules that wait: the clocks of schedules with a hold (`docs/curriculum.md`, "Waiting for a loss").
//!
//! Such a schedule has a clock of its own, in steps. After every step of the run the clock goes on by
//! one, unless the next value is a *gate*: there it stands until the held-out loss has stopped falling or
//! the hold is over. [`HoldRule`] is the state machine, without any state in it; [`HoldState`] is what a
//! run keeps; [`HoldPath`] is what a clock did, or might do, over a whole run.

use crate::{
    Curriculum, Progress,
    schedule::{Scheduled, first_step, phase_start, value_at},
};
use coda_manifests::{Hold, Schedule, SourceCurriculum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clock of each schedule with a hold, by its key below `curriculum`: `p3`, `sources.code.p3`. A
/// schedule that is not named goes by the run's own steps.
pub type Clocks = BTreeMap<String, u64>;

/// The hold of one schedule, and where it applies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldRule {
    /// The schedule's key below `curriculum`.
    pub key: String,
    /// When it waits.
    pub hold: Hold,
    /// The values that the clock may not take before the hold lets it, ascending, all above 0.
    pub gates: Vec<u64>,
}

/// Where the clock of a schedule stands, and what was seen since its last gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HoldState {
    /// The clock: the step at which the schedule is read next.
    pub clock: u64,
    /// The best loss since the last gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
    /// Evaluations in a row without a fall.
    pub stale: u32,
    /// Steps that the clock has stood before the next gate.
    pub held: u64,
}

impl HoldRule {
    /// The state after an evaluation: the loss has fallen if it is below the best by more than
    /// `min_delta`. A loss that is not a number has not.
    #[must_use]
    pub fn observe(&self, state: HoldState, loss: f64) -> HoldState {
        let falls = state.best.map_or(!loss.is_nan(), |best| best - loss > self.hold.min_delta);
        if falls {
            HoldState { best: Some(loss), stale: 0, ..state }
        } else {
            HoldState { stale: state.stale.saturating_add(1), ..state }
        }
    }

    /// The state after a step (and its evaluation, if it had one).
    #[must_use]
    pub fn advance(&self, state: HoldState) -> HoldState {
        let next = state.clock + 1;
        if self.gates.binary_search(&next).is_err() {
            return HoldState { clock: next, ..state };
        }
        if state.stale < self.hold.patience && state.held < self.hold.max_hold {
            return HoldState { held: state.held + 1, ..state };
        }
        HoldState { clock: next, ..HoldState::default() }
    }
}

/// The way of a clock through a run: how many steps it waits at which gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldPath {
    waits: Vec<(u64, u64)>,
}

/// Recorded states that do not follow from the schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "curriculum.{key}: after step {step} the clock stands at {found}, which this hold does not lead to"
)]
pub struct NotRecorded {
    key: String,
    step: u64,
    found: u64,
}

impl HoldPath {
    /// The way without any wait: the clock is the step.
    #[must_use]
    pub fn earliest(rule: &HoldRule) -> Self {
        Self::waiting(rule, 0)
    }

    /// The way with every wait as long as it may be.
    #[must_use]
    pub fn latest(rule: &HoldRule) -> Self {
        Self::waiting(rule, rule.hold.max_hold)
    }

    fn waiting(rule: &HoldRule, steps: u64) -> Self {
        Self { waits: rule.gates.iter().map(|&gate| (gate, steps)).collect() }
    }

    /// The way of a run that has done `steps` steps. `states` are the recorded ones by the steps done;
    /// between them nothing is seen, so that the clock follows from the rule. After `steps` there
    /// are no more waits.
    ///
    /// # Errors
    /// If a recorded clock is not one that the rule leads to: it is of another schedule.
    pub fn recorded(
        rule: &HoldRule,
        states: &BTreeMap<u64, HoldState>,
        steps: u64,
    ) -> Result<Self, NotRecorded> {
        let mut waits: BTreeMap<u64, u64> = rule.gates.iter().map(|&gate| (gate, 0)).collect();
        let not_recorded = |step, state: HoldState| NotRecorded {
            key: rule.key.clone(),
            step,
            found: state.clock,
        };
        // Recorded from the first step on; or, where the hold was new to a run that went on by force, from
        // some step on, up to which the clock was the step.
        let since = |(step, state): (&u64, &HoldState)| {
            let new = state.clock.checked_add(state.held) == Some(*step);
            if new { (*step, *state) } else { (0, HoldState::default()) }
        };
        let (first, mut state) = states.first_key_value().map_or_else(Default::default, since);
        if let Some(state) = states.get(&0)
            && state.clock != 0
        {
            return Err(not_recorded(0, *state));
        }
        if state.held > 0 {
            match waits.get_mut(&(state.clock + 1)) {
                Some(wait) if state.held <= rule.hold.max_hold => *wait = state.held,
                _ => return Err(not_recorded(first, state)),
            }
        }
        for step in first + 1..=steps {
            let before = state;
            state = states.get(&step).copied().unwrap_or_else(|| rule.advance(before));
            let gate = waits.get_mut(&(before.clock + 1));
            let stands = state.clock == before.clock;
            match gate {
                Some(wait) if stands && *wait < rule.hold.max_hold => *wait += 1,
                _ if !stands && state.clock == before.clock + 1 => {}
                _ => return Err(not_recorded(step, state)),
            }
        }
        Ok(Self { waits: waits.into_iter().collect() })
    }

    /// The clock at a step of the run.
    #[must_use]
    pub fn clock(&self, step: u64) -> u64 {
        let mut waited = 0;
        for &(gate, wait) in &self.waits {
            // The clock comes to the gate `waited` steps late, and passes it `wait` steps later.
            if step - waited < gate {
                break;
            }
            if step - waited - gate < wait {
                return gate - 1;
            }
            waited += wait;
        }
        step - waited
    }

    /// The first step of the run at which the clock is at `clock` or past it.
    #[must_use]
    pub fn step_of(&self, clock: u64) -> u64 {
        let passed = self.waits.iter().take_while(|(gate, _)| *gate <= clock);
        passed.fold(clock, |step, (_, wait)| step.saturating_add(*wait))
    }

    /// The steps of the run at which the clock goes on after a wait.
    pub fn turns(&self) -> impl Iterator<Item = u64> {
        let waited = self.waits.iter().filter(|(_, wait)| *wait > 0);
        waited.map(|&(gate, _)| self.step_of(gate))
    }
}

impl Curriculum {
    /// The schedules with a hold. `progress` tells how far a run of `total_steps` is at a step.
    #[must_use]
    pub fn holds(&self, total_steps: u64, progress: &dyn Fn(u64) -> Progress) -> Vec<HoldRule> {
        let common = SourceCurriculum {
            p1: Some(self.p1.clone()),
            p2: Some(self.p2.clone()),
            p3: Some(self.p3.clone()),
            block_sizes: Some(self.block_sizes.clone()),
            sampling_eps: Some(self.sampling_eps.clone()),
            mask_blocks: None,
        };
        let of_sources = self.sources.iter().map(|(name, own)| (format!("sources.{name}."), own));
        let mut rules = Vec::new();
        for (prefix, own) in std::iter::once((String::new(), &common)).chain(of_sources) {
            let numbers = [
                ("p1", &own.p1),
                ("p2", &own.p2),
                ("p3", &own.p3),
                ("sampling_eps", &own.sampling_eps),
            ];
            for (key, schedule) in numbers {
                let schedule = schedule.as_ref();
                rules.extend(rule(format!("{prefix}{key}"), schedule, total_steps, progress));
            }
            let (key, sizes) = (format!("{prefix}block_sizes"), own.block_sizes.as_ref());
            rules.extend(rule(key, sizes, total_steps, progress));
        }
        rules
    }

    /// The curriculum of one step: a schedule with a clock in `clocks` is the value that it has there.
    #[must_use]
    pub fn at(&self, clocks: &Clocks, progress: &dyn Fn(u64) -> Progress) -> Self {
        let mut now = self.clone();
        if clocks.is_empty() {
            return now;
        }
        let clock = |key: &str| clocks.get(key).map(|&clock| progress(clock));
        stand(&mut now.p1, clock("p1"));
        stand(&mut now.p2, clock("p2"));
        stand(&mut now.p3, clock("p3"));
        stand(&mut now.block_sizes, clock("block_sizes"));
        stand(&mut now.sampling_eps, clock("sampling_eps"));
        for (name, own) in &mut now.sources {
            let clock = |key: &str| clock(&format!("sources.{name}.{key}"));
            own.p1.iter_mut().for_each(|p1| stand(p1, clock("p1")));
            own.p2.iter_mut().for_each(|p2| stand(p2, clock("p2")));
            own.p3.iter_mut().for_each(|p3| stand(p3, clock("p3")));
            own.block_sizes.iter_mut().for_each(|sizes| stand(sizes, clock("block_sizes")));
            own.sampling_eps.iter_mut().for_each(|eps| stand(eps, clock("sampling_eps")));
        }
        now
    }
}

fn stand<T: Scheduled>(schedule: &mut Schedule<T>, clock: Option<Progress>) {
    if let Some(clock) = clock {
        *schedule = Schedule::Constant(value_at(schedule, clock));
    }
}

fn rule<T: Scheduled>(
    key: String,
    schedule: Option<&Schedule<T>>,
    total_steps: u64,
    progress: &dyn Fn(u64) -> Progress,
) -> Option<HoldRule> {
    let schedule = schedule?;
    let hold = *schedule.hold()?;
    Some(HoldRule { key, hold, gates: gates(schedule.unheld(), total_steps, progress) })
}

/// The first steps of new phases and epochs, and of the stretches between points.
fn gates<T: Scheduled>(
    schedule: &Schedule<T>,
    total_steps: u64,
    progress: &dyn Fn(u64) -> Progress,
) -> Vec<u64> {
    let last_epoch = u64::from(progress(total_steps.saturating_sub(1)).epoch);
    let epochs = |last: u64| {
        let start = |epoch| first_step(total_steps, |s| u64::from(progress(s).epoch) >= epoch);
        (1..=last.min(last_epoch)).filter_map(start).collect()
    };
    let mut gates: Vec<u64> = match schedule {
        Schedule::Phases(table) => {
            let phases = table.len() as u64;
            (1..phases).map(|index| phase_start(index, phases, total_steps)).collect()
        }
        Schedule::Epochs(table) => epochs((table.len() as u64).saturating_sub(1)),
        Schedule::EpochCycle(_) => epochs(u64::MAX),
        // Numbers wait with the value of the point itself, lists with the one before.
        Schedule::Piecewise(points) if T::HAS_MIDDLE => {
            let before = points.split_last().map_or(&[][..], |(_, before)| before);
            before.iter().filter(|(step, _)| *step > 0).map(|(step, _)| step + 1).collect()
        }
        Schedule::Piecewise(points) => points.iter().skip(1).map(|(step, _)| *step).collect(),
        Schedule::Constant(_)
        | Schedule::Linear { .. }
        | Schedule::Cosine { .. }
        | Schedule::Held { .. } => Vec::new(),
    };
    gates.dedup();
    gates.retain(|&gate| gate > 0 && gate < total_steps);
    gates
}
