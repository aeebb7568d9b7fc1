//! What is done to a case before it becomes part of a batch.
//!
//! A transform takes its random numbers from the stream it is given, and [`Compose`] keys that stream by the seed of the case
//! and the name of the transform: neither threads nor a transform added elsewhere in the list shift anybody's numbers.

mod affine;
mod crop;
mod flip;
mod intensity;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tomograd_core::{Error, Random, Result, Seed};

pub use affine::RandomAffine;
pub use crop::CropOrPad;
pub use flip::Flip;
pub use intensity::{RandomBrightness, RandomContrast, RandomGamma, RandomNoise, ZScore};

use crate::Sample;

/// One step of preparation or augmentation.
pub trait Transform: Send + Sync {
    /// Its name: part of the key of its random numbers, and of its errors.
    fn name(&self) -> &str;

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
/// let prepare = Compose::new().then(ZScore::default()).then(CropOrPad::random([16, 16, 16])).then(Flip::default());
/// let image = Tensor::uniform(&[1, 20, 20, 12], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let sample = prepare.apply(Sample::new("case", &image, None)?, Seed::new(2))?;
/// assert_eq!(sample.image.shape(), [1, 16, 16, 16]);
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
    #[must_use]
    pub fn then(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Arc::new(transform));
        self
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

/// Whether a transform of this probability acts now.
fn happens(probability: f64, random: &mut Random) -> Result<bool> {
    if !(0.0..=1.0).contains(&probability) {
        return Err(Error::argument("transform", format!("probability {probability}")).expected("0 to 1"));
    }
    Ok(random.bernoulli(probability))
}

/// A number from `range`, whose bounds must be finite and in order.
fn draw(what: &str, range: (f64, f64), random: &mut Random) -> Result<f64> {
    if !(range.0.is_finite() && range.1.is_finite() && range.0 <= range.1) {
        return Err(Error::argument("transform", format!("{what} {range:?}")).expected("finite bounds (low, high)"));
    }
    Ok(random.uniform_in(range.0, range.1))
}
