//! An evaluation as a page of HTML that needs nothing but itself: no script, no font, no file beside it.

use std::fmt::Write;

use super::{
    Evaluate,
    pictures::Images,
    plots::{self, Point, short},
    results::{Case, Evaluation, QUANTITIES},
};

/// Text from outside within HTML, in an element or in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            // Control characters aren't allowed in HTML.
            letter if letter.is_control() && letter != '\n' => safe.push('\u{FFFD}'),
            letter => safe.push(letter),
        }
    }
    safe
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: [char; 64] = {
        let mut digits = ['A'; 64];
        let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut at = 0;
        while at < 64 {
            digits[at] = all[at] as char;
            at += 1;
        }
        digits
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let part = |at: usize| u32::from(three.get(at).copied().unwrap_or(0)) << (16 - 8 * at);
        let bits = part(0) | part(1) | part(2);
        for at in 0..4 {
            text.push(if at <= three.len() { DIGITS[(bits >> (18 - 6 * at) & 63) as usize] } else { '=' });
        }
    }
    text
}

/// The heading of a quantity, and whether it is a distance or volume and so has no fixed range.
const HEADINGS: [&str; 7] = ["Dice", "IoU", "Surface Dice", "HD95, mm", "ASSD, mm", "Predicted, ml", "True, ml"];

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--soft:#59636e;--line:#d1d9e0;--card:#fff;--page:#f6f8fa;--blue:#0969da}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--line:#3d444d;--card:#151b23;--page:#0d1117;--blue:#4493f8}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,sans-serif}\
main{max-width:1240px;margin:0 auto;padding:16px}h1{font-size:1.5em;margin:.3em 0}h2{font-size:1.2em;margin:1.6em 0 .5em}\
h3{font-size:1em;margin:0;overflow-wrap:anywhere}p{margin:.3em 0;color:var(--soft)}\
.path{overflow-wrap:anywhere;font-family:ui-monospace,monospace;font-size:.9em}\
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:6px}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:5px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}thead th{color:var(--soft);font-weight:600}\
td small{color:var(--soft);display:block;font-size:.8em}\
.grid{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr))}\
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px}\
.slices{display:flex;gap:4px;align-items:center;justify-content:center;margin:8px 0;padding:4px;background:#000}\
.slices img{display:block;min-width:0;max-width:33%;max-height:300px;object-fit:contain;image-rendering:pixelated}\
.slices img:only-child{max-width:100%}\
.worst{grid-template-columns:repeat(auto-fill,minmax(min(100%,560px),1fr))}\
svg{width:100%;height:auto;display:block;font:12px system-ui,sans-serif}.t{font-weight:600;fill:var(--text)}\
.n{fill:var(--soft)}.v{fill:var(--text);font-size:11px}.g{stroke:var(--line);stroke-width:1}.z{stroke:var(--soft);stroke-width:1}\
.w{stroke:var(--soft);stroke-width:1.5}.b{fill:var(--blue);fill-opacity:.18;stroke:var(--blue);stroke-width:1.5}\
.m{stroke:var(--blue);stroke-width:2.5}.l{stroke:var(--blue);stroke-width:1.5;stroke-dasharray:5 4}\
.p{fill:var(--text);fill-opacity:.45}.key span{display:inline-block;margin-right:14px}\
.key i{display:inline-block;width:14px;height:14px;vertical-align:-2px;margin-right:5px;border:1px solid #888}\
summary{cursor:pointer;color:var(--blue);margin:1.6em 0 .5em}.bad{color:#c93c37}";

impl Evaluation {
    /// The page.
    pub(super) fn page(&self, options: &Evaluate) -> String {
        let paths = [&options.predictions, &options.truths].map(|path| escaped(&path.display().to_string()));
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none';style-src 'unsafe-inline';img-src data:\"><title>Evaluation of \
             {0}</title><style>{STYLE}</style></head><body><main><h1>Evaluation</h1><p class=\"path\">{0}</p><p \
             class=\"path\">against {1}</p>\n",
            paths[0], paths[1]
        );
        let (found, failed) = (self.cases.len(), self.failed.len());
        let _ = writeln!(
            page,
            "<p>{found} {}, surface Dice at {} mm; means with their 95 % bootstrap intervals over the cases \
             ({} resamples, seed {}).</p>",
            if found == 1 { "case" } else { "cases" },
            self.tolerance,
            self.resamples,
            self.seed
        );
        if failed > 0 {
            let _ = write!(page, "<h2 class=\"bad\">{failed} failed</h2><div class=\"wide\"><table><tbody>");
            for (name, error) in &self.failed {
                let _ = write!(
                    page,
                    "<tr><td>{}</td><td style=\"white-space:normal;text-align:left\">{}</td></tr>",
                    escaped(name),
                    escaped(error)
                );
            }
            page += "</tbody></table></div>\n";
        }
        self.add_means(&mut page);
        self.add_worst(&mut page, options);
        self.add_plots(&mut page);
        self.add_confusion(&mut page);
        self.add_cases(&mut page);
        page + "</main></body></html>\n"
    }

    fn add_means(&self, page: &mut String) {
        *page += "<h2>Classes</h2><div class=\"wide\"><table><thead><tr><th>Class</th>";
        HEADINGS.iter().for_each(|heading| *page += &format!("<th>{heading}</th>"));
        *page += "<th>Cases</th></tr></thead><tbody>";
        for (name, means) in self.names.iter().zip(&self.means) {
            let _ = write!(page, "<tr><td>{}</td>", escaped(name));
            for mean in means {
                let [low, high] = mean.interval.map(short);
                let interval = if mean.defined > 0 { format!("<small>{low} to {high}</small>") } else { String::new() };
                let _ = write!(page, "<td>{}{interval}</td>", short(mean.value));
            }
            let _ = write!(page, "<td>{}</td></tr>", means.first().map_or(0, |dice| dice.defined));
        }
        *page += "</tbody></table></div>\n";
    }

    fn add_worst(&self, page: &mut String, options: &Evaluate) {
        let worst: Vec<&Case> = self.worst_first().into_iter().take(options.pictures).collect();
        if worst.is_empty() {
            return;
        }
        *page += "<h2>Worst cases first</h2><p class=\"key\"><span><i style=\"background:#00c8ff\"></i>truth</span><span>\
                  <i style=\"background:#ff9600\"></i>prediction</span><span><i style=\"background:#fff\"></i>both</span>\
                  Of each plane, the slice in which they differ most; the patient's left is on the right.</p>\
                  <div class=\"grid worst\">\n";
        let images = Images::new(options);
        let drawn = crate::parallel::in_order(worst, |case| {
            let picture = images.as_ref().map_err(ToString::to_string);
            (case, picture.and_then(|images| images.draw(case).map_err(|error| error.to_string())))
        });
        for (case, picture) in drawn {
            let name = escaped(&case.masks.name);
            let _ = write!(page, "<div class=\"card\"><h3>{name}</h3>");
            match picture {
                Ok(slices) => {
                    *page += "<div class=\"slices\">";
                    for png in slices {
                        let _ = write!(
                            page,
                            "<img alt=\"A slice of {name}\" src=\"data:image/png;base64,{}\">",
                            base64(&png)
                        );
                    }
                    *page += "</div>";
                }
                Err(error) => _ = write!(page, "<p class=\"bad\">no picture: {}</p>", escaped(&error)),
            }
            *page += "<p>";
            for (&label, class) in self.labels.iter().zip(&self.names) {
                let found = case.of(label);
                if !found.metrics.dice.is_nan() {
                    let _ = write!(
                        page,
                        "{}: Dice {}, HD95 {} mm, {} of {} ml<br>",
                        escaped(class),
                        short(found.metrics.dice),
                        short(found.metrics.hd95),
                        short(found.predicted_ml),
                        short(found.true_ml)
                    );
                }
            }
            *page += "</p></div>\n";
        }
        *page += "</div>\n";
    }

    fn add_plots(&self, page: &mut String) {
        *page += "<h2>Distributions</h2><p>Boxes from the first to the third quartile, with the median; whiskers to the least and \
                  the greatest value; a point a case.</p><div class=\"grid\">\n";
        for (at, (heading, unit)) in [(0, Some((0.0, 1.0))), (2, Some((0.0, 1.0))), (3, None)]
            .into_iter()
            .filter_map(|(at, unit)| Some((at, (HEADINGS.get(at)?, unit))))
        {
            let Some((_, quantity)) = QUANTITIES.get(at) else { continue };
            let class = |((&label, name), means): ((&u16, &String), &Vec<super::results::Mean>)| {
                let point = |case: &Case| {
                    let y = quantity(case.of(label));
                    Point { x: 0.0, y, label: format!("{}: {}", case.masks.name, short(y)) }
                };
                let five = means.get(at).map_or([f64::NAN; 5], |mean| mean.five);
                (name.clone(), five, self.cases.iter().map(point).collect::<Vec<_>>())
            };
            let classes: Vec<_> = self.labels.iter().zip(&self.names).zip(&self.means).map(class).collect();
            let classes: Vec<_> = classes.into_iter().collect();
            // So many classes as can be told apart in one plot.
            for some in classes.chunks(12) {
                let some: Vec<(&str, [f64; 5], Vec<Point>)> = some
                    .iter()
                    .map(|(name, five, points)| {
                        let copy = |p: &Point| Point { x: p.x, y: p.y, label: p.label.clone() };
                        (name.as_str(), *five, points.iter().map(copy).collect())
                    })
                    .collect();
                let _ = writeln!(page, "<div class=\"card\">{}</div>", plots::boxes(heading, &some, unit));
            }
        }
        *page += "</div><h2>Agreement of volumes</h2><p>Bland–Altman: prediction − truth over the mean of both, with the bias and \
                  its limits of agreement.</p><div class=\"grid\">\n";
        for (&label, name) in self.labels.iter().zip(&self.names) {
            let agreement = self.agreement(label);
            let defined = self.cases.iter().filter(|case| !case.of(label).metrics.dice.is_nan());
            let points: Vec<Point> = defined
                .map(|case| {
                    let (predicted, truth) = (case.of(label).predicted_ml, case.of(label).true_ml);
                    let y = predicted - truth;
                    Point { x: (predicted + truth) / 2.0, y, label: format!("{}: {} ml", case.masks.name, short(y)) }
                })
                .collect();
            let plot =
                plots::bland_altman(&format!("{name}: difference, ml"), &points, agreement.bias, agreement.limits);
            let _ = writeln!(page, "<div class=\"card\">{plot}</div>");
        }
        *page += "</div>\n";
    }

    fn add_confusion(&self, page: &mut String) {
        let (labels, counts) = self.confusion();
        *page += "<h2>Confusion</h2><p>Of the voxels of each true class, the part that was predicted as each class; all cases \
                  together.</p><div class=\"wide\"><table><thead><tr><th>Truth</th>";
        for &label in &labels {
            let _ = write!(page, "<th>{}</th>", escaped(self.name(label)));
        }
        *page += "<th>Voxels</th></tr></thead><tbody>";
        for &truth in &labels {
            let count = |predicted: &u16| counts.get(&(truth, *predicted)).copied().unwrap_or(0);
            let all: u64 = labels.iter().map(count).sum();
            let _ = write!(page, "<tr><td>{}</td>", escaped(self.name(truth)));
            for predicted in &labels {
                let part = count(predicted) as f64 / all as f64;
                let text = if all == 0 { "–".to_owned() } else { format!("{:.2} %", part * 100.0) };
                let _ = write!(
                    page,
                    "<td style=\"background:rgba(9,105,218,{:.3})\" title=\"{} voxels\">{text}</td>",
                    if all == 0 { 0.0 } else { part * 0.45 },
                    count(predicted)
                );
            }
            let _ = write!(page, "<td>{all}</td></tr>");
        }
        *page += "</tbody></table></div>\n";
    }

    fn add_cases(&self, page: &mut String) {
        *page += "<details><summary>All cases, the worst first</summary><div class=\"wide\"><table><thead><tr><th>Case</th>\
                  <th style=\"text-align:left\">Class</th>";
        HEADINGS.iter().for_each(|heading| *page += &format!("<th>{heading}</th>"));
        *page += "</tr></thead><tbody>";
        for case in self.worst_first() {
            for (&label, class) in self.labels.iter().zip(&self.names) {
                let _ = write!(
                    page,
                    "<tr><td>{}</td><td style=\"text-align:left\">{}</td>",
                    escaped(&case.masks.name),
                    escaped(class)
                );
                for (_, quantity) in QUANTITIES {
                    let _ = write!(page, "<td>{}</td>", short(quantity(case.of(label))));
                }
                *page += "</tr>";
            }
        }
        *page += "</tbody></table></div></details>\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_text() {
        assert_eq!(escaped("<a b=\"c\">&'\u{1b}ä"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{FFFD}ä");
    }

    #[test]
    fn bytes_are_written_in_base64() {
        // RFC 4648, section 10.
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[251, 255, 191]), "+/+/");
    }
}
