//! What an import has done.

use std::fmt;

/// A tensor that was not taken, and why.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) name: String,
    pub(super) why: String,
}

impl Left {
    pub(super) fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }
}

/// A parameter or buffer that has a value of the file now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its name in the network.
    pub name: String,
    /// The tensor's name in the file.
    pub from: String,
    /// What was done to the value, `f16 to f32`; nothing when it is as in the file.
    pub changes: Vec<String>,
}

/// What an import has done. `{}` prints it as a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Parameters and buffers with values of the file, in the network's order.
    pub loaded: Vec<Imported>,
    /// Those of the network that aren't in the file, and keep their values; only in a partial import.
    pub missing: Vec<String>,
    /// Those of the file that aren't in the network; only in a partial import.
    pub unexpected: Vec<String>,
    /// Names among `loaded` whose shape differs from the file's by axes of size 1.
    pub reshaped: Vec<String>,
    /// Parameters of a layer for other classes, which keep their values.
    pub kept: Vec<String>,
    /// Tensors of the file that were left out, and why.
    pub skipped: Vec<(String, String)>,
    /// Further names of a parameter in the file: the name, and the one among `loaded`. Their values were equal.
    pub aliases: Vec<(String, String)>,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<[&str; 3]> = vec![["parameter", "from", "changes"]];
        let changes: Vec<String> = self.loaded.iter().map(|row| row.changes.join(", ")).collect();
        rows.extend(
            self.loaded.iter().zip(&changes).map(|(row, changes)| [&row.name[..], &row.from[..], &changes[..]]),
        );
        rows.extend(self.aliases.iter().map(|(name, of)| [&of[..], &name[..], "another name, the same values"]));
        rows.extend(self.kept.iter().map(|name| [&name[..], "", "keeps its values: other classes"]));
        rows.extend(self.missing.iter().map(|name| [&name[..], "", "missing, keeps its values"]));
        rows.extend(self.unexpected.iter().map(|name| ["", &name[..], "unexpected, not taken"]));
        rows.extend(self.skipped.iter().map(|(name, why)| ["", &name[..], &why[..]]));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        for [name, from, changes] in rows {
            // Names come from outside, and may hold what a terminal would obey.
            let row = format!("{name:first$}  {from:second$}  {changes}");
            writeln!(f, "{}", row.trim_end().replace(char::is_control, "\u{FFFD}"))?;
        }
        write!(
            f,
            "{} loaded, {} missing, {} unexpected, {} reshaped, {} kept, {} skipped, {} aliases",
            self.loaded.len(),
            self.missing.len(),
            self.unexpected.len(),
            self.reshaped.len(),
            self.kept.len(),
            self.skipped.len(),
            self.aliases.len()
        )
    }
}
