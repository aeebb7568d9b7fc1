//! The drawing as SVG.

use std::fmt::Write;

use super::{
    diagram::{Block, Diagram, Kind},
    layout::{LINE, Placed},
    route::Routes,
    text::{self, Style},
};

/// The space around the drawing.
const MARGIN: f64 = 22.0;
/// The height of the title and the line below it.
const HEADER: f64 = 52.0;
/// The height of a line of the legend.
const LEGEND: f64 = 20.0;
/// Colours of what happens on an arrow, by the words of its label: to a finer resolution, to a coarser one, joins. Within a
/// colour and in print, dashes tell them apart.
const COLOURS: [(&[&str], &str); 6] = [
    (&["upsampling", "transposed"], "#2e8b57"),
    (&["pool", "stride"], "#c0392b"),
    (&["concatenation"], "#1f6fb8"),
    (&["sum"], "#d9820f"),
    (&["product", "maximum"], "#8a4fb5"),
    (&["global", "average", "resampling"], "#0f8b8d"),
];
const OTHER: &str = "#7a6a2f";
const DASHES: [&str; 5] = ["", "6 3", "2 3", "9 3 2 3", "1 2"];
const PLAIN: (&str, &str) = ("#59636e", "");

pub(super) fn svg(title: &str, subtitle: &str, diagram: &Diagram, placed: &[Placed], routes: &Routes) -> String {
    let xs = routes.ways.iter().flatten().map(|&(x, _)| x);
    let left = xs.clone().chain(placed.iter().map(|block| block.x)).fold(0.0, f64::min);
    let right = xs.chain(placed.iter().map(Placed::right)).fold(0.0, f64::max);
    let titles = [(title, 16.0), (subtitle, 11.0)].map(|(text, size)| text::width(text, size));
    let inner = (right - left).max(titles[0]).max(titles[1]).max(360.0);
    let labels = labels(diagram);
    let legend = legend(&labels, inner);
    let legend_height = legend.last().map_or(0.0, |&(_, y, _)| y + LEGEND + 8.0);
    let (width, height) =
        ((inner + 2.0 * MARGIN).ceil(), (HEADER + routes.height + 18.0 + legend_height + MARGIN).ceil());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"Helvetica, Arial, 'Liberation Sans', sans-serif\" role=\"img\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"30\" font-size=\"16\" font-weight=\"bold\" fill=\"#1f2328\">{}</text>\n\
         <text x=\"{MARGIN}\" y=\"47\" font-size=\"11\" fill=\"#59636e\">{}</text>\n",
        escaped(title),
        escaped(title),
        escaped(subtitle)
    );
    // Writing to a string doesn't fail.
    let _ = writeln!(out, "<g transform=\"translate({},{})\">", MARGIN - left, HEADER + 14.0);
    for (arrow, way) in diagram.arrows.iter().zip(&routes.ways) {
        let style = arrow.label.as_ref().map_or(PLAIN, |label| style(&labels, label));
        out.push_str(&line(way, style, diagram.blocks[arrow.to].side));
    }
    for (block, placed) in diagram.blocks.iter().zip(placed) {
        out.push_str(&shape(block, placed, routes.middles[placed.row]));
    }
    out.push_str("</g>\n");
    let top = HEADER + 14.0 + routes.height + 22.0;
    for (x, y, label) in &legend {
        let (x, y) = (MARGIN + x, top + y);
        out.push_str(&line(&[(x, y), (x + 34.0, y)], style(&labels, label), false));
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" font-size=\"11\" fill=\"#1f2328\">{}</text>",
            x + 41.0,
            y + 4.0,
            escaped(label)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The labels of arrows, in the order in which they come.
fn labels(diagram: &Diagram) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for label in diagram.arrows.iter().filter_map(|arrow| arrow.label.as_ref()) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}

/// The colour and the dashes of a label: the first label of a colour is drawn without, except for joins.
fn style(labels: &[String], label: &str) -> (&'static str, &'static str) {
    let before = labels.iter().take_while(|other| *other != label).filter(|other| colour(other) == colour(label));
    let joins = ["concatenation", "sum", "product"].iter().any(|join| label.contains(join));
    (colour(label), DASHES[(before.count() + usize::from(joins)) % DASHES.len()])
}

fn colour(label: &str) -> &'static str {
    let (_, colour) =
        COLOURS.iter().find(|(words, _)| words.iter().any(|word| label.contains(word))).unwrap_or(&(&[], OTHER));
    colour
}

/// The places of the legend's entries.
fn legend(labels: &[String], width: f64) -> Vec<(f64, f64, &str)> {
    let (mut x, mut y) = (0.0, 0.0);
    let mut entries = Vec::new();
    for label in labels {
        let needed = 41.0 + text::width(label, 11.0) + 24.0;
        if x > 0.0 && x + needed > width + 24.0 {
            (x, y) = (0.0, y + LEGEND);
        }
        entries.push((x, y, label.as_str()));
        x += needed;
    }
    entries
}

/// A line with round corners and a head.
fn line(points: &[(f64, f64)], (colour, dashes): (&str, &str), side: bool) -> String {
    const HEAD: f64 = 7.0;
    let [.., before, end] = points else { return String::new() };
    let length = (end.0 - before.0).hypot(end.1 - before.1).max(1e-9);
    let (dx, dy) = ((end.0 - before.0) / length, (end.1 - before.1) / length);
    let base = (end.0 - HEAD * dx, end.1 - HEAD * dy);
    let mut path = format!("M{:.0} {:.0}", points[0].0, points[0].1);
    for corner in points.windows(3) {
        let [a, b, c] = [corner[0], corner[1], corner[2]];
        let toward = |other: (f64, f64)| {
            let length = (other.0 - b.0).hypot(other.1 - b.1).max(1e-9);
            let part = (length / 2.0).min(5.0) / length;
            (b.0 + (other.0 - b.0) * part, b.1 + (other.1 - b.1) * part)
        };
        let (enter, leave) = (toward(a), toward(c));
        let _ = write!(path, "L{:.1} {:.1}Q{:.0} {:.0} {:.1} {:.1}", enter.0, enter.1, b.0, b.1, leave.0, leave.1);
    }
    let _ = write!(path, "L{:.1} {:.1}", base.0, base.1);
    let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
    let width = if side { 1.1 } else { 1.6 };
    let (px, py) = (-dy * 3.4, dx * 3.4);
    format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dashes}/>\n\
         <path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\" fill=\"{colour}\"/>\n",
        end.0,
        end.1,
        base.0 + px,
        base.1 + py,
        base.0 - px,
        base.1 - py
    )
}

/// A block with its text.
fn shape(block: &Block, placed: &Placed, middle: f64) -> String {
    let transformer = block.contents.lines.iter().any(|line| line.contains("transformer") || line.contains("scan"));
    let (fill, stroke) = match block.kind {
        Kind::End => ("#ffffff", "#59636e"),
        _ if transformer => ("#efe6fb", "#7b4fb5"),
        Kind::Down => ("#e3eefb", "#2f6db3"),
        Kind::Up => ("#e2f4e6", "#2e8b57"),
    };
    let top = middle - placed.height / 2.0;
    let dashes = if block.side { " stroke-dasharray=\"5 3\"" } else { "" };
    let radius = if block.kind == Kind::End { placed.height / 2.0 } else { 5.0 };
    let mut out = format!(
        "<rect x=\"{:.0}\" y=\"{top:.1}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"{radius:.0}\" fill=\"{fill}\" \
         stroke=\"{stroke}\" stroke-width=\"1.3\"{dashes}/>\n",
        placed.x, placed.width, placed.height
    );
    for (place, (style, text)) in placed.lines.iter().enumerate() {
        let (weight, colour) = match style {
            Style::Title => (" font-weight=\"bold\"", "#1f2328"),
            Style::Plain => ("", "#1f2328"),
            Style::Detail => ("", "#59636e"),
            Style::Shape => ("", stroke),
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" font-size=\"{}\" text-anchor=\"middle\"{weight} fill=\"{colour}\">{}</text>",
            placed.centre(),
            top + 6.0 + LINE * place as f64 + 11.0,
            style.size(),
            escaped(text)
        );
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
