//! The clocks of schedules with a hold, driven by held-out losses.

use coda_curriculum::{Clocks, HoldRule, HoldState};
use coda_manifests::HeldOutLoss;
use coda_stages::Recipe;
use std::{collections::BTreeMap, fmt};

/// The states of all schedules with a hold, by key.
pub type HoldStates = BTreeMap<String, HoldState>;

/// The schedules with a hold and their states before the next step.
pub(super) struct Holds {
    rules: Vec<HoldRule>,
    states: HoldStates,
}

/// A schedule that begins to wait, or goes on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn {
    Waits { key: String, on: HeldOutLoss },
    GoesOn { key: String, after: u64 },
}

impl Holds {
    /// The holds of a recipe after `step` steps, with the states that were saved there.
    pub(super) fn of(recipe: &Recipe, step: u64, saved: &HoldStates) -> Self {
        let rules = recipe.holds();
        // A checkpoint that is gone on from by force may know nothing of a hold: so far there was none.
        let new = HoldState { clock: step, ..HoldState::default() };
        let state = |rule: &HoldRule| saved.get(&rule.key).copied().unwrap_or(new);
        let states = rules.iter().map(|rule| (rule.key.clone(), state(rule))).collect();
        Self { rules, states }
    }

    /// Whether one of them looks at this loss.
    pub(super) fn look_at(&self, loss: HeldOutLoss) -> bool {
        self.rules.iter().any(|rule| rule.hold.on == loss)
    }

    /// The clocks at which the next step reads the schedules.
    pub(super) fn clocks(&self) -> Clocks {
        self.states.iter().map(|(key, state)| (key.clone(), state.clock)).collect()
    }

    /// The states before the next step.
    pub(super) const fn states(&self) -> &HoldStates {
        &self.states
    }

    /// Takes an evaluation's losses. One that was not measured is not looked at.
    pub(super) fn observe(&mut self, loss: impl Fn(HeldOutLoss) -> Option<f64>) {
        for rule in &self.rules {
            let (Some(state), Some(loss)) = (self.states.get_mut(&rule.key), loss(rule.hold.on))
            else {
                continue;
            };
            *state = rule.observe(*state, loss);
        }
    }

    /// Moves the clocks after a step; tells which schedules begin to wait and which go on.
    pub(super) fn advance(&mut self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for rule in &self.rules {
            let Some(state) = self.states.get_mut(&rule.key) else { continue };
            let (before, after) = (*state, rule.advance(*state));
            let key = rule.key.clone();
            if before.held == 0 && after.held > 0 {
                turns.push(Turn::Waits { key, on: rule.hold.on });
            } else if after.held < before.held {
                turns.push(Turn::GoesOn { key, after: before.held });
            }
            *state = after;
        }
        turns
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits { key, on } => {
                let loss = match on {
                    HeldOutLoss::Plain => "the held-out loss",
                    HeldOutLoss::S1 => "the held-out loss under S1",
                    HeldOutLoss::S2 => "the held-out loss under S2",
                    HeldOutLoss::S3 => "the held-out loss under S3",
                };
                write!(f, "curriculum.{key} waits until {loss} stops falling")
            }
            Self::GoesOn { key, after } => {
                write!(f, "curriculum.{key} goes on after {after} steps of waiting")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Holds, Turn};
    use coda_curriculum::{HoldRule, HoldState};
    use coda_manifests::{HeldOutLoss, Hold};
    use std::collections::BTreeMap;

    #[test]
    fn a_hold_begins_and_ends_with_a_word() {
        let hold = Hold { on: HeldOutLoss::S3, patience: 1, min_delta: 0.0, max_hold: 9 };
        let rule = HoldRule { key: "p3".to_owned(), hold, gates: vec![2] };
        let states = BTreeMap::from([("p3".to_owned(), HoldState::default())]);
        let mut holds = Holds { rules: vec![rule], states };
        assert!(holds.look_at(HeldOutLoss::S3) && !holds.look_at(HeldOutLoss::Plain));
        holds.observe(|on| (on == HeldOutLoss::S3).then_some(3.0));
        assert_eq!(holds.advance(), []);
        let waits = Turn::Waits { key: "p3".to_owned(), on: HeldOutLoss::S3 };
        assert_eq!(holds.advance(), [waits]);
        // Nothing was measured: nothing is known to have stopped.
        holds.observe(|_| None);
        assert_eq!(holds.advance(), []);
        holds.observe(|_| Some(3.0));
        assert_eq!(holds.advance(), [Turn::GoesOn { key: "p3".to_owned(), after: 2 }]);
        assert_eq!(holds.clocks()["p3"], 2);
    }
}
