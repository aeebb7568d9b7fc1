//! Options of `tomograd predict` that override or replace the checkpoint's preparation.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tomograd::{
    pipeline::preparation::{Activation, Channel, Intensity, Normalisation},
    prelude::*,
};

use crate::Failure;

/// Overrides of the checkpoint's preparation; each option that overrides something prints a line.
#[derive(Args)]
pub(crate) struct Overrides {
    /// Patch size of the network along z, y and x (for a 2D network: y and x)
    #[arg(long, value_name = "D,H,W", value_delimiter = ',')]
    patch: Option<Vec<usize>>,
    /// Minimum overlap of neighbouring patches, a fraction from 0 to less than 1
    #[arg(long, value_name = "PART")]
    overlap: Option<f64>,
    /// Whether to average over all mirror images of each patch
    #[arg(long, value_name = "BOOL")]
    mirroring: Option<bool>,
    /// Orientation code of the network's images
    #[arg(long, value_name = "RAS")]
    orientation: Option<String>,
    /// Voxel spacing of the network's images in millimetres
    #[arg(long, value_name = "X,Y,Z", value_delimiter = ',')]
    spacing: Option<Vec<f64>>,
    /// Normalisation of the intensities of every channel
    #[arg(long)]
    normalise: Option<Normalise>,
    /// Values of the classes in the mask, the background first
    #[arg(long, value_name = "VALUE,VALUE,...", value_delimiter = ',')]
    classes: Option<Vec<u16>>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Normalise {
    /// Mean 0 and standard deviation 1 over all voxels of an image
    ZScore,
    /// As z-score, over nonzero voxels only
    ZScoreNonzero,
    /// No normalisation
    None,
}

impl Overrides {
    /// The model with the preparation to use.
    ///
    /// # Errors
    /// When the checkpoint has none and the options don't suffice, or the value of an option is out of range.
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

    /// A preparation made from the options, for a checkpoint without one; `config` is the network's configuration.
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
        // With one map fewer than classes, the maps are independent: the background has none.
        let independent = number("classes") + 1 == values.len() as u64;
        let activation = if independent { Activation::Sigmoid } else { Activation::Softmax };
        self.change(preparation.activation(activation), |_, _, _| {})
    }

    /// Applies the options to the checkpoint's preparation, and prints what they replace.
    fn replace(&self, preparation: Preparation) -> Result<Preparation> {
        self.change(preparation, |option, new, old| {
            eprintln!("tomograd: --{option} {new} replaces {old} of the checkpoint");
        })
    }

    /// Applies the options; calls `say` for each with its name, its value, and the previous value.
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

/// Numbers in the syntax of the command line.
fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
