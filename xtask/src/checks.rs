//! `cargo xtask test`: everything that continuous integration calls, in the order in which a fault
//! shows soonest.

use crate::{plugin, process, python};
use clap::Args;
use coda_cli::{Failure, human};
use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Format, lints, documentation, tests, Python cross-checks.
#[derive(Args)]
pub(crate) struct Test {
    /// Only these checks: fmt, clippy, doc, test, python.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
}

type Check = (&'static str, fn() -> Result<(), Failure>);

const CHECKS: [Check; 5] = [
    ("fmt", || process::run(process::cargo().args(["fmt", "--all", "--check"]))),
    ("clippy", || {
        process::run(
            process::cargo()
                .args(["clippy", "--release", "--locked", "--workspace", "--all-targets"])
                .args(["--", "-D", "warnings"]),
        )
    }),
    ("doc", || {
        process::run(
            process::cargo()
                .args(["doc", "--release", "--locked", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    }),
    ("test", || {
        plugin::prepare()?;
        plugin::prepare_nvrtc()?;
        process::run(
            process::cargo()
                .args(["test", "--release", "--locked", "--workspace"])
                // XLA's plugin would tell on stderr what it does.
                .env("TF_CPP_MIN_LOG_LEVEL", "2"),
        )
    }),
    ("python", python::cross_check),
];

impl Test {
    /// Runs the checks, stopping at the first that fails.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if let Some(unknown) = self.only.iter().find(|n| !CHECKS.iter().any(|(c, _)| c == n)) {
            let names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
            return Err(Failure::usage(format!("there is no check `{unknown}`"))
                .hint(format!("the checks are {}", names.join(", "))));
        }
        let wants = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        // Downloads wait for the network while the compiler works.
        let mut downloads = (wants("test") && wants("python")).then(|| {
            thread::spawn(|| {
                plugin::prepare()?;
                plugin::prepare_nvrtc()?;
                python::prepare().map(drop)
            })
        });
        let mut done: Vec<(&str, Duration)> = Vec::new();
        for (name, check) in CHECKS {
            if !wants(name) {
                continue;
            }
            if name == "test"
                && let Some(downloads) = downloads.take()
            {
                downloads.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            eprintln!("test: {name}");
            let clock = Instant::now();
            check()?;
            done.push((name, clock.elapsed()));
        }
        let parts: Vec<String> =
            done.iter().map(|(name, time)| format!("{name} {}", human::duration(*time))).collect();
        let total = done.iter().map(|(_, time)| *time).sum();
        coda_cli::print_text(&format!(
            "all checks passed in {}: {}\nchecks: {} passed, 0 failed\n",
            human::duration(total),
            parts.join(", "),
            done.len()
        ))
    }
}

/// `cargo xtask deny`: licences, bans and sources, as `deny.toml` says.
pub(crate) fn deny() -> Result<(), Failure> {
    let there = Command::new("cargo-deny").arg("--version").output().is_ok();
    if !there {
        eprintln!("deny: installing cargo-deny (once)");
        process::run(process::cargo().args(["install", "--locked", "cargo-deny@0.20.2"]))?;
    }
    // The advisories need their database from the network; `cargo deny check` reads it too.
    process::run(process::cargo().args(["deny", "check", "licenses", "bans", "sources"]))
}
