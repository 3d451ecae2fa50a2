//! The schedules over the steps of a run, as charts.

use crate::{
    clocks::HoldShown,
    plot::{Chart, Mark, picture},
    table::{number, percent},
    timeline::{Shape, Timeline, Values},
    words::grouped,
};

/// Width and height of a chart on a page, which scales them.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 230.0;
/// The one chart that is the same for all sources.
pub(crate) const RATE: &str = "Learning rate";

/// The picture of all schedules, one chart over the other, as a file of its own.
pub(crate) fn svg(timeline: &Timeline) -> String {
    let mut charts = with_sources(timeline);
    if let Some(longest) = &timeline.longest_waits {
        let title = |title: &str| format!("If everything waits as long as it may: {title}");
        let theirs = with_sources(longest).into_iter().filter(|chart| chart.title != RATE);
        charts.extend(theirs.map(|chart| Chart { title: title(&chart.title), ..chart }));
    }
    charts.extend(clocks(timeline));
    picture(&[timeline.title()], charts)
}

/// The charts of the common schedules and those of sources with schedules of their own.
fn with_sources(timeline: &Timeline) -> Vec<Chart> {
    let mut charts = charts(timeline);
    for own in &timeline.sources {
        let of_source = self::charts(&own.timeline).into_iter().filter(|chart| chart.title != RATE);
        charts.extend(
            of_source.map(|chart| Chart {
                title: format!("{}: {}", own.heading(), chart.title),
                ..chart
            }),
        );
    }
    charts
}

/// Where the clocks of the schedules with a hold stand, one chart each; under the longest waits too,
/// where nothing is recorded.
pub(crate) fn clocks(timeline: &Timeline) -> Vec<Chart> {
    let line = |class, hold: &HoldShown| {
        let points = hold.curve().iter().map(|&(step, clock)| (step as f64, clock as f64));
        Mark::Line { class, pieces: vec![points.collect()] }
    };
    let chart = |(i, hold): (usize, &HoldShown)| {
        let longest = timeline.longest_waits.as_ref().and_then(|longest| longest.holds.get(i));
        let (mut marks, mut legend) = (vec![line("l1", hold)], Vec::new());
        if let Some(longest) = longest {
            marks.push(line("l4 dash", longest));
            legend = vec![("l1", "nothing waits"), ("l4", "as long as it may")];
        }
        Chart {
            top: timeline.total_steps.max(1) as f64,
            show_y: |steps| grouped_steps(steps),
            marks,
            legend,
            ..self::chart(timeline, &format!("Clock of {}, in steps", hold.key()))
        }
    };
    timeline.holds.iter().enumerate().map(chart).collect()
}

/// A number of steps at an axis.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "steps of a run")]
fn grouped_steps(steps: f64) -> String {
    grouped(steps.round() as u64)
}

/// The charts, in the order in which they are read.
pub(crate) fn charts(timeline: &Timeline) -> Vec<Chart> {
    let ever = |holds: fn(&Values) -> bool| timeline.points.iter().any(|p| holds(&p.values));
    let mut charts = Vec::new();
    if ever(|v| v.s1_share + v.s2_share + v.s3_share > 0.0) {
        charts.extend([strategies(timeline), shares(timeline)]);
    }
    charts.push(noise(timeline));
    if ever(|v| v.s3_share > 0.0) {
        charts.push(block_sizes(timeline));
    }
    charts.push(learning_rate(timeline));
    charts
}

fn chart(timeline: &Timeline, title: &str) -> Chart {
    Chart {
        title: title.to_owned(),
        x: "optimizer step",
        right: timeline.total_steps.max(1) as f64,
        x_ticks: Vec::new(),
        top: 1.0,
        show_y: percent,
        marks: Vec::new(),
        legend: Vec::new(),
        width: WIDTH,
        height: HEIGHT,
    }
}

fn line(timeline: &Timeline, class: &'static str, value: impl Fn(&Values) -> f64) -> Mark {
    let points = timeline.points.iter().map(|point| (point.step as f64, value(&point.values)));
    Mark::Line { class, pieces: vec![points.collect()] }
}

/// The highest value, with some room above it.
fn top(timeline: &Timeline, least: f64, value: impl Fn(&Values) -> f64) -> f64 {
    let highest = timeline.points.iter().fold(0.0, |top: f64, p| top.max(value(&p.values)));
    (highest * 1.08).max(least)
}

fn strategies(timeline: &Timeline) -> Chart {
    Chart {
        top: top(timeline, 0.01, |v| v.s1_share.max(v.s2_share).max(v.s3_share)).min(1.0),
        // The narrower curves lie on the wider ones, so that equal schedules can all be seen.
        marks: vec![
            line(timeline, "l1", |v| v.s1_share),
            line(timeline, "l2", |v| v.s2_share),
            line(timeline, "l3", |v| v.s3_share),
        ],
        legend: vec![
            ("l1", "S1 unmaskable prefix"),
            ("l2", "S2 truncated suffix"),
            ("l3", "S3 masked blocks"),
        ],
        ..chart(timeline, "Rows taken by each strategy")
    }
}

/// S3 is drawn apart from S1 and S2, so a row may be of two strategies.
fn shares(timeline: &Timeline) -> Chart {
    type Part = (&'static str, &'static str, fn(&Values) -> f64);
    let parts: [Part; 6] = [
        ("a1", "S1", |v| v.s1_share * (1.0 - v.s3_share)),
        ("a4", "S1+S3", |v| v.s1_share * v.s3_share),
        ("a2", "S2", |v| v.s2_share * (1.0 - v.s3_share)),
        ("a5", "S2+S3", |v| v.s2_share * v.s3_share),
        ("a3", "S3", |v| (1.0 - v.s1_share - v.s2_share) * v.s3_share),
        ("a0", "none", |v| (1.0 - v.s1_share - v.s2_share) * (1.0 - v.s3_share)),
    ];
    let mut floor = vec![0.0; timeline.points.len()];
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    for (class, label, part) in parts {
        let points: Vec<(f64, f64, f64)> = timeline
            .points
            .iter()
            .zip(&mut floor)
            .map(|(point, floor)| {
                let lower = *floor;
                *floor += part(&point.values);
                (point.step as f64, lower, *floor)
            })
            .collect();
        if points.iter().any(|&(_, lower, upper)| upper - lower > 1e-12) {
            marks.push(Mark::Area { class, points });
            legend.push((class, label));
        }
    }
    Chart { marks, legend, ..chart(timeline, "What a batch is made of") }
}

fn noise(timeline: &Timeline) -> Chart {
    let mut marks = vec![
        line(timeline, "l5", |v| v.expected_masked_fraction),
        line(timeline, "l4", |v| v.sampling_eps),
    ];
    let mut legend = vec![("l5", "masked on average"), ("l4", "lowest noise level")];
    if timeline.points.iter().any(|p| p.values.conditioned_span_ratio < 1.0) {
        marks.push(line(timeline, "l0", |v| v.conditioned_span_ratio));
        legend.push(("l0", "share of a prompt protected"));
    }
    Chart { marks, legend, ..chart(timeline, "Noise") }
}

/// One piece per line of the table and block size, at the logarithm of the size.
fn block_sizes(timeline: &Timeline) -> Chart {
    let pieces: Vec<Vec<(f64, f64)>> = timeline
        .lines
        .iter()
        .flat_map(|line| {
            let (from, to) = (line.first_step as f64, (line.first_step + line.steps) as f64);
            let sizes = line.first.block_sizes.iter();
            sizes.map(move |&k| vec![(from, f64::from(k).log2()), (to, f64::from(k).log2())])
        })
        .collect();
    let highest = pieces.iter().flatten().fold(1.0, |top: f64, &(_, y)| top.max(y));
    Chart {
        top: highest + 0.5,
        show_y: |log| number(log.exp2().round()),
        marks: vec![Mark::Line { class: "l3", pieces }],
        ..chart(timeline, "Block sizes of S3, in tokens (log scale)")
    }
}

fn learning_rate(timeline: &Timeline) -> Chart {
    Chart {
        top: top(timeline, 1e-12, |v| v.learning_rate),
        show_y: number,
        marks: vec![line(timeline, "l1 thin", |v| v.learning_rate)],
        ..chart(timeline, RATE)
    }
}

/// Shares of rows by their masked fraction.
pub(crate) fn fractions(title: &str, shape: &Shape, top: f64) -> Chart {
    let count = shape.masked_fraction.len() as f64;
    let bars = shape.masked_fraction.iter().enumerate().map(|(i, &share)| {
        let (from, to) = (i as f64 / count, (i as f64 + 1.0) / count);
        let told = format!(
            "{} of the rows are masked to {} to {}",
            percent(share),
            percent(from),
            percent(to)
        );
        (from, to, share, told)
    });
    Chart {
        x: "masked share of a row",
        right: 1.0,
        x_ticks: [0.0, 0.5, 1.0].map(|x| (x, percent(x))).to_vec(),
        top,
        marks: vec![Mark::Bars { class: "b5", bars: bars.collect() }],
        ..small(title)
    }
}

/// Shares of the masked tokens by the length of the run that they lie in.
pub(crate) fn runs(title: &str, shape: &Shape, top: f64) -> Chart {
    let bars = shape.masked_runs.iter().enumerate().map(|(i, bin)| {
        let lengths = if bin.from == bin.to {
            bin.to.to_string()
        } else {
            format!("{} to {}", bin.from, bin.to)
        };
        let told = format!(
            "{} of the masked tokens lie in runs of {lengths}; {} such runs in a row",
            percent(bin.share_of_masked_tokens),
            number(bin.runs_per_row)
        );
        (i as f64, i as f64 + 1.0, bin.share_of_masked_tokens, told)
    });
    let ends = shape.masked_runs.iter().enumerate();
    let step = shape.masked_runs.len().div_ceil(4).max(1);
    let ticks =
        ends.filter(|(i, _)| i % step == 0).map(|(i, bin)| (i as f64 + 0.5, bin.to.to_string()));
    Chart {
        x: "run length, up to",
        right: shape.masked_runs.len().max(1) as f64,
        x_ticks: ticks.collect(),
        top,
        marks: vec![Mark::Bars { class: "a1", bars: bars.collect() }],
        ..small(title)
    }
}

fn small(title: &str) -> Chart {
    Chart {
        title: title.to_owned(),
        x: "",
        right: 1.0,
        x_ticks: Vec::new(),
        top: 1.0,
        show_y: percent,
        marks: Vec::new(),
        legend: Vec::new(),
        width: 200.0,
        height: 150.0,
    }
}
