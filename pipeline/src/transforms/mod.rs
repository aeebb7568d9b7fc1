//! What is done to a case before it becomes part of a batch.
//!
//! A transform acts on all fields of a sample together; [`Transform::effect`] says what it does to each kind:
//!
//! | | image | label | boxes, points | class, labels, numbers |
//! |---|---|---|---|---|
//! | [`RandomAffine`] | linear | nearest | moved | kept |
//! | [`CropOrPad`], [`Flip`] | moved | moved | moved | kept |
//! | [`ZScore`], [`RandomNoise`], [`RandomBrightness`], [`RandomContrast`], [`RandomGamma`] | intensities | kept | kept | kept |
//!
//! Boxes become the bounding boxes of their moved corners, clipped to the grid, and are dropped with their class when nothing
//! is left of them; points all stay, wherever they come to lie. Changes of intensities draw the same parameters for all images
//! of a sample; [`OnImages`] has one act on chosen images only.
//!
//! A transform takes its random numbers from the stream it is given, and [`Compose`] keys that stream by the seed of the case
//! and the name of the transform: neither threads nor a transform added elsewhere in the list shift anybody's numbers.

mod affine;
mod crop;
mod flip;
mod intensity;
mod on_images;
mod spatial;

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, sync::Arc};

use tomograd_core::{Error, Random, Result, Seed};

pub use affine::RandomAffine;
pub use crop::CropOrPad;
pub use flip::Flip;
pub(crate) use intensity::z_score;
pub use intensity::{RandomBrightness, RandomContrast, RandomGamma, RandomNoise, ZScore};
pub use on_images::OnImages;

use crate::{Kind, Sample};

/// What a transform does to the fields of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing: they stay to the bit.
    Kept,
    /// Voxels are moved as they are; boxes and points move with them.
    Moved,
    /// Voxels are moved, with linear interpolation between them.
    Linear,
    /// Voxels are moved, and each takes the value of the nearest.
    Nearest,
    /// Voxels stay where they are, with other values.
    Intensities,
    /// What its documentation says.
    Other,
}

/// What spatial transforms do.
fn spatial_effect(kind: Kind, image: Effect, label: Effect) -> Effect {
    match kind {
        Kind::Image => image,
        Kind::Label => label,
        Kind::Boxes | Kind::Points => Effect::Moved,
        _ => Effect::Kept,
    }
}

/// The key of a transform whose attributes are all in what `Debug` writes.
fn debug_key(transform: &impl Debug) -> Option<String> {
    Some(format!("{transform:?}"))
}

/// One step of preparation or augmentation.
pub trait Transform: Send + Sync {
    /// Its name: part of the key of its random numbers, and of its errors.
    fn name(&self) -> &str;

    /// That its attributes are in their ranges; [`Compose::then`] asks before any sample comes.
    ///
    /// # Errors
    /// When one isn't.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What it does to fields of this kind when it acts.
    fn effect(&self, kind: Kind) -> Effect {
        _ = kind;
        Effect::Other
    }

    /// A text that changes whenever the results of the transform do: its name and all its attributes. A cache on disk keeps
    /// cases under it. None: what it makes isn't kept on disk (see [`Cache::version`](crate::Cache::version)).
    fn key(&self) -> Option<String> {
        None
    }

    /// The sample transformed.
    ///
    /// # Errors
    /// When an attribute is out of its range or the sample doesn't fit.
    fn apply(&self, sample: Sample, random: &mut Random) -> Result<Sample>;
}

/// Transforms one after the other.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, CropOrPad, Flip, ZScore}};
/// let prepare = Compose::new().then(ZScore::default())?.then(CropOrPad::random([16, 16, 16]))?.then(Flip::default())?;
/// let image = Tensor::uniform(&[1, 20, 20, 12], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let sample = prepare.apply(Sample::new("case", &image, None)?, Seed::new(2))?;
/// assert_eq!(sample.image()?.shape(), [1, 16, 16, 16]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Compose {
    transforms: Vec<Arc<dyn Transform>>,
}

impl Compose {
    /// No transform yet: samples pass unchanged.
    pub fn new() -> Self {
        Self::default()
    }

    /// With `transform` at the end.
    ///
    /// # Errors
    /// When an attribute of it is out of its range.
    pub fn then(mut self, transform: impl Transform + 'static) -> Result<Self> {
        transform.check().map_err(|error| error.within(transform.name()))?;
        self.transforms.push(Arc::new(transform));
        Ok(self)
    }

    /// The keys of all of them in their order; none when one has none.
    pub(crate) fn key(&self) -> Option<Vec<String>> {
        self.transforms.iter().map(|transform| Some(format!("{}: {}", transform.name(), transform.key()?))).collect()
    }

    /// Applies all of them. A transform's stream is `seed`, its name, and how often that name came before in the list.
    ///
    /// # Errors
    /// That of the first transform that fails, with its name and that of the case.
    pub fn apply(&self, mut sample: Sample, seed: Seed) -> Result<Sample> {
        for (index, transform) in self.transforms.iter().enumerate() {
            let before = self.transforms[..index].iter().filter(|t| t.name() == transform.name()).count();
            let mut random = seed.named(transform.name()).at(before as u64).random();
            let case = sample.name.clone();
            sample = transform
                .apply(sample, &mut random)
                .map_err(|error| error.within(transform.name()).within(format!("case {case}")))?;
        }
        Ok(sample)
    }
}

/// The seed of something that came `before` times already: the first use has the seed itself.
pub(crate) fn nth_use(seed: Seed, before: usize) -> Seed {
    if before == 0 { seed } else { seed.at(before as u64) }
}

fn check_probability(probability: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&probability) {
        return Err(Error::argument("transform", format!("probability {probability}")).expected("0 to 1"));
    }
    Ok(())
}

/// That the bounds of a range are in order, at least `least`, and numbers that an image can hold.
fn check_range(what: &str, (low, high): (f64, f64), least: f64) -> Result<()> {
    let most = f64::from(f32::MAX);
    if !(least.max(-most) <= low && low <= high && high <= most) {
        let least = if least.is_finite() { format!(" of at least {least:e}") } else { String::new() };
        return Err(Error::argument("transform", format!("{what} {:?}", (low, high)))
            .expected(format!("finite bounds (low, high) in f32's range{least}")));
    }
    Ok(())
}
