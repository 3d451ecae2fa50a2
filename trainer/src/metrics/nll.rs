//! A bound on the likelihood of held-out rows, as it is recorded.

use serde::{Deserialize, Serialize};

/// Cross entropies of one share of the noise levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
