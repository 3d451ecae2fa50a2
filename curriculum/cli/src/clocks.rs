//! The clocks of schedules with a hold: assumed, or as a run recorded them.

use coda_cli::{Exit, Failure};
use coda_curriculum::{Clocks, HoldPath, HoldRule, HoldState};
use coda_manifests::HeldOutLoss;
use coda_shards::commit::FileError;
use coda_stages::Recipe;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// How long the schedules with a hold are taken to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Waits {
    /// Not at all.
    None,
    /// As long as they may.
    Longest,
    /// As long as a run did, up to a step; then not at all.
    Recorded { steps: u64 },
}

/// The way of every clock through the run.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) waits: Waits,
    rules: Vec<HoldRule>,
    paths: BTreeMap<String, HoldPath>,
}

/// A schedule that waits, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct HoldShown {
    #[serde(flatten)]
    rule: HoldRule,
    /// The steps of the run at which the clock passes each gate.
    passed_at: Vec<u64>,
    /// The clock at steps of the run, ascending; straight lines between them.
    #[serde(skip)]
    curve: Vec<(u64, u64)>,
}

/// What the trainer writes on lines of `metrics.jsonl`, as far as it concerns clocks.
#[derive(Deserialize)]
struct MetricsLine {
    step: u64,
    #[serde(default)]
    holds: BTreeMap<String, HoldState>,
}

impl Ways {
    /// The clocks if nothing waits: the earliest that each schedule can be.
    pub(crate) fn earliest(recipe: &Recipe) -> Self {
        Self::each(recipe, Waits::None, HoldPath::earliest)
    }

    /// The clocks if everything waits as long as it may.
    pub(crate) fn latest(recipe: &Recipe) -> Self {
        Self::each(recipe, Waits::Longest, HoldPath::latest)
    }

    fn each(recipe: &Recipe, waits: Waits, path: fn(&HoldRule) -> HoldPath) -> Self {
        let rules = recipe.holds();
        let paths = rules.iter().map(|rule| (rule.key.clone(), path(rule))).collect();
        Self { waits, rules, paths }
    }

    /// The clocks that a run recorded in its `metrics.jsonl`.
    pub(crate) fn recorded(recipe: &Recipe, path: &Path) -> Result<Self, Failure> {
        let failed = |problem: String| {
            Failure::incompatible(format!("{}: {problem}", path.display()))
                .hint("give the metrics.jsonl of a run of this manifest, with the same overrides")
        };
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::from_error(Exit::Io, &FileError::new("read", path, error)))?;
        let mut states: BTreeMap<String, BTreeMap<u64, HoldState>> = BTreeMap::new();
        let mut last: Option<u64> = None;
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            let found: MetricsLine = match serde_json::from_str(line) {
                Ok(found) => found,
                // A run that is still writing, or was killed while it wrote.
                Err(_) if !line.ends_with('\n') => break,
                Err(error) => return Err(failed(format!("line {number}: {error}"))),
            };
            if last.is_some_and(|last| found.step <= last) {
                return Err(failed(format!("line {number}: step {} comes again", found.step)));
            }
            if found.step > recipe.total_steps {
                return Err(failed(format!(
                    "line {number}: step {} lies behind the {} steps of the manifest's run",
                    found.step, recipe.total_steps
                )));
            }
            last = Some(found.step);
            for (key, state) in found.holds {
                states.entry(key).or_default().insert(found.step, state);
            }
        }
        let steps = last.ok_or_else(|| failed("there is no line in it".to_owned()))?;
        let rules = recipe.holds();
        let mut paths = BTreeMap::new();
        for rule in &rules {
            let states = states
                .get(&rule.key)
                .ok_or_else(|| failed(format!("it has no clock of curriculum.{}", rule.key)))?;
            let path = HoldPath::recorded(rule, states, steps)
                .map_err(|error| failed(error.to_string()))?;
            paths.insert(rule.key.clone(), path);
        }
        Ok(Self { waits: Waits::Recorded { steps }, rules, paths })
    }

    /// The clocks at a step.
    pub(crate) fn at(&self, step: u64) -> Clocks {
        self.paths.iter().map(|(key, path)| (key.clone(), path.clock(step))).collect()
    }

    /// The way of the schedule `key` that the rows of a source go by.
    pub(crate) fn path(&self, source: Option<&str>, key: &str) -> Option<&HoldPath> {
        let own = source.and_then(|name| self.paths.get(&format!("sources.{name}.{key}")));
        own.or_else(|| self.paths.get(key))
    }

    /// Whether nothing waits for anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says on stderr what is assumed about a step.
    pub(crate) fn note(&self, step: u64) {
        match self.waits {
            Waits::None if !self.is_empty() => eprintln!(
                "note: {} waits for a held-out loss; no wait is assumed (--clocks METRICS takes what \
                 a run recorded)",
                self.names()
            ),
            Waits::Recorded { steps } if step > steps => {
                eprintln!(
                    "note: the run has recorded {steps} steps; after them no wait is assumed"
                );
            }
            _ => {}
        }
    }

    fn names(&self) -> String {
        let keys: Vec<String> =
            self.rules.iter().map(|rule| format!("curriculum.{}", rule.key)).collect();
        keys.join(", ")
    }

    /// The schedules that wait, with the way of each.
    pub(crate) fn shown(&self, total_steps: u64) -> Vec<HoldShown> {
        let shown = |rule: &HoldRule| {
            let path = &self.paths[&rule.key];
            let passed_at = rule.gates.iter().map(|&gate| path.step_of(gate)).collect();
            let last = total_steps.saturating_sub(1);
            let mut steps = vec![0, last];
            for &gate in &rule.gates {
                steps.extend([path.step_of(gate - 1), path.step_of(gate) - 1]);
            }
            steps.retain(|&step| step <= last);
            steps.sort_unstable();
            steps.dedup();
            let curve = steps.into_iter().map(|step| (step, path.clock(step))).collect();
            HoldShown { rule: rule.clone(), passed_at, curve }
        };
        self.rules.iter().map(shown).collect()
    }
}

impl Waits {
    /// The heading of a table or a picture under it.
    pub(crate) fn heading(self) -> String {
        match self {
            Self::None => "if nothing waits".to_owned(),
            Self::Longest => "if everything waits as long as it may".to_owned(),
            Self::Recorded { steps } => format!("as recorded by a run, {steps} steps"),
        }
    }
}

impl HoldShown {
    /// The key of the schedule.
    pub(crate) fn key(&self) -> &str {
        &self.rule.key
    }

    /// The clock at steps of the run.
    pub(crate) fn curve(&self) -> &[(u64, u64)] {
        &self.curve
    }

    /// When it waits, in one sentence.
    pub(crate) fn words(&self) -> String {
        let HoldRule { key, hold, gates } = &self.rule;
        let loss = match hold.on {
            HeldOutLoss::Plain => "the held-out loss",
            HeldOutLoss::S1 => "the held-out loss under S1",
            HeldOutLoss::S2 => "the held-out loss under S2",
            HeldOutLoss::S3 => "the held-out loss under S3",
        };
        let list: Vec<String> = gates.iter().take(12).map(u64::to_string).collect();
        let more = if gates.len() > list.len() { ", …" } else { "" };
        let patience = match hold.patience {
            1 => "1 evaluation".to_owned(),
            many => format!("{many} evaluations in a row"),
        };
        let delta = if hold.min_delta > 0.0 {
            format!(" by more than {}", hold.min_delta)
        } else {
            String::new()
        };
        format!(
            "{key} waits before step {}{more} of its clock until {loss} has not fallen{delta} in \
             {patience}, at each for at most {} steps",
            list.join(", "),
            hold.max_hold
        )
    }
}
