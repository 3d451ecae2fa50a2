//! How long a run is, and where its epochs lie.

use crate::RecipeError;
use coda_manifests::Train;
use serde::{Deserialize, Serialize};

/// How optimizer steps are counted into epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epochs {
    /// The run is this many epochs, whatever the data: `epoch = floor(step · epochs / steps)`.
    Parts(f64),
    /// An epoch is one pass over this many training rows: `epoch = floor(step · batch / rows)`.
    Rows(u64),
    /// Nobody has said: everything is epoch 0.
    Unknown,
}

impl Epochs {
    /// The epoch that `step` belongs to.
    #[must_use]
    pub fn at(self, step: u64, total_steps: u64, global_batch: u32) -> u32 {
        let epoch = match self {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative, and `as` saturates"
            )]
            Self::Parts(epochs) => (step as f64 * epochs / total_steps as f64).floor() as u64,
            Self::Rows(rows) => {
                let seen = u128::from(step) * u128::from(global_batch);
                u64::try_from(seen / u128::from(rows.max(1))).unwrap_or(u64::MAX)
            }
            Self::Unknown => 0,
        };
        u32::try_from(epoch).unwrap_or(u32::MAX)
    }

    /// Steps per epoch, where it is known.
    #[must_use]
    pub fn steps_per_epoch(self, total_steps: u64, global_batch: u32) -> Option<f64> {
        match self {
            Self::Parts(epochs) => Some(total_steps as f64 / epochs),
            Self::Rows(rows) => Some(rows as f64 / f64::from(global_batch)),
            Self::Unknown => None,
        }
    }
}

/// Steps and epochs of a run.
///
/// * `steps` and `epochs`: the epochs are equal parts of the steps;
/// * `epochs` alone: as many steps as that many passes over the rows take, rounded up;
/// * `steps` alone: the stage's own number of epochs where it has one, else passes over the rows;
/// * neither: the stage's own.
pub(crate) fn length(
    train: &Train,
    default_steps: Option<u64>,
    default_epochs: Option<f64>,
    global_batch: u32,
    rows: Option<u64>,
) -> Result<(u64, Epochs), RecipeError> {
    let by_rows = rows.map_or(Epochs::Unknown, Epochs::Rows);
    // A stage that has both publishes a table by epochs: it spans the run, however long.
    let table = default_steps.and(default_epochs);
    match (train.steps, train.epochs) {
        (Some(steps), Some(epochs)) => Ok((steps, Epochs::Parts(epochs))),
        (Some(steps), None) => Ok((steps, table.map_or(by_rows, Epochs::Parts))),
        (None, Some(epochs)) => passes(epochs, global_batch, rows),
        (None, None) => match (default_steps, default_epochs) {
            (Some(steps), epochs) => Ok((steps, epochs.map_or(by_rows, Epochs::Parts))),
            (None, Some(epochs)) => passes(epochs, global_batch, rows),
            (None, None) => unreachable!("every stage has steps or epochs"),
        },
    }
}

fn passes(epochs: f64, global_batch: u32, rows: Option<u64>) -> Result<(u64, Epochs), RecipeError> {
    let rows = rows.ok_or(RecipeError::NeedsRows { epochs })?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and `as` saturates"
    )]
    let steps = (epochs * rows as f64 / f64::from(global_batch)).ceil() as u64;
    Ok((steps.max(1), Epochs::Rows(rows)))
}
