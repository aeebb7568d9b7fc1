//! Tables and CSV files of metrics.

use std::{fmt, path::Path};

use tomograd_core::{Error, Result};
use tomograd_io::write_atomically;

use crate::ClassMetrics;

/// Writes a text file atomically.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |writer| {
        writer.write_all(text.as_bytes()).map_err(|error| Error::io("write", path.display(), error))
    })
}

/// A mean over the cases in which a quantity is defined, with the number of these cases.
///
/// Undefined values are excluded, which isn't neutral: a missed object has no surface distance, so that missing it gives a
/// better mean distance than segmenting it badly. Two means are comparable only if they are over the same cases.
///
/// ```
/// use tomograd_pipeline::{ClassMetrics, Report};
/// let mut report = Report::new(["tumour"]);
/// report.add("found", vec![ClassMetrics { dice: 0.8, iou: 0.7, hd95: 2.0, assd: 1.0 }])?;
/// report.add("absent", vec![ClassMetrics { dice: f64::NAN, iou: f64::NAN, hd95: f64::NAN, assd: f64::NAN }])?;
/// let mean = report.mean(|m| m.dice);
/// assert_eq!((mean.value, mean.defined, mean.cases), (0.8, 1, 2));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean; NaN if the quantity is undefined in all cases.
    pub value: f64,
    /// The number of values in the mean.
    pub defined: usize,
    /// The number of all values, including undefined ones (NaN).
    pub cases: usize,
}

impl Mean {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut sum, mut defined, mut cases) = (0.0, 0usize, 0usize);
        for value in values {
            cases += 1;
            if !value.is_nan() {
                sum += value;
                defined += 1;
            }
        }
        Self { value: sum / defined as f64, defined, cases }
    }
}

/// `0.8500 (11 of 12)`; the precision applies to the mean and is 4 by default.
impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.*} ({} of {})", f.precision().unwrap_or(4), self.value, self.defined, self.cases);
        match f.width() {
            Some(width) => write!(f, "{text:>width$}"),
            None => f.write_str(&text),
        }
    }
}

/// The quantities and the names of their columns.
type Quantity = (&'static str, fn(&ClassMetrics) -> f64);
const QUANTITIES: [Quantity; 4] =
    [("dice", |m| m.dice), ("iou", |m| m.iou), ("hd95", |m| m.hd95), ("assd", |m| m.assd)];

/// The metrics of several cases by class. Its display is a table with the mean Dice and HD95 (mm) of each class, and the
/// number of cases in each mean.
///
/// ```
/// use tomograd_pipeline::{ClassMetrics, Report};
/// let mut report = Report::new(["anterior", "posterior"]);
/// let metrics = |dice| ClassMetrics { dice, iou: dice / (2.0 - dice), hd95: 1.0, assd: 0.5 };
/// report.add("case_1", vec![metrics(0.9), metrics(0.8)])?;
/// println!("{report}");
/// # let path = std::env::temp_dir().join(format!("tomograd-metrics-doc-{}.csv", std::process::id()));
/// report.write_csv(&path)?;
/// assert!(std::fs::read_to_string(&path).unwrap().starts_with("case,class,dice,iou,hd95,assd\ncase_1,anterior,0.9,"));
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Report {
    classes: Vec<String>,
    cases: Vec<(String, Vec<ClassMetrics>)>,
}

impl Report {
    /// A report without cases; `classes` are the names of the foreground classes 1, 2, ...
    pub fn new<S: Into<String>>(classes: impl IntoIterator<Item = S>) -> Self {
        Self { classes: classes.into_iter().map(Into::into).collect(), cases: Vec::new() }
    }

    /// The names of the foreground classes 1, 2, ...
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Adds a case with its metrics from [`evaluate`](crate::evaluate).
    ///
    /// # Errors
    /// When their number isn't that of the foreground classes.
    pub fn add(&mut self, case: impl Into<String>, metrics: Vec<ClassMetrics>) -> Result<()> {
        if metrics.len() != self.classes.len() {
            return Err(Error::argument("report", format!("metrics of {} classes", metrics.len()))
                .expected(format!("{} foreground classes", self.classes.len())));
        }
        self.cases.push((case.into(), metrics));
        Ok(())
    }

    /// The mean of a quantity of foreground class `class` (counted from 1) over the cases in which it is defined.
    ///
    /// To include missed objects with a penalty, let `quantity` return it: an object is missed where Dice is defined (one of
    /// the masks has the class) and the distance isn't.
    ///
    /// ```
    /// use tomograd_pipeline::{ClassMetrics, Report};
    /// let mut report = Report::new(["anterior"]);
    /// report.add("found", vec![ClassMetrics { dice: 0.8, iou: 0.7, hd95: 2.0, assd: 1.0 }])?;
    /// report.add("missed", vec![ClassMetrics { dice: 0.0, iou: 0.0, hd95: f64::NAN, assd: f64::NAN }])?;
    /// assert_eq!(report.class_mean(1, |m| m.hd95)?.to_string(), "2.0000 (1 of 2)");
    /// let penalised = |m: &ClassMetrics| if m.hd95.is_nan() && !m.dice.is_nan() { 100.0 } else { m.hd95 };
    /// assert_eq!(report.class_mean(1, penalised)?.to_string(), "51.0000 (2 of 2)");
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the class doesn't exist.
    pub fn class_mean(&self, class: usize, quantity: impl Fn(&ClassMetrics) -> f64) -> Result<Mean> {
        if !(1..=self.classes.len()).contains(&class) {
            return Err(Error::argument("report", format!("class {class}"))
                .expected(format!("a foreground class, 1 to {}", self.classes.len())));
        }
        Ok(self.mean_of_class(class - 1, &quantity))
    }

    /// The mean of [`Report::class_mean`] over the foreground classes that have one; the counts are summed over the
    /// classes.
    pub fn mean(&self, quantity: impl Fn(&ClassMetrics) -> f64) -> Mean {
        let means: Vec<Mean> = (0..self.classes.len()).map(|class| self.mean_of_class(class, &quantity)).collect();
        let sum = |count: fn(&Mean) -> usize| means.iter().map(count).sum();
        Mean {
            value: Mean::of(means.iter().map(|mean| mean.value)).value,
            defined: sum(|mean| mean.defined),
            cases: sum(|mean| mean.cases),
        }
    }

    /// The mean of the class at `index` of the names.
    fn mean_of_class(&self, index: usize, quantity: &dyn Fn(&ClassMetrics) -> f64) -> Mean {
        Mean::of(self.cases.iter().filter_map(|(_, metrics)| metrics.get(index)).map(quantity))
    }

    /// Writes a CSV file with the columns `case,class,dice,iou,hd95,assd` (distances in millimetres, undefined values empty).
    ///
    /// # Errors
    /// When the file can't be written; an existing file then stays unchanged.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = format!("case,class,{}\n", QUANTITIES.map(|(name, _)| name).join(","));
        for (case, metrics) in &self.cases {
            for (class, m) in self.classes.iter().zip(metrics) {
                let numbers = QUANTITIES.map(|(_, quantity)| number(quantity(m)));
                text += &format!("{},{},{}\n", quoted(case), quoted(class), numbers.join(","));
            }
        }
        write_text(path.as_ref(), &text)
    }

    /// Writes a CSV file of the means with the columns `class,quantity,mean,defined,cases`: a row for each class and
    /// quantity, then a row for the mean over the classes of each quantity, with an empty class. A mean is over `defined` of
    /// `cases` values, and empty if there are none.
    ///
    /// # Errors
    /// When the file can't be written; an existing file then stays unchanged.
    pub fn write_summary_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = String::from("class,quantity,mean,defined,cases\n");
        let mut line = |class: &str, name: &str, mean: Mean| {
            text += &format!("{},{name},{},{},{}\n", quoted(class), number(mean.value), mean.defined, mean.cases);
        };
        for (index, class) in self.classes.iter().enumerate() {
            for (name, quantity) in QUANTITIES {
                line(class, name, self.mean_of_class(index, &quantity));
            }
        }
        for (name, quantity) in QUANTITIES {
            line("", name, self.mean(quantity));
        }
        write_text(path.as_ref(), &text)
    }
}

/// A value of a CSV field; empty if undefined.
fn number(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
}

/// A text as a field of a CSV file: within quotes, its own doubled, if it has a comma, a quote or a line's end (RFC 4180).
///
/// ```
/// use tomograd_pipeline::report::quoted;
/// assert_eq!([quoted("liver"), quoted("liver, left")], ["liver", "\"liver, left\""]);
/// ```
pub fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0).max(5);
        let row = |dice: Mean, hd95: Mean| [format!("{dice:.4}"), format!("{hd95:.2}")];
        let mut rows = vec![("class", ["Dice".into(), "HD95".into()])];
        for (index, name) in self.classes.iter().enumerate() {
            rows.push((name, row(self.mean_of_class(index, &|m| m.dice), self.mean_of_class(index, &|m| m.hd95))));
        }
        rows.push(("mean", row(self.mean(|m| m.dice), self.mean(|m| m.hd95))));
        let widths = [0, 1].map(|column| rows.iter().map(|(_, texts)| texts[column].len()).max().unwrap_or(0));
        for (number, (name, [dice, hd95])) in rows.iter().enumerate() {
            let end = if number == 0 { format!("  ({} cases)", self.cases.len()) } else { String::new() };
            let line = if number == 0 { "" } else { "\n" };
            write!(f, "{line}{name:width$}  {dice:>0$}  {hd95:>1$}{end}", widths[0], widths[1])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_leave_undefined_cases_out() {
        let case = |dice, hd95| ClassMetrics { dice, iou: 0.5, hd95, assd: f64::NAN };
        let mut report = Report::new(["anterior", "posterior"]);
        report.add("a", vec![case(0.8, 1.0), case(0.6, f64::NAN)]).unwrap();
        report.add("b,c", vec![case(0.9, 2.0), case(f64::NAN, f64::NAN)]).unwrap();
        assert!(report.add("d", vec![]).is_err());
        let mean = report.mean(|m| m.dice);
        assert!((mean.value - 0.725).abs() < 1e-12);
        assert_eq!((mean.defined, mean.cases), (3, 4));
        let none = report.class_mean(2, |m| m.hd95).unwrap();
        assert!(none.value.is_nan() && (none.defined, none.cases) == (0, 2));
        for class in [0, 3, usize::MAX] {
            assert!(report.class_mean(class, |m| m.dice).is_err());
        }
        let table = report.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "class                 Dice           HD95  (2 cases)",
                "anterior   0.8500 (2 of 2)  1.50 (2 of 2)",
                "posterior  0.6000 (1 of 2)   NaN (0 of 2)",
                "mean       0.7250 (3 of 4)  1.50 (2 of 4)",
            ]
        );

        let path = std::env::temp_dir().join(format!("tomograd-report-{}.csv", std::process::id()));
        report.write_csv(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().nth(1), Some("a,anterior,0.8,0.5,1,"));
        assert_eq!(text.lines().nth(4), Some("\"b,c\",posterior,,0.5,,"));
        report.write_summary_csv(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().nth(3), Some("anterior,hd95,1.5,2,2"));
        assert_eq!(text.lines().nth(7), Some("posterior,hd95,,0,2"));
        let mean = text.lines().nth(9).unwrap();
        assert!(mean.starts_with(",dice,0.725") && mean.ends_with(",3,4"), "{mean}");
        assert_eq!(text.lines().count(), 1 + 3 * 4);
        assert!(report.write_csv("/nowhere/there/metrics.csv").is_err());
    }
}
