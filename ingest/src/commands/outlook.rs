//! What a build of so many tokens takes: rows, disk, time.

use coda_cli::human;
use serde::Serialize;
use std::{fmt::Write as _, path::Path, time::Duration};

/// Tokens a second and worker where nothing was measured: prose on two cores in `docs/benchmarks.md`, rounded
/// down, since not every processor has the wide instructions of that one.
const RATE: f64 = 15_000_000.0;
/// Bytes of a token in a shard, and of a row's other columns.
const TOKEN_BYTES: u64 = 4;

/// What a build of so many tokens takes.
#[derive(Serialize)]
pub(super) struct Outlook {
    pub(super) estimated_rows: u64,
    pub(super) estimated_output_bytes: u64,
    /// Free bytes where the shard set would lie; absent where the system does not say.
    free_bytes: Option<u64>,
    estimated_seconds: f64,
    /// Tokens a second of all workers.
    tokens_per_second: f64,
    /// Whether that was measured just now, on a sample of the sources.
    measured: bool,
}

impl Outlook {
    /// `rate`: tokens a second and worker, when they were measured.
    pub(super) fn new(
        tokens: u64,
        row_length: u32,
        rate: Option<f64>,
        jobs: usize,
        out: &Path,
    ) -> Self {
        let rows = tokens.div_ceil(u64::from(row_length));
        let all = rate.unwrap_or(RATE) * jobs as f64;
        Self {
            estimated_rows: rows,
            estimated_output_bytes: rows * u64::from(row_length) * TOKEN_BYTES,
            free_bytes: free_bytes(out),
            estimated_seconds: tokens as f64 / all.max(1.0),
            tokens_per_second: all,
            measured: rate.is_some(),
        }
    }

    /// The end of a line that has begun with the tokens, and a line on time and disk.
    pub(super) fn render(&self, row_length: u32) -> String {
        let mut out = format!(
            ", {} rows of {row_length}, {} on disk (nothing was written)\n",
            human::count(self.estimated_rows),
            human::bytes(self.estimated_output_bytes),
        );
        let _ = write!(
            out,
            "about {} at {}{}",
            human::duration(Duration::from_secs_f64(self.estimated_seconds)),
            human::rate(self.tokens_per_second, "tokens"),
            if self.measured { ", measured on the sample" } else { ", as in docs/benchmarks.md" },
        );
        if let Some(free) = self.free_bytes {
            let _ = write!(out, "; {} are free", human::bytes(free));
            if free < self.estimated_output_bytes {
                let missing = self.estimated_output_bytes - free;
                let _ = write!(out, ", {} too few", human::bytes(missing));
            }
        }
        out.push('\n');
        out
    }
}

/// Free bytes of the disk that a folder is on, or will be.
fn free_bytes(folder: &Path) -> Option<u64> {
    let there = std::path::absolute(folder).ok()?;
    let there = there.ancestors().find(|ancestor| ancestor.exists())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::Outlook;
    use std::path::Path;

    #[test]
    fn rows_disk_and_time_follow_from_the_tokens() {
        let here = Path::new("not/there/yet");
        let outlook = Outlook::new(1_000_001, 1000, Some(1000.0), 4, here);
        assert_eq!((outlook.estimated_rows, outlook.estimated_output_bytes), (1001, 4_004_000));
        assert!((outlook.estimated_seconds - 250.0).abs() < 1.0);
        assert!(outlook.free_bytes.is_some_and(|free| free > 0));
        let text = outlook.render(1000);
        assert!(text.contains("measured on the sample") && text.contains("are free"), "{text}");
        let much = Outlook::new(1 << 60, 1000, None, 1, here).render(1000);
        assert!(much.contains("too few") && much.contains("docs/benchmarks.md"), "{much}");
    }
}
