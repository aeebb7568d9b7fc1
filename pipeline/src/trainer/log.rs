//! Logs of a training: a CSV file with a row per epoch, and TensorBoard events.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result, Tensor};
use tomograd_io::tensorboard::EventWriter;

use crate::report::{quoted, write_text};

/// The name of the CSV file.
pub(super) const TABLE: &str = "epochs.csv";
/// Column names reserved for the trainer.
const EPOCH: &str = "epoch";
const SECONDS: &str = "step_seconds";

/// A name and an image.
pub(super) type Picture = (String, Tensor);

/// Sums of values by name, in the order of first use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Values(Vec<(String, f64, u64)>);

impl Values {
    pub(super) fn add(&mut self, name: &str, value: f64) -> Result<()> {
        self.sum(name, value, 1)
    }

    /// Adds the sums of `others`.
    pub(super) fn merge(&mut self, others: &Values) -> Result<()> {
        others.0.iter().try_for_each(|(name, sum, count)| self.sum(name, *sum, *count))
    }

    fn sum(&mut self, name: &str, value: f64, count: u64) -> Result<()> {
        if let Some((_, sum, number)) = self.0.iter_mut().find(|(known, ..)| known == name) {
            (*sum, *number) = (*sum + value, number.saturating_add(count));
            return Ok(());
        }
        if name.is_empty() || [EPOCH, SECONDS].contains(&name) || name.contains(['\n', '\r']) {
            return Err(Error::argument("log", format!("a number called {name:?}"))
                .expected(format!("a name without line breaks, other than {EPOCH} and {SECONDS}")));
        }
        self.0.push((name.to_owned(), value, count));
        Ok(())
    }

    pub(super) fn means(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, sum, count)| (&name[..], sum / *count as f64))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, ..)| known == name)
    }
}

/// The results of one epoch.
pub(super) struct Row<'a> {
    /// Counted from 1.
    pub(super) epoch: u64,
    pub(super) step_seconds: f64,
    pub(super) training: &'a Values,
    pub(super) validation: Values,
    pub(super) score: Option<f64>,
    pub(super) pictures: Vec<Picture>,
}

impl Row<'_> {
    /// Column names and values.
    fn fields(&self) -> Result<Vec<(&str, f64)>> {
        if let Some((name, _)) = self.validation.means().find(|(name, _)| self.training.has(name)) {
            return Err(Error::argument("log", format!("{name} is noted by the steps and by the validation"))
                .expected("a name of its own for each"));
        }
        let (epoch, seconds) = ((EPOCH, self.epoch as f64), (SECONDS, self.step_seconds));
        Ok([epoch].into_iter().chain(self.training.means()).chain([seconds]).chain(self.validation.means()).collect())
    }
}

/// The log files of a folder.
pub(super) struct Log {
    table: Table,
    events: EventWriter,
    every: u64,
}

impl Log {
    /// Starts new logs and removes those of an earlier run.
    pub(super) fn create(folder: &Path, every: u64) -> Result<Self> {
        EventWriter::remove(folder)?;
        let table = Table { path: folder.join(TABLE), columns: Vec::new(), rows: Vec::new() };
        super::remove(&table.path)?;
        Ok(Self { table, events: EventWriter::create(folder)?, every })
    }

    /// Continues logs after this many epochs and steps; later entries are removed.
    pub(super) fn resume(folder: &Path, epochs: u64, steps: u64, every: u64) -> Result<Self> {
        let table = Table::read(folder.join(TABLE), epochs)?;
        Ok(Self { table, events: EventWriter::resume(folder, steps)?, every })
    }

    /// Logs the values of a step; `done` is the number of steps including this one.
    pub(super) fn step<'a>(&mut self, done: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        if !done.is_multiple_of(self.every) {
            return Ok(());
        }
        values.into_iter().try_for_each(|(name, value)| self.events.scalar(&format!("train/{name}"), done, value))
    }

    /// Logs the values of an epoch after `done` steps.
    pub(super) fn epoch(&mut self, done: u64, row: Row<'_>) -> Result<()> {
        self.table.add(&row.fields()?)?;
        let scores = row.score.map(|score| ("score", score));
        let training = row.training.means().map(|(name, value)| (format!("epoch/{name}"), value));
        let validation =
            row.validation.means().chain(scores).map(|(name, value)| (format!("validation/{name}"), value));
        for (tag, value) in training.chain(validation) {
            self.events.scalar(&tag, done, value)?;
        }
        row.pictures.iter().try_for_each(|(name, pixels)| self.events.image(name, done, pixels))?;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.events.flush()
    }
}

/// A CSV file. A column is added when a row first has it, and is empty in earlier rows; numbers are written as the shortest
/// text that parses to the same f64.
struct Table {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<String>,
}

impl Table {
    /// The rows of the first `epochs` epochs; empty if there is no file.
    fn read(path: PathBuf, epochs: u64) -> Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|error| Error::io("read", path.display(), error))?,
        };
        let mut lines = text.lines();
        let columns = lines.next().map_or(Vec::new(), fields);
        let fail = |what: String| {
            Error::format("resume", format!("{}: {what}", path.display())).expected(format!(
                "rows of the columns that its first line names, the first one {EPOCH}, or no such file"
            ))
        };
        if columns.first().is_some_and(|first| first != EPOCH) {
            return Err(fail(format!("the columns {}", columns.join(", "))));
        }
        let mut rows = Vec::new();
        for line in lines {
            let row = fields(line);
            let Some(epoch) =
                row.first().and_then(|field| field.parse::<u64>().ok()).filter(|_| row.len() == columns.len())
            else {
                return Err(fail(format!("the row {line:?}")));
            };
            if epoch <= epochs {
                rows.push(line.to_owned());
            }
        }
        Ok(Self { path, columns, rows })
    }

    fn add(&mut self, values: &[(&str, f64)]) -> Result<()> {
        for (name, _) in values {
            if !self.columns.iter().any(|column| column == name) {
                self.columns.push((*name).to_owned());
                self.rows.iter_mut().for_each(|row| row.push(','));
            }
        }
        let field = |column: &String| {
            let value = values.iter().find(|(name, _)| name == column);
            value.map_or(String::new(), |(_, value)| value.to_string())
        };
        self.rows.push(self.columns.iter().map(field).collect::<Vec<_>>().join(","));
        let header = self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(",");
        let lines = [header].into_iter().chain(self.rows.iter().cloned());
        write_text(&self.path, &lines.map(|line| line + "\n").collect::<String>())
    }
}

/// The unquoted fields of a line.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut inside) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if inside && characters.next_if_eq(&'"').is_some() => {
                fields.last_mut().unwrap_or(&mut String::new()).push('"')
            }
            '"' => inside = !inside,
            ',' if !inside => fields.push(String::new()),
            other => fields.last_mut().unwrap_or(&mut String::new()).push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_when_a_row_has_them() {
        let path = std::env::temp_dir().join(format!("tomograd-table-{}.csv", std::process::id()));
        let mut table = Table { path: path.clone(), columns: Vec::new(), rows: Vec::new() };
        table.add(&[("epoch", 1.0), ("a \"b\", c", 0.1)]).unwrap();
        table.add(&[("epoch", 2.0), ("a \"b\", c", 1e300), ("Dice", f64::NAN)]).unwrap();
        table.add(&[("epoch", 3.0), ("Dice", -0.5)]).unwrap();
        let huge = format!("1{}", "0".repeat(300));
        let text = format!("epoch,\"a \"\"b\"\", c\",Dice\n1,0.1,\n2,{huge},NaN\n3,,-0.5\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        // Read up to an epoch and continued, it has the same contents as without interruption.
        let mut table = Table::read(path.clone(), 2).unwrap();
        table.add(&[("epoch", 3.0), ("Dice", -0.5)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        for bad in ["Epoch,loss\n1,2\n", "epoch,loss\n1\n", "epoch,loss\none,2\n", "epoch\n\n"] {
            std::fs::write(&path, bad).unwrap();
            let error = Table::read(path.clone(), 2).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("expected rows of the columns")), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Table::read(path, 2).unwrap().columns.is_empty());
    }

    #[test]
    fn names_that_no_column_can_have_are_refused() {
        let mut values = Values::default();
        for name in ["", "epoch", "step_seconds", "a\nb"] {
            assert!(values.add(name, 1.0).is_err(), "{name:?}");
        }
        for value in [1.0, 2.0, 6.0] {
            values.add("loss", value).unwrap();
        }
        assert_eq!(values.means().collect::<Vec<_>>(), [("loss", 3.0)]);
    }
}
