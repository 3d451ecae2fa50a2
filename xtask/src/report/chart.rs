//! Line charts as inline SVG. Colours come from the page's CSS, so they follow light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Name in the legend.
    pub(crate) name: String,
    /// CSS class of the stroke: `c1`, `c2`, …, and `faint` or `dots` beside it.
    pub(crate) class: &'static str,
    /// Points (x, y) in data units.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart with its axes.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    /// Read aloud by screen readers.
    pub(crate) label: &'a str,
    /// What the x axis counts.
    pub(crate) x: &'a str,
    /// What the y axis measures.
    pub(crate) y: &'a str,
    /// Height in CSS pixels at full width.
    pub(crate) height: f64,
    /// The y axis starts at zero.
    pub(crate) from_zero: bool,
    /// Vertical marks with a word each.
    pub(crate) marks: Vec<(f64, String)>,
    /// The lines.
    pub(crate) series: Vec<Series>,
}

impl Chart<'_> {
    /// The chart as one `<svg>` element with a legend under it; a sentence if there is no data.
    pub(crate) fn render(&self) -> String {
        let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
        let points: Vec<(f64, f64)> =
            self.series.iter().flat_map(|s| &s.points).filter(finite).copied().collect();
        if points.is_empty() {
            return "<p class=\"missing\">No data for this chart.</p>".to_owned();
        }
        let range = |pick: fn(&(f64, f64)) -> f64| {
            points
                .iter()
                .map(pick)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
        };
        let (x_low, x_high) = padded(range(|p| p.0), 0.0);
        let (mut y_low, y_high) = padded(range(|p| p.1), 0.05);
        if self.from_zero {
            y_low = 0.0;
        }
        let height = self.height;
        let px = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
        let py =
            |y: f64| height - BOTTOM - (y - y_low) / (y_high - y_low) * (height - TOP - BOTTOM);

        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            escape(self.label)
        );
        for tick in ticks(y_low, y_high, 5) {
            let y = py(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0,
                number(tick)
            );
        }
        for tick in ticks(x_low, x_high, 8) {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                px(tick),
                height - BOTTOM + 17.0,
                number(tick)
            );
        }
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
             <text class=\"name\" x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"middle\">{4}</text>\
             <text class=\"name\" transform=\"translate(13 {5:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{6}</text>",
            WIDTH - RIGHT,
            height - BOTTOM,
            LEFT.midpoint(WIDTH - RIGHT),
            height - 5.0,
            escape(self.x),
            TOP.midpoint(height - BOTTOM),
            escape(self.y)
        );
        for (x, word) in &self.marks {
            let x = px(*x);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                height - BOTTOM,
                x + 5.0,
                TOP + 11.0,
                escape(word)
            );
        }
        for series in &self.series {
            draw(&mut svg, series, finite, &px, &py);
        }
        svg.push_str("</svg>");
        svg + &self.legend()
    }

    fn legend(&self) -> String {
        let mut legend = "<p class=\"legend\">".to_owned();
        for series in &self.series {
            let _ = write!(
                legend,
                "<span><i class=\"{}\"></i>{}</span>",
                series.class,
                escape(&series.name)
            );
        }
        legend + "</p>"
    }
}

fn draw(
    svg: &mut String,
    series: &Series,
    finite: impl Fn(&&(f64, f64)) -> bool + Copy,
    px: &impl Fn(f64) -> f64,
    py: &impl Fn(f64) -> f64,
) {
    let mut path = String::new();
    for &(x, y) in series.points.iter().filter(finite) {
        let _ = write!(path, "{:.1},{:.1} ", px(x), py(y));
    }
    let _ = write!(svg, "<polyline class=\"{}\" points=\"{}\"/>", series.class, path.trim_end());
    if series.class.contains("dots") {
        for &(x, y) in series.points.iter().filter(finite) {
            let _ = write!(
                svg,
                "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.4\"/>",
                series.class,
                px(x),
                py(y)
            );
        }
    }
}

/// A range with a margin on both sides; an empty one gets a width.
fn padded((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let span = high - low;
    if span <= 0.0 {
        let half = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        return (low - half, high + half);
    }
    (low - span * share, high + span * share)
}

/// About `count` round numbers within a range.
fn ticks(low: f64, high: f64, count: u32) -> Vec<f64> {
    let rough = (high - low) / f64::from(count);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power * 10.0);
    let first = (low / step).ceil();
    let last = (high / step).floor();
    (0..=2 * count)
        .map(|i| first + f64::from(i))
        .take_while(|i| *i <= last)
        .map(|i| i * step)
        .collect()
}

/// A number for an axis: no more digits than it needs.
fn number(value: f64) -> String {
    let size = value.abs();
    let text = if size >= 10_000.0 {
        return format!("{}k", number(value / 1000.0));
    } else if size != 0.0 && size < 1e-3 {
        return format!("{value:.0e}");
    } else {
        format!("{value:.4}")
    };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as it may stand in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Chart, Series, number, ticks};

    fn chart(points: Vec<(f64, f64)>) -> String {
        Chart {
            label: "a <chart>",
            x: "step",
            y: "loss",
            height: 240.0,
            from_zero: false,
            marks: vec![(1.0, "here".to_owned())],
            series: vec![Series { name: "train & more".to_owned(), class: "c1", points }],
        }
        .render()
    }

    #[test]
    fn points_lie_inside_and_text_is_escaped() {
        let svg = chart(vec![(0.0, 3.0), (1.0, f64::NAN), (2.0, 1.0)]);
        assert!(svg.contains("a &lt;chart&gt;") && svg.contains("train &amp; more"));
        let points = svg.split("points=\"").nth(1).and_then(|s| s.split('"').next()).expect("line");
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|p| p.split_once(',').expect("x,y"))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert_eq!(points.len(), 2, "a NaN is not a point");
        assert!(
            points.iter().all(|p| (0.0..=760.0).contains(&p.0) && (0.0..=240.0).contains(&p.1))
        );
        assert!(points[0].1 < points[1].1, "a higher value stands higher");
    }

    #[test]
    fn no_data_and_a_single_point_are_not_a_broken_picture() {
        assert!(chart(Vec::new()).contains("No data"));
        assert!(!chart(vec![(5.0, 2.0)]).contains("NaN"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 2.5, 5), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(ticks(130.0, 610.0, 5), [200.0, 300.0, 400.0, 500.0, 600.0]);
        let shown: Vec<String> = [0.0, 0.25, 6.5, 1200.0, 12_500.0, 3e-4].map(number).into();
        assert_eq!(shown, ["0", "0.25", "6.5", "1200", "12.5k", "3e-4"]);
    }
}
