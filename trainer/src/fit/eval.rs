//! The held-out loss.

use super::step::feed_failure;
use crate::{
    engine::{Batch, EngineError, LossOutput},
    feed::{Feed, HeldOutRows},
    metrics::HeldOut,
};
use coda_cli::{Exit, Failure};
use coda_manifests::HeldOutLoss;

/// Gives the loss of a batch, from its mask id and the denominator.
pub type LossOf<'a> = dyn FnMut(&Batch, u32, f64) -> Result<LossOutput, EngineError> + 'a;

/// The loss over held-out rows, masked as `under` says, `rows_at_once` at a time; nothing when no rows
/// are held out.
///
/// # Errors
/// If a row cannot be read or the engine fails.
pub fn held_out_loss(
    feed: &Feed,
    held_out: &HeldOutRows,
    under: HeldOutLoss,
    loss: &mut LossOf<'_>,
    rows_at_once: usize,
) -> Result<Option<HeldOut>, Failure> {
    if held_out.is_empty() {
        return Ok(None);
    }
    let mask = feed.set().specials().mask;
    let denominator = held_out.len() as f64 * f64::from(feed.set().row_length());
    let (mut sum, mut nats, mut scored) = (0.0, 0.0, 0);
    for rows in held_out.pieces(rows_at_once) {
        let rows = HeldOutRows::prepare(feed, rows, under).map_err(feed_failure)?;
        let output = loss(&feed.batch(&rows), mask, denominator)
            .map_err(|error| Failure::from_error(Exit::CheckFailed, &error))?;
        for (row, row_sum) in rows.iter().zip(&output.row_sums) {
            sum += row_sum;
            nats += row_sum * row.plan.sigma;
        }
        scored += output.scored;
    }
    Ok(Some(HeldOut {
        loss: sum / denominator,
        nats_per_token: nats / scored.max(1) as f64,
        rows: held_out.len() as u64,
    }))
}
