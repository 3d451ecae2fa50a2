//! The page itself.

use super::{
    chart::{Chart, Series, escape},
    data::{Report, StageReport, Step},
    evaluation, infill,
};
use coda_cli::human;
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

const STYLE: &str = include_str!("style.css");
/// The window of the smoothed training loss, as a share of the steps.
const SMOOTHING: usize = 24;
const CLASSES: [&str; 3] = ["c1", "c2", "c3"];

/// The report as one HTML page without outside parts.
pub(crate) fn render(report: &Report) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>CODA quickstart</title><style>\n{STYLE}</style></head><body>\n"
    );
    html.push_str("<h1>A diffusion language model for code, from raw files to an infill</h1>");
    let _ = write!(html, "<p class=\"lead\">{}</p>", escape(&report.corpora));
    html.push_str(&cards(report));
    html.push_str(&ingested(&report.stages));
    html.push_str(&curriculum(&report.stages));
    html.push_str(&losses(&report.stages));
    html.push_str(&throughput(&report.stages));
    if let Some(found) = &report.evaluation {
        html.push_str(&evaluation::render(found));
    }
    html.push_str("<h2>One infill, step by step</h2>");
    match &report.infill {
        Some(infill) => html.push_str(&infill::render(infill)),
        None => html.push_str("<p class=\"missing\">No infill was sampled.</p>"),
    }
    html.push_str(&time(&report.seconds));
    html.push_str("</body></html>\n");
    html
}

fn cards(report: &Report) -> String {
    let mut html = "<div class=\"cards\">".to_owned();
    let mut card = |value: &str, class: &str, label: &str| {
        let _ = write!(
            html,
            "<div class=\"card\"><b class=\"{class}\">{}</b><span>{}</span></div>",
            escape(value),
            escape(label)
        );
    };
    let tokens: u64 = report.stages.iter().map(|s| s.index.totals.tokens).sum();
    let documents: u64 = report.stages.iter().map(|s| s.index.totals.documents).sum();
    card(&human::count(tokens), "", &format!("tokens in {} documents", human::count(documents)));
    let seconds: f64 = report.stages.iter().map(StageReport::seconds).sum();
    card(&human::duration(Duration::from_secs_f64(seconds)), "", "training on the CPU");
    for stage in &report.stages {
        if let Some((first, last)) = stage.held_out() {
            let (text, class) = fall(first.loss, last.loss);
            card(&text, class, &format!("held-out loss, {}", stage.title));
        }
    }
    html + "</div>"
}

/// A change in percent with its sign, and the class of its colour.
fn fall(first: f64, last: f64) -> (String, &'static str) {
    let percent = (last / first - 1.0) * 100.0;
    let sign = if percent < 0.0 { "−" } else { "+" };
    (format!("{sign}{:.1} %", percent.abs()), if percent < 0.0 { "down" } else { "up" })
}

fn ingested(stages: &[StageReport]) -> String {
    let mut html = "<h2>What was ingested</h2><div class=\"scroll\"><table><tr><th>stage and \
                    source</th><th>documents</th><th>text</th><th>tokens</th><th>bytes per \
                    token</th><th>rows</th><th>rejected</th></tr>"
        .to_owned();
    let mut rejects: BTreeMap<(String, String), u64> = BTreeMap::new();
    for stage in stages {
        let totals = &stage.index.totals;
        let per_token = |bytes: u64, tokens: u64| match tokens {
            0 => "–".to_owned(),
            tokens => format!("{:.2}", bytes as f64 / tokens as f64),
        };
        let _ = write!(
            html,
            "<tr class=\"sum\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} × \
             {}</td><td>{}</td></tr>",
            escape(&stage.title),
            thousands(totals.documents),
            human::bytes(totals.input_bytes),
            thousands(totals.tokens),
            per_token(totals.input_bytes, totals.tokens),
            thousands(stage.index.rows),
            stage.index.row_length,
            thousands(totals.rejected)
        );
        for source in &stage.index.sources {
            let rejected: u64 = source.rejects.values().sum();
            let _ = write!(
                html,
                "<tr><td>&emsp;{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>",
                escape(&source.name),
                thousands(source.documents),
                human::bytes(source.input_bytes),
                thousands(source.tokens),
                per_token(source.input_bytes, source.tokens),
                thousands(source.rows),
                thousands(rejected)
            );
            for (reason, count) in &source.rejects {
                let key = (reason.clone(), format!("{}, {}", stage.title, source.name));
                *rejects.entry(key).or_default() += count;
            }
        }
    }
    html.push_str("</table></div>");
    let padding: u64 = stages.iter().map(|s| s.index.totals.padding_tokens).sum();
    let _ = write!(
        html,
        "<p class=\"note\">Rows are filled without gaps in pre- and mid-training; {} padding tokens \
         in all, nearly all of them after the answers of post-training.</p>",
        thousands(padding)
    );
    if rejects.is_empty() {
        html.push_str("<p>Nothing was rejected.</p>");
    } else {
        html.push_str(
            "<h3>Rejected, by reason</h3><div class=\"scroll\"><table><tr><th>reason</th><th \
             class=\"left\">where</th><th>records</th></tr>",
        );
        for ((reason, place), count) in rejects {
            let _ = write!(
                html,
                "<tr><td>{}</td><td class=\"left\">{}</td><td>{}</td></tr>",
                escape(&reason),
                escape(&place),
                thousands(count)
            );
        }
        html.push_str("</table></div>");
    }
    html
}

fn curriculum(stages: &[StageReport]) -> String {
    let mut html = "<h2>The curriculum</h2><p>How often each row is masked in a special way: with \
                    an unmaskable prefix (S1), a truncated suffix (S2), or in blocks (S3).</p>"
        .to_owned();
    let mut series: Vec<Series> = ["S1 prefix", "S2 suffix", "S3 blocks"]
        .into_iter()
        // Where S1 and S2 are equal, the wide line shows under the other.
        .zip(["c1 wide", "c2", "c3"])
        .map(|(name, class)| Series { name: name.to_owned(), class, points: Vec::new() })
        .collect();
    let mut marks = Vec::new();
    let mut start = 0.0;
    let mut table = String::new();
    for stage in stages {
        marks.push((start, stage.title.clone()));
        for line in &stage.timeline.lines {
            let from = start + line.first_step as f64;
            let to = from + line.steps as f64;
            for (x, values) in [(from, &line.first), (to, &line.last)] {
                for (series, p) in series.iter_mut().zip([values.p1, values.p2, values.p3]) {
                    series.points.push((x, p * 100.0));
                }
            }
            let sizes: Vec<String> = line.first.block_sizes.iter().map(u32::to_string).collect();
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{}–{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{:.1} %</td><td>{:.1e} → {:.1e}</td></tr>",
                escape(&stage.title),
                line.first_step,
                line.first_step + line.steps,
                percent(line.first.p1, line.last.p1),
                percent(line.first.p2, line.last.p2),
                percent(line.first.p3, line.last.p3),
                sizes.join(", "),
                line.first.expected_masked_fraction * 100.0,
                line.first.learning_rate,
                line.last.learning_rate
            );
        }
        start += stage.timeline.total_steps as f64;
    }
    let chart = Chart {
        label: "Share of rows that each masking strategy takes, over the steps of all stages",
        x: "optimizer step, stages one after the other",
        y: "% of rows",
        height: 260.0,
        from_zero: true,
        marks,
        series,
    };
    let _ = write!(html, "<figure>{}</figure>", chart.render());
    let profiles: Vec<&str> = stages.iter().map(|s| s.timeline.profile.as_str()).collect();
    let _ = write!(
        html,
        "<div class=\"scroll\"><table><tr><th>stage</th><th>steps</th><th>S1</th><th>S2</th><th>S3\
         </th><th>block sizes</th><th>masked</th><th>learning rate</th></tr>{table}</table></div>\
         <p class=\"note\">Profiles: {}. “masked” is the expected share of masked positions, computed, \
         not sampled.</p>",
        escape(&profiles.join(", "))
    );
    html
}

fn percent(first: f64, last: f64) -> String {
    let show = |p: f64| format!("{}", (p * 1000.0).round() / 10.0);
    if (first - last).abs() < 5e-4 {
        format!("{} %", show(first))
    } else {
        format!("{} → {} %", show(first), show(last))
    }
}

fn losses(stages: &[StageReport]) -> String {
    let mut html = "<h2>What was learned</h2><p>Every stage starts from the weights of the one \
                    before. The held-out rows are never trained on, and their masks are the same at \
                    every measurement.</p>"
        .to_owned();
    for stage in stages {
        if let Some((first, last)) = stage.held_out() {
            let (change, class) = fall(first.loss, last.loss);
            let _ = write!(
                html,
                "<p><b>{}</b>: held-out loss {:.3} → {:.3} (<span class=\"{class}\">{change}</span>) \
                 in {} steps of {} rows, measured on {} rows; a masked token costs {:.2} → {:.2} \
                 nats.</p>",
                escape(&stage.title),
                first.loss,
                last.loss,
                stage.timeline.total_steps,
                stage.timeline.global_batch,
                last.rows,
                first.nats_per_token,
                last.nats_per_token
            );
            html.push_str(&padding(stage));
        } else {
            let _ = write!(
                html,
                "<p class=\"missing\">{}: the held-out loss was not measured twice.</p>",
                escape(&stage.title)
            );
        }
    }
    for (index, stage) in stages.iter().enumerate() {
        let class = CLASSES[index % CLASSES.len()];
        let train: Vec<(f64, f64)> = curve(&stage.metrics, |m| m.nats_per_token.or(m.loss));
        let held_out = curve(&stage.metrics, |m| m.held_out.as_ref().map(|h| h.nats_per_token));
        let faint = ["c1 faint", "c2 faint", "c3 faint"][index % 3];
        let chart = Chart {
            label: &format!("Loss of {} over its steps", stage.title),
            x: "optimizer step",
            y: "nats per masked token",
            height: 250.0,
            from_zero: false,
            marks: Vec::new(),
            series: vec![
                Series { name: "training, each step".into(), class: faint, points: train.clone() },
                Series { name: "training, smoothed".into(), class, points: smoothed(&train) },
                Series { name: "held-out".into(), class: "c4 dots", points: held_out },
            ],
        };
        let _ = write!(
            html,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(&stage.title),
            chart.render()
        );
    }
    html + "<p class=\"note\">The training loss weights each row by 1/σ, so it jumps with the noise \
            level that a row happens to draw; the curves show the plain cross entropy of a masked \
            token, which still varies with how much of a row is masked.</p>"
}

/// Says how much of a stage's loss is about pads, where there are many.
fn padding(stage: &StageReport) -> String {
    let totals = &stage.index.totals;
    let share =
        totals.padding_tokens as f64 / (totals.tokens + totals.padding_tokens).max(1) as f64;
    if share < 0.05 {
        return String::new();
    }
    format!(
        "<p class=\"note\">{:.0} % of the positions of these rows are padding after the answer. They \
         are masked and scored too, as that is how a model learns to stop; so a large part of this \
         fall is learning where an answer ends.</p>",
        share * 100.0
    )
}

fn curve(metrics: &[Step], value: impl Fn(&Step) -> Option<f64>) -> Vec<(f64, f64)> {
    metrics.iter().filter_map(|m| Some((m.step as f64, value(m)?))).collect()
}

/// The mean over a window around each point.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (points.len() / SMOOTHING).max(1);
    (0..points.len())
        .map(|i| {
            let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
            (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
        })
        .collect()
}

fn throughput(stages: &[StageReport]) -> String {
    let mut html = "<h2>Throughput</h2><div class=\"scroll\"><table><tr><th>stage</th><th>steps\
                    </th><th>tokens trained on</th><th>tokens per second (median)</th><th>seconds\
                    </th></tr>"
        .to_owned();
    for stage in stages {
        let steps = stage.metrics.iter().filter(|m| m.loss.is_some()).count() as u64;
        let tokens = steps * stage.timeline.global_batch * u64::from(stage.index.row_length);
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td></tr>",
            escape(&stage.title),
            thousands(steps),
            thousands(tokens),
            stage.throughput().map_or("–".to_owned(), |rate| format!("{rate:.0}")),
            stage.seconds()
        );
    }
    html + "</table></div>"
}

fn time(seconds: &[(String, f64)]) -> String {
    if seconds.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = seconds
        .iter()
        .map(|(name, s)| format!("{name} {}", human::duration(Duration::from_secs_f64(*s))))
        .collect();
    format!("<footer>Time by step: {}.</footer>", escape(&parts.join(" · ")))
}

/// `1234567` as `1,234,567`.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{fall, render, smoothed, thousands};
    use crate::report::{
        data::{Evaluation, Filled, Nll, Report, StageReport, metrics},
        infill,
    };

    fn stage() -> StageReport {
        let index = r#"{"format": "coda-shards", "row_length": 8, "rows": 5,
            "totals": {"documents": 1234, "tokens": 40, "padding_tokens": 3, "rejected": 2,
                       "input_bytes": 120},
            "sources": [{"name": "<code>", "license": null, "documents": 1234, "tokens": 40,
                         "rows": 5, "input_bytes": 120, "rejects": {"invalid_utf8": 2}}]}"#;
        let values = |p: f64| {
            format!(
                r#""p1": {p}, "p2": 0.01, "p3": 0.05, "block_sizes": [2, 4],
                   "learning_rate": 0.001, "expected_masked_fraction": 0.49"#
            )
        };
        let timeline = format!(
            r#"{{"profile": "coda-paper", "total_steps": 3, "global_batch": 2, "lines": [
                {{"epoch": 0, "first_step": 0, "steps": 3, {}, "last": {{ {} }} }}]}}"#,
            values(0.01),
            values(0.25)
        );
        let lines = concat!(
            r#"{"step":0,"held_out":{"loss":4.0,"nats_per_token":8.0,"rows":1},"seconds":0.1,"tokens_per_second":0}"#,
            "\n",
            r#"{"step":1,"loss":4.1,"nats_per_token":8.1,"seconds":0.5,"tokens_per_second":32}"#,
            "\n",
            r#"{"step":2,"loss":3.5,"nats_per_token":7.0,"seconds":0.5,"tokens_per_second":32}"#,
            "\n",
            r#"{"step":3,"loss":3.0,"nats_per_token":6.0,"held_out":{"loss":3.0,"nats_per_token":6.1,"rows":1},"seconds":0.5,"tokens_per_second":32}"#,
            "\n",
            r#"{"step":4,"lo"#
        );
        StageReport {
            title: "pre-training".to_owned(),
            index: serde_json::from_str(index).expect("index"),
            timeline: serde_json::from_str(&timeline).expect("timeline"),
            metrics: metrics(lines).expect("metrics"),
        }
    }

    #[test]
    fn the_page_says_what_the_files_say() {
        let page = render(&Report {
            corpora: "From 3 < 4 crates.".to_owned(),
            stages: vec![stage()],
            evaluation: Some(Evaluation {
                likelihoods: vec![(
                    "pre-training".to_owned(),
                    [("s1".to_owned(), Nll { nats_per_token: 1.5, bits_per_byte: 0.75, rows: 9 })]
                        .into(),
                )],
                filled: [("a < b", "a < b"), ("c", "d")]
                    .map(|(original, answer)| Filled {
                        original: original.to_owned(),
                        answer: answer.to_owned(),
                    })
                    .into(),
            }),
            infill: Some(infill::tests::infill()),
            seconds: vec![("build".to_owned(), 65.0)],
        });
        for text in [
            "From 3 &lt; 4 crates.",
            "held-out loss 4.000 → 3.000",
            "−25.0 %",
            "1,234",
            "&lt;code&gt;",
            "invalid_utf8",
            "1 → 25 %",
            "coda-paper",
            "8.00 → 6.10",
            "1.500 / 0.750",
            "1 of 2 bodies",
            "a &lt; b",
            "One infill, step by step",
            "build 1m 05s",
        ] {
            assert!(page.contains(text), "{text} is missing");
        }
        assert_eq!(page.matches("<svg").count(), 2);
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let page = render(&Report { stages: vec![stage()], ..Report::default() });
        for outside in ["http", "src=", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("No infill was sampled"));
    }

    #[test]
    fn a_rise_is_not_dressed_up_as_a_fall() {
        assert_eq!(fall(2.0, 2.5), ("+25.0 %".to_owned(), "up"));
        assert_eq!(fall(2.0, 1.0), ("−50.0 %".to_owned(), "down"));
    }

    #[test]
    fn smoothing_keeps_the_steps_and_a_constant() {
        let points: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), 2.0)).collect();
        assert_eq!(smoothed(&points), points);
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
    }
}
