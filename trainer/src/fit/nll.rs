//! The bound on the likelihood of held-out rows.

use super::{LossOf, step::feed_failure};
use crate::feed::{Feed, HeldOutRows, Prepared};
use coda_cli::{Exit, Failure};
use coda_manifests::HeldOutLoss;
use serde::Serialize;
use std::f64::consts::LN_2;

/// Cross entropies of one share of the noise levels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Where the share begins.
    pub sigma_from: f64,
    /// Where it ends.
    pub sigma_to: f64,
    /// Mean cross entropy of a masked token, in nats.
    pub nats_per_masked_token: f64,
    /// What the bound would be if all noise were of this share, in nats a token.
    pub nats_per_token: f64,
    /// Masked tokens that were scored.
    pub scored: u64,
}

/// The bound under one way of masking.
///
/// With `x` a row, `S` its tokens that may be masked (but the first of the row, which nothing predicts),
/// and masks of single tokens at noise level `sigma`, uniform in `[eps, 1)`,
///
/// ```text
/// -ln p(x_S | x_rest)  ≤  E_sigma [ 1/sigma · sum over masked j of CE(logits[j-1], x[j]) ]
/// ```
///
/// which is method §2's loss without its division by all tokens; up to the `eps` that is left out at the
/// low end. The expectation is a mean over `levels` strata of equal width, in each of which a row has its
/// own place, and one draw of masks in each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nll {
    /// Whether this bounds a likelihood: masks of blocks (S3) do not, as their tokens are not masked
    /// independently; then it is only a loss.
    pub bound: bool,
    /// The bound over the number of tokens in `S`, in nats.
    pub nats_per_token: f64,
    /// The same in bits.
    pub bits_per_token: f64,
    /// The bound over the bytes of the text of `S`, in bits. End tokens and pads cost bits and have no bytes.
    pub bits_per_byte: f64,
    /// Tokens in `S`, over all rows.
    pub tokens: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// By noise level, ascending.
    pub levels: Vec<Level>,
}

/// Measures it on held-out rows, `rows_at_once` at a time; nothing when no rows are held out. `bytes_of`
/// gives the length of the text of ids. Deterministic: every draw is keyed by the row.
///
/// # Errors
/// If a row cannot be read, the engine fails, or ids have no text.
///
/// # Panics
/// If `levels` is 0.
pub fn nll_bound(
    feed: &Feed,
    held_out: &HeldOutRows,
    under: HeldOutLoss,
    levels: u32,
    loss: &mut LossOf<'_>,
    bytes_of: &dyn Fn(&[u32]) -> Result<u64, Failure>,
    rows_at_once: usize,
) -> Result<Option<Nll>, Failure> {
    assert!(levels > 0, "there is at least one noise level");
    if held_out.is_empty() {
        return Ok(None);
    }
    let mask = feed.set().specials().mask;
    let (mut tokens, mut bytes) = (0, 0);
    let mut sums = vec![(0.0, 0.0, 0_u64); levels as usize];
    for rows in held_out.pieces(rows_at_once) {
        // All that may be masked is masked at the highest level; blocks would miss what stands too close.
        let single = if under == HeldOutLoss::S3 { HeldOutLoss::Plain } else { under };
        for row in HeldOutRows::at(feed, rows, single, |_| 1.0).map_err(feed_failure)? {
            let scored: Vec<u32> = scored(&row).collect();
            tokens += scored.len() as u64;
            bytes += bytes_of(&scored)?;
        }
        for (level, (sum, nats, count)) in (0_u32..).zip(&mut sums) {
            let sigma = |u: f64| HeldOutRows::level((f64::from(level) + u) / f64::from(levels));
            let rows = HeldOutRows::at(feed, rows, under, sigma).map_err(feed_failure)?;
            let output = loss(&feed.batch(&rows), mask, 1.0)
                .map_err(|error| Failure::from_error(Exit::CheckFailed, &error))?;
            for (row, row_sum) in rows.iter().zip(&output.row_sums) {
                *sum += row_sum;
                *nats += row_sum * row.plan.sigma;
            }
            *count += output.scored;
        }
    }
    let total = sums.iter().map(|(sum, ..)| sum).sum::<f64>() / f64::from(levels);
    let per = |sum: f64, count: u64| sum / count.max(1) as f64;
    let edge = |level: u32| HeldOutRows::level(f64::from(level) / f64::from(levels));
    Ok(Some(Nll {
        bound: under != HeldOutLoss::S3,
        nats_per_token: per(total, tokens),
        bits_per_token: per(total / LN_2, tokens),
        bits_per_byte: per(total / LN_2, bytes),
        tokens,
        bytes,
        rows: held_out.len() as u64,
        levels: (0..)
            .zip(&sums)
            .map(|(level, &(sum, nats, scored))| Level {
                sigma_from: edge(level),
                sigma_to: edge(level + 1),
                nats_per_masked_token: per(nats, scored),
                nats_per_token: per(sum, tokens),
                scored,
            })
            .collect(),
    }))
}

/// The ids of a row that are scored.
fn scored(row: &Prepared) -> impl Iterator<Item = u32> {
    let positions = row.plan.masked.iter().filter(|&&position| position > 0);
    positions.map(|&position| row.clean[position as usize])
}
