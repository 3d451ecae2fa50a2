//! The schedules over the steps of a run, as an SVG picture.

use crate::{
    table::{number, percent},
    timeline::{Timeline, Values},
};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color as _, DrawingArea, DrawingAreaErrorKind, DrawingBackend,
    IntoDrawingArea as _, IntoFont as _, LineSeries, PathElement, RGBColor, SVGBackend, WHITE,
};

const WIDTH: u32 = 960;
const PANEL: u32 = 230;
const TITLE: u32 = 48;
/// The room for legends, right of the panels.
const LEGEND: i32 = 190;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
// Okabe and Ito's palette, which most kinds of colour blindness tell apart.
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const RED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);

/// A curve of a panel, in pieces that are not joined.
struct Curve {
    label: &'static str,
    colour: RGBColor,
    width: u32,
    pieces: Vec<Vec<(f64, f64)>>,
}

struct Panel {
    title: &'static str,
    unit: &'static str,
    top: f64,
    show: fn(f64) -> String,
    curves: Vec<Curve>,
}

/// The picture: panels over one axis of steps.
///
/// # Errors
/// If the drawing library refuses; the message is its own.
pub(crate) fn svg(timeline: &Timeline) -> Result<String, String> {
    let panels = panels(timeline);
    let height = TITLE + PANEL * u32::try_from(panels.len()).unwrap_or(1);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        draw(&root, timeline, &panels).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn panels(timeline: &Timeline) -> Vec<Panel> {
    let curve = |label, colour, width, value: fn(&Values) -> f64| {
        let points = timeline.points.iter();
        let points: Vec<_> =
            points.map(|point| (point.step as f64, value(&point.values))).collect();
        Curve { label, colour, width, pieces: vec![bends(&points)] }
    };
    // The narrower curves lie on the wider ones, so that equal schedules can all be seen.
    let strategies = vec![
        curve("S1 unmaskable prefix", BLUE, 8, |v| v.s1_share),
        curve("S2 truncated suffix", ORANGE, 5, |v| v.s2_share),
        curve("S3 masked blocks", GREEN, 2, |v| v.s3_share),
    ];
    let mut noise = vec![
        curve("expected masked", PURPLE, 5, |v| v.expected_masked_fraction),
        curve("sampling_eps", RED, 2, |v| v.sampling_eps),
    ];
    let ever = |holds: fn(&Values) -> bool| timeline.points.iter().any(|p| holds(&p.values));
    if ever(|v| v.conditioned_span_ratio < 1.0) {
        noise.push(curve("prompt protected", INK, 2, |v| v.conditioned_span_ratio));
    }
    let sizes = vec![block_sizes(timeline)];
    let rate = vec![curve("learning rate", BLUE, 2, |v| v.learning_rate)];
    let panel = |title, unit, least_top, show, curves: Vec<Curve>| {
        let points = curves.iter().flat_map(|curve| curve.pieces.iter().flatten());
        let highest = points.fold(0.0, |top: f64, &(_, y)| top.max(y));
        Panel { title, unit, top: (highest * 1.08).max(least_top), show, curves }
    };
    let mut panels = vec![
        panel("Rows taken by each strategy", "share of rows", 0.01, percent, strategies),
        panel("Noise and conditioning", "share", 1.0, percent, noise),
    ];
    if ever(|v| v.s3_share > 0.0) {
        let tokens = |log: f64| number(log.exp2());
        panels.push(panel("Block sizes of S3", "tokens, log scale", 1.0, tokens, sizes));
    }
    panels.push(panel("Learning rate", "learning rate", 1e-12, number, rate));
    panels
}

/// Leaves out the points that lie on a straight way between their neighbours: the picture rounds to
/// whole pixels, which many points on a slope would show as stairs.
fn bends(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (i, &(x, y)) in points.iter().enumerate() {
        let straight = match (kept.last(), points.get(i + 1)) {
            (Some(&(x0, y0)), Some(&(x1, y1))) => {
                let on_the_way = y0 + (y1 - y0) * (x - x0) / (x1 - x0);
                (on_the_way - y).abs() <= 1e-9 * (y0.abs() + y1.abs())
            }
            _ => false,
        };
        if !straight {
            kept.push((x, y));
        }
    }
    kept
}

/// One piece per line of the table and block size, at the logarithm of the size.
fn block_sizes(timeline: &Timeline) -> Curve {
    let pieces = timeline.lines.iter().flat_map(|line| {
        let (from, to) = (line.first_step as f64, (line.first_step + line.steps) as f64);
        let sizes = line.first.block_sizes.iter();
        sizes.map(move |&k| vec![(from, f64::from(k).log2()), (to, f64::from(k).log2())])
    });
    Curve { label: "block size", colour: GREEN, width: 2, pieces: pieces.collect() }
}

fn draw<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    timeline: &Timeline,
    panels: &[Panel],
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    root.fill(&WHITE)?;
    let title = (FONT, 18).into_font().color(&INK);
    let (head, body) = root.split_vertically(TITLE);
    head.draw_text(&timeline.title(), &title, (16, 16))?;
    for (panel, area) in panels.iter().zip(body.split_evenly((panels.len(), 1))) {
        draw_panel(&area, timeline.total_steps, panel)?;
    }
    root.present()
}

fn draw_panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    total_steps: u64,
    panel: &Panel,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let small = (FONT, 13).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 16).into_font().color(&INK))
        .margin_left(12)
        .margin_right(LEGEND)
        .margin_bottom(8)
        .x_label_area_size(38)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..total_steps.max(1) as f64, 0.0..panel.top)?;
    chart
        .configure_mesh()
        .x_labels(11)
        .y_labels(6)
        .x_desc("step")
        .y_desc(panel.unit)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .label_style(small.clone())
        .axis_desc_style(small.clone())
        .x_label_formatter(&|step| step_label(*step))
        .y_label_formatter(&|value| (panel.show)(*value))
        .draw()?;
    for curve in &panel.curves {
        let style = curve.colour.stroke_width(curve.width);
        for piece in &curve.pieces {
            chart.draw_series(LineSeries::new(piece.iter().copied(), style))?;
        }
    }
    if panel.curves.len() > 1 {
        draw_legend(area, &panel.curves)?;
    }
    Ok(())
}

/// Beside the panel, where no curve can run under it.
fn draw_legend<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    curves: &[Curve],
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let (width, _) = area.dim_in_pixel();
    let left = width.cast_signed() - LEGEND + 16;
    let small = (FONT, 13).into_font().color(&INK);
    for (curve, top) in curves.iter().zip((48..).step_by(24)) {
        let style = curve.colour.stroke_width(curve.width);
        area.draw(&PathElement::new(vec![(left, top), (left + 24, top)], style))?;
        area.draw_text(curve.label, &small, (left + 32, top - 6))?;
    }
    Ok(())
}

/// `0`, `500`, `2.5k`, `50k`, `1M`.
fn step_label(step: f64) -> String {
    match step {
        step if step >= 1e6 => format!("{}M", number(step / 1e6)),
        step if step >= 1e3 => format!("{}k", number(step / 1e3)),
        step => number(step),
    }
}

#[cfg(test)]
mod tests {
    use super::bends;

    #[test]
    fn straight_stretches_keep_their_ends() {
        let rising = |x: i32| (f64::from(x), f64::from(x.min(5)));
        let kept = bends(&(0..=9).map(rising).collect::<Vec<_>>());
        assert_eq!(kept, [(0.0, 0.0), (5.0, 5.0), (9.0, 5.0)]);
        assert_eq!(bends(&[(1.0, 2.0)]), [(1.0, 2.0)]);
        assert_eq!(bends(&[]), []);
    }
}
