//! The numbers of an evaluation: by case and class, and over the cases.

use std::{collections::BTreeMap, path::PathBuf};

use tomograd::{
    pipeline::{ClassMetrics, Comparison, bootstrap_interval, quantile},
    prelude::*,
};

use super::Evaluate;

/// The files of a case.
#[derive(Clone)]
pub(super) struct Masks {
    pub(super) name: String,
    pub(super) prediction: PathBuf,
    pub(super) truth: PathBuf,
}

/// What was found in a case.
pub(super) struct Case {
    pub(super) masks: Masks,
    /// By label; a label that neither mask has may be missing.
    pub(super) found: BTreeMap<u16, Comparison>,
    /// The number of voxels by the true and the predicted label.
    pub(super) confusion: BTreeMap<(u16, u16), u64>,
}

/// The quantities by the names of their columns.
type Quantity = (&'static str, fn(&Comparison) -> f64);
pub(super) const QUANTITIES: [Quantity; 7] = [
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

impl Case {
    pub(super) fn of(&self, label: u16) -> &Comparison {
        self.found.get(&label).unwrap_or(&ABSENT)
    }

    /// The mean Dice over the labels where it is defined; NaN if it is nowhere.
    pub(super) fn mean_dice(&self, labels: &[u16]) -> f64 {
        let defined = labels.iter().map(|&label| self.of(label).metrics.dice).filter(|dice| !dice.is_nan());
        let (sum, count) = defined.fold((0.0, 0.0), |(sum, count), dice| (sum + dice, count + 1.0));
        sum / count
    }
}

/// A mean over the cases in which a quantity is defined.
pub(super) struct Mean {
    pub(super) value: f64,
    pub(super) interval: [f64; 2],
    pub(super) defined: usize,
    /// The least value, the quartiles and the greatest value.
    pub(super) five: [f64; 5],
}

/// How the volumes of a class differ (Bland and Altman, Lancet 1986): the mean of prediction − truth, and the limits between
/// which 95 % of normally distributed differences lie, bias ± 1.96 standard deviations (of a sample).
pub(super) struct Agreement {
    pub(super) bias: f64,
    pub(super) limits: [f64; 2],
    pub(super) cases: usize,
}

/// All that is reported.
pub(super) struct Evaluation {
    pub(super) labels: Vec<u16>,
    pub(super) names: Vec<String>,
    pub(super) cases: Vec<Case>,
    /// The cases that failed, and why.
    pub(super) failed: Vec<(String, String)>,
    /// By label and quantity.
    pub(super) means: Vec<Vec<Mean>>,
    pub(super) tolerance: f64,
    pub(super) resamples: usize,
    pub(super) seed: u64,
}

impl Evaluation {
    pub(super) fn new(options: &Evaluate, cases: Vec<Case>, failed: Vec<(String, String)>) -> Result<Self> {
        let labels = match &options.labels {
            Some(labels) => labels.clone(),
            None => {
                let mut found: Vec<u16> = cases.iter().flat_map(|case| case.found.keys().copied()).collect();
                found.sort_unstable();
                found.dedup();
                found
            }
        };
        let names = match &options.names {
            Some(names) => names.clone(),
            None => labels.iter().map(u16::to_string).collect(),
        };
        let mean = |label: u16, quantity: fn(&Comparison) -> f64| {
            let defined = cases.iter().map(|case| quantity(case.of(label))).filter(|value| !value.is_nan()).collect();
            Mean::new(defined, options.resamples, Seed::new(options.seed))
        };
        let of_label = |&label: &u16| QUANTITIES.iter().map(|(_, quantity)| mean(label, *quantity)).collect();
        let means = labels.iter().map(of_label).collect::<Result<_>>()?;
        let Evaluate { tolerance, resamples, seed, .. } = *options;
        Ok(Self { labels, names, cases, failed, means, tolerance, resamples, seed })
    }

    /// The agreement of the volumes of a label.
    pub(super) fn agreement(&self, label: u16) -> Agreement {
        let differences: Vec<f64> = self
            .cases
            .iter()
            .map(|case| case.of(label))
            .filter(|found| !found.metrics.dice.is_nan())
            .map(|found| found.predicted_ml - found.true_ml)
            .collect();
        let count = differences.len() as f64;
        let bias = differences.iter().sum::<f64>() / count;
        let squares: f64 = differences.iter().map(|difference| (difference - bias).powi(2)).sum();
        let reach = 1.96 * (squares / (count - 1.0)).sqrt();
        Agreement { bias, limits: [bias - reach, bias + reach], cases: differences.len() }
    }

    /// The labels with the background, and how many voxels of all cases have each true and predicted label.
    pub(super) fn confusion(&self) -> (Vec<u16>, BTreeMap<(u16, u16), u64>) {
        let mut all = BTreeMap::new();
        for (&pair, count) in self.cases.iter().flat_map(|case| &case.confusion) {
            *all.entry(pair).or_insert(0) += count;
        }
        (std::iter::once(0).chain(self.labels.iter().copied()).collect(), all)
    }

    pub(super) fn name(&self, label: u16) -> &str {
        let at = self.labels.iter().position(|other| *other == label);
        at.and_then(|at| self.names.get(at)).map_or("background", String::as_str)
    }

    /// The cases from the worst to the best mean Dice; those without any come last.
    pub(super) fn worst_first(&self) -> Vec<&Case> {
        let mut cases: Vec<(f64, &Case)> = self.cases.iter().map(|case| (case.mean_dice(&self.labels), case)).collect();
        cases.sort_by(|(a, _), (b, _)| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
        cases.into_iter().map(|(_, case)| case).collect()
    }
}

impl Mean {
    fn new(mut defined: Vec<f64>, resamples: usize, seed: Seed) -> Result<Self> {
        if defined.is_empty() {
            return Ok(Self { value: f64::NAN, interval: [f64::NAN; 2], defined: 0, five: [f64::NAN; 5] });
        }
        let value = defined.iter().sum::<f64>() / defined.len() as f64;
        let interval = bootstrap_interval(&defined, resamples, 0.95, seed)?;
        let mut five = [0.0, 0.25, 0.5, 0.75, 1.0];
        for part in &mut five {
            *part = quantile(&mut defined, *part)?;
        }
        Ok(Self { value, interval, defined: defined.len(), five })
    }
}
