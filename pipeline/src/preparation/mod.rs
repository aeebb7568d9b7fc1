//! What prediction needs beside a network, as one value that travels with the weights.
//!
//! Training and prediction take it alike: [`Dataset::prepared`](crate::Dataset::prepared) reads images and labels by it,
//! `Checkpoint::preparation` (`tomograd-nn`) writes it into the file of the weights, and [`Segment::segment`] of a loaded model
//! reads it there. So a network sees in prediction what it was trained on: the same orientation, spacing and intensities, in
//! patches of the same size.

mod image;
mod intensity;
mod postprocess;
mod restore;
mod segment;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use tomograd_core::{Error, Result};
use tomograd_io::{Interpolation, geometry};

pub use self::{
    intensity::{Clip, Intensity, Normalisation},
    postprocess::Postprocess,
    segment::Segment,
};
use crate::{SlidingWindow, sample::MOST_CLASSES};

const OPERATION: &str = "preparation";
/// The version of the JSON that is written and read.
const VERSION: u64 = 1;
/// Spacings in millimetres; what is outside is a slip of a unit.
const SPACINGS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// How images become a network's input, and its logits become a mask.
///
/// The fields may be read and changed; every use checks them first. As JSON it has a version, and a key that isn't known is an
/// error.
///
/// ```
/// use tomograd_pipeline::Preparation;
/// let preparation = Preparation::new([40, 56, 40], ["background", "anterior", "posterior"])?
///     .orientation("RAS")?
///     .spacing([1.0; 3])?;
/// assert_eq!(Preparation::from_json(&preparation.to_json()?)?, preparation);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
#[non_exhaustive]
pub struct Preparation {
    version: u64,
    /// The channels of an image, in order; at least one.
    pub channels: Vec<Channel>,
    /// Where x, y and z of the network's images point, as three letters (`RAS`): images are turned and mirrored there. None:
    /// as each file has them.
    pub orientation: Option<String>,
    /// Millimetres between voxels of the network's images along x, y and z: images are resampled there. None: as each file has
    /// them. A spacing that differs by less than a thousandth isn't another one. A network of two axes takes x and y alone.
    pub spacing: Option<[f64; 3]>,
    /// How an image is resampled; labels take the nearest voxel, and logits are resampled linearly on the way back.
    #[serde(with = "InterpolationName")]
    pub interpolation: Interpolation,
    /// The voxels that the network takes at once, (D, H, W) or (H, W).
    pub patch: Vec<usize>,
    /// The least part, from 0 to below 1, that neighbouring patches share in prediction.
    pub overlap: f64,
    /// Whether each patch is predicted in all mirror images and the mean taken.
    pub mirroring: bool,
    /// The classes: number 0 is the background.
    pub classes: Vec<Class>,
    /// What the network's logits say.
    pub activation: Activation,
    /// What is done to the mask, in order.
    pub postprocessing: Vec<Postprocess>,
}

/// A channel of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name: `t1`, `flair`.
    pub name: String,
    /// What it was taken with: `MR`, `CT`; empty if nobody said.
    pub modality: String,
    /// What is done to its values.
    pub intensity: Intensity,
}

impl Channel {
    /// A channel whose values become of mean 0 and standard deviation 1, over all voxels of each image.
    pub fn new(name: impl Into<String>, modality: impl Into<String>) -> Self {
        let normalisation = Some(Normalisation::ZScore { nonzero: false });
        Self { name: name.into(), modality: modality.into(), intensity: Intensity { clip: None, normalisation } }
    }

    /// With other changes of its values.
    #[must_use]
    pub fn intensity(self, intensity: Intensity) -> Self {
        Self { intensity, ..self }
    }
}

/// A class of a segmentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// The value of its voxels in files of labels and masks.
    pub value: u16,
}

/// What the logits of a network say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// One map for each class, of which the greatest wins; of equal ones the first.
    Softmax,
    /// One map for each class but the background, each for itself: a class may be there where its logit is positive (its
    /// sigmoid above 0.5). Where several are, the one with the greatest logit is taken; where none is, it is background.
    Sigmoid,
}

/// The names of [`Interpolation`] in JSON.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Interpolation", rename_all = "snake_case")]
enum InterpolationName {
    Nearest,
    Linear,
}

impl Preparation {
    /// For a network of patches of this size, (D, H, W) or (H, W), and classes of these names, the background first, whose
    /// values in files are 0, 1, 2, ...
    ///
    /// All else begins with: one channel of z-scores over all voxels, orientation and spacing as each file has them, patches
    /// that overlap by half, no mirroring, softmax, no post-processing.
    ///
    /// # Errors
    /// When the patch hasn't 2 or 3 axes or one of 0 voxels, there aren't 2 to 256 classes, or two have one name.
    pub fn new(patch: impl Into<Vec<usize>>, classes: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        // More values than there are classes, so that too many are refused below.
        let classes = (0..=u16::MAX).zip(classes).map(|(value, name)| Class { name: name.into(), value }).collect();
        Self {
            version: VERSION,
            channels: vec![Channel::new("image", "")],
            orientation: None,
            spacing: None,
            interpolation: Interpolation::Linear,
            patch: patch.into(),
            overlap: 0.5,
            mirroring: false,
            classes,
            activation: Activation::Softmax,
            postprocessing: Vec::new(),
        }
        .checked()
    }

    /// With these channels.
    ///
    /// # Errors
    /// When there is none, two have one name, or a number of an intensity is out of its range.
    pub fn channels(self, channels: impl Into<Vec<Channel>>) -> Result<Self> {
        Self { channels: channels.into(), ..self }.checked()
    }

    /// With these values of the classes in files of labels and masks, one a class, the background's first.
    ///
    /// # Errors
    /// When there isn't one a class, or two are equal.
    pub fn label_values(mut self, values: &[u16]) -> Result<Self> {
        if values.len() != self.classes.len() {
            return Err(Error::argument(OPERATION, format!("{} label values", values.len()))
                .expected(format!("{}, one a class", self.classes.len())));
        }
        self.classes.iter_mut().zip(values).for_each(|(class, &value)| class.value = value);
        self.checked()
    }

    /// With images turned and mirrored so that x, y and z point as three letters say: `RAS`, `LPS`.
    ///
    /// # Errors
    /// When `codes` isn't one each of R/L, A/P and S/I.
    pub fn orientation(self, codes: &str) -> Result<Self> {
        Self { orientation: Some(codes.to_ascii_uppercase()), ..self }.checked()
    }

    /// With images resampled to this spacing: millimetres along x, y and z, after the axes were turned.
    ///
    /// # Errors
    /// When a number isn't in 1e-6 to 1e6.
    pub fn spacing(self, spacing: [f64; 3]) -> Result<Self> {
        Self { spacing: Some(spacing), ..self }.checked()
    }

    /// With another interpolation of images than the linear one.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> Self {
        Self { interpolation, ..self }
    }

    /// With patches that overlap by this part in prediction, 0 to below 1.
    ///
    /// # Errors
    /// When it is out of its range.
    pub fn overlap(self, overlap: f64) -> Result<Self> {
        Self { overlap, ..self }.checked()
    }

    /// With the mean over all mirror images of each patch, or without.
    #[must_use]
    pub fn mirroring(self, mirroring: bool) -> Self {
        Self { mirroring, ..self }
    }

    /// With another meaning of the logits than softmax.
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// With these changes of the mask, in order.
    ///
    /// # Errors
    /// When one is of a class that isn't there, or of the background.
    pub fn postprocessing(self, postprocessing: impl Into<Vec<Postprocess>>) -> Result<Self> {
        Self { postprocessing: postprocessing.into(), ..self }.checked()
    }

    /// That every field is in its range.
    ///
    /// # Errors
    /// When one isn't; the error says which, and what it may be.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String, expected: &str| Err(Error::argument(OPERATION, what).expected(expected));
        if self.version != VERSION {
            return Err(unknown_version(&self.version.to_string()));
        }
        if !(2..=3).contains(&self.patch.len()) {
            return fail(format!("a patch of {} axes", self.patch.len()), "(D, H, W) or (H, W)");
        }
        self.window()?;
        if !(2..=MOST_CLASSES).contains(&self.classes.len()) {
            return fail(format!("{} classes", self.classes.len()), "2 to 256, with the background");
        }
        if let Some(class) = twice(self.classes.iter().map(|class| &class.name)) {
            return fail(format!("two classes are called {class:?}"), "different names");
        }
        if let Some(value) = twice(self.classes.iter().map(|class| class.value)) {
            return fail(format!("two classes have the value {value} in files"), "different values");
        }
        if self.channels.is_empty() {
            return fail("no channels".to_owned(), "at least one");
        }
        if let Some(name) = twice(self.channels.iter().map(|channel| &channel.name)) {
            return fail(format!("two channels are called {name:?}"), "different names");
        }
        for channel in &self.channels {
            channel.intensity.check().map_err(|error| error.within(format!("channel {}", channel.name)))?;
        }
        if let Some(codes) = &self.orientation {
            geometry::from_orientation(codes).map_err(|error| error.within(OPERATION))?;
        }
        if let Some(spacing) = self.spacing.filter(|spacing| !spacing.iter().all(|step| SPACINGS.contains(step))) {
            return fail(format!("a spacing of {spacing:?}"), "millimetres along x, y and z, each in 1e-6 to 1e6");
        }
        for step in &self.postprocessing {
            step.check(self.classes.len())?;
        }
        Ok(())
    }

    fn checked(self) -> Result<Self> {
        self.check()?;
        Ok(self)
    }

    /// The windows that prediction lays over a prepared image.
    ///
    /// # Errors
    /// When patch or overlap are out of their range.
    pub fn window(&self) -> Result<SlidingWindow> {
        Ok(SlidingWindow::new(self.patch.clone())?.overlap(self.overlap)?.mirroring(self.mirroring))
    }

    /// How many maps of logits the network gives: one for each class, or one less with [`Activation::Sigmoid`].
    pub fn maps(&self) -> usize {
        self.classes.len().saturating_sub(usize::from(self.activation == Activation::Sigmoid))
    }

    /// The names of the classes behind the background, as [`Report::new`](crate::Report::new) takes them.
    pub fn foreground(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().skip(1).map(|class| class.name.as_str())
    }

    /// The JSON that [`Preparation::from_json`] reads, to the bit.
    ///
    /// # Errors
    /// When a field is out of its range.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        serde_json::to_string(self).map_err(|error| Error::argument(OPERATION, "it has no JSON").source(error))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When it is of another version, has a key that isn't known, lacks one, or a value is out of its range.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| Error::format(OPERATION, error.to_string()))
    }
}

fn unknown_version(version: &str) -> Error {
    Error::format(OPERATION, format!("version {version}"))
        .expected(format!("version {VERSION} (a newer program reads newer ones)"))
}

/// The first that comes again.
fn twice<T: PartialEq>(all: impl Iterator<Item = T> + Clone) -> Option<T> {
    all.clone().enumerate().find(|(at, one)| all.clone().take(*at).any(|other| other == *one)).map(|(_, one)| one)
}

impl Serialize for Preparation {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// The version is looked at before all else, and everything is checked.
impl<'de> Deserialize<'de> for Preparation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.get("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(version) => return Err(D::Error::custom(unknown_version(&version.to_string()))),
            None => return Err(D::Error::custom(unknown_version("none"))),
        }
        Self::deserialize(value).map_err(D::Error::custom)?.checked().map_err(D::Error::custom)
    }
}
