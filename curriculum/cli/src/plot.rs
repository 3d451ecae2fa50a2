//! Small charts as SVG. Colours are classes of `style.css`, so they follow light and dark.

use crate::{
    html::{COLOURS, escape},
    table::number,
};
use std::fmt::Write as _;

/// The room around the plot: what the labels of the axes need.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 36.0;
const TITLE: f64 = 22.0;
const LEGEND_LINE: f64 = 17.0;
/// A character of a label is about so wide, at the size that `style.css` gives it.
const CHARACTER: f64 = 6.6;
/// Width of a picture that stands alone, and height of each chart in it.
const WIDE: f64 = 760.0;
const HIGH: f64 = 230.0;
/// Room for a line of its heading, and around the heading.
const HEADING_LINE: f64 = 18.0;
const HEADING_ROOM: f64 = 16.0;
/// A line of a heading holds about so many characters.
const HEADING_WIDTH: usize = 98;

/// Something drawn in the plot. Points are in data units.
pub(crate) enum Mark {
    /// Curves in pieces that are not joined.
    Line { class: &'static str, pieces: Vec<Vec<(f64, f64)>> },
    /// Between two curves over the same x: (x, lower, upper).
    Area { class: &'static str, points: Vec<(f64, f64, f64)> },
    /// From the axis up: (from, to, height), with what a pointer is told.
    Bars { class: &'static str, bars: Vec<(f64, f64, f64, String)> },
}

/// A chart with its axes.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    /// The plot goes from 0 to here.
    pub(crate) right: f64,
    /// Values of x with their labels; empty: chosen.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) top: f64,
    pub(crate) show_y: fn(f64) -> String,
    pub(crate) marks: Vec<Mark>,
    /// Classes and what they stand for.
    pub(crate) legend: Vec<(&'static str, &'static str)>,
    /// In units of the picture, which the page scales.
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Chart {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            self.width,
            self.height,
            escape(&self.title),
            self.content()
        )
    }

    /// What stands inside the element, from (0, 0) on.
    pub(crate) fn content(&self) -> String {
        let mut svg = String::new();
        let _ =
            write!(svg, "<text class=\"title\" x=\"8\" y=\"15\">{}</text>", escape(&self.title));
        let top = self.draw_legend(&mut svg) + 6.0;
        let high = self.right;
        let base = self.height - BOTTOM;
        let right = self.width - RIGHT;
        let px = |x: f64| LEFT + x / high * (right - LEFT);
        let py = |y: f64| base - y / self.top * (base - top);
        let count = if base - top < 80.0 { 2.0 } else { 4.0 };
        for tick in ticks(self.top, count) {
            let y = py(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                (self.show_y)(tick)
            );
        }
        for mark in &self.marks {
            draw(&mut svg, mark, &px, &py);
        }
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>"
        );
        let chosen: Vec<(f64, String)> = ticks(high, (right - LEFT) / 70.0)
            .into_iter()
            .map(|tick| (tick, step_label(tick)))
            .collect();
        for (x, label) in if self.x_ticks.is_empty() { &chosen } else { &self.x_ticks } {
            let x = px(*x);
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
                base + 15.0,
                // The last label must not stand out of the picture.
                if x > right - 10.0 { "end" } else { "middle" },
                escape(label)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT.midpoint(right),
            self.height - 5.0,
            self.x
        );
        svg
    }

    /// Draws the legend under the title, in as many lines as it takes; gives where it ends.
    fn draw_legend(&self, svg: &mut String) -> f64 {
        let (mut x, mut y) = (LEFT, TITLE);
        for (class, label) in &self.legend {
            let width = 22.0 + label.chars().count() as f64 * CHARACTER + 12.0;
            if x > LEFT && x + width > self.width {
                x = LEFT;
                y += LEGEND_LINE;
            }
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"16\" height=\"8\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                y + 4.0,
                x + 21.0,
                y + 12.0,
                escape(label)
            );
            x += width;
        }
        if self.legend.is_empty() { y } else { y + LEGEND_LINE }
    }
}

/// Charts one over the other under a heading, as a file of its own, light or dark as the reader's system is.
pub(crate) fn picture(heading: &[String], charts: Vec<Chart>) -> String {
    let lines: Vec<String> = heading.iter().flat_map(|text| wrapped(text)).collect();
    let title = HEADING_LINE * lines.len() as f64 + HEADING_ROOM;
    let height = title + HIGH * charts.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDE}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDE} {height}\">\n<style>\n{COLOURS}</style>\n\
         <rect width=\"100%\" height=\"100%\" style=\"fill: var(--paper)\"/>\n"
    );
    for (i, line) in lines.iter().enumerate() {
        let y = 20.0 + HEADING_LINE * i as f64;
        let _ = writeln!(svg, "<text class=\"title\" x=\"16\" y=\"{y}\">{}</text>", escape(line));
    }
    for (i, chart) in charts.into_iter().enumerate() {
        let top = title + HIGH * i as f64;
        let chart = Chart { width: WIDE, height: HIGH, ..chart };
        let _ = writeln!(svg, "<g transform=\"translate(0 {top})\">{}</g>", chart.content());
    }
    svg.push_str("</svg>\n");
    svg
}

/// A text in lines that fit a picture: SVG wraps none. Words that are longer than a line are cut.
fn wrapped(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        if !line.is_empty() && line.len() + 1 + letters.len().min(HEADING_WIDTH) > HEADING_WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for part in letters.chunks(HEADING_WIDTH) {
            if line.len() + part.len() > HEADING_WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            line.extend_from_slice(part);
        }
    }
    lines.push(line);
    lines.into_iter().map(String::from_iter).collect()
}

fn draw(svg: &mut String, mark: &Mark, px: &impl Fn(f64) -> f64, py: &impl Fn(f64) -> f64) {
    match mark {
        Mark::Line { class, pieces } => {
            let _ = write!(svg, "<path class=\"line {class}\" d=\"");
            for piece in pieces {
                for (i, &(x, y)) in bends(piece).iter().enumerate() {
                    let letter = if i == 0 { 'M' } else { 'L' };
                    let _ = write!(svg, "{letter}{:.1} {:.1}", px(x), py(y));
                }
            }
            svg.push_str("\"/>");
        }
        Mark::Area { class, points } => {
            let upper: Vec<_> = points.iter().map(|&(x, _, upper)| (x, upper)).collect();
            let lower: Vec<_> = points.iter().rev().map(|&(x, lower, _)| (x, lower)).collect();
            let _ = write!(svg, "<path class=\"{class}\" d=\"");
            for (i, (x, y)) in bends(&upper).into_iter().chain(bends(&lower)).enumerate() {
                let letter = if i == 0 { 'M' } else { 'L' };
                let _ = write!(svg, "{letter}{:.1} {:.1}", px(x), py(y));
            }
            svg.push_str("Z\"/>");
        }
        Mark::Bars { class, bars } => {
            for (from, to, height, told) in bars {
                let (left, right, top) = (px(*from), px(*to), py(*height));
                let gap = if right - left > 4.0 { 1.0 } else { 0.0 };
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                     height=\"{:.1}\"><title>{}</title></rect>",
                    left + gap / 2.0,
                    right - left - gap,
                    py(0.0) - top,
                    escape(told)
                );
            }
        }
    }
}

/// Leaves out the points that lie on a straight way between their neighbours.
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

/// About `count` round values from 0 up to `high`.
fn ticks(high: f64, count: f64) -> Vec<f64> {
    let rough = high / count;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![0.0];
    }
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    while ticks.len() as f64 * step <= high * (1.0 + 1e-9) {
        ticks.push(ticks.len() as f64 * step);
    }
    ticks
}

/// `0`, `500`, `2.5k`, `50k`, `1M`.
pub(crate) fn step_label(step: f64) -> String {
    match step {
        step if step >= 1e6 => format!("{}M", number(step / 1e6)),
        step if step >= 1e3 => format!("{}k", number(step / 1e3)),
        step => number(step),
    }
}

#[cfg(test)]
mod tests {
    use super::{Chart, HEADING_WIDTH, Mark, bends, ticks, wrapped};
    use crate::table::number;

    #[test]
    fn a_heading_is_wrapped_and_loses_nothing() {
        assert_eq!(wrapped("a short one"), ["a short one"]);
        let words = "some words of a heading ".repeat(20);
        let long = format!("{}{}", words, "x".repeat(250));
        let lines = wrapped(&long);
        assert!(lines.iter().all(|line| line.chars().count() <= HEADING_WIDTH), "{lines:?}");
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), long.replace(' ', ""));
    }

    #[test]
    fn straight_stretches_keep_their_ends() {
        let rising = |x: i32| (f64::from(x), f64::from(x.min(5)));
        let kept = bends(&(0..=9).map(rising).collect::<Vec<_>>());
        assert_eq!(kept, [(0.0, 0.0), (5.0, 5.0), (9.0, 5.0)]);
        assert_eq!(bends(&[(1.0, 2.0)]), [(1.0, 2.0)]);
        assert_eq!(bends(&[]), []);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(1.0, 4.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(50_000.0, 5.0), [0.0, 1e4, 2e4, 3e4, 4e4, 5e4]);
        assert_eq!(ticks(0.0, 5.0), [0.0]);
    }

    #[test]
    fn a_long_legend_wraps_and_text_is_escaped() {
        let chart = Chart {
            title: "a < b".to_owned(),
            x: "step",
            right: 10.0,
            x_ticks: Vec::new(),
            top: 1.0,
            show_y: number,
            marks: vec![Mark::Area {
                class: "a1",
                points: vec![(0.0, 0.0, 1.0), (10.0, 0.0, 0.5)],
            }],
            legend: vec![("a1", "a name of some length"), ("a2", "another, longer name")],
            width: 240.0,
            height: 200.0,
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"), "{svg}");
        let lines = svg.matches("height=\"8\"").count();
        assert_eq!(lines, 2);
        assert!(svg.contains("y=\"26.0\"") && svg.contains("y=\"43.0\""), "two lines: {svg}");
    }
}
