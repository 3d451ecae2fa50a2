//! A comparison as text, as a page and as a picture.

use crate::{
    compare::{Block, COMPARED, Compared, Diff, Pair},
    html::{escape, page},
    plot::{Chart, Mark, picture},
    table::{align, between, number, percent, sizes},
    timeline::Values,
};
use serde_json::Value;
use std::fmt::Write as _;

type Column = (&'static str, fn(&Values) -> String);

/// The columns of a table in which two runs may part.
const COLUMNS: [Column; 10] = [
    ("p1", |v| percent(v.p1)),
    ("p2", |v| percent(v.p2)),
    ("p3", |v| percent(v.p3)),
    ("block sizes", |v| sizes(&v.block_sizes)),
    ("blocks of", |v| v.mask_blocks.to_string()),
    ("eps", |v| number(v.sampling_eps)),
    ("span", |v| percent(v.conditioned_span_ratio)),
    ("masked", |v| percent(v.expected_masked_fraction)),
    ("scored/row", |v| format!("{:.0}", v.expected_scored_tokens)),
    ("weight", |v| number(v.expected_loss_weight)),
];

/// For a terminal.
pub(crate) fn text(diff: &Diff) -> String {
    let mut text = format!("A  {}\nB  {}\n", named(diff, 0), named(diff, 1));
    if diff.same {
        text.push_str("\nThe model sees the same.\n");
        return text;
    }
    if !diff.keys.is_empty() {
        let _ = write!(text, "\nKeys that decide what the model sees\n{}", table(&keys(diff)));
    }
    for block in &diff.blocks {
        let _ = writeln!(text, "\n{}", heading(block));
        if block.lines.is_empty() {
            text.push_str("the schedules are the same\n");
        } else {
            text.push_str(&table(&lines(block)));
        }
        let largest = largest(block);
        if largest.len() > 1 {
            let _ = write!(text, "\nLargest differences\n{}", table(&largest));
        }
    }
    text
}

/// What a side is: its name, and what is taken of its schedules that wait for a loss.
fn named(diff: &Diff, side: usize) -> String {
    let name = [&diff.a, &diff.b][side];
    diff.waits[side].map_or_else(|| name.clone(), |waits| format!("{name}, {}", waits.heading()))
}

/// As a self-contained page.
pub(crate) fn html(diff: &Diff) -> String {
    let mut body = String::from("<h1>What two runs show the model</h1>\n<dl>");
    for (number, side) in ["A", "B"].into_iter().enumerate() {
        let _ = write!(body, "<dt>{side}</dt><dd>{}</dd>", escape(&named(diff, number)));
    }
    body.push_str("</dl>\n");
    if diff.same {
        body.push_str("<p>The model sees the same.</p>\n");
        return page("Two runs", &body);
    }
    if !diff.keys.is_empty() {
        body.push_str("<h2>Keys that decide what the model sees</h2>\n");
        cells(&mut body, &keys(diff));
    }
    for block in &diff.blocks {
        let _ = writeln!(body, "<h2>{}</h2>", escape(&heading(block)));
        if block.lines.is_empty() {
            body.push_str("<p>The schedules are the same.</p>\n");
        } else {
            cells(&mut body, &lines(block));
        }
        let largest = largest(block);
        if largest.len() > 1 {
            body.push_str("<h2>Largest differences</h2>\n");
            cells(&mut body, &largest);
        }
        body.push_str("<p></p>\n<div class=\"charts\">\n");
        for chart in charts(block) {
            let _ = writeln!(body, "<figure>{}</figure>", chart.svg());
        }
        body.push_str("</div>\n");
    }
    page("Two runs", &body)
}

/// As a picture that stands alone: both schedules in each chart.
pub(crate) fn svg(diff: &Diff) -> String {
    let mut heading = vec![format!("A: {}", named(diff, 0)), format!("B: {}", named(diff, 1))];
    let mut drawn = Vec::new();
    for block in &diff.blocks {
        let of_source = |title: String| match &block.source {
            Some(name) => format!("Source {name}: {title}"),
            None => title,
        };
        drawn.extend(charts(block).into_iter().map(|chart| {
            let title = of_source(chart.title);
            Chart { title, ..chart }
        }));
    }
    if diff.same {
        heading.push("The model sees the same.".to_owned());
    } else if drawn.is_empty() {
        let keys: Vec<&str> = diff.keys.iter().map(|key| key.key.as_str()).collect();
        heading
            .push(format!("The schedules are the same. Other keys differ: {}.", keys.join(", ")));
    }
    picture(&heading, drawn)
}

/// Headings first.
type Table = Vec<Vec<String>>;

fn heading(block: &Block) -> String {
    match &block.source {
        Some(name) => format!("Source {name}, where the schedules part (A | B)"),
        None => "Where the schedules part (A | B)".to_owned(),
    }
}

fn keys(diff: &Diff) -> Table {
    let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), plain);
    let mut table = vec![["key", "A", "B"].map(str::to_owned).to_vec()];
    table.extend(diff.keys.iter().map(|key| vec![key.key.clone(), shown(&key.a), shown(&key.b)]));
    table
}

/// JSON without its quotes: `{epochs: [0.01, 0.05]}`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let items = map.iter().map(|(key, value)| format!("{key}: {}", plain(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Only the columns in which something parts.
fn lines(block: &Block) -> Table {
    let parts = |(_, show): &&Column| {
        block.lines.iter().any(|pair| show(&pair.a.values) != show(&pair.b.values))
    };
    let columns: Vec<&Column> = COLUMNS.iter().filter(parts).collect();
    let mut headings = vec!["run".to_owned(), "step".to_owned()];
    headings.extend(columns.iter().map(|(name, _)| (*name).to_owned()));
    let row = |pair: &Pair| {
        let beside = |a: &str, b: &str| between(a, b, " | ");
        let step = beside(&pair.a.step.to_string(), &pair.b.step.to_string());
        let mut row = vec![percent(pair.at), step];
        let show = |(_, show): &&Column| beside(&show(&pair.a.values), &show(&pair.b.values));
        row.extend(columns.iter().map(show));
        row
    };
    std::iter::once(headings).chain(block.lines.iter().map(row)).collect()
}

fn largest(block: &Block) -> Table {
    let mut table = vec![["what", "A", "B", "at"].map(str::to_owned).to_vec()];
    for apart in &block.largest {
        let shown = COMPARED.iter().find(|(what, ..)| *what == apart.what);
        let show = shown.map_or(number as fn(f64) -> String, |(_, show, _)| *show);
        let (a, b) = (show(apart.a), show(apart.b));
        // What differs by less than is shown would read as no difference.
        if a != b {
            let at = format!("{} of the run", percent(apart.at));
            table.push(vec![apart.what.to_owned(), a, b, at]);
        }
    }
    table
}

fn table(table: &Table) -> String {
    let headings: Vec<&str> = table[0].iter().map(String::as_str).collect();
    align(&headings, &table[1..])
}

fn cells(body: &mut String, table: &Table) {
    body.push_str("<div class=\"scroll\"><table>\n");
    for (i, row) in table.iter().enumerate() {
        let cell = if i == 0 { "th" } else { "td" };
        body.push_str("<tr>");
        for text in row {
            let _ = write!(body, "<{cell}>{}</{cell}>", escape(text));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>\n");
}

/// One picture for each thing that parts.
fn charts(block: &Block) -> Vec<Chart> {
    let parts = |value: fn(&Values) -> f64| {
        block
            .points
            .iter()
            .any(|pair| (value(&pair.a.values) - value(&pair.b.values)).abs() > 1e-12)
    };
    let chart = |&(what, show, value): &Compared| {
        let curve = |class, values: fn(&Pair) -> &Values| {
            let points = block.points.iter().map(|pair| (pair.at, value(values(pair))));
            Mark::Line { class, pieces: vec![points.collect()] }
        };
        let highest = block.points.iter().flat_map(|pair| [&pair.a.values, &pair.b.values]);
        let highest = highest.map(value).fold(0.0, f64::max);
        let mut title: String = what[..1].to_uppercase();
        title.push_str(&what[1..]);
        Chart {
            title,
            top: (highest * 1.08).max(1e-9),
            show_y: show,
            marks: vec![
                curve("l1", |pair| &pair.a.values),
                curve("l4 dash", |pair| &pair.b.values),
            ],
            ..over_the_run()
        }
    };
    let mut charts: Vec<Chart> =
        COMPARED.iter().filter(|(_, _, value)| parts(*value)).map(chart).collect();
    charts.extend(block_sizes(block));
    charts
}

/// One of the two runs.
type Side = fn(&Pair) -> &Values;

/// The block sizes of both, where S3 takes rows and they part.
fn block_sizes(block: &Block) -> Option<Chart> {
    let sizes = |values: &Values| -> Vec<u32> {
        if values.s3_share > 0.0 { values.block_sizes.clone() } else { Vec::new() }
    };
    if block.points.iter().all(|pair| sizes(&pair.a.values) == sizes(&pair.b.values)) {
        return None;
    }
    let (mut marks, mut highest) = (Vec::new(), 1.0f64);
    let sides: [Side; 2] = [|pair| &pair.a.values, |pair| &pair.b.values];
    for (class, side) in ["l1", "l4 dash"].into_iter().zip(sides) {
        let stretches: Vec<&[Pair]> =
            block.points.chunk_by(|a, b| sizes(side(a)) == sizes(side(b))).collect();
        let ends = stretches.iter().skip(1).map(|next| next[0].at).chain([1.0]);
        let mut pieces = Vec::new();
        for (stretch, end) in stretches.iter().zip(ends) {
            for size in sizes(side(&stretch[0])) {
                let height = f64::from(size).log2();
                highest = highest.max(height);
                pieces.push(vec![(stretch[0].at, height), (end, height)]);
            }
        }
        marks.push(Mark::Line { class, pieces });
    }
    Some(Chart {
        title: "Block sizes of S3, in tokens (log scale)".to_owned(),
        top: highest + 0.5,
        show_y: |log| number(log.exp2().round()),
        marks,
        ..over_the_run()
    })
}

/// An empty chart over the share of the run, with both sides in its legend.
fn over_the_run() -> Chart {
    Chart {
        title: String::new(),
        x: "share of the run",
        right: 1.0,
        x_ticks: [0.0, 0.25, 0.5, 0.75, 1.0].map(|x| (x, percent(x))).to_vec(),
        top: 1.0,
        show_y: percent,
        marks: Vec::new(),
        legend: vec![("l1", "A"), ("l4", "B, dashed")],
        width: 440.0,
        height: 220.0,
    }
}
