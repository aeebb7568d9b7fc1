//! Transforms of samples for preprocessing and augmentation.
//!
//! A transform acts on all fields of a sample together; [`Transform::effect`] gives its effect on each kind:
//!
//! | | image | label | boxes, points | class, labels, numbers |
//! |---|---|---|---|---|
//! | [`RandomAffine`] | linear | nearest | moved | kept |
//! | [`CropOrPad`], [`Flip`] | moved | moved | moved | kept |
//! | [`ZScore`], [`RandomNoise`], [`RandomBrightness`], [`RandomContrast`], [`RandomGamma`] | intensities | kept | kept | kept |
//!
//! Boxes become the bounding boxes of their moved corners, clipped to the grid; a box of which nothing remains is dropped
//! with its class. All points are kept, even outside the grid. Intensity transforms use the same random parameters for all
//! images of a sample; [`OnImages`] restricts one to some images.
//!
//! A transform draws from the random stream it is given. [`Compose`] derives that stream from the seed of the case and the
//! name of the transform, so that neither threads nor other transforms in the list change its random numbers.

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
pub use intensity::{RandomBrightness, RandomContrast, RandomGamma, RandomNoise, ZScore};
pub(crate) use intensity::{z_score, z_score_by};
pub use on_images::OnImages;

use crate::{Kind, Sample};

/// The effect of a transform on fields of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// None: equal bit for bit.
    Kept,
    /// Voxels are moved without interpolation; boxes and points move along.
    Moved,
    /// Voxels are moved with linear interpolation.
    Linear,
    /// Voxels are moved with nearest-neighbour interpolation.
    Nearest,
    /// Voxels change their values but not their positions.
    Intensities,
    /// As documented by the transform.
    Other,
}

/// The effect of spatial transforms.
fn spatial_effect(kind: Kind, image: Effect, label: Effect) -> Effect {
    match kind {
        Kind::Image => image,
        Kind::Label => label,
        Kind::Boxes | Kind::Points => Effect::Moved,
        _ => Effect::Kept,
    }
}

/// The key of a transform for which `Debug` prints all attributes.
fn debug_key(transform: &impl Debug) -> Option<String> {
    Some(format!("{transform:?}"))
}

/// A step of preprocessing or augmentation.
///
/// ```
/// use tomograd_core::{Random, Result};
/// use tomograd_pipeline::{Sample, transforms::{Compose, Transform}};
/// /// Renames cases.
/// struct Rename(&'static str);
/// impl Transform for Rename {
///     fn name(&self) -> &str {
///         "rename"
///     }
///     fn apply(&self, mut sample: Sample, _: &mut Random) -> Result<Sample> {
///         sample.name = format!("{}{}", self.0, sample.name);
///         Ok(sample)
///     }
/// }
/// let transforms = Compose::new().then(Rename("site1/"))?;
/// # assert_eq!(transforms.apply(Sample::empty("a"), tomograd_core::Seed::new(1))?.name, "site1/a");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Transform: Send + Sync {
    /// The name, which is a part of the key of its random numbers, and of its errors.
    fn name(&self) -> &str;

    /// Checks that its attributes are in range; called by [`Compose::then`].
    ///
    /// # Errors
    /// When one isn't.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The effect on fields of this kind.
    fn effect(&self, kind: Kind) -> Effect {
        _ = kind;
        Effect::Other
    }

    /// A text that changes whenever the results of the transform may change: its name and all its attributes. It is part of
    /// the key of a disk cache. `None`: results aren't cached on disk (see [`Cache::version`](crate::Cache::version)).
    fn key(&self) -> Option<String> {
        None
    }

    /// Applies the transform.
    ///
    /// # Errors
    /// When an attribute is out of range, or the sample doesn't fit.
    fn apply(&self, sample: Sample, random: &mut Random) -> Result<Sample>;
}

/// A sequence of transforms.
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
    /// An empty sequence, which returns samples unchanged.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `transform`.
    ///
    /// # Errors
    /// When an attribute is out of range.
    pub fn then(mut self, transform: impl Transform + 'static) -> Result<Self> {
        transform.check().map_err(|error| error.within(transform.name()))?;
        self.transforms.push(Arc::new(transform));
        Ok(self)
    }

    /// The keys of all transforms in order; `None` if one has none.
    pub(crate) fn key(&self) -> Option<Vec<String>> {
        self.transforms.iter().map(|transform| Some(format!("{}: {}", transform.name(), transform.key()?))).collect()
    }

    /// Applies all transforms. The stream of each depends on `seed`, its name, and the number of earlier transforms with that
    /// name.
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

/// The seed of a use with `before` earlier uses; the first use has `seed` itself.
pub(crate) fn nth_use(seed: Seed, before: usize) -> Seed {
    if before == 0 { seed } else { seed.at(before as u64) }
}

fn check_probability(probability: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&probability) {
        return Err(Error::argument("transform", format!("probability {probability}")).expected("0 to 1"));
    }
    Ok(())
}

/// Checks that the bounds of a range are in order, at least `least`, and representable in f32.
fn check_range(what: &str, (low, high): (f64, f64), least: f64) -> Result<()> {
    let most = f64::from(f32::MAX);
    if !(least.max(-most) <= low && low <= high && high <= most) {
        let least = if least.is_finite() { format!(" of at least {least:e}") } else { String::new() };
        return Err(Error::argument("transform", format!("{what} {:?}", (low, high)))
            .expected(format!("finite bounds (low, high) in f32's range{least}")));
    }
    Ok(())
}
