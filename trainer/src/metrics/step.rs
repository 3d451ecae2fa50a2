//! One line of `metrics.jsonl`.

use super::Nll;
use coda_curriculum::HoldState;
use coda_manifests::HeldOutLoss;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// Shares of the rows of a step that each strategy took, and of the positions that were masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// S1, unmaskable prefix.
    pub s1: f64,
    /// S2, truncated suffix.
    pub s2: f64,
    /// S3, block masking.
    pub s3: f64,
    /// Masked positions, of all positions.
    pub masked: f64,
}

/// A loss over the held-out rows, with masks that depend only on the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// The loss, in the units of the training loss (method §2).
    pub loss: f64,
    /// Mean cross entropy of a scored token, in nats, without the weights.
    pub nats_per_token: f64,
    /// Rows that it was measured on.
    pub rows: u64,
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps done, this one included: the first line says 1. The line of step 0, if there is one,
    /// holds only the held-out loss before training.
    pub step: u64,
    /// The training loss of the step's global batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The bits of the loss as `f64`, hex: equal runs have equal bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_bits: Option<String>,
    /// Mean cross entropy of a scored token, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_per_token: Option<f64>,
    /// The learning rate of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Norm of the whole gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// The bits of the norm as `f64`, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm_bits: Option<String>,
    /// The factor that clipping applied; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipped: Option<f64>,
    /// The schedule's epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Tokens trained on since step 0, this step included.
    pub tokens: u64,
    /// Scored tokens of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scored: Option<u64>,
    /// What the masks of the step came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Shares>,
    /// What the curriculum expects of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Shares>,
    /// The held-out loss after this step, when it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    /// The rest of that measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// The held-out loss with S1 on every row, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_s1: Option<f64>,
    /// The held-out loss with S2 on every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_s2: Option<f64>,
    /// The held-out loss with S3 on every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_s3: Option<f64>,
    /// Bounds on the likelihood of the held-out rows, by the way of masking (`plain`, `s1`, `s2`, `s3`), when
    /// they were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nll: BTreeMap<String, Nll>,
    /// On lines with a held-out loss: where the schedules with a hold stand before the next step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<String, HoldState>,
    /// Seconds that the step took. Not part of what a resumed run repeats.
    pub seconds: f64,
    /// Tokens of the step over its seconds. Not part of what a resumed run repeats.
    pub tokens_per_second: f64,
}

impl StepMetrics {
    /// The line of step 0: the held-out loss before training.
    #[must_use]
    pub fn before_training(held_out: Option<HeldOut>, seconds: f64) -> Self {
        Self {
            step: 0,
            loss: None,
            loss_bits: None,
            nats_per_token: None,
            lr: None,
            grad_norm: None,
            grad_norm_bits: None,
            clipped: None,
            epoch: None,
            tokens: 0,
            scored: None,
            observed: None,
            expected: None,
            held_out_loss: held_out.as_ref().map(|h| h.loss),
            held_out,
            held_out_s1: None,
            held_out_s2: None,
            held_out_s3: None,
            nll: BTreeMap::new(),
            holds: BTreeMap::new(),
            seconds,
            tokens_per_second: 0.0,
        }
    }

    /// Notes a held-out loss.
    pub fn measured(&mut self, under: HeldOutLoss, held_out: Option<HeldOut>) {
        let loss = held_out.as_ref().map(|held_out| held_out.loss);
        *self.place(under) = loss;
        if under == HeldOutLoss::Plain {
            self.held_out = held_out;
        }
    }

    fn place(&mut self, under: HeldOutLoss) -> &mut Option<f64> {
        match under {
            HeldOutLoss::Plain => &mut self.held_out_loss,
            HeldOutLoss::S1 => &mut self.held_out_s1,
            HeldOutLoss::S2 => &mut self.held_out_s2,
            HeldOutLoss::S3 => &mut self.held_out_s3,
        }
    }

    /// A held-out loss, when it was measured after this step.
    #[must_use]
    pub const fn held_out_under(&self, under: HeldOutLoss) -> Option<f64> {
        match under {
            HeldOutLoss::Plain => self.held_out_loss,
            HeldOutLoss::S1 => self.held_out_s1,
            HeldOutLoss::S2 => self.held_out_s2,
            HeldOutLoss::S3 => self.held_out_s3,
        }
    }

    /// The numbers that go to `TensorBoard`, by tag.
    #[must_use]
    pub fn scalars(&self) -> Vec<(Cow<'static, str>, f64)> {
        let mut scalars: Vec<(Cow<'static, str>, f64)> = Vec::new();
        let mut put =
            |tag: &'static str, value: Option<f64>| scalars.extend(value.map(|v| (tag.into(), v)));
        put("train/loss", self.loss);
        put("train/nats_per_token", self.nats_per_token);
        put("train/lr", self.lr);
        put("train/grad_norm", self.grad_norm);
        put("train/masked", self.observed.map(|o| o.masked));
        put("curriculum/s1", self.observed.map(|o| o.s1));
        put("curriculum/s2", self.observed.map(|o| o.s2));
        put("curriculum/s3", self.observed.map(|o| o.s3));
        put("curriculum/masked_expected", self.expected.map(|e| e.masked));
        put("curriculum/s1_expected", self.expected.map(|e| e.s1));
        put("curriculum/s2_expected", self.expected.map(|e| e.s2));
        put("curriculum/s3_expected", self.expected.map(|e| e.s3));
        put("speed/tokens_per_second", self.loss.map(|_| self.tokens_per_second));
        put("held_out/loss", self.held_out_loss);
        put("held_out/nats_per_token", self.held_out.as_ref().map(|h| h.nats_per_token));
        put("held_out/loss_s1", self.held_out_s1);
        put("held_out/loss_s2", self.held_out_s2);
        put("held_out/loss_s3", self.held_out_s3);
        for (under, nll) in &self.nll {
            let mut put = |tag: String, value| scalars.push((tag.into(), value));
            put(format!("held_out/nll_{under}/nats_per_token"), nll.nats_per_token);
            put(format!("held_out/nll_{under}/bits_per_byte"), nll.bits_per_byte);
            for level in &nll.levels {
                let tag = format!("held_out/nll_{under}/nats_below_sigma_{:.3}", level.sigma_to);
                put(tag, level.nats_per_masked_token);
            }
        }
        for (key, state) in &self.holds {
            scalars.push((format!("holds/{key}/clock").into(), state.clock as f64));
            scalars.push((format!("holds/{key}/held").into(), state.held as f64));
        }
        scalars
    }
}
