//! The rows of a step, in the pieces that the learner takes, made while the step before them runs.

use crate::{
    engine::{Batch, Learner},
    feed::{Feed, FeedError, StepSettings, StepTally},
};
use std::{ops::Range, panic::resume_unwind, thread};

/// What a step is given, and what is counted of it.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) batches: Vec<Batch>,
    /// The noise level of every row.
    pub(super) sigmas: Vec<f64>,
    pub(super) tally: StepTally,
}

impl Pieces {
    /// The rows `parts` of a step's global batch, each a piece.
    pub(super) fn prepare(
        feed: &Feed,
        settings: &StepSettings,
        parts: &[Range<u32>],
    ) -> Result<Self, FeedError> {
        let mut pieces = Self::default();
        for part in parts {
            let rows = feed.prepare(settings, part.clone())?;
            for row in &rows {
                pieces.tally.add(row);
                pieces.sigmas.push(row.plan.sigma);
            }
            pieces.batches.push(feed.batch(&rows));
        }
        Ok(pieces)
    }
}

/// The rows of a global batch that this process gives, piece by piece.
pub(super) fn own_parts(learner: &dyn Learner, global_batch: u32) -> Vec<Range<u32>> {
    let at_once = u32::try_from(learner.rows_at_once()).unwrap_or(u32::MAX);
    let mut parts = Vec::new();
    let mut first = 0;
    while first < global_batch {
        let end = first.saturating_add(at_once).min(global_batch);
        let own = learner.own_rows((end - first) as usize);
        let at = |row: usize| first + u32::try_from(row).expect("a row of the batch");
        parts.push(at(own.start)..at(own.end));
        first = end;
    }
    parts
}

/// Runs `step` on this thread, and `beside` it on another what does not need it.
pub(super) fn beside<T, U: Send>(
    beside: Option<impl FnOnce() -> U + Send>,
    step: impl FnOnce() -> T,
) -> (T, Option<U>) {
    thread::scope(|scope| {
        let running = beside.map(|beside| scope.spawn(beside));
        let done = step();
        let made =
            running.map(|running| running.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (done, made)
    })
}

#[cfg(test)]
mod tests {
    use super::beside;
    use std::sync::mpsc::channel;

    #[test]
    fn both_run_at_the_same_time() {
        // Each waits for the other.
        let (to_step, from_beside) = channel();
        let (to_beside, from_step) = channel();
        let other = move || {
            to_step.send(1).unwrap();
            from_step.recv().unwrap() + 1
        };
        let (done, made) = beside(Some(other), || {
            to_beside.send(10).unwrap();
            from_beside.recv().unwrap() + 1
        });
        assert_eq!((done, made), (2, Some(11)));
        assert_eq!(beside(None::<fn() -> i32>, || 5), (5, None));
    }
}
