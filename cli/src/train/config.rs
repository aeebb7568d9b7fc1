//! The configuration of a training, in JSON.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tomograd::{pipeline::Bids, prelude::*};

/// A configuration with every field.
pub(super) const EXAMPLE: &str = r#"{
  "data": {"layout": "msd", "folder": "Task04_Hippocampus"},
  "split": null,
  "preparation": {
    "patch": [40, 56, 40],
    "classes": null,
    "orientation": "RAS",
    "spacing": [1.0, 1.0, 1.0]
  },
  "network": {"network": "unet3d", "widths": [16, 32, 64, 128]},
  "training": {
    "epochs": 40,
    "batch": 2,
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "clip_norm": 12.0,
    "seed": 0,
    "validate_every": 4,
    "workers": 1,
    "augment": true,
    "mirror": [0.0, 0.0, 0.5]
  },
  "out": "hippocampus"
}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    data: Data,
    /// Lines `train NAME` and `validation NAME`; every fifth case validates unless given.
    pub(super) split: Option<PathBuf>,
    /// `patch`, `classes`, and any field of a preparation.
    preparation: Map<String, Value>,
    network: Map<String, Value>,
    pub(super) training: Training,
    pub(super) out: PathBuf,
}

/// Where the cases are.
#[derive(Deserialize)]
#[serde(tag = "layout", rename_all = "snake_case", deny_unknown_fields)]
enum Data {
    /// `images/` and `labels/` with files of the same names.
    Folders { folder: PathBuf },
    /// nnU-Net's `imagesTr/CASE_0000` and `labelsTr/`, or a file a channel with these suffixes.
    Channels {
        folder: PathBuf,
        #[serde(default)]
        suffixes: Vec<String>,
    },
    /// The Medical Segmentation Decathlon, with its `dataset.json`.
    Msd { folder: PathBuf },
    Bids {
        folder: PathBuf,
        suffixes: Vec<String>,
        #[serde(default = "anat")]
        datatype: String,
        #[serde(default)]
        entities: Map<String, Value>,
        labels: String,
        label_suffix: String,
        #[serde(default)]
        label_entities: Map<String, Value>,
        #[serde(default)]
        skip_incomplete: bool,
    },
    /// A folder a patient, and masks of their names in another folder.
    Dicom { folder: PathBuf, labels: PathBuf },
}

fn anat() -> String {
    "anat".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Training {
    pub(super) epochs: u64,
    pub(super) batch: usize,
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    pub(super) clip_norm: f64,
    pub(super) seed: u64,
    pub(super) validate_every: u64,
    pub(super) workers: usize,
    pub(super) augment: bool,
    /// The probability of a mirror image along each axis, in the order of the shape.
    pub(super) mirror: Option<Vec<f64>>,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 40,
            batch: 2,
            learning_rate: 3e-3,
            weight_decay: 1e-2,
            clip_norm: 12.0,
            seed: 0,
            validate_every: 4,
            workers: 1,
            augment: true,
            mirror: None,
        }
    }
}

const OPERATION: &str = "train";

impl Config {
    /// Reads a configuration. Paths become relative to its folder.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Error::io("read", path.display(), error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|error| error.within(path.display().to_string()))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self> {
        let mut config: Self = serde_json::from_str(text).map_err(|error| {
            Error::format(OPERATION, error.to_string())
                .expected("a configuration as `tomograd train --example` prints it")
        })?;
        let below = |path: &mut PathBuf| *path = folder.join(&*path);
        below(&mut config.out);
        config.split.as_mut().into_iter().for_each(below);
        match &mut config.data {
            Data::Folders { folder }
            | Data::Channels { folder, .. }
            | Data::Msd { folder }
            | Data::Bids { folder, .. } => {
                below(folder);
            }
            Data::Dicom { folder, labels } => [folder, labels].into_iter().for_each(below),
        }
        Ok(config)
    }

    /// The number of classes that the preparation names, if it does.
    fn named_classes(&self) -> Result<usize> {
        match self.preparation.get("classes").and_then(Value::as_array) {
            Some(classes) => Ok(classes.len()),
            None => Err(Error::argument(OPERATION, "no `classes` in `preparation`")
                .expected("the names of the classes, the background first; only `msd` says them itself")),
        }
    }

    /// The cases, not yet prepared.
    pub(super) fn dataset(&self) -> Result<Dataset> {
        match &self.data {
            Data::Folders { folder } => Dataset::open(folder, self.named_classes()?),
            Data::Channels { folder, suffixes } => {
                let suffixes: Vec<&str> = suffixes.iter().map(String::as_str).collect();
                Dataset::open_channels(folder, &suffixes, self.named_classes()?)
            }
            Data::Msd { folder } => Dataset::msd(folder),
            Data::Bids {
                folder,
                suffixes,
                datatype,
                entities,
                labels,
                label_suffix,
                label_entities,
                skip_incomplete,
            } => {
                let mut bids =
                    Bids::new(suffixes).datatype(datatype).label(labels, label_suffix, self.named_classes()?);
                for (key, value) in entities {
                    bids = bids.entity(key, text(key, value)?);
                }
                for (key, value) in label_entities {
                    bids = bids.label_entity(key, text(key, value)?);
                }
                Dataset::bids(folder, &if *skip_incomplete { bids.skip_incomplete() } else { bids })
            }
            Data::Dicom { folder, labels } => Dataset::dicom(folder, Some((labels, self.named_classes()?))),
        }
    }

    /// The preparation, with the classes of the data where the configuration doesn't name them, and as many channels as the
    /// first image has where it doesn't say them.
    pub(super) fn preparation(&self, cases: &Dataset) -> Result<Preparation> {
        let wrong = |what: &str, expected: &str| Error::argument(OPERATION, what.to_owned()).expected(expected);
        let sizes = |value: &Value| value.as_array()?.iter().map(|size| Some(size.as_u64()? as usize)).collect();
        let patch: Option<Vec<usize>> = self.preparation.get("patch").and_then(sizes);
        let patch = patch.ok_or_else(|| wrong("no `patch` in `preparation`", "[D, H, W], or [H, W]"))?;
        let named = |class: &Value| class.as_str().map(str::to_owned);
        let given =
            self.preparation.get("classes").and_then(Value::as_array).filter(|list| list.iter().all(Value::is_string));
        let classes: Vec<String> = match given {
            Some(list) => list.iter().filter_map(named).collect(),
            None => cases.class_names().to_vec(),
        };
        let mut base = Preparation::new(
            patch,
            if classes.is_empty() { vec!["background".into(), "class 1".into()] } else { classes },
        )?;
        if !self.preparation.contains_key("channels") {
            let channels = cases.sample(0)?.image()?.shape().first().copied().unwrap_or(1);
            let channel = |at: usize| tomograd::pipeline::preparation::Channel::new(format!("channel {at}"), "");
            base = base.channels((0..channels).map(channel).collect::<Vec<_>>())?;
        }
        // Whatever else is given replaces a field, and is checked as in a checkpoint.
        let json: Value = serde_json::from_str(&base.to_json()?).unwrap_or_default();
        let mut json = json.as_object().cloned().unwrap_or_default();
        for (key, value) in &self.preparation {
            let is_names = key == "classes" && (value.is_null() || given.is_some());
            if !is_names {
                json.insert(key.clone(), value.clone());
            }
        }
        Preparation::from_json(&Value::Object(json).to_string())
    }

    /// The configuration of the network, with the channels and classes of the preparation where it doesn't say them.
    pub(super) fn network(&self, preparation: &Preparation) -> Value {
        let mut network = self.network.clone();
        network.entry("in_channels").or_insert_with(|| json!(preparation.channels.len()));
        if !network.contains_key("out_channels") {
            network.entry("classes").or_insert_with(|| json!(preparation.maps()));
        }
        Value::Object(network)
    }
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str> {
    let what = || Error::argument(OPERATION, format!("{value} for the entity {key}"));
    value.as_str().ok_or_else(|| what().expected("a text, as in the names of files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let config = Config::parse(EXAMPLE, Path::new("a")).unwrap();
        assert_eq!((config.training.epochs, &*config.out), (40, Path::new("a/hippocampus")));
        for (from, to) in [("\"msd\"", "\"mds\""), ("\"epochs\"", "\"epoch\""), ("\"out\"", "\"uot\"")] {
            let error = Config::parse(&EXAMPLE.replace(from, to), Path::new("")).err().unwrap().to_string();
            assert!(error.contains(to.trim_matches('"')) && error.contains("--example"), "{error}");
        }
    }
}
