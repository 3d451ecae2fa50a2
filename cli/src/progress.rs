//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use crate::human;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;
use std::{
    fmt::Write,
    io::{IsTerminal as _, stderr},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Plain and JSON lines come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar when stderr is a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// A bar with rate and time left.
    Bar,
    /// A line every few seconds.
    Plain,
    /// One JSON object a line, every few seconds.
    Json,
    /// Nothing.
    None,
}

/// The options that every long-running command shares.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ProgressArgs {
    /// How to show progress on stderr.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub progress: ProgressMode,
    /// Show no progress (the same as `--progress none`).
    #[arg(long, short)]
    pub quiet: bool,
}

impl ProgressArgs {
    /// The mode with `auto` and `--quiet` settled.
    #[must_use]
    pub fn mode(&self) -> ProgressMode {
        match self.progress {
            _ if self.quiet => ProgressMode::None,
            ProgressMode::Auto if stderr().is_terminal() => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Plain,
            mode => mode,
        }
    }
}

/// The progress of one piece of work. Can be advanced from any thread.
#[derive(Debug)]
pub struct Progress {
    mode: ProgressMode,
    label: String,
    unit: String,
    total: Option<u64>,
    done: AtomicU64,
    /// Done before this run: part of the amount, not of the rate.
    skipped: AtomicU64,
    started: Instant,
    lines: Mutex<Lines>,
    bar: ProgressBar,
}

#[derive(Debug)]
struct Lines {
    last: Instant,
    note: String,
}

impl Progress {
    /// Starts a piece of work: `label` names it, `unit` what is counted (`bytes` is shown in binary
    /// units), `total` how much there is when that is known.
    #[must_use]
    pub fn start(args: ProgressArgs, label: &str, unit: &str, total: Option<u64>) -> Self {
        let mode = args.mode();
        let bar =
            if mode == ProgressMode::Bar { bar(label, unit, total) } else { ProgressBar::hidden() };
        Self {
            mode,
            label: label.to_owned(),
            unit: unit.to_owned(),
            total,
            done: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            started: Instant::now(),
            lines: Mutex::new(Lines { last: Instant::now(), note: String::new() }),
            bar,
        }
    }

    /// Counts work that was done before this run (a resumed run), without touching the rate.
    pub fn skip_to(&self, position: u64) {
        self.done.store(position, Ordering::Relaxed);
        self.skipped.store(position, Ordering::Relaxed);
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// Counts `n` more units as done.
    pub fn advance(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
        self.bar.inc(n);
        self.maybe_line();
    }

    /// What stands after the bar: a loss, a file name.
    pub fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.bar.set_message(note.clone());
        if let Ok(mut lines) = self.lines.lock() {
            lines.note = note;
        }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        match self.mode {
            ProgressMode::Bar => self.bar.suspend(|| eprintln!("{line}")),
            ProgressMode::Plain => eprintln!("{line}"),
            ProgressMode::Auto | ProgressMode::Json | ProgressMode::None => {}
        }
    }

    /// Ends the work; the last state stays on the screen.
    pub fn finish(&self) {
        self.bar.abandon();
        self.line();
    }

    fn maybe_line(&self) {
        let due = match self.lines.try_lock() {
            Ok(mut lines) if lines.last.elapsed() >= LINE_EVERY => {
                lines.last = Instant::now();
                true
            }
            _ => false,
        };
        if due {
            self.line();
        }
    }

    fn line(&self) {
        let done = self.done.load(Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        let note = self.lines.lock().map(|l| l.note.clone()).unwrap_or_default();
        match self.mode {
            ProgressMode::Plain => {
                let fresh = done.saturating_sub(self.skipped.load(Ordering::Relaxed));
                let per_second = if seconds > 0.0 { fresh as f64 / seconds } else { 0.0 };
                let line = Line { label: &self.label, unit: &self.unit, done, total: self.total };
                eprintln!("{}", line.render(per_second, seconds, &note));
            }
            ProgressMode::Json => eprintln!(
                "{}",
                json!({"progress": self.label, "unit": self.unit, "done": done,
                       "total": self.total, "seconds": seconds, "note": note})
            ),
            ProgressMode::Auto | ProgressMode::Bar | ProgressMode::None => {}
        }
    }
}

fn bar(label: &str, unit: &str, total: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(8);
    let bar = ProgressBar::with_draw_target(total, target);
    let template = if total.is_some() {
        "{prefix} {bar:24} {percent:>3}% {amount} {speed} ETA {eta} {msg}"
    } else {
        "{prefix} {spinner} {amount} {speed} {elapsed} {msg}"
    };
    let (amount_unit, speed_unit) = (unit.to_owned(), unit.to_owned());
    let style = ProgressStyle::with_template(template)
        .expect("the templates above are valid")
        .with_key("amount", move |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}", amount(state.pos(), state.len(), &amount_unit));
        })
        .with_key("speed", move |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}", speed(state.per_sec(), &speed_unit));
        })
        .progress_chars("━╸ ");
    bar.set_style(style);
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// One plain line of progress.
struct Line<'a> {
    label: &'a str,
    unit: &'a str,
    done: u64,
    total: Option<u64>,
}

impl Line<'_> {
    fn render(&self, per_second: f64, seconds: f64, note: &str) -> String {
        let &Self { label, unit, done, total } = self;
        let mut line = format!("{label}: {}", amount(done, total, unit));
        if let Some(total) = total.filter(|&t| t > 0) {
            let _ = write!(line, " ({:.0}%)", 100.0 * done as f64 / total as f64);
        }
        let _ = write!(line, ", {}", speed(per_second, unit));
        match total {
            Some(total) if done < total && per_second > 0.0 => {
                let left = Duration::from_secs_f64((total - done) as f64 / per_second);
                let _ = write!(line, ", {} left", human::duration(left));
            }
            _ => {
                let _ = write!(line, ", {}", human::duration(Duration::from_secs_f64(seconds)));
            }
        }
        if !note.is_empty() {
            let _ = write!(line, ", {note}");
        }
        line
    }
}

fn amount(done: u64, total: Option<u64>, unit: &str) -> String {
    let is_bytes = unit == "bytes";
    let show = |n| if is_bytes { human::bytes(n) } else { human::count(n) };
    let shown = match total {
        Some(total) => format!("{}/{}", show(done), show(total)),
        None => show(done),
    };
    if is_bytes { shown } else { format!("{shown} {unit}") }
}

fn speed(per_second: f64, unit: &str) -> String {
    if unit == "bytes" {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is shown to three digits"
        )]
        let whole = per_second.max(0.0) as u64;
        format!("{}/s", human::bytes(whole))
    } else {
        human::rate(per_second, unit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Progress, ProgressArgs, ProgressMode};
    use std::sync::atomic::Ordering;

    #[test]
    fn a_plain_line_has_amount_rate_and_time_left() {
        assert_eq!(
            Line { label: "ingest", unit: "bytes", done: 1 << 20, total: Some(4 << 20) }.render(
                524_288.0,
                2.0,
                "docs.jsonl"
            ),
            "ingest: 1.00 MiB/4.00 MiB (25%), 512 KiB/s, 6.0s left, docs.jsonl"
        );
        assert_eq!(
            Line { label: "train", unit: "steps", done: 30, total: None }.render(0.5, 60.0, ""),
            "train: 30 steps, 0.50 steps/s, 1m 00s"
        );
    }

    #[test]
    fn quiet_wins() {
        let args = ProgressArgs { progress: ProgressMode::Bar, quiet: true };
        assert_eq!(args.mode(), ProgressMode::None);
    }

    #[test]
    fn threads_add_up() {
        let args = ProgressArgs { progress: ProgressMode::None, quiet: false };
        let progress = Progress::start(args, "x", "rows", Some(400));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.advance(1)));
            }
        });
        assert_eq!(progress.done.load(Ordering::Relaxed), 400);
    }
}
