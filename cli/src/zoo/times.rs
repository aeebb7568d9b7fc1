//! Times and memory of networks beside PyTorch's, as `benches/zoo_times.py` writes them.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use tomograd::prelude::*;

/// The results of one run on one machine.
#[derive(Debug, Deserialize)]
pub(crate) struct Times {
    presets: BTreeMap<String, Row>,
}

/// One inference of a preset. What couldn't be measured is missing.
#[derive(Debug, Deserialize)]
struct Row {
    shape: Vec<usize>,
    ours_ms: Option<f64>,
    torch_ms: Option<f64>,
    ours_mb: Option<f64>,
    torch_mb: Option<f64>,
}

impl Times {
    /// # Errors
    /// When the file can't be read, or isn't of this form.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|error| Error::io("read", file.display(), error))?;
        serde_json::from_str(&text).map_err(|error| {
            let expected = "the results of benches/zoo_times.py";
            Error::argument("zoo list", error.to_string()).expected(expected).within(file.display().to_string())
        })
    }

    /// The cells of time and memory of a preset for an input of `shape`: empty where that wasn't measured.
    pub(crate) fn cells(&self, preset: &str, shape: &[usize]) -> [String; 2] {
        let Some(row) = self.presets.get(preset).filter(|row| row.shape == shape) else { return Default::default() };
        let beside = |unit: &str, ours: Option<f64>, torch: Option<f64>| match (ours, torch) {
            (Some(ours), Some(torch)) => format!("{} {unit} ({})", figures(ours), figures(torch)),
            (Some(ours), None) => format!("{} {unit}", figures(ours)),
            (None, _) => String::new(),
        };
        [beside("ms", row.ours_ms, row.torch_ms), beside("MB", row.ours_mb, row.torch_mb)]
    }
}

/// Three figures at most behind a point.
fn figures(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_empty_where_nothing_was_measured() {
        let text = r#"{"cpu": "x", "presets": {
            "a": {"shape": [1, 3], "ours_ms": 12.34, "torch_ms": 123.4, "ours_mb": 1.234, "torch_mb": null},
            "b": {"shape": [1, 3], "ours_ms": null, "torch_ms": 1.0, "ours_mb": null, "torch_mb": 2.0}
        }}"#;
        let times: Times = serde_json::from_str(text).unwrap();
        assert_eq!(times.cells("a", &[1, 3]), ["12.3 ms (123)", "1.23 MB"]);
        for (preset, shape) in [("a", [1, 4]), ("b", [1, 3]), ("c", [1, 3])] {
            assert_eq!(times.cells(preset, &shape), ["", ""], "{preset} {shape:?}");
        }
        assert!(Times::read(Path::new("/nowhere/times.json")).unwrap_err().to_string().contains("times.json"));
    }
}
