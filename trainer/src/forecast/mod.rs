//! What a training step will take on GPUs, calculated before anything runs.
//!
//! A [`Job`] (model, batch, optimizer, number of cards) on a [`Card`] gives, for every way of keeping
//! activations, the largest micro-batch that fits ([`Memory`]) and the time of a step ([`Time`]). Nothing here
//! is measured: every efficiency is an assumption with a name ([`Assumptions`]) that the user may change.

mod card;
mod memory;
mod time;

pub use card::{CARDS, Card};
pub use memory::Memory;
pub use time::{Assumptions, Time};

use crate::model::ModelConfig;
use serde::Serialize;

/// What the backward pass finds of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Every activation.
    All,
    /// All but what is cheap to make again: normalized and rotated values, the product of SwiGLU.
    Products,
    /// Each layer's input; the layer runs again.
    Inputs,
}

impl Keep {
    /// From the fastest to the smallest.
    pub const EVERY: [Self; 3] = [Self::All, Self::Products, Self::Inputs];

    /// Its name, as in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Products => "products",
            Self::Inputs => "inputs",
        }
    }
}

/// A step of training, as far as its size is concerned.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Rows of the global batch.
    pub global_batch: u32,
    /// Tokens of a row (L).
    pub row_length: u32,
    /// Bytes of the optimizer's state, as f32.
    pub optimizer_state: u64,
    /// Whether weights have an f32 master copy beside the bf16 that is computed with.
    pub master: bool,
    /// Share of positions that are scored, and pass the head.
    pub scored: f64,
    /// Cards that share the batch, each with a whole copy of the weights; the optimizer's state and the master
    /// weights are divided among them (ZeRO-1).
    pub cards: u32,
}

/// One way of running the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// What is kept for the backward pass.
    pub keep: Keep,
    /// Rows of one forward and backward pass on a card.
    pub micro_batch: u32,
    /// Bytes on each card.
    pub memory: Memory,
    /// Whether that fits.
    pub fits: bool,
    /// Seconds of a step.
    pub time: Time,
    /// Tokens of all cards.
    pub tokens_per_second: f64,
    /// Operations of the model, without what is computed again, over what the cards could do in that time.
    pub mfu: f64,
}

impl Job<'_> {
    /// Rows of the global batch that a card gets.
    #[must_use]
    pub const fn rows_per_card(&self) -> u32 {
        self.global_batch / self.cards
    }

    /// Tokens of a micro-batch.
    fn tokens(&self, micro_batch: u32) -> f64 {
        f64::from(micro_batch) * f64::from(self.row_length)
    }

    /// The step with each way of keeping activations, at the largest micro-batch that fits on the card and
    /// divides its rows; 1 where even that does not fit.
    ///
    /// # Errors
    /// If the cards do not divide the batch.
    pub fn choices(&self, card: &Card, assumed: &Assumptions) -> Result<Vec<Choice>, String> {
        if self.cards == 0 || !self.global_batch.is_multiple_of(self.cards) {
            return Err(format!(
                "{} cards do not divide a global batch of {} rows",
                self.cards, self.global_batch
            ));
        }
        let rows = self.rows_per_card();
        let choice = |keep| {
            let fits = |micro| self.memory(card.memory, keep, micro).total <= card.usable();
            let divisors = (1..=rows).rev().filter(|micro| rows.is_multiple_of(*micro));
            let micro_batch = divisors.into_iter().find(|&micro| fits(micro)).unwrap_or(1);
            let memory = self.memory(card.memory, keep, micro_batch);
            let time = self.time(keep, card, assumed);
            let tokens = f64::from(self.global_batch) * f64::from(self.row_length);
            let peak = card.flops * f64::from(self.cards);
            Choice {
                keep,
                micro_batch,
                memory,
                fits: fits(micro_batch),
                time,
                tokens_per_second: tokens / time.total,
                mfu: tokens * self.model_flops_per_token() / (time.total * peak),
            }
        };
        Ok(Keep::EVERY.map(choice).into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Assumptions, Card, Job, Keep};
    use crate::model::{ModelConfig, config::published};

    pub(super) fn job(model: &ModelConfig, row_length: u32, cards: u32) -> Job<'_> {
        Job {
            model,
            global_batch: 64,
            row_length,
            optimizer_state: 8 * model.parameters(),
            master: true,
            scored: 1.0,
            cards,
        }
    }

    #[test]
    fn the_largest_micro_batch_that_fits_is_chosen() {
        let model = published();
        let card = Card::named("h200").unwrap();
        for choice in job(&model, 4096, 8).choices(card, &Assumptions::default()).unwrap() {
            assert!(choice.fits && 8 % choice.micro_batch == 0);
            let double =
                job(&model, 4096, 8).memory(card.memory, choice.keep, 2 * choice.micro_batch).total;
            assert!(choice.micro_batch == 8 || double > card.usable(), "{choice:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let model = published();
        let small = Card::named("rtx4090").unwrap();
        let choices = job(&model, 8192, 1).choices(small, &Assumptions::default()).unwrap();
        assert!(choices.iter().all(|choice| !choice.fits && choice.micro_batch == 1));
        let refused = job(&model, 8192, 3).choices(small, &Assumptions::default());
        assert!(refused.unwrap_err().contains("do not divide"));
    }

    #[test]
    fn more_cards_are_faster_and_waste_more() {
        let model = published();
        let card = Card::named("h100").unwrap();
        let at = |cards| {
            let choices = job(&model, 1024, cards).choices(card, &Assumptions::default()).unwrap();
            choices.into_iter().find(|choice| choice.keep == Keep::Inputs).unwrap()
        };
        for (few, many) in [(1, 2), (2, 4), (4, 8)] {
            let (few, many) = (at(few), at(many));
            assert!(many.time.total < few.time.total && many.mfu < few.mfu);
            assert!(many.memory.optimizer < few.memory.optimizer);
        }
    }
}
