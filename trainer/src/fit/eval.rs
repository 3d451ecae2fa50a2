//! The held-out loss.

use super::{engine_failure, peers::Peers, step::feed_failure};
use crate::{
    engine::{Batch, EngineError, LossOutput},
    feed::{Feed, HeldOutRows},
    metrics::HeldOut,
};
use coda_cli::Failure;
use coda_manifests::HeldOutLoss;
use std::ops::Range;

/// Gives the loss of a batch, from its mask id and the denominator.
pub type LossOf<'a> = dyn FnMut(&Batch, u32, f64) -> Result<LossOutput, EngineError> + 'a;

/// Rows that several processes measure together, each its own.
pub(super) struct Shared<'a> {
    pub(super) peers: &'a Peers,
    /// Of a piece of so many rows, those of this process.
    pub(super) own: &'a dyn Fn(usize) -> Range<usize>,
}

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
    measure(feed, held_out, under, loss, rows_at_once, None)
}

/// As [`held_out_loss`], of all processes together.
pub(super) fn measure(
    feed: &Feed,
    held_out: &HeldOutRows,
    under: HeldOutLoss,
    loss: &mut LossOf<'_>,
    rows_at_once: usize,
    shared: Option<&Shared<'_>>,
) -> Result<Option<HeldOut>, Failure> {
    if held_out.is_empty() {
        return Ok(None);
    }
    let mask = feed.set().specials().mask;
    let denominator = held_out.len() as f64 * f64::from(feed.set().row_length());
    let (mut sum, mut nats, mut scored) = (0.0, 0.0, 0);
    for rows in held_out.pieces(rows_at_once) {
        let own = shared.map_or(0..rows.len(), |shared| (shared.own)(rows.len()));
        let rows = HeldOutRows::prepare(feed, &rows[own], under).map_err(feed_failure)?;
        let output =
            loss(&feed.batch(&rows), mask, denominator).map_err(|error| engine_failure(&error))?;
        let sigmas = rows.iter().map(|row| row.plan.sigma);
        let mut of_rows: Vec<[f64; 2]> =
            output.row_sums.iter().zip(sigmas).map(|(&sum, sigma)| [sum, sigma]).collect();
        let mut count = output.scored;
        if let Some(shared) = shared {
            (of_rows, count) = shared.peers.piece(of_rows, count)?;
        }
        for [row_sum, sigma] in of_rows {
            sum += row_sum;
            nats += row_sum * sigma;
        }
        scored += count;
    }
    Ok(Some(HeldOut {
        loss: sum / denominator,
        nats_per_token: nats / scored.max(1) as f64,
        rows: held_out.len() as u64,
    }))
}
