//! One step of the quickstart: done once, and again when what decides its outcome has changed.

use super::files;
use coda_cli::{Failure, human};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The steps of one run, each with the key of those before it.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Where the stamps lie.
    directory: PathBuf,
    /// Everything that has decided the outcome so far.
    key: String,
    /// Seconds of every step, those of an earlier call included.
    pub(crate) seconds: Vec<(String, f64)>,
}

/// What a step finds when it has to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing of it is there, or what is there is of something else.
    Afresh,
    /// An earlier call with the same key was interrupted.
    Resume,
}

impl Steps {
    /// Steps whose stamps lie in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, key: String::new(), seconds: Vec::new() }
    }

    /// Runs `work` unless a call with the same key (`inputs` of this and all earlier steps) has
    /// finished it and `output` still exists.
    pub(crate) fn run(
        &mut self,
        name: &str,
        inputs: &str,
        output: &Path,
        work: impl FnOnce(Start) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.key = fingerprint(&format!("{}\n{name}\n{inputs}", self.key));
        let done = self.directory.join(format!("{name}.done"));
        let started = self.directory.join(format!("{name}.started"));
        if let Some((key, seconds)) = stamp(&done)
            && key == self.key
            && output.exists()
        {
            eprintln!("quickstart: {name} is done");
            self.seconds.push((name.to_owned(), seconds));
            return Ok(());
        }
        let resume = !done.exists() && stamp(&started).is_some_and(|(key, _)| key == self.key);
        files::remove(&done)?;
        if !resume {
            files::write(&started, format!("{} 0", self.key).as_bytes())?;
        }
        eprintln!("quickstart: {name}{}", if resume { ", going on" } else { "" });
        let clock = Instant::now();
        work(if resume { Start::Resume } else { Start::Afresh })?;
        if !output.exists() {
            return Err(Failure::check_failed(format!(
                "the step `{name}` ended without an error but {} is not there",
                output.display()
            )));
        }
        let seconds = clock.elapsed().as_secs_f64();
        files::write(&done, format!("{} {seconds:.3}", self.key).as_bytes())?;
        eprintln!("quickstart: {name} took {}", human::duration(clock.elapsed()));
        self.seconds.push((name.to_owned(), seconds));
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<(String, f64)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (key, seconds) = text.split_once(' ')?;
    Some((key.to_owned(), seconds.trim().parse().ok()?))
}

/// FNV-1a: only has to notice a change, not an attacker.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::{Start, Steps};
    use coda_cli::Failure;
    use std::{fs, path::Path};

    /// Runs a step and says how it started; none if it was done already.
    fn step(directory: &Path, inputs: &str, works: bool) -> Option<Start> {
        let output = directory.join("out");
        let mut started = None;
        let _ = Steps::new(directory.join("steps")).run("train", inputs, &output, |start| {
            started = Some(start);
            if works {
                fs::write(&output, "x").map_err(|e| Failure::io(e.to_string()))
            } else {
                Err(Failure::io("interrupted"))
            }
        });
        started
    }

    #[test]
    fn a_step_is_done_once_goes_on_after_a_stop_and_starts_afresh_when_inputs_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = |inputs, works| step(directory.path(), inputs, works);
        assert_eq!(run("a", false), Some(Start::Afresh));
        assert_eq!(run("a", true), Some(Start::Resume));
        assert_eq!(run("a", true), None);
        assert_eq!(run("b", true), Some(Start::Afresh));
        fs::remove_file(directory.path().join("out")).expect("there");
        assert_eq!(run("b", true), Some(Start::Afresh), "the output is gone");
    }

    #[test]
    fn an_earlier_step_decides_the_later_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = |first: &str| {
            let mut steps = Steps::new(directory.path().join("steps"));
            let mut ran = Vec::new();
            for (name, inputs) in [("one", first), ("two", "same")] {
                let output = directory.path().join(name);
                steps
                    .run(name, inputs, &output, |_| {
                        ran.push(name);
                        fs::write(&output, "x").map_err(|e| Failure::io(e.to_string()))
                    })
                    .expect("runs");
            }
            ran
        };
        assert_eq!(run("a"), ["one", "two"]);
        assert_eq!(run("a"), [""; 0]);
        assert_eq!(run("b"), ["one", "two"]);
    }

    #[test]
    fn a_step_without_its_output_is_a_failure() {
        let directory = tempfile::tempdir().expect("a directory");
        let failure = Steps::new(directory.path().join("steps"))
            .run("idle", "", &directory.path().join("out"), |_| Ok(()))
            .expect_err("no output");
        assert!(failure.render().contains("`idle` ended without an error"));
    }
}
