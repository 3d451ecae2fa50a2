//! That the rows of the next step are made *during* a step, and not before or after it.

#[path = "../../tests/common/mod.rs"]
mod common;

use super::{FitOptions, Job, Resume, fit, starting_model};
use crate::{
    checkpoint::Identity,
    engine::{Batch, EngineError, Learner, LossOutput, StepInput, StepOutput},
    feed::{Feed, source_ranges},
    launch::Group,
    model::Params,
    optim::Optimizer,
};
use coda_cli::{Exit, ProgressArgs, ProgressMode, signals::Stop};
use coda_manifests::Manifest;
use coda_shards::ShardSet;
use coda_stages::Recipe;
use common::World;
use serde_json::json;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

/// Longer than any machine takes for six rows of 24 tokens. Only a failure waits for it.
const NEVER: Duration = Duration::from_mins(1);

const STEPS: u64 = 4;

/// A learner that learns nothing, and whose step does not end before the rows of the next are made.
struct Waiting {
    params: Params,
    optimizer: Optimizer,
    steps: u64,
    made: Receiver<u64>,
}

impl Learner for Waiting {
    fn rows_at_once(&self) -> usize {
        6
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        // Those of this step are there; of the first nobody could have made them before.
        if self.steps == 0 {
            assert_eq!(self.made.try_recv(), Ok(0));
        }
        self.steps += 1;
        if self.steps < STEPS {
            assert_eq!(self.made.recv_timeout(NEVER), Ok(self.steps), "the rows of the next step");
        }
        let row_sums = vec![1.0; input.batches[0].rows];
        Ok(StepOutput { row_sums, loss: 1.0, norm: 1.0, clipped: None, applied: true })
    }

    fn loss(&mut self, batch: &Batch, _: u32, _: f64) -> Result<LossOutput, EngineError> {
        Ok(LossOutput { loss: 1.0, row_sums: vec![1.0; batch.rows], scored: 1 })
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        Ok(Some((&self.params, &self.optimizer)))
    }
}

#[test]
fn a_step_sees_the_rows_of_the_next_made() {
    let world = World::new();
    let steps = format!("train.steps={STEPS}");
    let manifest = Manifest::load(&world.path("tiny.yaml"), &[&steps], &[]).expect("a manifest");
    let set = ShardSet::open(world.path("shards")).expect("a set");
    let ranges = source_ranges(&set, &manifest).expect("ranges");
    let recipe = Recipe::resolve(&manifest, Some(80)).expect("a recipe");
    let specials = set.specials();
    let mut feed = Feed::new(set, &ranges, &recipe).expect("a feed");
    let (made, seen) = channel();
    feed.made = Some(made);
    let seen = std::cell::Cell::new(Some(seen));
    let job = Job {
        recipe: &recipe,
        feed: &feed,
        identity: Identity::new(&recipe, "set", json!([])),
        description: json!({}),
        model: &|| starting_model(&recipe, None, specials),
        learner: &|_, params, optimizer| {
            let made = seen.take().expect("asked once");
            Ok(Box::new(Waiting { params, optimizer, steps: 0, made }))
        },
    };
    let options = FitOptions {
        out: world.path("run"),
        resume: Resume::Never,
        stop_after: None,
        progress: ProgressArgs { progress: ProgressMode::None, quiet: true },
        stop: Stop::never(),
        group: Arc::new(Group::alone()),
    };
    let (summary, exit) = fit(&job, &options).expect("a run");
    assert_eq!((summary.step, exit), (STEPS, Exit::Done));
}
