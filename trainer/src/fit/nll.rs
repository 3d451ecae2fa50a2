//! The bound on the likelihood of held-out rows.

use super::{LossOf, engine_failure, eval::Shared, step::feed_failure};
use crate::{
    feed::{Feed, HeldOutRows, Prepared},
    metrics::{Level, Nll},
};
use coda_cli::Failure;
use coda_manifests::HeldOutLoss;
use std::f64::consts::LN_2;
use tokenizers::Tokenizer;

/// Gives the length in bytes of the text of ids.
pub type BytesOf = dyn Fn(&[u32]) -> Result<u64, Failure>;

/// The length of texts by the tokenizer of a shard set.
///
/// # Errors
/// If the tokenizer cannot be read.
pub fn bytes_by_tokenizer(feed: &Feed) -> Result<Box<BytesOf>, Failure> {
    let path = feed.set().tokenizer_path();
    let tokenizer = Tokenizer::from_file(&path).map_err(|error| {
        Failure::incompatible(format!("{} is not a tokenizer: {error}", path.display()))
    })?;
    Ok(Box::new(move |ids| {
        let text = tokenizer.decode(ids, true);
        text.map(|text| text.len() as u64)
            .map_err(|error| Failure::incompatible(format!("the rows cannot be decoded: {error}")))
    }))
}

/// Measures the bound on held-out rows, `rows_at_once` at a time; nothing when no rows are held out. `bytes_of`
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
    bytes_of: &BytesOf,
    rows_at_once: usize,
) -> Result<Option<Nll>, Failure> {
    measure(feed, held_out, (under, levels), loss, bytes_of, rows_at_once, None)
}

/// As [`nll_bound`], of all processes together.
pub(super) fn measure(
    feed: &Feed,
    held_out: &HeldOutRows,
    (under, levels): (HeldOutLoss, u32),
    loss: &mut LossOf<'_>,
    bytes_of: &BytesOf,
    rows_at_once: usize,
    shared: Option<&Shared<'_>>,
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
            let own = shared.map_or(0..rows.len(), |shared| (shared.own)(rows.len()));
            let sigma = |u: f64| HeldOutRows::level((f64::from(level) + u) / f64::from(levels));
            let rows = HeldOutRows::at(feed, &rows[own], under, sigma).map_err(feed_failure)?;
            let output =
                loss(&feed.batch(&rows), mask, 1.0).map_err(|error| engine_failure(&error))?;
            let sigmas = rows.iter().map(|row| row.plan.sigma);
            let mut of_rows: Vec<[f64; 2]> =
                output.row_sums.iter().zip(sigmas).map(|(&sum, sigma)| [sum, sigma]).collect();
            let mut scored = output.scored;
            if let Some(shared) = shared {
                (of_rows, scored) = shared.peers.piece(of_rows, scored)?;
            }
            for [row_sum, sigma] in of_rows {
                *sum += row_sum;
                *nats += row_sum * sigma;
            }
            *count += scored;
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
