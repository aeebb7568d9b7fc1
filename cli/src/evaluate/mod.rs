//! `tomograd evaluate PREDICTIONS TRUTHS [--labels 1,2] [--csv FILE] [--html FILE] [--json] ...`.

mod page;
mod pictures;
mod plots;
mod results;
mod tables;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use clap::Args;
use tomograd::{
    io::{Format, write_atomically},
    pipeline::{alignment, compare_volumes, confusion_volumes, progress},
    prelude::*,
};

use self::results::{Case, Evaluation, Masks};
use crate::{
    Failure,
    convert::{refuse_existing, same},
    parallel,
};

/// Masks against the truth, two files or two folders with files of the same names.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd evaluate mask.nii.gz truth.nii.gz
  tomograd evaluate masks/ labels/ --labels 1,2 --names liver,tumour --tolerance 2 --csv cases.csv
  tomograd evaluate masks/ labels/ --images scans/ --html report.html
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
    /// Writes a page with plots and with pictures of the worst cases, which any browser shows without a network
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// The image of the masks, or the folder of the images, for the pictures
    #[arg(long, value_name = "FILE|DIR", requires = "html")]
    images: Option<PathBuf>,
    /// The grey range of the images by its centre and width; the 1st to the 99th percentile unless given
    #[arg(
        long,
        value_name = "CENTRE,WIDTH",
        value_delimiter = ',',
        allow_hyphen_values = true,
        num_args = 1,
        requires = "images"
    )]
    window: Option<Vec<f64>>,
    /// How many of the worst cases have a picture
    #[arg(long, default_value_t = 12)]
    pictures: usize,
    /// Prints everything as JSON in place of a table
    #[arg(long)]
    json: bool,
    /// Replaces existing files
    #[arg(long)]
    force: bool,
}

impl Evaluate {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check().map_err(Failure::CommandLine)?;
        let pairs = self.pairs()?;
        let bar = progress::bar(pairs.len() as u64, "evaluate");
        let done = AtomicUsize::new(0);
        let compared = parallel::in_order(pairs, |masks| {
            let found = self.case(&masks);
            bar.set_position(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
            (masks, found)
        });
        bar.finish_and_clear();
        let (mut cases, mut failed) = (Vec::new(), Vec::new());
        let of = compared.len();
        for (masks, found) in compared {
            match found {
                Ok(case) => cases.push(case),
                Err(error) => {
                    eprintln!("tomograd: {error}");
                    failed.push((masks.name, error.to_string()));
                }
            }
        }
        let evaluation = Evaluation::new(self, cases, failed)?;
        if let Some(csv) = &self.csv {
            write_text(csv, &evaluation.csv())?;
        }
        if let Some(html) = &self.html {
            write_text(html, &evaluation.page(self))?;
        }
        if self.json {
            evaluation.print_json()
        } else {
            evaluation.print_table()
        }
        let failed: Vec<String> = evaluation.failed.into_iter().map(|(name, _)| name).collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of }) }
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
        if let Some(window) = &self.window
            && !matches!(window[..], [centre, width] if centre.is_finite() && width.is_finite() && width > 0.0)
        {
            return wrong(format!("--window {window:?}"), "the centre and a width of more than 0");
        }
        if self.pictures > 1000 {
            return wrong(format!("--pictures {}", self.pictures), "0 to 1000");
        }
        let files: Vec<PathBuf> = self.csv.iter().chain(&self.html).cloned().collect();
        let inputs = [Some(&self.predictions), Some(&self.truths), self.images.as_ref()];
        for file in &files {
            if inputs.iter().flatten().any(|input| same(file, input)) {
                return wrong(format!("{} is an input", file.display()), "another name");
            }
        }
        if let [csv, html] = &files[..]
            && same(csv, html)
        {
            return wrong(format!("--csv and --html {}", csv.display()), "two names");
        }
        refuse_existing(&files, self.force)
    }

    /// The name, the prediction and the truth of each case.
    fn pairs(&self) -> Result<Vec<Masks>> {
        if !self.truths.is_dir() {
            let name = self.truths.file_name().unwrap_or_default().to_string_lossy();
            let name = Format::stem(&name).to_owned();
            return Ok(vec![Masks { name, prediction: self.predictions.clone(), truth: self.truths.clone() }]);
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
                Masks { name, prediction, truth }
            })
            .collect())
    }

    fn case(&self, masks: &Masks) -> Result<Case> {
        let Masks { prediction, truth, .. } = masks;
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
        let within = |error: Error| error.within(prediction.display().to_string());
        let classes = labels.len() + 1;
        let compared = compare_volumes(&a, &b, classes, alignment::TOLERANCE, self.tolerance).map_err(within)?;
        let matrix = confusion_volumes(&a, &b, classes, alignment::TOLERANCE).map_err(within)?;
        let label = |class: usize| class.checked_sub(1).and_then(|at| labels.get(at)).copied().unwrap_or(0);
        let mut confusion = BTreeMap::new();
        for (true_class, row) in matrix.iter().enumerate() {
            for (predicted, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                confusion.insert((label(true_class), label(predicted)), count);
            }
        }
        let found = labels.iter().copied().zip(compared).collect();
        Ok(Case { masks: masks.clone(), found, confusion })
    }
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

/// The volumes of a folder by their names, in order.
fn by_name(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let fail = |error| Error::io("evaluate", folder.display(), error);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_volume = Format::is_volume_name(&name) && path.is_file();
        if is_volume && let Some(other) = found.insert(Format::stem(&name).to_owned(), path.clone()) {
            return Err(Error::argument(
                "evaluate",
                format!("{} and {} are one case", other.display(), path.display()),
            )
            .expected("one file a case"));
        }
    }
    Ok(found)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |writer| {
        writer.write_all(text.as_bytes()).map_err(|error| Error::io("write", path.display(), error))
    })
}
