//! The report of an import.

use std::fmt;

/// Limit of a column's width: a longer name moves its own row. (Formatting panics beyond 65535.)
const MOST_WIDTH: usize = 80;

/// A tensor that was not loaded, and why.
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

/// A parameter or buffer that was loaded from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The name in the network.
    pub name: String,
    /// The name in the file.
    pub from: String,
    /// The conversions, such as `f16 to f32`; empty if the value is as in the file.
    pub changes: Vec<String>,
}

/// The result of an import. `{}` prints it as a table.
///
/// ```
/// # use std::collections::BTreeMap;
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_io::{Weights, safetensors};
/// use tomograd_nn::{Import, Linear, Params};
/// # let path = std::env::temp_dir().join(format!("tomograd-report-doc-{}.safetensors", std::process::id()));
/// # safetensors::save(&path, &[("weight".to_owned(), Tensor::ones(&[2, 3], DType::F16, Device::Cpu)?)], &BTreeMap::new())?;
/// let mut params = Params::new(Device::Cpu, Seed::new(0));
/// Linear::new(params.root(), 3, 2)?;
/// let file = Weights::open(&path)?; // has no bias
/// let report = params.import(&Import::of(&file)?.partial())?;
/// assert_eq!((report.loaded[0].changes[0].as_str(), &report.missing[..]), ("f16 to f32", &["bias".to_owned()][..]));
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Loaded parameters and buffers, in the network's order.
    pub loaded: Vec<Imported>,
    /// Names of the network that aren't in the file and keep their values; empty unless the import was partial.
    pub missing: Vec<String>,
    /// Names of the file that aren't in the network; empty unless the import was partial.
    pub unexpected: Vec<String>,
    /// Names among `loaded` whose shape differs from the file's in axes of size 1.
    pub reshaped: Vec<String>,
    /// Parameters of a layer for other classes, which keep their values.
    pub kept: Vec<String>,
    /// Tensors of the file that were excluded, and why.
    pub skipped: Vec<(String, String)>,
    /// Further names of a parameter in the file: the name, and the one in `loaded`. Their values were equal.
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
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(MOST_WIDTH);
        let (first, second) = (width(0), width(1));
        for [name, from, changes] in rows {
            // Names come from outside and may contain control characters that a terminal would interpret.
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
