//! `coda-trainer plan --gpu`: memory and time of a step on cards that are not here, calculated.

use crate::{
    forecast::{Assumptions, CARDS, Card, Choice, Job, Memory, Time},
    model::ModelConfig,
};
use clap::Args;
use coda_cli::{Failure, human};
use coda_manifests::MasterWeights;
use coda_stages::Recipe;
use serde::Serialize;
use std::fmt::Write as _;

/// Options of the calculation.
#[derive(Args, Clone, Debug)]
pub(super) struct GpuArgs {
    /// Calculate memory and time of a step on this card: a100-40, a100, h100, h200, b200, l40s, rtx4090,
    /// rtx6000ada.
    #[arg(long, value_name = "CARD", value_parser = named)]
    gpu: Option<&'static Card>,
    /// So many of them in one node, each with a whole copy of the weights and a share of the optimizer's state.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "gpu",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    gpus: u32,
    /// Share of positions that are scored, and pass the head; half of them where noise levels are even.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "gpu")]
    scored: f64,
    /// A share of the card's published rates that is reached, instead of the assumed one: `gemm=0.6`; also
    /// `attention_forward`, `attention_backward`, `bandwidth`, `link`. May be given several times.
    #[arg(long, value_name = "NAME=SHARE", requires = "gpu")]
    assume: Vec<String>,
}

/// What was calculated.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Calculated {
    card: &'static Card,
    cards: u32,
    /// Bytes of a card that a run may count on.
    usable: u64,
    scored: f64,
    assumed: Assumptions,
    choices: Vec<Choice>,
}

impl GpuArgs {
    /// Calculates, if that is asked for.
    pub(super) fn run(
        &self,
        config: &ModelConfig,
        recipe: &Recipe,
        optimizer_state: u64,
    ) -> Result<Option<Calculated>, Failure> {
        let Some(card) = self.gpu else { return Ok(None) };
        if !(0.0..=1.0).contains(&self.scored) {
            return Err(Failure::usage(format!("--scored {} is no share", self.scored))
                .hint("it lies between 0 and 1"));
        }
        let mut assumed = Assumptions::default();
        for text in &self.assume {
            assumed
                .set(text)
                .map_err(|problem| Failure::usage(format!("--assume {text}: {problem}")))?;
        }
        let job = Job {
            model: config,
            global_batch: recipe.global_batch,
            row_length: recipe.row_length,
            optimizer_state,
            master: recipe.master_weights == MasterWeights::F32,
            scored: self.scored,
            cards: self.gpus,
        };
        let choices = job.choices(card, &assumed).map_err(|problem| {
            Failure::usage(problem).hint("choose --gpus or train.global_batch so that it divides")
        })?;
        let (cards, usable, scored) = (self.gpus, card.usable(), self.scored);
        Ok(Some(Calculated { card, cards, usable, scored, assumed, choices }))
    }
}

fn named(text: &str) -> Result<&'static Card, String> {
    Card::named(text).ok_or_else(|| {
        let names: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
        format!("no such card is known, only {}", names.join(", "))
    })
}

impl Calculated {
    pub(super) fn text(&self) -> String {
        let Assumptions { gemm, attention_forward, attention_backward, bandwidth, link } =
            self.assumed;
        let mut text = format!(
            "calculated for {} x {}: nothing was run. {} of {} count as usable; assumed shares of the \
             published rates: products {gemm}, attention {attention_forward} and {attention_backward}, \
             bandwidth {bandwidth}, link {link}; {:.0} % of positions scored\n\
             kept      rows  memory             step     tokens/s    MFU  of it products, head, \
             attention, between, optimizer, cards\n",
            self.cards,
            self.card.name,
            human::bytes(self.usable),
            human::bytes(self.card.memory),
            100.0 * self.scored,
        );
        for Choice { keep, micro_batch, memory, fits, time, tokens_per_second, mfu } in
            &self.choices
        {
            let Time { products, head, attention, elementwise, optimizer, collectives, total } =
                *time;
            let share = |part: f64| format!("{:.0} %", 100.0 * part / total);
            let parts = [products, head, attention, elementwise, optimizer, collectives].map(share);
            let memory = human::bytes(memory.total);
            let memory = if *fits { memory } else { format!("{memory}, too much") };
            let step = format!("{total:.3} s");
            let _ = writeln!(
                text,
                "{:<9} {micro_batch:>4}  {memory:<18} {step:<8} {:>9} {:>5.1}%  {}",
                keep.name(),
                human::count(rounded(*tokens_per_second)),
                100.0 * mfu,
                parts.join(", "),
            );
        }
        if let Some(Choice { keep, memory, .. }) = self.choices.iter().find(|choice| choice.fits) {
            let _ = writeln!(text, "memory of `{}`: {}", keep.name(), memory_text(memory));
        } else if let Some(least) = self.choices.last() {
            let _ = writeln!(
                text,
                "no way fits; the smallest takes {}: more cards, a larger card, shorter rows, Adafactor \
                 or bf16 master weights make it smaller",
                memory_text(&least.memory)
            );
        }
        text
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for reading, above 0"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn memory_text(memory: &Memory) -> String {
    let Memory {
        weights, master, optimizer, gradients, activations, backward, logits, other, ..
    } = *memory;
    format!(
        "weights {}, master {}, optimizer {}, gradients {}, activations {}, in passing {}, libraries {}",
        human::bytes(weights),
        human::bytes(master),
        human::bytes(optimizer),
        human::bytes(gradients),
        human::bytes(activations),
        human::bytes(backward.max(logits)),
        human::bytes(other),
    )
}
