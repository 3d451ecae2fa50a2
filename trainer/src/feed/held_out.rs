//! The held-out rows, always with the same masks.

use super::{Feed, FeedError, Prepared};
use coda_curriculum::{Context, Settings};
use coda_manifests::{HeldOutLoss, MaskBlocks, Profile};
use coda_shards::Position;

/// The block sizes of held-out masks under S3: those that a manifest without any has.
const BLOCK_SIZES: [u32; 4] = [4, 8, 16, 32];

/// The lowest noise level of held-out masks.
const LEAST_LEVEL: f64 = 1e-3;

/// The seed of held-out masks. Fixed, so that losses of runs with other seeds compare.
const SEED: u64 = 0x00C0_DA00;

/// Which rows a held-out loss is measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOutRows {
    rows: Vec<u64>,
}

impl HeldOutRows {
    /// At most `limit` of the held-out rows, evenly spread over all of them (so that every source
    /// has its part), in ascending order.
    #[must_use]
    pub fn choose(feed: &Feed, limit: u64) -> Self {
        let all: Vec<u64> = feed.order().held_out_rows().collect();
        let (count, available) = (limit.min(all.len() as u64), all.len() as u64);
        let rows = (0..count)
            .map(|i| {
                // Below the length, which is a usize.
                #[allow(clippy::cast_possible_truncation, reason = "an index into `all`")]
                let index = (i * available / count) as usize;
                all[index]
            })
            .collect();
        Self { rows }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is held out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in pieces of `size`.
    pub fn pieces(&self, size: usize) -> impl Iterator<Item = &[u64]> {
        self.rows.chunks(size.max(1))
    }

    /// Masks rows for evaluation: at a noise level from 1e-3 up, prompts protected in full; every draw
    /// is keyed by the row alone. Single tokens, or every row by one strategy: S1, S2, or S3 with
    /// blocks of 4 to 32 tokens. The masks of a row never change, so that its losses compare.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn prepare(
        feed: &Feed,
        rows: &[u64],
        under: HeldOutLoss,
    ) -> Result<Vec<Prepared>, FeedError> {
        Self::at(feed, rows, under, Self::level)
    }

    /// The noise level of evaluations at `u` in `[0, 1]`: from 1e-3 to 1, evenly.
    #[must_use]
    pub fn level(u: f64) -> f64 {
        LEAST_LEVEL + (1.0 - LEAST_LEVEL) * u
    }

    /// The same at the noise level that `level` gives for a row's own draw of it in `[0, 1)`.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn at(
        feed: &Feed,
        rows: &[u64],
        under: HeldOutLoss,
        level: impl Fn(f64) -> f64,
    ) -> Result<Vec<Prepared>, FeedError> {
        let on = |strategy| f64::from(u8::from(under == strategy));
        let settings = Settings {
            p1: on(HeldOutLoss::S1),
            p2: on(HeldOutLoss::S2),
            p3: on(HeldOutLoss::S3),
            block_sizes: BLOCK_SIZES.to_vec(),
            mask_blocks: MaskBlocks::Tokens,
            sampling_eps: LEAST_LEVEL,
            span_ratio: 1.0,
        };
        let context = Context {
            profile: Profile::CodaPaper,
            seed: SEED,
            step: 0,
            score_pads: feed.recipe.score_pads,
        };
        rows.iter()
            .map(|&row| {
                let position = Position { row, epoch: 0 };
                feed.prepare_row(position, |_| &settings, &context, |_, u| level(u))
            })
            .collect()
    }
}
