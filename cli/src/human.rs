//! Numbers as people read them.

use std::time::Duration;

/// A count with three significant digits: `999`, `1.23k`, `45.6M`, `7.89B`, `1.02T`.
#[must_use]
pub fn count(value: u64) -> String {
    scaled(value as f64, 1000.0, &["", "k", "M", "B", "T"])
}

/// A size in bytes: `999 B`, `1.23 KiB`, `45.6 MiB`, `7.89 GiB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

/// A rate per second in the given unit: `12.3k tokens/s`.
#[must_use]
pub fn rate(per_second: f64, unit: &str) -> String {
    let number = scaled(per_second.max(0.0), 1000.0, &["", "k", "M", "B", "T"]);
    format!("{number} {unit}/s")
}

/// A duration: `0.4s`, `12s`, `3m 05s`, `2h 07m`, `4d 03h`.
#[must_use]
pub fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0..=9 => format!("{:.1}s", value.as_secs_f64()),
        10..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn scaled(value: f64, base: f64, suffixes: &[&str]) -> String {
    let mut value = value;
    let mut step = 0;
    // 999.5 would be shown as 1000, so the next suffix takes over there.
    while value >= base - 0.5 && step + 1 < suffixes.len() {
        value /= base;
        step += 1;
    }
    let suffix = suffixes[step];
    let whole = step == 0 && value.fract() == 0.0;
    let decimals = match value {
        _ if whole => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, rate};
    use std::time::Duration;

    #[test]
    fn counts() {
        let shown: Vec<String> =
            [0, 999, 1000, 1234, 99_949, 99_950, 999_499, 999_500, 60_170_000_000]
                .into_iter()
                .map(count)
                .collect();
        assert_eq!(
            shown,
            ["0", "999", "1.00k", "1.23k", "99.9k", "100k", "999k", "1.00M", "60.2B"]
        );
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(3 << 30), "3.00 GiB");
        assert_eq!(rate(4321.0, "tokens"), "4.32k tokens/s");
        assert_eq!(rate(0.25, "steps"), "0.25 steps/s");
    }

    #[test]
    fn durations() {
        let shown: Vec<String> = [0.44, 12.0, 185.0, 7620.0, 356_400.0]
            .map(|s| duration(Duration::from_secs_f64(s)))
            .into();
        assert_eq!(shown, ["0.4s", "12s", "3m 05s", "2h 07m", "4d 03h"]);
    }
}
