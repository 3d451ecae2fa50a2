//! Aligned tables for people.

use crate::{
    mix::{Averages, MixLine},
    timeline::{Line, Timeline, Values},
};
use coda_cli::human;
use std::fmt::Write as _;

/// The headings, in the order of the cells of [`cells`].
pub(crate) const HEADINGS: [&str; 14] = [
    "epoch",
    "from step",
    "steps",
    "p1",
    "p2",
    "p3",
    "block sizes",
    "eps",
    "span",
    "lr",
    "masked",
    "scored/row",
    "weight",
    "tokens seen",
];

/// The timeline as text: what it is of, one line per epoch or phase, and how to read it.
pub(crate) fn render(timeline: &Timeline) -> String {
    let mut text = format!("{}\n\n", timeline.title());
    text.push_str(&tables(timeline));
    if let Some(longest) = &timeline.longest_waits {
        let _ = write!(text, "\n{}", tables(longest));
    }
    text.push('\n');
    if let Some(real) = &timeline.shard_set_rows {
        let _ = writeln!(text, "{}\n", real.words());
    }
    for hold in &timeline.holds {
        let _ = writeln!(text, "{}\n", hold.words());
    }
    for (term, meaning) in timeline.legend() {
        let _ = writeln!(text, "{term:<11}  {meaning}");
    }
    text
}

/// The tables of all rows, of sources, and of the mix.
fn tables(timeline: &Timeline) -> String {
    let mut text = String::new();
    if let Some(waits) = timeline.waits {
        let _ = writeln!(text, "{}", waits.heading());
    }
    if !timeline.sources.is_empty() {
        text.push_str("sources without schedules of their own\n");
    }
    text.push_str(&lines(&timeline.lines));
    for own in &timeline.sources {
        let _ = write!(text, "\n{}\n{}", own.heading(), lines(&own.lines));
    }
    if !timeline.sources.is_empty() {
        text.push_str("\nall rows together\n");
        match &timeline.mix {
            Some(mix) => {
                text.push_str(&align(
                    &MIX_HEADINGS,
                    &mix.iter().map(mix_cells).collect::<Vec<_>>(),
                ));
            }
            None => {
                text.push_str("not known: without a shard set or weights no one says how many rows each source has\n");
            }
        }
    }
    text
}

/// The headings, in the order of the cells of [`mix_cells`].
pub(crate) const MIX_HEADINGS: [&str; 8] =
    ["from step", "steps", "S1", "S2", "S3", "masked", "scored/row", "weight"];

fn lines(lines: &[Line]) -> String {
    align(&HEADINGS, &lines.iter().map(cells).collect::<Vec<_>>())
}

/// The cells of a line of the mix.
pub(crate) fn mix_cells(line: &MixLine) -> [String; 8] {
    let (first, last) = (&line.first, &line.last);
    let span = |show: fn(&Averages) -> String| between(&show(first), &show(last), "→");
    [
        line.first_step.to_string(),
        line.steps.to_string(),
        span(|v| percent(v.s1_share)),
        span(|v| percent(v.s2_share)),
        span(|v| percent(v.s3_share)),
        span(|v| percent(v.expected_masked_fraction)),
        span(|v| format!("{:.0}", v.expected_scored_tokens)),
        span(|v| number(v.expected_loss_weight)),
    ]
}

/// Two cells in one, or one if they are the same.
pub(crate) fn between(first: &str, last: &str, sign: &str) -> String {
    if first == last { first.to_owned() } else { format!("{first}{sign}{last}") }
}

/// One line's cells. `a→b` where a value changes within the line.
pub(crate) fn cells(line: &Line) -> [String; 14] {
    let (first, last) = (&line.first, &line.last);
    let span = |show: fn(&Values) -> String| between(&show(first), &show(last), "→");
    [
        line.epoch.to_string(),
        line.first_step.to_string(),
        line.steps.to_string(),
        span(|v| percent(v.p1)),
        span(|v| percent(v.p2)),
        span(|v| percent(v.p3)),
        span(|v| sizes(&v.block_sizes)),
        span(|v| number(v.sampling_eps)),
        span(|v| percent(v.conditioned_span_ratio)),
        span(|v| number(v.learning_rate)),
        span(|v| percent(v.expected_masked_fraction)),
        span(|v| format!("{:.0}", v.expected_scored_tokens)),
        span(|v| number(v.expected_loss_weight)),
        human::count(line.tokens_seen),
    ]
}

/// A share as a percentage of three digits at most.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = if value >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// A small number: `0`, `0.25`, `1e-3`, `2.96e-4`.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if (0.01..1000.0).contains(&value.abs()) {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        None => text,
    }
}

/// `4,8,16`.
pub(crate) fn sizes(sizes: &[u32]) -> String {
    sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Columns as wide as their widest cell, right-aligned, two spaces apart.
pub(crate) fn align<R: AsRef<[String]>>(headings: &[&str], rows: &[R]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.as_ref()[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    let mut push = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    };
    push(&mut headings.iter().copied());
    for row in rows {
        push(&mut row.as_ref().iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{align, number, percent};

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 1.0, 1e-3, 2.955e-4, 3e-4, 12.3456].map(number);
        assert_eq!(shown, ["0", "0.25", "1", "1e-3", "2.96e-4", "3e-4", "12.346"]);
        let shares = [0.0, 0.01, 0.005, 0.5005, 0.9999, 1.0].map(percent);
        assert_eq!(shares, ["0%", "1%", "0.5%", "50%", "100%", "100%"]);
    }

    #[test]
    fn columns_line_up_by_characters() {
        let rows = [["1".to_owned(), "0→25%".to_owned()], ["10".to_owned(), "1%".to_owned()]];
        assert_eq!(align(&["n", "p"], &rows), " n      p\n 1  0→25%\n10     1%\n");
    }
}
