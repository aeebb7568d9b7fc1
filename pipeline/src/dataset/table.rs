//! Cases listed in a CSV file, one per row.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tomograd_core::{Error, ErrorKind, Result};

use super::{Case, Source};
use crate::{Field, csv, names, sample::check_classes};

/// Declares the columns of a CSV file: each call adds a field to the samples. Undeclared columns are ignored.
///
/// ```
/// use tomograd_pipeline::Columns;
/// let columns = Columns::new()
///     .name("id")
///     .image("image")
///     .class("diagnosis", ["benign", "malignant"])
///     .labels("findings", ["effusion", "nodule"])
///     .numbers("vitals", ["age", "weight"]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Columns {
    name: Option<String>,
    fields: Vec<(String, Column)>,
}

#[derive(Clone, Debug)]
enum Column {
    Images(Vec<String>),
    Label(usize),
    Class(Vec<String>),
    Labels(Vec<String>),
    Numbers(Vec<String>),
}

fn owned(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

impl Columns {
    /// No columns.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, field: impl Into<String>, column: Column) -> Self {
        self.fields.push((field.into(), column));
        self
    }

    /// The column with case names; without it, cases are named by their rows: `row_2`.
    #[must_use]
    pub fn name(self, column: impl Into<String>) -> Self {
        Self { name: Some(column.into()), ..self }
    }

    /// A column with paths of images, relative to the folder of the CSV file; the field has the name of the column.
    #[must_use]
    pub fn image(self, column: impl Into<String>) -> Self {
        let column = column.into();
        self.with(column.clone(), Column::Images(vec![column]))
    }

    /// Columns with paths of the channels of an image.
    #[must_use]
    pub fn channels(self, field: impl Into<String>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(field, Column::Images(owned(columns)))
    }

    /// A column with paths of labels with `classes` classes (1 to 256, including the background); the field has the name of
    /// the column.
    #[must_use]
    pub fn label(self, column: impl Into<String>, classes: usize) -> Self {
        self.with(column, Column::Label(classes))
    }

    /// A column with class names; the field has the name of the column, and its value is the index of the name in the list.
    #[must_use]
    pub fn class(self, column: impl Into<String>, classes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(column, Column::Class(owned(classes)))
    }

    /// Columns with multi-label values, 1 or 0.
    #[must_use]
    pub fn labels(self, field: impl Into<String>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(field, Column::Labels(owned(columns)))
    }

    /// A column with numbers; the field has the name of the column.
    #[must_use]
    pub fn number(self, column: impl Into<String>) -> Self {
        let column = column.into();
        self.with(column.clone(), Column::Numbers(vec![column]))
    }

    /// Columns with numbers, which become one field.
    #[must_use]
    pub fn numbers(self, field: impl Into<String>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(field, Column::Numbers(owned(columns)))
    }

    /// The cases of a file, and the largest number of classes among its columns.
    pub(super) fn read(&self, path: &Path) -> Result<(Vec<Case>, usize)> {
        let within = |error: Error| error.within(path.display().to_string());
        let mut classes = 0;
        for (at, (field, column)) in self.fields.iter().enumerate() {
            if self.fields[..at].iter().any(|(other, _)| other == field) {
                return Err(Error::new(ErrorKind::Name, "columns", format!("two fields are called {field:?}"))
                    .expected("different names"));
            }
            classes = classes.max(match column {
                Column::Label(classes) => {
                    check_classes("columns", *classes).map_err(|error| error.within(field))?;
                    *classes
                }
                Column::Class(names) => names.len(),
                _ => 0,
            });
        }
        if self.fields.is_empty() {
            return Err(Error::argument("columns", "no column is declared").expected("at least one"));
        }
        let text = fs::read_to_string(path).map_err(|error| Error::io("read table", path.display(), error))?;
        let rows = csv::parse(&text).map_err(within)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let (header, rows) = rows.split_first().ok_or_else(|| within(Error::format("csv", "an empty file")))?;
        if rows.is_empty() {
            return Err(within(
                Error::format("csv", "no rows").expected("a row a case, below the names of the columns"),
            ));
        }
        let cases = (2..).zip(rows).map(|(number, row)| self.case(folder, &Row { header, row, number }));
        let cases: Vec<Case> = cases.collect::<Result<_>>().map_err(within)?;
        let mut known = std::collections::HashSet::new();
        if let Some(case) = cases.iter().find(|case| !known.insert(&case.name)) {
            let twice = Error::new(ErrorKind::Name, "csv", format!("two rows are called {:?}", case.name));
            return Err(within(twice.expected("a name of its own for each row")));
        }
        Ok((cases, classes))
    }

    fn case(&self, folder: &Path, row: &Row) -> Result<Case> {
        let name = match &self.name {
            Some(column) => row.get(column)?.to_owned(),
            None => format!("row_{}", row.number),
        };
        let path = |column: &String| -> Result<PathBuf> { Ok(folder.join(row.get(column)?)) };
        let fields = self.fields.iter().map(|(field, column)| {
            let source = match column {
                Column::Images(columns) => Source::Image(columns.iter().map(path).collect::<Result<_>>()?),
                Column::Label(classes) => Source::Label { path: path(field)?, classes: *classes },
                Column::Class(classes) => {
                    let class = row.get(field)?;
                    let number = classes.iter().position(|known| known == class).ok_or_else(|| {
                        let known = classes.iter().map(String::as_str);
                        row.within(names::unknown("csv", "class", class, known), field)
                    })?;
                    Source::Value(Field::Class(number as i64))
                }
                Column::Labels(columns) => {
                    let one = |column: &String| match row.get(column)? {
                        "0" => Ok(false),
                        "1" => Ok(true),
                        other => Err(row.within(Error::format("csv", format!("{other:?}")).expected("0 or 1"), column)),
                    };
                    Source::Value(Field::Labels(columns.iter().map(one).collect::<Result<_>>()?))
                }
                Column::Numbers(columns) => {
                    let one = |column: &String| {
                        let text = row.get(column)?;
                        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                        number.ok_or_else(|| {
                            row.within(Error::format("csv", format!("{text:?}")).expected("a finite number"), column)
                        })
                    };
                    Source::Value(Field::Numbers(columns.iter().map(one).collect::<Result<_>>()?))
                }
            };
            Ok((field.clone(), source))
        });
        Ok(Case::new(name, fields.collect::<Result<Vec<_>>>()?))
    }
}

struct Row<'a> {
    header: &'a [String],
    row: &'a [String],
    number: usize,
}

impl Row<'_> {
    /// The nonempty value of the row in a column.
    fn get(&self, column: &str) -> Result<&str> {
        let at = self.header.iter().position(|known| known == column);
        let at = at.ok_or_else(|| names::unknown("csv", "column", column, self.header.iter().map(String::as_str)))?;
        match self.row[at].as_str() {
            "" => Err(self.within(Error::format("csv", "an empty field").expected("a value"), column)),
            text => Ok(text),
        }
    }

    fn within(&self, error: Error, column: &str) -> Error {
        error.within(format!("row {}, column {column}", self.number))
    }
}
