//! Options of `tomograd predict` that replace what the checkpoint says of the preparation, or say it where the file doesn't.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tomograd::{
    pipeline::preparation::{Activation, Channel, Intensity, Normalisation},
    prelude::*,
};

use crate::Failure;

/// What is used in place of the checkpoint's preparation; each option that replaces something says so.
#[derive(Args)]
pub(crate) struct Overrides {
    /// Voxels that the network takes at once, along z, y and x (a network of two axes: y and x)
    #[arg(long, value_name = "D,H,W", value_delimiter = ',')]
    patch: Option<Vec<usize>>,
    /// The least part of a patch that neighbours share, 0 to below 1
    #[arg(long, value_name = "PART")]
    overlap: Option<f64>,
    /// Whether patches are predicted in all mirror images
    #[arg(long, value_name = "BOOL")]
    mirroring: Option<bool>,
    /// Where x, y and z of the network's images point
    #[arg(long, value_name = "RAS")]
    orientation: Option<String>,
    /// Millimetres between voxels of the network's images
    #[arg(long, value_name = "X,Y,Z", value_delimiter = ',')]
    spacing: Option<Vec<f64>>,
    /// How the intensities of every channel are normalised
    #[arg(long)]
    normalise: Option<Normalise>,
    /// The values of the classes in the mask, the background's first
    #[arg(long, value_name = "VALUE,VALUE,...", value_delimiter = ',')]
    classes: Option<Vec<u16>>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Normalise {
    /// Mean 0 and standard deviation 1 over all voxels of an image
    ZScore,
    /// The same over those other than 0
    ZScoreNonzero,
    /// As they are
    None,
}

impl Overrides {
    /// The model with the preparation that is to be used.
    ///
    /// # Errors
    /// When the checkpoint has none and the options don't say enough, or a value of an option is out of its range.
    pub fn apply(&self, model: Model, checkpoint: &Path) -> Result<Model, Failure> {
        let preparation = match model.preparation_json() {
            Some(_) => {
                let stored = model.preparation().map_err(|error| error.within(checkpoint.display().to_string()))?;
                self.replace(stored).map_err(Failure::CommandLine)?
            }
            None => self
                .instead(model.config())
                .map_err(|error| Failure::CommandLine(error.within(checkpoint.display().to_string())))?,
        };
        Ok(model.with_preparation(&preparation)?)
    }

    /// The preparation of a checkpoint of a network of this configuration that doesn't say it.
    fn instead(&self, config: &Value) -> Result<Preparation> {
        let (Some(patch), Some(values), Some(_)) = (&self.patch, &self.classes, self.normalise) else {
            return Err(Error::argument("predict", "the checkpoint doesn't say how images are prepared").expected(
                "--patch, --classes and --normalise as in its training (and --orientation and --spacing if images were turned \
                 or resampled)",
            ));
        };
        let number = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(1);
        let channels = (0..number("in_channels")).map(|channel| Channel::new(format!("channel {channel}"), ""));
        let names = (0..values.len()).map(|class| format!("class {class}"));
        let preparation = Preparation::new(patch.clone(), names)?.channels(channels.collect::<Vec<_>>())?;
        // One map less than classes: the background has none.
        let independent = number("classes") + 1 == values.len() as u64;
        let activation = if independent { Activation::Sigmoid } else { Activation::Softmax };
        self.change(preparation.activation(activation), |_, _, _| {})
    }

    /// The preparation of a checkpoint, some of it replaced, which is said.
    fn replace(&self, preparation: Preparation) -> Result<Preparation> {
        self.change(preparation, |option, new, old| {
            eprintln!("tomograd: --{option} {new} replaces {old} of the checkpoint");
        })
    }

    /// Calls `say` with each option that is given: its name, its value, and what the preparation had.
    fn change(&self, mut preparation: Preparation, say: impl Fn(&str, &str, &str)) -> Result<Preparation> {
        if let Some(patch) = &self.patch {
            say("patch", &list(patch), &list(&preparation.patch));
            preparation.patch = patch.clone();
        }
        if let Some(overlap) = self.overlap {
            say("overlap", &overlap.to_string(), &preparation.overlap.to_string());
            preparation.overlap = overlap;
        }
        if let Some(mirroring) = self.mirroring {
            say("mirroring", &mirroring.to_string(), &preparation.mirroring.to_string());
            preparation.mirroring = mirroring;
        }
        if let Some(orientation) = &self.orientation {
            let old = preparation.orientation.as_deref().unwrap_or("the file's own");
            say("orientation", orientation, old);
            preparation = preparation.orientation(orientation)?;
        }
        if let Some(spacing) = &self.spacing {
            let spacing = <[f64; 3]>::try_from(&spacing[..]).map_err(|_| {
                Error::argument("predict", format!("{} numbers for --spacing", spacing.len())).expected("x, y and z")
            })?;
            let old = preparation.spacing.map_or("the file's own".to_owned(), |spacing| list(&spacing));
            say("spacing", &list(&spacing), &old);
            preparation = preparation.spacing(spacing)?;
        }
        if let Some(normalise) = self.normalise {
            let normalisation = match normalise {
                Normalise::ZScore => Some(Normalisation::ZScore { nonzero: false }),
                Normalise::ZScoreNonzero => Some(Normalisation::ZScore { nonzero: true }),
                Normalise::None => None,
            };
            let intensity = Intensity { clip: None, normalisation };
            let value = normalise.to_possible_value();
            let name = value.as_ref().map_or("", |value| value.get_name());
            let old: Vec<_> = preparation.channels.iter().map(|channel| channel.intensity).collect();
            say("normalise", name, &serde_json::to_string(&old).unwrap_or_default());
            preparation.channels.iter_mut().for_each(|channel| channel.intensity = intensity);
        }
        if let Some(values) = &self.classes {
            let old: Vec<u16> = preparation.classes.iter().map(|class| class.value).collect();
            say("classes", &list(values), &list(&old));
            preparation = preparation.label_values(values)?;
        }
        preparation.check()?;
        Ok(preparation)
    }
}

/// Numbers as they are written on the command line.
fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
