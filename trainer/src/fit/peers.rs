//! The other processes of a run: what the fit loop tells them and learns from them.
//!
//! Every process goes through the same steps in the same order and decides alike, since all of them see
//! the same losses and the same wish to stop. Process 0 alone writes: metrics, events, checkpoints.

use super::{FitOptions, Job};
use crate::{feed::StepTally, launch::Group, model::Params};
use coda_cli::{Exit, Failure};
use std::{sync::Arc, time::Duration};

/// How long process 0 stays for the others when a run has ended.
const FAREWELL: Duration = Duration::from_mins(10);

/// What a process has of a step, and what all have together.
pub(super) struct StepPart {
    /// The exit code of a process that was asked to stop.
    pub(super) stop: Option<Exit>,
    /// The sum of the losses of every row, and its noise level: pass by pass.
    pub(super) rows: Vec<[f64; 2]>,
    /// What was masked.
    pub(super) tally: StepTally,
}

/// The processes of a run.
pub(super) struct Peers {
    group: Arc<Group>,
}

impl Peers {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self { group }
    }

    /// Whether this process writes what the run leaves behind.
    pub(super) fn is_first(&self) -> bool {
        self.group.is_first()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.group.is_alone()
    }

    /// Refuses processes that were not started for the same run.
    pub(super) fn agree_on_run(&self, job: &Job<'_>, options: &FitOptions) -> Result<(), Failure> {
        if self.is_alone() {
            return Ok(());
        }
        let named = |name: &str, value: String| (name.to_owned(), value);
        let mut own = vec![
            named("version", env!("CARGO_PKG_VERSION").to_owned()),
            named("--stop-after", format!("{:?}", options.stop_after)),
            named("--resume", format!("{:?}", options.resume)),
        ];
        let recipe = serde_json::to_value(job.recipe).expect("plain data");
        for (key, value) in recipe.as_object().into_iter().flatten() {
            own.push(named(key, value.to_string()));
        }
        own.push(named("identity (rows, order and recipe)", job.identity.hash()));
        Ok(self.group.agree("the run", &own)?)
    }

    /// Waits until process 0 has got the run's folder ready.
    pub(super) fn folder_is_ready(&self) -> Result<(), Failure> {
        self.group.exchange("the run's folder", &[])?;
        Ok(())
    }

    /// Refuses processes that would begin elsewhere: another step, or other weights.
    pub(super) fn agree_on_start(&self, step: u64, params: &Params) -> Result<(), Failure> {
        if self.is_alone() {
            return Ok(());
        }
        let mut hash = blake3::Hasher::new();
        for index in 0..params.len() {
            for values in params.get(index).chunks(1 << 16) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                hash.update(&bytes);
            }
        }
        let own = [
            ("step".to_owned(), step.to_string()),
            ("weights".to_owned(), hash.finalize().to_hex().to_string()),
        ];
        Ok(self.group.agree("where to begin", &own)?)
    }

    /// A step of all processes. `passes`: how many passes it had; a process has as many rows of each.
    pub(super) fn step(&self, own: StepPart, passes: usize) -> Result<StepPart, Failure> {
        if self.is_alone() {
            return Ok(own);
        }
        let stop = own.stop.map_or(0, |exit| exit as u8);
        let numbers = [&[f64::from(stop)][..], &own.tally.numbers(), own.rows.as_flattened()];
        let all = self.numbers("step", &numbers.concat())?;
        let mut whole = StepPart { stop: None, rows: Vec::new(), tally: StepTally::default() };
        let mut lists = Vec::new();
        for numbers in &all {
            let part = numbers.split_first().and_then(|(stop, rest)| {
                let (tally, rows) = rest.split_first_chunk()?;
                Some((*stop, tally, rows.as_chunks::<2>().0))
            });
            let (stop, tally, rows) = part.ok_or_else(garbled)?;
            whole.stop = whole.stop.or(stopped_by(stop));
            whole.tally.add_numbers(tally);
            lists.push(rows);
        }
        for pass in 0..passes {
            for rows in &lists {
                let of_a_pass = rows.len() / passes.max(1);
                whole.rows.extend(rows.iter().skip(pass * of_a_pass).take(of_a_pass));
            }
        }
        Ok(whole)
    }

    /// Sums of losses and noise levels of the rows of one piece, and how many tokens were scored, of all
    /// processes.
    pub(super) fn piece(
        &self,
        rows: Vec<[f64; 2]>,
        scored: u64,
    ) -> Result<(Vec<[f64; 2]>, u64), Failure> {
        if self.is_alone() {
            return Ok((rows, scored));
        }
        let numbers = [&[scored as f64][..], rows.as_flattened()].concat();
        let (mut whole, mut total) = (Vec::new(), 0.0);
        for numbers in self.numbers("held-out rows", &numbers)? {
            let (scored, rows) = numbers.split_first().ok_or_else(garbled)?;
            total += scored;
            whole.extend_from_slice(rows.as_chunks().0);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of counts"
        )]
        Ok((whole, total as u64))
    }

    /// Ends a run: nobody needs process 0 any more.
    pub(super) fn part(&self) -> Result<(), Failure> {
        Ok(self.group.barrier("the end", FAREWELL)?)
    }

    /// Tells the others why this process ends.
    pub(super) fn fail(&self, failure: &Failure) {
        let words = failure.render();
        let first = words.lines().next().unwrap_or_default();
        self.group.fail(first.strip_prefix("error: ").unwrap_or(first));
    }

    fn numbers(&self, what: &str, own: &[f64]) -> Result<Vec<Vec<f64>>, Failure> {
        let bytes: Vec<u8> = own.iter().flat_map(|number| number.to_le_bytes()).collect();
        let parts = self.group.exchange(what, &bytes)?;
        let numbers = |part: &Vec<u8>| {
            part.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
        };
        Ok(parts.iter().map(numbers).collect())
    }
}

/// The exit code that another process was asked to stop with.
fn stopped_by(number: f64) -> Option<Exit> {
    let is = |exit: &Exit| f64::from(*exit as u8).to_bits() == number.to_bits();
    [Exit::Interrupted, Exit::Terminated].into_iter().find(is)
}

fn garbled() -> Failure {
    Failure::incompatible("a process sent something that is no part of a step")
        .hint("start all processes with the same program")
}
