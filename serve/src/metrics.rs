//! Counters, in Prometheus's text format.

use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The upper bounds of the seconds of requests.
const SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    waiting: AtomicUsize,
    running: AtomicUsize,
    forwards: AtomicU64,
    /// Rows of all forwards together.
    forward_rows: AtomicU64,
    tokens: AtomicU64,
    gone: AtomicU64,
    late: AtomicU64,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    /// By route and status.
    counts: std::collections::BTreeMap<(&'static str, u16), u64>,
    buckets: [u64; SECONDS.len()],
    seconds: f64,
    answered: u64,
}

impl Metrics {
    pub(crate) fn rows(&self, waiting: usize, running: usize) {
        self.waiting.store(waiting, Relaxed);
        self.running.store(running, Relaxed);
    }

    pub(crate) fn forward(&self, rows: usize) {
        self.forwards.fetch_add(1, Relaxed);
        self.forward_rows.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn tokens(&self, count: usize) {
        self.tokens.fetch_add(count as u64, Relaxed);
    }

    pub(crate) fn dropped(&self, gone: usize, late: usize) {
        self.gone.fetch_add(gone as u64, Relaxed);
        self.late.fetch_add(late as u64, Relaxed);
    }

    /// A request was answered, or its answer began.
    pub(crate) fn request(&self, route: &'static str, status: u16, took: Duration) {
        let Ok(mut requests) = self.requests.lock() else { return };
        *requests.counts.entry((route, status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        requests.seconds += seconds;
        requests.answered += 1;
        for (bucket, bound) in requests.buckets.iter_mut().zip(SECONDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP coda_{name} {help}\n# TYPE coda_{name} {kind}\ncoda_{name} {value}"
            );
        };
        let gauge = |value: &AtomicUsize| value.load(Relaxed) as u64;
        line("rows_waiting", "gauge", "Rows that wait for the model.", gauge(&self.waiting));
        line("rows_running", "gauge", "Rows that go through the model.", gauge(&self.running));
        for (name, help, value) in [
            ("forwards_total", "Forwards of the model.", &self.forwards),
            ("forward_rows_total", "Rows of all forwards together.", &self.forward_rows),
            ("tokens_total", "Tokens revealed.", &self.tokens),
            ("rows_gone_total", "Rows dropped because nobody waited any more.", &self.gone),
            ("rows_late_total", "Rows dropped because their time was over.", &self.late),
        ] {
            line(name, "counter", help, value.load(Relaxed));
        }
        if let Ok(requests) = self.requests.lock() {
            requests.write(&mut text);
        }
        text
    }
}

impl Requests {
    fn write(&self, text: &mut String) {
        text.push_str("# HELP coda_requests_total Requests by route and status.\n");
        text.push_str("# TYPE coda_requests_total counter\n");
        for ((route, status), count) in &self.counts {
            let _ = writeln!(
                text,
                "coda_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        text.push_str(
            "# HELP coda_request_seconds From the request to its answer or its first byte.\n",
        );
        text.push_str("# TYPE coda_request_seconds histogram\n");
        for (bucket, bound) in self.buckets.iter().zip(SECONDS) {
            let _ = writeln!(text, "coda_request_seconds_bucket{{le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(
            text,
            "coda_request_seconds_bucket{{le=\"+Inf\"}} {0}\ncoda_request_seconds_sum {1}\n\
             coda_request_seconds_count {0}",
            self.answered, self.seconds
        );
    }
}
