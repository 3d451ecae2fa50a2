//! One optimizer step.

use super::{Training, micro_batch, shown};
use crate::{
    feed::{FeedError, StepTally},
    metrics::{Parting, StepMetrics},
    optim::{clip_scale, global_norm, round_to_bf16, scale},
};
use coda_cli::{Exit, Failure};
use coda_manifests::MasterWeights;
use coda_shards::{ErrorClass, ShardError};
use std::time::Instant;

impl Training<'_> {
    /// Trains on the next global batch. The parameters change only if loss and gradient are finite. Also
    /// tells where the masks have parted from what the curriculum expects.
    pub(super) fn one_step(&mut self) -> Result<(StepMetrics, Vec<Parting>), Failure> {
        let started = Instant::now();
        let (recipe, feed) = (self.job.recipe, self.job.feed);
        let step = self.step;
        let denominator = recipe.tokens_per_step() as f64;
        let mask = feed.set().specials().mask;
        let mut tally = StepTally::default();
        let (mut row_sums, mut nats) = (Vec::new(), 0.0);
        self.grads.reset();
        let mut first = 0;
        while first < recipe.global_batch {
            let end = (first + micro_batch(recipe)).min(recipe.global_batch);
            let rows = feed.prepare(step, first..end).map_err(feed_failure)?;
            for row in &rows {
                tally.add(row);
            }
            let output = self
                .engine
                .loss_and_grads(
                    &self.params,
                    &feed.batch(&rows),
                    mask,
                    denominator,
                    &mut self.grads,
                )
                .map_err(|error| Failure::from_error(Exit::CheckFailed, &error))?;
            for (row, sum) in rows.iter().zip(&output.row_sums) {
                nats += sum * row.plan.sigma;
            }
            row_sums.extend(output.row_sums);
            first = end;
        }
        // Summed row by row, so that the loss does not depend on the split into micro-batches.
        let loss = row_sums.iter().sum::<f64>() / denominator;
        let norm = global_norm(&self.grads.slices());
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(self.not_finite(loss, norm, &row_sums));
        }
        let clipped = recipe.grad_clip.and_then(|limit| clip_scale(norm, limit));
        if let Some(factor) = clipped {
            scale(&mut self.grads.slices_mut(), factor);
        }
        let lr = recipe.lr_at(step);
        let mut params = self.params.slices_mut();
        self.optimizer.step(lr, &mut params, &self.grads.slices());
        if recipe.master_weights == MasterWeights::Bf16 {
            round_to_bf16(&mut params);
        }
        drop(params);
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
            held_out_loss: None,
            held_out: None,
            seconds,
            tokens_per_second: tally.tokens() as f64 / seconds,
        };
        Ok((line, parted))
    }

    /// What went wrong, and where to look. Nothing has been changed or saved.
    fn not_finite(&self, loss: f64, norm: f64, row_sums: &[f64]) -> Failure {
        let positions = self.job.feed.positions(self.step);
        let bad: Vec<u64> = positions
            .iter()
            .zip(row_sums)
            .filter(|(_, sum)| !sum.is_finite())
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
        FeedError::Misfit { .. } => Exit::Incompatible,
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
