//! Metrics as a table and as a file.

use std::{fmt, fs, path::Path};

use tomograd_core::{Error, Result};

use crate::ClassMetrics;

/// Writes a file that is there wholly or not at all: under another name first, then renamed.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written = fs::File::create(&temporary).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        // The first error is the one to report, whether or not the remains can be removed.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path.display(), error)
    })
}

/// The metrics of several cases, class by class. Displayed, it is a table of the mean Dice and HD95 (mm) of each class.
#[derive(Clone, Debug, Default)]
pub struct Report {
    classes: Vec<String>,
    cases: Vec<(String, Vec<ClassMetrics>)>,
}

impl Report {
    /// No cases yet; `classes` are the names of the foreground classes 1, 2, ...
    pub fn new<S: Into<String>>(classes: impl IntoIterator<Item = S>) -> Self {
        Self { classes: classes.into_iter().map(Into::into).collect(), cases: Vec::new() }
    }

    /// Adds a case with the metrics that [`evaluate`](crate::evaluate) gave.
    ///
    /// # Errors
    /// When there aren't as many as foreground classes.
    pub fn add(&mut self, case: impl Into<String>, metrics: Vec<ClassMetrics>) -> Result<()> {
        if metrics.len() != self.classes.len() {
            return Err(Error::argument("report", format!("metrics of {} classes", metrics.len()))
                .expected(format!("{} foreground classes", self.classes.len())));
        }
        self.cases.push((case.into(), metrics));
        Ok(())
    }

    /// The mean over the cases of one quantity of foreground class `class` (counted from 1), without the cases where it is
    /// undefined (NaN); NaN when it is undefined everywhere.
    pub fn class_mean(&self, class: usize, quantity: impl Fn(&ClassMetrics) -> f64) -> f64 {
        let of_class = |case: &(String, Vec<ClassMetrics>)| case.1.get(class.wrapping_sub(1)).map(&quantity);
        mean(self.cases.iter().filter_map(of_class))
    }

    /// The mean over the foreground classes of [`Report::class_mean`].
    pub fn mean(&self, quantity: impl Fn(&ClassMetrics) -> f64) -> f64 {
        mean((1..=self.classes.len()).map(|class| self.class_mean(class, &quantity)))
    }

    /// Writes `case,class,dice,iou,hd95,assd` lines (distances in millimetres, undefined values empty).
    ///
    /// # Errors
    /// When the file can't be written; then an earlier one is left as it was.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = String::from("case,class,dice,iou,hd95,assd\n");
        for (case, metrics) in &self.cases {
            for (class, m) in self.classes.iter().zip(metrics) {
                let numbers =
                    [m.dice, m.iou, m.hd95, m.assd].map(|v| if v.is_nan() { String::new() } else { v.to_string() });
                text += &format!("{},{},{}\n", quoted(case), quoted(class), numbers.join(","));
            }
        }
        write_atomically(path.as_ref(), &text)
    }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.filter(|v| !v.is_nan()).fold((0.0, 0u32), |(sum, count), v| (sum + v, count + 1));
    sum / f64::from(count)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:width$}  {:>6}  {:>6}  ({} cases)", "class", "Dice", "HD95", self.cases.len())?;
        for (class, name) in (1..).zip(&self.classes) {
            let (dice, hd95) = (self.class_mean(class, |m| m.dice), self.class_mean(class, |m| m.hd95));
            writeln!(f, "{name:width$}  {dice:6.4}  {hd95:6.2}")?;
        }
        write!(f, "{:width$}  {:6.4}  {:6.2}", "mean", self.mean(|m| m.dice), self.mean(|m| m.hd95))
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
        assert!((report.mean(|m| m.dice) - 0.725).abs() < 1e-12);
        assert!(report.class_mean(2, |m| m.hd95).is_nan());
        let table = report.to_string();
        assert!(table.contains("anterior   0.8500    1.50") && table.contains("posterior  0.6000     NaN"), "{table}");

        let path = std::env::temp_dir().join(format!("tomograd-report-{}.csv", std::process::id()));
        report.write_csv(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().nth(1), Some("a,anterior,0.8,0.5,1,"));
        assert_eq!(text.lines().nth(4), Some("\"b,c\",posterior,,0.5,,"));
        assert!(report.write_csv("/nowhere/there/metrics.csv").is_err());
    }
}
