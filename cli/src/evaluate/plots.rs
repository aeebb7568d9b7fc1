//! Plots as SVG, to stand within a page.

use std::fmt::Write;

use super::page::escaped;

/// Where a plot lies within its picture, in pixels.
const WIDTH: f64 = 420.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;

/// A point of a plot and what it says when the pointer is over it.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) label: String,
}

/// A number with as many digits as a reader needs.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Round numbers that cover a range, four to eight of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let range = high - low;
    let power = 10f64.powf(range.log10().floor());
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| range / step <= 8.0).unwrap_or(power);
    let first = (low / step).ceil() as i64;
    (first..=first + 10).map(|at| at as f64 * step).filter(|tick| *tick <= high + step * 1e-9).collect()
}

/// A tick without the digits that say nothing.
fn tick_text(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

/// A range with a twentieth of it on both sides; a single value gets room too.
fn with_room(low: f64, high: f64) -> (f64, f64) {
    if !(low.is_finite() && high.is_finite()) {
        return (0.0, 1.0);
    }
    let room = if high > low { (high - low) / 20.0 } else { high.abs().max(1.0) / 10.0 };
    (low - room, high + room)
}

/// A vertical axis with its lines and numbers, and the title of the plot.
struct Frame {
    low: f64,
    high: f64,
    height: f64,
    text: String,
}

impl Frame {
    fn new(title: &str, (low, high): (f64, f64), height: f64) -> Self {
        let mut text = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><text class=\"t\" x=\"{LEFT}\" y=\"16\">{0}</text>",
            escaped(title)
        );
        let frame = Self { low, high, height, text: String::new() };
        for tick in ticks(low, high) {
            let y = frame.y(tick);
            let _ = write!(
                text,
                "<line class=\"g\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/><text class=\"n\" x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                tick_text(tick)
            );
        }
        Self { text, ..frame }
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (self.high - value) / (self.high - self.low) * (self.height - TOP - BOTTOM)
    }

    fn point(&mut self, x: f64, y: f64, label: &str) {
        let y = self.y(y);
        let _ = write!(
            self.text,
            "<circle class=\"p\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}</title></circle>",
            escaped(label)
        );
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (y1, y2) = (self.y(from.1), self.y(to.1));
        let _ = write!(
            self.text,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{y1:.1}\" x2=\"{:.1}\" y2=\"{y2:.1}\"/>",
            from.0, to.0
        );
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let _ = write!(
            self.text,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        );
    }

    fn end(mut self) -> String {
        self.text += "</svg>";
        self.text
    }
}

/// One box a class: the quartiles, the median, whiskers to the least and the greatest value, and every case as a point. Each
/// class has its name, its five numbers and its points, whose x isn't used.
pub(super) fn boxes(title: &str, classes: &[(&str, [f64; 5], Vec<Point>)], unit: Option<(f64, f64)>) -> String {
    let shown: Vec<_> = classes.iter().filter(|(_, five, _)| five[0].is_finite() && five[4].is_finite()).collect();
    let least = shown.iter().map(|(_, five, _)| five[0]).fold(f64::INFINITY, f64::min);
    let most = shown.iter().map(|(_, five, _)| five[4]).fold(f64::NEG_INFINITY, f64::max);
    let mut frame = Frame::new(title, unit.unwrap_or_else(|| with_room(least.min(0.0), most)), 260.0);
    let step = (WIDTH - LEFT - RIGHT) / classes.len().max(1) as f64;
    for (at, (name, five, points)) in classes.iter().enumerate() {
        let centre = LEFT + step * (at as f64 + 0.5);
        let half = (step * 0.3).min(34.0);
        let room = ((step / 7.0) as usize).max(2);
        let name: String = if name.chars().count() > room {
            name.chars().take(room - 1).chain(['…']).collect()
        } else {
            (*name).to_owned()
        };
        // Names that don't fit side by side alternate between two lines.
        let line = if classes.len() > 6 && at % 2 == 1 { 32.0 } else { 18.0 };
        frame.text("n", (centre, 260.0 - BOTTOM + line), "middle", &name);
        if !(five[0].is_finite() && five[4].is_finite()) {
            continue;
        }
        let [least, first, median, third, most] = *five;
        for (a, b) in [(least, first), (third, most)] {
            frame.line("w", (centre, a), (centre, b));
        }
        let (top, bottom) = (frame.y(third), frame.y(first));
        let _ = write!(
            frame.text,
            "<rect class=\"b\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            centre - half,
            2.0 * half,
            (bottom - top).max(0.5)
        );
        frame.line("m", (centre - half, median), (centre + half, median));
        for (number, point) in points.iter().enumerate().filter(|(_, point)| point.y.is_finite()) {
            // Side by side by a fixed pattern, so that equal values are seen.
            let aside = ((number * 7 % 11) as f64 - 5.0) / 5.0 * half * 0.7;
            frame.point(centre + aside, point.y, &point.label);
        }
    }
    frame.end()
}

/// Differences of volumes against their means (Bland and Altman, Lancet 1986), with the bias and its limits of agreement.
pub(super) fn bland_altman(title: &str, points: &[Point], bias: f64, limits: [f64; 2]) -> String {
    let finite = |value: &f64| value.is_finite();
    let ys = || points.iter().map(|point| point.y).chain([bias, limits[0], limits[1], 0.0]).filter(finite);
    let xs = || points.iter().map(|point| point.x).filter(finite);
    let range = |least: f64, most: f64| with_room(least, most);
    let (low, high) = range(ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max));
    let (left, right) = range(xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
    let height = 280.0;
    let mut frame = Frame::new(title, (low, high), height);
    let x = |value: f64| LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let base = height - BOTTOM;
    for tick in ticks(left, right) {
        frame.text("n", (x(tick), base + 16.0), "middle", &tick_text(tick));
    }
    frame.text("n", (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, base + 34.0), "middle", "mean of both volumes, ml");
    frame.line("z", (LEFT, 0.0), (WIDTH - RIGHT, 0.0));
    for (class, value, name) in [("m", bias, "bias"), ("l", limits[0], "−1.96 SD"), ("l", limits[1], "+1.96 SD")] {
        if value.is_finite() {
            frame.line(class, (LEFT, value), (WIDTH - RIGHT, value));
            let y = frame.y(value) - 4.0;
            let label = format!("{name} {}", short(value).replace('-', "−"));
            frame.text("v", (WIDTH - RIGHT, y), "end", &label);
        }
    }
    for point in points.iter().filter(|point| point.x.is_finite() && point.y.is_finite()) {
        frame.point(x(point.x), point.y, &point.label);
    }
    frame.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        for (low, high) in [(-3.2, 17.0), (0.0, 1e-6), (-1e6, -9e5), (5.0, 5.5)] {
            let ticks = ticks(low, high);
            assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks.iter().all(|tick| *tick >= low && *tick <= high + (high - low) * 1e-6), "{ticks:?}");
        }
        assert_eq!((&tick_text(-0.5)[..], &tick_text(12.0)[..], &tick_text(-0.0)[..]), ("−0.5", "12", "0"));
    }

    #[test]
    fn plots_of_nothing_and_of_one_case_are_whole() {
        let empty = boxes("a", &[("x", [f64::NAN; 5], Vec::new())], None);
        let one = bland_altman("b", &[Point { x: 3.0, y: 0.0, label: "<c>".into() }], 0.0, [f64::NAN; 2]);
        for svg in [empty, one.clone(), bland_altman("b", &[], f64::NAN, [f64::NAN; 2])] {
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert!(one.contains("&lt;c&gt;") && !one.contains("<c>"));
    }
}
