//! `tomograd evaluate PREDICTIONS TRUTHS [--labels 1,2] [--csv FILE] [--json] ...`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use tomograd::{
    io::write_atomically,
    pipeline::{ClassMetrics, Comparison, alignment, bootstrap_interval, compare_volumes},
    prelude::*,
};

use crate::{
    Failure,
    convert::{refuse_existing, same},
    print::print_line,
};

/// Masks against the truth, two files or two folders with files of the same names.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd evaluate mask.nii.gz truth.nii.gz
  tomograd evaluate masks/ labels/ --labels 1,2 --names liver,tumour --tolerance 2 --csv cases.csv
  tomograd evaluate masks/ labels/ --json > evaluation.json")]
pub(crate) struct Evaluate {
    /// A mask, or a folder of masks
    predictions: PathBuf,
    /// The true mask, or the folder of the true masks
    truths: PathBuf,
    /// The values of the classes; all but 0 that occur unless given
    #[arg(long, value_name = "VALUE,...", value_delimiter = ',')]
    labels: Option<Vec<u16>>,
    /// The names of these classes
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "labels")]
    names: Option<Vec<String>>,
    /// The tolerance of surface Dice in millimetres
    #[arg(long, value_name = "MM", default_value_t = 1.0)]
    tolerance: f64,
    /// How often cases are drawn for the 95 % intervals of the means
    #[arg(long, default_value_t = 2000)]
    resamples: usize,
    /// The seed of these draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Writes the numbers of every case and class
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Prints everything as JSON in place of a table
    #[arg(long)]
    json: bool,
    /// Replaces an existing CSV file
    #[arg(long)]
    force: bool,
}

/// The quantities by the names of their columns.
type Quantity = (&'static str, fn(&Comparison) -> f64);
const QUANTITIES: [Quantity; 7] = [
    ("dice", |c| c.metrics.dice),
    ("iou", |c| c.metrics.iou),
    ("surface_dice", |c| c.surface_dice),
    ("hd95", |c| c.metrics.hd95),
    ("assd", |c| c.metrics.assd),
    ("volume_ml", |c| c.predicted_ml),
    ("true_volume_ml", |c| c.true_ml),
];

/// A class that neither mask of a case has.
const ABSENT: Comparison = Comparison {
    metrics: ClassMetrics { dice: f64::NAN, iou: f64::NAN, hd95: f64::NAN, assd: f64::NAN },
    surface_dice: f64::NAN,
    predicted_ml: 0.0,
    true_ml: 0.0,
};

/// A case by its name, and what was found for each label.
type Case = (String, BTreeMap<u16, Comparison>);

impl Evaluate {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check().map_err(Failure::CommandLine)?;
        let pairs = self.pairs()?;
        let (mut cases, mut failed): (Vec<Case>, Vec<String>) = (Vec::new(), Vec::new());
        for (name, prediction, truth) in &pairs {
            match self.case(prediction, truth) {
                Ok(found) => cases.push((name.clone(), found)),
                Err(error) => {
                    eprintln!("tomograd: {error}");
                    failed.push(name.clone());
                }
            }
        }
        let labels: Vec<u16> = match &self.labels {
            Some(labels) => labels.clone(),
            None => {
                let mut found: Vec<u16> = cases.iter().flat_map(|(_, found)| found.keys().copied()).collect();
                found.sort_unstable();
                found.dedup();
                found
            }
        };
        if let Some(csv) = &self.csv {
            self.write_csv(csv, &cases, &labels)?;
        }
        let means = self.means(&cases, &labels)?;
        if self.json {
            self.print_json(&cases, &labels, &means, &failed)
        } else {
            self.print_table(&labels, &means)
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of: pairs.len() }) }
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String, expected: &str| Err(Error::argument("evaluate", what).expected(expected));
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return wrong(format!("--tolerance {}", self.tolerance), "millimetres, 0 or more");
        }
        if !(1..=1_000_000).contains(&self.resamples) {
            return wrong(format!("--resamples {}", self.resamples), "1 to 1000000");
        }
        if let Some(labels) = &self.labels {
            let mut sorted = labels.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != labels.len() || labels.len() > 255 || labels.contains(&0) {
                return wrong(format!("--labels {labels:?}"), "1 to 255 different values other than 0");
            }
            if self.names.as_ref().is_some_and(|names| names.len() != labels.len()) {
                return wrong(format!("--names {:?}", self.names), "a name for each label");
            }
        }
        if let Some(csv) = &self.csv {
            if same(csv, &self.predictions) || same(csv, &self.truths) {
                return wrong(format!("{} is an input", csv.display()), "another name");
            }
            refuse_existing(std::slice::from_ref(csv), self.force)?;
        }
        Ok(())
    }

    fn name(&self, labels: &[u16], label: u16) -> String {
        let at = labels.iter().position(|other| *other == label);
        let name = self.names.as_ref().zip(at).and_then(|(names, at)| names.get(at));
        name.cloned().unwrap_or_else(|| label.to_string())
    }

    /// The name, the prediction and the truth of each case.
    fn pairs(&self) -> Result<Vec<(String, PathBuf, PathBuf)>> {
        if !self.truths.is_dir() {
            return Ok(vec![(stem(&self.truths), self.predictions.clone(), self.truths.clone())]);
        }
        let [predictions, truths] = [&self.predictions, &self.truths].map(|folder| by_name(folder));
        let (predictions, truths) = (predictions?, truths?);
        for name in predictions.keys().filter(|name| !truths.contains_key(*name)) {
            eprintln!("tomograd: {name} has no truth in {}", self.truths.display());
        }
        if truths.is_empty() {
            return Err(Error::argument("evaluate", format!("no files in {}", self.truths.display())).expected("masks"));
        }
        // A truth without a prediction fails when it is read: it isn't left out in silence.
        Ok(truths
            .into_iter()
            .map(|(name, truth)| {
                let absent = || self.predictions.join(truth.file_name().unwrap_or_default());
                let prediction = predictions.get(&name).cloned().unwrap_or_else(absent);
                (name, prediction, truth)
            })
            .collect())
    }

    fn case(&self, prediction: &Path, truth: &Path) -> Result<BTreeMap<u16, Comparison>> {
        let read = |path: &Path| -> Result<(Volume, Vec<u16>)> {
            let volume = Volume::read(path)?;
            let values = values(&volume).map_err(|error| error.within(path.display().to_string()))?;
            Ok((volume, values))
        };
        let (predicted, predicted_values) = read(prediction)?;
        let (true_volume, true_values) = read(truth)?;
        let labels = match &self.labels {
            Some(labels) => labels.clone(),
            None => {
                let mut all: Vec<u16> =
                    predicted_values.iter().chain(&true_values).copied().filter(|v| *v > 0).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        if labels.len() > 255 {
            return Err(Error::argument("evaluate", format!("{} values in a mask", labels.len()))
                .expected("at most 255 labels, or --labels")
                .within(truth.display().to_string()));
        }
        // Values become class numbers; those that aren't asked for, background.
        let numbers = |volume: &Volume, values: &[u16]| {
            let number = |value: &u16| labels.iter().position(|label| label == value).map_or(0, |at| at as u8 + 1);
            let numbers: Vec<u8> = values.iter().map(number).collect();
            volume.with_voxels(Tensor::from_slice(&numbers, volume.voxels().shape(), Device::Cpu)?)
        };
        let [a, b] = [numbers(&predicted, &predicted_values)?, numbers(&true_volume, &true_values)?];
        let compared = compare_volumes(&a, &b, labels.len() + 1, alignment::TOLERANCE, self.tolerance)
            .map_err(|error| error.within(prediction.display().to_string()))?;
        Ok(labels.into_iter().zip(compared).collect())
    }

    /// For each label and quantity: the mean over the cases where it is defined, its interval, and how many these are.
    fn means(&self, cases: &[Case], labels: &[u16]) -> Result<Vec<Vec<Mean>>> {
        let of = |label: &u16, quantity: fn(&Comparison) -> f64| -> Result<Mean> {
            let all = cases.iter().map(|(_, found)| quantity(found.get(label).unwrap_or(&ABSENT)));
            let defined: Vec<f64> = all.filter(|value| !value.is_nan()).collect();
            if defined.is_empty() {
                return Ok(Mean { value: f64::NAN, interval: [f64::NAN; 2], defined: 0 });
            }
            let value = defined.iter().sum::<f64>() / defined.len() as f64;
            let interval = bootstrap_interval(&defined, self.resamples, 0.95, Seed::new(self.seed))?;
            Ok(Mean { value, interval, defined: defined.len() })
        };
        let of_label = |label| QUANTITIES.iter().map(|(_, quantity)| of(label, *quantity)).collect::<Result<Vec<_>>>();
        labels.iter().map(of_label).collect()
    }

    fn write_csv(&self, path: &Path, cases: &[Case], labels: &[u16]) -> Result<()> {
        let mut text = format!("case,class,{}\n", QUANTITIES.map(|(name, _)| name).join(","));
        for (name, found) in cases {
            for &label in labels {
                let comparison = found.get(&label).unwrap_or(&ABSENT);
                let numbers = QUANTITIES.map(|(_, quantity)| match quantity(comparison) {
                    value if value.is_nan() => String::new(),
                    value => value.to_string(),
                });
                text += &format!("{},{},{}\n", quoted(name), quoted(&self.name(labels, label)), numbers.join(","));
            }
        }
        write_atomically(path, |writer| {
            writer.write_all(text.as_bytes()).map_err(|error| Error::io("write", path.display(), error))
        })
    }

    fn print_json(&self, cases: &[Case], labels: &[u16], means: &[Vec<Mean>], failed: &[String]) {
        // NaN has no number in JSON: null.
        let numbers = |comparison: &Comparison| -> serde_json::Map<String, Value> {
            QUANTITIES.iter().map(|(name, quantity)| ((*name).to_owned(), json!(quantity(comparison)))).collect()
        };
        let cases: Vec<Value> = cases
            .iter()
            .map(|(name, found)| {
                let classes: serde_json::Map<String, Value> = labels
                    .iter()
                    .map(|label| {
                        let comparison = found.get(label).unwrap_or(&ABSENT);
                        (self.name(labels, *label), Value::Object(numbers(comparison)))
                    })
                    .collect();
                json!({"case": name, "classes": classes})
            })
            .collect();
        let classes: Vec<Value> = labels
            .iter()
            .zip(means)
            .map(|(label, means)| {
                let quantities: serde_json::Map<String, Value> = QUANTITIES
                    .iter()
                    .zip(means)
                    .map(|((name, _), mean)| {
                        let value = json!({"mean": mean.value, "interval": mean.interval, "defined": mean.defined});
                        ((*name).to_owned(), value)
                    })
                    .collect();
                json!({"class": self.name(labels, *label), "label": label, "quantities": quantities})
            })
            .collect();
        let said = json!({
            "tolerance_mm": self.tolerance, "level": 0.95, "resamples": self.resamples, "seed": self.seed,
            "classes": classes, "cases": cases, "failed": failed,
        });
        print_line!("{said}");
    }

    fn print_table(&self, labels: &[u16], means: &[Vec<Mean>]) {
        let width =
            labels.iter().map(|label| self.name(labels, *label).chars().count()).max().unwrap_or(0).clamp(5, 40);
        print_line!("{:width$}  {:<14} {:>9}  95 % interval         cases", "class", "", "mean");
        for (&label, means) in labels.iter().zip(means) {
            for ((quantity, _), mean) in QUANTITIES.iter().zip(means) {
                let [low, high] = mean.interval;
                let interval = format!("{low:.4} to {high:.4}");
                let name = self.name(labels, label);
                print_line!("{name:width$}  {quantity:<14} {:>9.4}  {interval:<20} {:>6}", mean.value, mean.defined);
            }
        }
    }
}

/// A mean over the cases in which a quantity is defined.
struct Mean {
    value: f64,
    interval: [f64; 2],
    defined: usize,
}

/// The voxels as whole numbers.
fn values(volume: &Volume) -> Result<Vec<u16>> {
    let whole = |value: f64| {
        let fits = value.fract() == 0.0 && (0.0..=65535.0).contains(&value);
        fits.then_some(value as u16).ok_or_else(|| {
            Error::format("evaluate", format!("a voxel of {value}")).expected("labels: whole numbers from 0 to 65535")
        })
    };
    volume.voxels().to_vec_f64()?.into_iter().map(whole).collect()
}

/// The name of a file without what its format adds.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let endings = [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".tiff", ".png", ".hdr"];
    let lower = name.to_lowercase();
    let ending = endings.into_iter().find(|ending| lower.ends_with(ending) && name.len() > ending.len());
    name.get(..name.len() - ending.map_or(0, str::len)).unwrap_or(&name).to_owned()
}

/// The volumes of a folder by their names, in order.
fn by_name(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let fail = |error| Error::io("evaluate", folder.display(), error);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = stem(&path);
        // Data files of headers, texts and hidden files aren't volumes.
        let is_volume = path.file_name().is_some_and(|file| file.to_string_lossy() != name) && path.is_file();
        if is_volume && let Some(other) = found.insert(name, path.clone()) {
            return Err(Error::argument(
                "evaluate",
                format!("{} and {} are one case", other.display(), path.display()),
            )
            .expected("one file a case"));
        }
    }
    Ok(found)
}

/// A field of a CSV file.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
