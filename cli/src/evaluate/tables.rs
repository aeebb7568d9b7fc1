//! An evaluation as CSV, as JSON, and as a table in the terminal.

use serde_json::{Map, Value, json};
use tomograd::pipeline::report::quoted;

use super::results::{Evaluation, QUANTITIES};
use crate::{plain, print::print_line};

impl Evaluation {
    /// A row for each case and class.
    pub(super) fn csv(&self) -> String {
        let mut text = format!("case,class,{}\n", QUANTITIES.map(|(name, _)| name).join(","));
        for case in &self.cases {
            for (&label, class) in self.labels.iter().zip(&self.names) {
                let numbers = QUANTITIES.map(|(_, quantity)| match quantity(case.of(label)) {
                    value if value.is_nan() => String::new(),
                    value => value.to_string(),
                });
                text += &format!("{},{},{}\n", quoted(&case.masks.name), quoted(class), numbers.join(","));
            }
        }
        text
    }

    pub(super) fn print_json(&self) {
        // NaN has no number in JSON: null.
        let quantities = |label: u16, case: &super::Case| -> Map<String, Value> {
            QUANTITIES.iter().map(|(name, quantity)| ((*name).to_owned(), json!(quantity(case.of(label))))).collect()
        };
        let labelled = || self.labels.iter().zip(&self.names);
        let of_case = |case: &super::Case| {
            let classes: Map<String, Value> =
                labelled().map(|(&label, name)| (name.clone(), Value::Object(quantities(label, case)))).collect();
            json!({"case": case.masks.name, "classes": classes})
        };
        let cases: Vec<Value> = self.cases.iter().map(of_case).collect();
        let classes: Vec<Value> = labelled()
            .zip(&self.means)
            .map(|((&label, name), means)| {
                let quantities: Map<String, Value> = QUANTITIES
                    .iter()
                    .zip(means)
                    .map(|((name, _), mean)| {
                        let [_, first, median, third, _] = mean.five;
                        let value = json!({
                            "mean": mean.value, "interval": mean.interval, "defined": mean.defined,
                            "median": median, "quartiles": [first, third],
                        });
                        ((*name).to_owned(), value)
                    })
                    .collect();
                let agreement = self.agreement(label);
                json!({
                    "class": name, "label": label, "quantities": quantities,
                    "volume_difference_ml": {
                        "bias": agreement.bias, "limits_of_agreement": agreement.limits, "cases": agreement.cases,
                    },
                })
            })
            .collect();
        let (labels, counts) = self.confusion();
        let row = |truth: &u16| -> Vec<u64> {
            labels.iter().map(|predicted| counts.get(&(*truth, *predicted)).copied().unwrap_or(0)).collect()
        };
        let matrix: Vec<Vec<u64>> = labels.iter().map(row).collect();
        let failed: Vec<&str> = self.failed.iter().map(|(name, _)| name.as_str()).collect();
        let said = json!({
            "tolerance_mm": self.tolerance, "level": 0.95, "resamples": self.resamples, "seed": self.seed,
            "classes": classes, "cases": cases, "failed": failed,
            "confusion": {"labels": labels, "voxels_by_truth_and_prediction": matrix},
        });
        print_line!("{said}");
    }

    pub(super) fn print_table(&self) {
        let names: Vec<String> = self.names.iter().map(|name| plain(name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 40);
        print_line!("{:width$}  {:<14} {:>9}  95 % interval         cases", "class", "", "mean");
        for (name, means) in names.iter().zip(&self.means) {
            for ((quantity, _), mean) in QUANTITIES.iter().zip(means) {
                let [low, high] = mean.interval;
                let interval = format!("{low:.4} to {high:.4}");
                print_line!("{name:width$}  {quantity:<14} {:>9.4}  {interval:<20} {:>6}", mean.value, mean.defined);
            }
        }
    }
}
