//! Preprocessing and postprocessing as plain data that is saved with the weights.
//!
//! Training and prediction share it: [`Dataset::prepared`](crate::Dataset::prepared) prepares images and labels by it,
//! `Checkpoint::preparation` (`tomograd-nn`) saves it with the weights, and [`Segment::segment`] of a loaded model uses it.
//! So prediction has the same orientation, spacing, intensities and patch size as training.

mod ensemble;
mod image;
mod intensity;
mod postprocess;
mod restore;
mod segment;
mod slabs;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use tomograd_core::{Error, Result};
use tomograd_io::{Interpolation, geometry};

pub use self::{
    ensemble::Ensemble,
    intensity::{Clip, Intensity, Normalisation},
    postprocess::Postprocess,
    segment::Segment,
};
use crate::{SlidingWindow, sample::MOST_CLASSES};

const OPERATION: &str = "preparation";
/// The version of the JSON format.
const VERSION: u64 = 1;
/// Valid spacings in millimetres; values outside suggest a wrong unit.
const SPACINGS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// How images become a network's input, and how its logits become a mask.
///
/// Fields may be read and changed; every use checks them first. The JSON form has a version, and an unknown key is an
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
    /// The channels of an image in order, at least one.
    pub channels: Vec<Channel>,
    /// The orientation code of the network's images, such as `RAS`, to which images are reoriented. `None`: the orientation
    /// of each file.
    pub orientation: Option<String>,
    /// The spacing of the network's images along x, y and z in millimetres, to which images are resampled. `None`: the
    /// spacing of each file. A relative difference of less than a thousandth is ignored. A 2D network uses x and y only.
    pub spacing: Option<[f64; 3]>,
    /// The interpolation of images; labels use nearest neighbour, and logits are resampled linearly to the original spacing.
    #[serde(with = "InterpolationName")]
    pub interpolation: Interpolation,
    /// The patch size of the network, (D, H, W) or (H, W).
    pub patch: Vec<usize>,
    /// The minimum overlap of neighbouring patches in prediction, as a fraction from 0 to less than 1.
    pub overlap: f64,
    /// Whether prediction averages over all mirror images of each patch (test-time augmentation).
    pub mirroring: bool,
    /// The classes, starting with the background.
    pub classes: Vec<Class>,
    /// The meaning of the network's logits.
    pub activation: Activation,
    /// Postprocessing steps of the mask, in order.
    pub postprocessing: Vec<Postprocess>,
}

/// A channel of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The name, such as `t1` or `flair`.
    pub name: String,
    /// The modality, such as `MR` or `CT`; empty if unknown.
    pub modality: String,
    /// The intensity preprocessing.
    pub intensity: Intensity,
}

impl Channel {
    /// A channel that is normalised to mean 0 and standard deviation 1 over all voxels of each image.
    pub fn new(name: impl Into<String>, modality: impl Into<String>) -> Self {
        let normalisation = Some(Normalisation::ZScore { nonzero: false });
        Self { name: name.into(), modality: modality.into(), intensity: Intensity { clip: None, normalisation } }
    }

    /// Sets the intensity preprocessing.
    #[must_use]
    pub fn intensity(self, intensity: Intensity) -> Self {
        Self { intensity, ..self }
    }
}

/// A class of a segmentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The name.
    pub name: String,
    /// The value of its voxels in label and mask files.
    pub value: u16,
}

/// The meaning of a network's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// One map per class; the class with the largest logit wins, and the first of equal ones.
    Softmax,
    /// One independent map per foreground class: a class is possible where its logit is positive (its sigmoid is above 0.5).
    /// Of several possible classes, the one with the largest logit wins; without any, the voxel is background.
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
    /// A preparation for a network with this patch size, (D, H, W) or (H, W), and these class names, the background first.
    /// The label values are 0, 1, 2, ...
    ///
    /// The defaults of the other fields are: one channel with z-scores over all voxels, orientation and spacing of each file,
    /// patches with half overlap, no mirroring, softmax, no postprocessing.
    ///
    /// # Errors
    /// When the patch doesn't have 2 or 3 axes or has an axis of size 0, there aren't 2 to 256 classes, or two have the same
    /// name.
    pub fn new(patch: impl Into<Vec<usize>>, classes: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        // There are more values than classes are allowed, so that an excess of classes is reported below.
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

    /// Sets the channels.
    ///
    /// # Errors
    /// When there are none, two have the same name, or a number of an intensity is out of range.
    pub fn channels(self, channels: impl Into<Vec<Channel>>) -> Result<Self> {
        Self { channels: channels.into(), ..self }.checked()
    }

    /// Sets the values of the classes in label and mask files, one per class, the background first.
    ///
    /// # Errors
    /// When there isn't one value per class, or two are equal.
    pub fn label_values(mut self, values: &[u16]) -> Result<Self> {
        if values.len() != self.classes.len() {
            return Err(Error::argument(OPERATION, format!("{} label values", values.len()))
                .expected(format!("{}, one a class", self.classes.len())));
        }
        self.classes.iter_mut().zip(values).for_each(|(class, &value)| class.value = value);
        self.checked()
    }

    /// Sets the orientation code to which images are reoriented, such as `RAS` or `LPS`.
    ///
    /// # Errors
    /// When `codes` isn't three letters, one each of R/L, A/P and S/I.
    pub fn orientation(self, codes: &str) -> Result<Self> {
        Self { orientation: Some(codes.to_ascii_uppercase()), ..self }.checked()
    }

    /// Sets the spacing to which images are resampled: millimetres along x, y and z of the reoriented image.
    ///
    /// # Errors
    /// When a number isn't from 1e-6 to 1e6.
    pub fn spacing(self, spacing: [f64; 3]) -> Result<Self> {
        Self { spacing: Some(spacing), ..self }.checked()
    }

    /// Sets the interpolation of images, by default linear.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> Self {
        Self { interpolation, ..self }
    }

    /// Sets the minimum overlap of neighbouring patches in prediction, a fraction from 0 to less than 1.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn overlap(self, overlap: f64) -> Result<Self> {
        Self { overlap, ..self }.checked()
    }

    /// Sets whether prediction averages over all mirror images of each patch.
    #[must_use]
    pub fn mirroring(self, mirroring: bool) -> Self {
        Self { mirroring, ..self }
    }

    /// Sets the meaning of the logits, by default softmax.
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets the postprocessing steps of the mask, in order.
    ///
    /// # Errors
    /// When a step is for an unknown class or the background.
    pub fn postprocessing(self, postprocessing: impl Into<Vec<Postprocess>>) -> Result<Self> {
        Self { postprocessing: postprocessing.into(), ..self }.checked()
    }

    /// Checks that all fields are in range.
    ///
    /// # Errors
    /// When one isn't; the error has its name and the valid range.
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

    /// The sliding window for prediction on a prepared image.
    ///
    /// # Errors
    /// When patch or overlap are out of range.
    pub fn window(&self) -> Result<SlidingWindow> {
        Ok(SlidingWindow::new(self.patch.clone())?.overlap(self.overlap)?.mirroring(self.mirroring))
    }

    /// The number of logit maps of the network: one per class, or one less with [`Activation::Sigmoid`].
    pub fn maps(&self) -> usize {
        self.classes.len().saturating_sub(usize::from(self.activation == Activation::Sigmoid))
    }

    /// The names of the foreground classes, as [`Report::new`](crate::Report::new) takes them.
    pub fn foreground(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().skip(1).map(|class| class.name.as_str())
    }

    /// The JSON form, which [`Preparation::from_json`] restores exactly.
    ///
    /// # Errors
    /// When a field is out of range.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        serde_json::to_string(self).map_err(|error| Error::argument(OPERATION, "it has no JSON").source(error))
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// When it has another version, an unknown key, a missing key, or a value that is out of range.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| Error::format(OPERATION, error.to_string()))
    }
}

fn unknown_version(version: &str) -> Error {
    Error::format(OPERATION, format!("version {version}"))
        .expected(format!("version {VERSION} (a newer program reads newer ones)"))
}

/// The first duplicate.
fn twice<T: PartialEq>(all: impl Iterator<Item = T> + Clone) -> Option<T> {
    all.clone().enumerate().find(|(at, one)| all.clone().take(*at).any(|other| other == *one)).map(|(_, one)| one)
}

impl Serialize for Preparation {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Checks the version first, and then everything else.
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
