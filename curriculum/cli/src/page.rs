//! The page of `show --html`: words first, then pictures, then the table.

use crate::{
    chart, heat,
    html::{escape, page, prose},
    plot::Chart,
    table::{HEADINGS, MIX_HEADINGS, cells, mix_cells},
    timeline::{Line, Shape, Timeline},
    words::{self, grouped},
};
use coda_curriculum::MaskPlan;
use std::fmt::Write as _;

/// Sample rows at a step.
pub(crate) struct Sample {
    pub(crate) step: u64,
    pub(crate) plans: Vec<MaskPlan>,
}

/// The page. `samples` are rows at some steps, `drawn_from` says in words which rows they are.
pub(crate) fn html(timeline: &Timeline, samples: &[Sample], drawn_from: &str) -> String {
    let mut body = format!("<h1>What {} shows the model</h1>\n", escape(&timeline.name));
    let _ = writeln!(body, "<p>{}</p>\n<ul>", prose(&words::lead(timeline)));
    for sentence in words::sentences(timeline) {
        let _ = writeln!(body, "<li>{}</li>", prose(&sentence));
    }
    if let Some(real) = &timeline.shard_set_rows {
        let _ = writeln!(body, "<li>{}</li>", prose(&real.words()));
    }
    for hold in &timeline.holds {
        let _ = writeln!(body, "<li>{}.</li>", prose(&hold.words()));
    }
    if let Some(waits) = timeline.waits {
        let _ = writeln!(body, "<li>The rest of this page shows the run {}.</li>", waits.heading());
    }
    if !timeline.sources.is_empty() {
        let names: Vec<&str> = timeline.sources.iter().map(|own| own.source.as_str()).collect();
        let names = escape(&names.join(", "));
        let _ = writeln!(body, "<li>This holds for all sources but {names}: see below.</li>");
    }
    body.push_str("</ul>\n<h2>Over the run</h2>\n");
    grid(&mut body, "charts", chart::charts(timeline).into_iter().chain(chart::clocks(timeline)));
    distributions(&mut body, timeline);
    rows(&mut body, timeline.row_length, samples, drawn_from);
    sources(&mut body, timeline);
    if let Some(longest) = &timeline.longest_waits {
        longest_waits(&mut body, longest);
    }
    table(&mut body, timeline);
    page(&format!("Curriculum of {}", timeline.name), &body)
}

fn grid(body: &mut String, class: &str, charts: impl IntoIterator<Item = Chart>) {
    let _ = writeln!(body, "<div class=\"{class}\">");
    for chart in charts {
        let _ = writeln!(body, "<figure>{}</figure>", chart.svg());
    }
    body.push_str("</div>\n");
}

fn distributions(body: &mut String, timeline: &Timeline) {
    let shown: Vec<(&Line, &Shape)> =
        timeline.lines.iter().filter_map(|line| Some((line, line.shape.as_ref()?))).collect();
    let which = if shown.len() < timeline.lines.len() {
        format!("{} of the {} lines of the table", shown.len(), timeline.lines.len())
    } else {
        "each line of the table".to_owned()
    };
    if shown.is_empty() {
        body.push_str(
            "<p class=\"note\">How much of a row is masked, and in how long runs, follows from the text \
             where blocks are spans of it: <code>draw</code> shows rows.</p>\n",
        );
        return;
    }
    let shown = joined(&shown);
    // One scale for all, so that the small charts compare.
    let top = |values: &dyn Fn(&Shape) -> f64| {
        1.08 * shown.iter().map(|(_, shape)| values(shape)).fold(0.01, f64::max)
    };
    let highest = |shares: &mut dyn Iterator<Item = f64>| shares.fold(0.0, f64::max);
    let fraction = top(&|shape| highest(&mut shape.masked_fraction.iter().copied()));
    let run =
        top(&|shape| highest(&mut shape.masked_runs.iter().map(|bin| bin.share_of_masked_tokens)));
    let _ = write!(
        body,
        "<h2>How much of a row is masked</h2>\n<p class=\"note\">Shares of full rows by the share of \
         their positions that is masked, in the middle of {which}. Computed, not sampled.</p>\n"
    );
    grid(
        body,
        "charts small",
        shown.iter().map(|(title, shape)| chart::fractions(title, shape, fraction)),
    );
    body.push_str(
        "<h2>How long the masked runs are</h2>\n<p class=\"note\">Shares of the masked tokens by \
         the length of the unbroken masked run that they lie in. Long runs have few clues \
         inside.</p>\n",
    );
    grid(body, "charts small", shown.iter().map(|(title, shape)| chart::runs(title, shape, run)));
}

/// Neighbours that look alike stand as one.
fn joined<'a>(shown: &[(&'a Line, &'a Shape)]) -> Vec<(String, &'a Shape)> {
    let title = |part: &[(&Line, &Shape)]| match part {
        [(line, _)] => format!("epoch {}, step {}", line.epoch, grouped(line.middle())),
        [(first, _), .., (last, _)] if first.epoch != last.epoch => {
            format!("epochs {} to {}", first.epoch, last.epoch)
        }
        _ => format!("epoch {}", part[0].0.epoch),
    };
    shown.chunk_by(|(_, a), (_, b)| a == b).map(|part| (title(part), part[0].1)).collect()
}

fn rows(body: &mut String, length: u32, samples: &[Sample], drawn_from: &str) {
    let _ = write!(
        body,
        "<h2>What a batch looks like</h2>\n<p class=\"note\">One line is a row, from its first token to its \
         last. {}</p>\n{}\n",
        escape(drawn_from),
        heat::KEYS
    );
    for Sample { step, plans } in samples {
        let label = format!("The masks of {} rows at step {step}", plans.len());
        let _ = writeln!(
            body,
            "<figure class=\"heat\">{}<div class=\"ends\"><span>position 0</span><span>{}</span></div>\
             <figcaption>Step {}: {} rows, {}.</figcaption></figure>",
            heat::svg(&label, plans, length),
            grouped(u64::from(length.saturating_sub(1))),
            grouped(*step),
            plans.len(),
            heat::cell(length)
        );
    }
}

fn table(body: &mut String, timeline: &Timeline) {
    body.push_str("<h2>The table</h2>\n");
    if !timeline.sources.is_empty() {
        body.push_str("<p>Sources without schedules of their own:</p>\n");
    }
    lines(body, &HEADINGS, timeline.lines.iter().map(cells));
    if let Some(mix) = &timeline.mix {
        body.push_str("<p>All rows together:</p>\n");
        lines(body, &MIX_HEADINGS, mix.iter().map(mix_cells));
    }
    body.push_str("<dl>\n");
    for (term, meaning) in timeline.legend() {
        let _ = writeln!(body, "<dt>{term}</dt><dd>{}</dd>", prose(&meaning));
    }
    body.push_str("</dl>\n");
}

/// Sources with schedules of their own: what differs, in words, pictures and a table each.
fn sources(body: &mut String, timeline: &Timeline) {
    for own in &timeline.sources {
        let _ = write!(body, "<h2>{}</h2>\n<ul>\n", escape(&capital(&own.heading())));
        let common = words::sentences(timeline);
        for sentence in words::sentences(&own.timeline) {
            if !common.contains(&sentence) {
                let _ = writeln!(body, "<li>{}</li>", prose(&sentence));
            }
        }
        body.push_str("</ul>\n");
        let charts =
            chart::charts(&own.timeline).into_iter().filter(|chart| chart.title != chart::RATE);
        grid(body, "charts", charts);
        body.push_str("<p></p>\n");
        lines(body, &HEADINGS, own.lines.iter().map(cells));
    }
}

/// The same run if everything waits as long as it may: pictures and tables.
fn longest_waits(body: &mut String, timeline: &Timeline) {
    body.push_str("<h2>If everything waits as long as it may</h2>\n");
    let no_rate = |chart: &Chart| chart.title != chart::RATE;
    grid(body, "charts", chart::charts(timeline).into_iter().filter(no_rate));
    body.push_str("<p></p>\n");
    lines(body, &HEADINGS, timeline.lines.iter().map(cells));
    for own in &timeline.sources {
        let _ = writeln!(body, "<p>{}:</p>", escape(&capital(&own.heading())));
        grid(body, "charts", chart::charts(&own.timeline).into_iter().filter(no_rate));
        body.push_str("<p></p>\n");
        lines(body, &HEADINGS, own.lines.iter().map(cells));
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn lines<const N: usize>(
    body: &mut String,
    headings: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    body.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for heading in headings {
        let _ = write!(body, "<th>{heading}</th>");
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        body.push_str("<tr>");
        for cell in row {
            let _ = write!(body, "<td>{}</td>", escape(&cell));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table></div>\n");
}
