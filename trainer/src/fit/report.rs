//! What a run says while it runs and when it ends.

use super::holds::Turn;
use crate::metrics::{Parting, StepMetrics};
use coda_cli::{Progress, ProgressArgs, ProgressMode, human};
use coda_manifests::Stage;
use coda_stages::Recipe;
use serde::Serialize;
use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The result of a run, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The stage.
    pub stage: Stage,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps done.
    pub step: u64,
    /// The training loss of the first step.
    pub loss_first: Option<f64>,
    /// The training loss of the last step.
    pub loss_last: Option<f64>,
    /// The held-out loss before training.
    pub held_out_first: Option<f64>,
    /// The held-out loss measured last.
    pub held_out_last: Option<f64>,
    /// Tokens trained on, earlier parts of the run included.
    pub tokens: u64,
    /// Seconds that this process took.
    pub seconds: f64,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The checkpoint that this process went on from.
    pub resumed_from: Option<PathBuf>,
}

impl Summary {
    pub(super) fn of(
        recipe: &Recipe,
        lines: &[StepMetrics],
        step: u64,
        elapsed: Duration,
        checkpoint: Option<PathBuf>,
        resumed_from: Option<PathBuf>,
    ) -> Self {
        let losses = || lines.iter().filter_map(|line| line.loss);
        let held_out = || lines.iter().filter_map(|line| line.held_out_loss);
        Self {
            stage: recipe.stage,
            steps: recipe.total_steps,
            step,
            loss_first: losses().next(),
            loss_last: losses().next_back(),
            held_out_first: held_out().next(),
            held_out_last: held_out().next_back(),
            tokens: step * recipe.tokens_per_step(),
            seconds: elapsed.as_secs_f64(),
            checkpoint,
            resumed_from,
        }
    }

    /// The same for people.
    #[must_use]
    pub fn text(&self) -> String {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map_or("-".to_owned(), |path| path.display().to_string())
        };
        let mut text = format!(
            "step {} of {}, {} tokens, {}\nloss {} -> {}\nheld-out loss {} -> {}\ncheckpoint {}\n",
            self.step,
            self.steps,
            human::count(self.tokens),
            human::duration(Duration::from_secs_f64(self.seconds)),
            number(self.loss_first),
            number(self.loss_last),
            number(self.held_out_first),
            number(self.held_out_last),
            path(&self.checkpoint),
        );
        if self.resumed_from.is_some() {
            let _ = writeln!(text, "resumed from {}", path(&self.resumed_from));
        }
        text
    }
}

/// Progress on stderr.
pub(super) struct Reporter {
    progress: Progress,
    /// Whether lines are ours: one every `log_every` steps instead of one every few seconds.
    plain: bool,
    label: &'static str,
    total: u64,
    tokens_per_step: u64,
    log_every: u64,
    first: u64,
    started: Instant,
}

impl Reporter {
    pub(super) fn start(recipe: &Recipe, args: ProgressArgs, step: u64) -> Self {
        let label = match recipe.stage {
            Stage::Pre => "pre",
            Stage::Mid => "mid",
            Stage::Post => "post",
        };
        let plain = args.mode() == ProgressMode::Plain;
        let shown = ProgressArgs { quiet: args.quiet || plain, ..args };
        let tokens_per_step = recipe.tokens_per_step();
        let total = recipe.total_steps;
        let progress = Progress::start(shown, label, "tokens", Some(total * tokens_per_step));
        progress.skip_to(step * tokens_per_step);
        let log_every = recipe.log_every.max(1);
        let started = Instant::now();
        Self { progress, plain, label, total, tokens_per_step, log_every, first: step, started }
    }

    pub(super) fn step(&self, line: &StepMetrics) {
        let (step, total) = (line.step, self.total);
        let loss = line.loss.unwrap_or(f64::NAN);
        let note =
            format!("step {step}/{total} loss {loss:.4} lr {:.2e}", line.lr.unwrap_or(f64::NAN));
        if self.plain && (step.is_multiple_of(self.log_every) || step == total) {
            let done = step - self.first;
            let per_step = self.started.elapsed().as_secs_f64() / done.max(1) as f64;
            let left = Duration::from_secs_f64(per_step * (total - step) as f64);
            let speed = human::rate(self.tokens_per_step as f64 / per_step, "tokens");
            eprintln!("{}: {note}, {speed}, {} left", self.label, human::duration(left));
        }
        self.progress.note(note);
        self.progress.advance(self.tokens_per_step);
    }

    pub(super) fn held_out(&self, line: &StepMetrics) {
        let (step, Some(held_out)) = (line.step, &line.held_out) else { return };
        let mut text = format!(
            "{}: step {step}/{} held-out loss {:.4} ({:.4} nats per masked token, {} rows)",
            self.label, self.total, held_out.loss, held_out.nats_per_token, held_out.rows
        );
        let strategies =
            [("S1", line.held_out_s1), ("S2", line.held_out_s2), ("S3", line.held_out_s3)];
        for (name, loss) in strategies {
            let _ = loss.map(|loss| write!(text, ", under {name} {loss:.4}"));
        }
        for (under, nll) in &line.nll {
            let words = if nll.bound { "at most " } else { "" };
            let _ = write!(text, ", {under} {words}{:.4} bits a byte", nll.bits_per_byte);
        }
        self.say(&text);
    }

    /// A schedule that begins to wait, or goes on.
    pub(super) fn turn(&self, step: u64, turn: &Turn) {
        self.say(&format!("{}: step {step}/{}: {turn}", self.label, self.total));
    }

    /// Masks that are not what the curriculum expects.
    pub(super) fn parted(&self, step: u64, parting: &Parting) {
        self.say(&format!("{}: warning: step {step}/{}: {parting}", self.label, self.total));
    }

    fn say(&self, text: &str) {
        if self.plain {
            eprintln!("{text}");
        } else {
            self.progress.say(text);
        }
    }

    pub(super) fn finish(&self) {
        self.progress.finish();
    }
}
