//! One optimizer step.

use super::{
    Training, engine_failure,
    peers::StepPart,
    pieces::{Pieces, beside, own_parts},
    shown,
};
use crate::{
    engine::{StepInput, StepOutput},
    feed::FeedError,
    metrics::{Parting, StepMetrics},
};
use coda_cli::{Exit, Failure};
use coda_shards::{ErrorClass, ShardError};
use std::time::Instant;

/// What a step leaves behind.
pub(super) struct Stepped {
    pub(super) line: StepMetrics,
    /// Where the masks have parted from what the curriculum expects.
    pub(super) parted: Vec<Parting>,
    /// How to leave after it, if a signal has come to any process.
    pub(super) stop: Option<Exit>,
}

impl Training<'_> {
    /// Trains on the next global batch. The parameters change only if loss and gradient are finite.
    pub(super) fn one_step(&mut self) -> Result<Stepped, Failure> {
        let started = Instant::now();
        let (recipe, feed) = (self.job.recipe, self.job.feed);
        let step = self.step;
        let denominator = recipe.tokens_per_step() as f64;
        let mask_id = feed.set().specials().mask;
        let parts = own_parts(&*self.learner, recipe.global_batch);
        let pieces = match self.next.take() {
            Some((of, pieces)) if of == step => pieces,
            _ => Pieces::prepare(feed, &feed.settings(step, &self.holds.clocks()), &parts),
        };
        let Pieces { batches, sigmas, tally } = pieces.map_err(feed_failure)?;
        let lr = recipe.lr_at(step);
        let input = StepInput { batches: &batches, mask_id, denominator, lr };
        // What a schedule that waits says of the next step is known only after this one.
        let foreseen = self.holds.states().is_empty() && step + 1 < recipe.total_steps;
        let settings = foreseen.then(|| feed.settings(step + 1, &self.holds.clocks()));
        let next = settings.map(|settings| move || Pieces::prepare(feed, &settings, &parts));
        let (output, next) = beside(next, || self.learner.step(&input));
        self.next = next.map(|pieces| (step + 1, pieces));
        let output = output.map_err(|error| engine_failure(&error))?;
        let StepOutput { row_sums, norm, clipped, applied, .. } = output;
        let own = StepPart {
            stop: self.stop.requested(),
            rows: row_sums.into_iter().zip(sigmas).map(|(sum, sigma)| [sum, sigma]).collect(),
            tally,
        };
        let StepPart { stop, rows, tally } = self.peers.step(own, batches.len())?;
        let loss = rows.iter().map(|[sum, _]| sum).sum::<f64>() / denominator;
        if !applied {
            return Err(self.not_finite(loss, norm, &rows));
        }
        let nats: f64 = rows.iter().map(|[sum, sigma]| sum * sigma).sum();
        self.step += 1;
        let parted = tally.watch(&mut self.watch);
        let seconds = started.elapsed().as_secs_f64();
        let bits = |value: f64| format!("{:016x}", value.to_bits());
        let line = StepMetrics {
            step: self.step,
            loss: Some(loss),
            loss_bits: Some(bits(loss)),
            nats_per_token: Some(nats / tally.scored().max(1) as f64),
            lr: Some(lr),
            grad_norm: Some(norm),
            grad_norm_bits: Some(bits(norm)),
            clipped,
            epoch: Some(recipe.progress(step).epoch),
            tokens: self.step * recipe.tokens_per_step(),
            scored: Some(tally.scored()),
            observed: Some(tally.observed()),
            expected: Some(tally.expected()),
            tokens_per_second: tally.tokens() as f64 / seconds,
            ..StepMetrics::before_training(None, seconds)
        };
        Ok(Stepped { line, parted, stop })
    }

    /// What went wrong, and where to look. Nothing has been changed or saved.
    fn not_finite(&self, loss: f64, norm: f64, sums: &[[f64; 2]]) -> Failure {
        let positions = self.job.feed.positions(self.step);
        let bad: Vec<u64> = positions
            .iter()
            .zip(sums)
            .filter(|(_, [sum, _])| !sum.is_finite())
            .map(|(position, _)| position.row)
            .collect();
        let rows: Vec<u64> =
            if bad.is_empty() { positions.iter().map(|p| p.row).collect() } else { bad };
        let saved = self.saved.map_or_else(
            || "no checkpoint was saved yet".to_owned(),
            |step| format!("the last good checkpoint is {}", shown(&self.store.path(step))),
        );
        Failure::check_failed(format!(
            "at step {} the loss is {loss} and the gradient's norm {norm}; rows {rows:?}",
            self.step + 1
        ))
        .hint(format!(
            "{saved}; look at the rows with `coda-ingest inspect`, or lower train.lr.peak or \
             train.grad_clip"
        ))
    }
}

/// A feed that fails, as a user sees it.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn feed_failure(error: FeedError) -> Failure {
    let exit = match &error {
        FeedError::Shards(error) => shard_exit(error),
        FeedError::Order(_) => Exit::Usage,
        FeedError::Misfit { .. } | FeedError::NoSpans(_) => Exit::Incompatible,
    };
    Failure::from_error(exit, &error).maybe_hint(error.hint())
}

/// The exit code of a shard set's error.
pub(crate) fn shard_exit(error: &ShardError) -> Exit {
    match error.class() {
        ErrorClass::Usage => Exit::Usage,
        ErrorClass::Io => Exit::Io,
        ErrorClass::Artefact => Exit::Incompatible,
    }
}
