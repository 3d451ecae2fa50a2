//! The curriculum in words: what stands above the pictures.

use crate::{
    table::{number, percent},
    timeline::{Timeline, Values, named},
};
use coda_cli::human;
use std::fmt::Write as _;

/// What the run is, in one sentence.
pub(crate) fn lead(timeline: &Timeline) -> String {
    let tokens = timeline.total_steps * timeline.global_batch * u64::from(timeline.row_length);
    format!(
        "Stage {} under the profile {}: {} steps of {} rows of {} tokens, {} tokens in all. Epochs: {}.",
        timeline.stage,
        timeline.profile,
        grouped(timeline.total_steps),
        grouped(timeline.global_batch),
        grouped(u64::from(timeline.row_length)),
        human::count(tokens),
        timeline.epochs_from
    )
}

/// `50,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the model will see, sentence by sentence.
pub(crate) fn sentences(timeline: &Timeline) -> Vec<String> {
    let over = |value: fn(&Values) -> f64| Course::of(timeline, value);
    let masked = over(|v| v.expected_masked_fraction);
    let eps = over(|v| v.sampling_eps);
    let weight = over(|v| v.expected_loss_weight);
    let mut said = vec![
        format!("Masked on average, of a full row without a prompt: {}.", masked.words(percent)),
        format!(
            "Every row draws its noise level evenly between a lowest one and 1, so single rows differ \
             widely. Lowest noise level: {}.",
            eps.words(number)
        ),
    ];
    let strategies = [
        (over(|v| v.s1_share), "S1 leaves the start of a row unmasked, up to a random cut", "S1"),
        (over(|v| v.s2_share), "S2 takes the end of a row away, from a random cut on", "S2"),
    ];
    for (share, what, name) in strategies {
        said.push(if share.most > 0.0 {
            format!("{what}. Share of rows: {}.", share.words(percent))
        } else {
            format!("{name} is off.")
        });
    }
    let blocks = over(|v| v.s3_share);
    let spans = timeline.lines.first().and_then(|line| line.first.mask_blocks.spans());
    said.push(if let (Some(kinds), true) = (spans, blocks.most > 0.0) {
        format!(
            "S3 masks {} of up to {} at a time, and what lies outside of them token by token. Share of \
             rows: {}.",
            named(kinds),
            sizes(timeline),
            blocks.words(percent)
        )
    } else if blocks.most > 0.0 {
        format!(
            "S3 masks blocks of {} instead of single tokens. Share of rows: {}.",
            sizes(timeline),
            blocks.words(percent)
        )
    } else {
        "S3 is off: tokens are masked one by one.".to_owned()
    });
    let span = over(|v| v.conditioned_span_ratio);
    if span.least < 1.0 {
        said.push(format!(
            "Share of a prompt that is protected from masking: {}.",
            span.words(percent)
        ));
    }
    said.push(format!(
        "A row at the noise level sigma counts 1/sigma in the loss. On average: {}.",
        weight.words(number)
    ));
    said
}

/// All block sizes of the run, ascending.
fn sizes(timeline: &Timeline) -> String {
    let mut sizes: Vec<u32> =
        timeline.points.iter().flat_map(|point| point.values.block_sizes.iter().copied()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let words: Vec<String> = sizes.iter().map(u32::to_string).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => format!("{one} tokens"),
        [most @ .., last] => format!("{} or {last} tokens", most.join(", ")),
    }
}

/// A value over the run.
struct Course {
    first: f64,
    last: f64,
    least: f64,
    most: f64,
}

impl Course {
    fn of(timeline: &Timeline, value: fn(&Values) -> f64) -> Self {
        let values: Vec<f64> = timeline.points.iter().map(|point| value(&point.values)).collect();
        let edge = |value: Option<&f64>| value.copied().unwrap_or_default();
        Self {
            first: edge(values.first()),
            last: edge(values.last()),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// `5% throughout`, `1% at first, 20% in the end`, with what lies beyond both.
    fn words(&self, show: fn(f64) -> String) -> String {
        let [first, last, least, most] = [self.first, self.last, self.least, self.most].map(show);
        if least == most {
            return first;
        }
        let mut words = format!("{first} at first, {last} in the end");
        if most != first && most != last {
            let _ = write!(words, ", {most} at most");
        }
        if least != first && least != last {
            let _ = write!(words, ", {least} at least");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::{Course, grouped};
    use crate::table::percent;

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(
            [7, 999, 1000, 50_000, 1_234_567].map(grouped),
            ["7", "999", "1,000", "50,000", "1,234,567"]
        );
    }

    #[test]
    fn a_course_is_said_in_as_few_words_as_it_takes() {
        let say = |first, last, least, most| Course { first, last, least, most }.words(percent);
        assert_eq!(say(0.05, 0.05, 0.05, 0.05), "5%");
        assert_eq!(say(0.01, 0.2, 0.01, 0.2), "1% at first, 20% in the end");
        assert_eq!(say(0.25, 0.25, 0.25, 0.75), "25% at first, 25% in the end, 75% at most");
        assert_eq!(say(0.5, 0.4, 0.1, 0.5), "50% at first, 40% in the end, 10% at least");
    }
}
