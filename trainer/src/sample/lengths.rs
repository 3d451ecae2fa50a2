//! Holes of unknown length: several lengths are filled, the surest stays.

use super::Denoiser;
use serde::Serialize;

/// How one length came out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Length {
    /// Tokens in the hole.
    pub span: usize,
    /// The mean logarithm of the tokens' probabilities when they were chosen, in nats.
    pub mean_log_probability: f64,
}

/// The index of the row whose tokens had the highest mean log probability when they were chosen; of
/// equals the first. The mean and not the sum, which would always prefer the shortest.
///
/// # Panics
/// If there are no rows.
#[must_use]
pub fn most_confident(rows: &[Denoiser]) -> usize {
    assert!(!rows.is_empty(), "one length at least");
    let score = |index: usize| rows[index].tally().mean_log_probability();
    (1..rows.len()).fold(0, |best, index| if score(index) > score(best) { index } else { best })
}
