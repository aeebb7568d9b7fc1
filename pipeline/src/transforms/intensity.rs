//! Intensity transforms of all images of a sample; other fields are kept. [`OnImages`](super::OnImages) restricts them to
//! some images.

use tomograd_core::{Error, Random, Result};

use super::{Effect, Transform, check_probability, check_range, debug_key};
use crate::{Kind, Sample, sample::check_finite};

/// Calls `change` with the voxels of each channel of each image.
fn each_channel(sample: &mut Sample, mut change: impl FnMut(&mut [f32])) -> Result<()> {
    let voxels = sample.dims("intensity")?.0.iter().product();
    for image in sample.images_mut() {
        image.as_mut_slice::<f32>()?.chunks_exact_mut(voxels).for_each(&mut change);
    }
    Ok(())
}

/// Checks that all voxels of all images are finite.
fn check_images(operation: &str, sample: &Sample) -> Result<()> {
    let images: Vec<_> = sample.fields().filter(|(_, field)| field.kind() == Kind::Image).collect();
    images.iter().try_for_each(|(name, field)| {
        let checked = check_finite(operation, field.tensor()?);
        if images.len() > 1 { checked.map_err(|error| error.within(*name)) } else { checked }
    })
}

/// The effect of intensity transforms: only images change.
fn intensity_effect(kind: Kind) -> Effect {
    if kind == Kind::Image { Effect::Intensities } else { Effect::Kept }
}

/// Mean and standard deviation (of the population), computed in f64 in two passes.
fn moments(values: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Minimum and maximum.
fn extremes(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Normalises each channel to mean 0 and standard deviation 1. A constant channel becomes 0. Outliers stay: `Precision::Fast`
/// in `tomograd-kernels` documents their effect on convolutions.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, ZScore}};
/// let image = Tensor::from_slice(&[0.0f32, 0.0, 1.0, 3.0], &[1, 2, 2], Device::Cpu)?;
/// let normalise = Compose::new().then(ZScore { nonzero: true })?;
/// let sample = normalise.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert_eq!(sample.image()?.to_vec::<f32>()?, [0.0, 0.0, -1.0, 1.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ZScore {
    /// Whether only nonzero voxels count and change, for images whose background was set to 0.
    pub nonzero: bool,
}

impl Transform for ZScore {
    fn name(&self) -> &str {
        "z_score"
    }

    fn effect(&self, kind: Kind) -> Effect {
        intensity_effect(kind)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, _: &mut Random) -> Result<Sample> {
        check_images("z_score", &sample)?;
        each_channel(&mut sample, |voxels| z_score(voxels, self.nonzero))?;
        Ok(sample)
    }
}

/// Normalises one channel, or only its nonzero voxels, to mean 0 and standard deviation 1.
pub(crate) fn z_score(voxels: &mut [f32], nonzero: bool) {
    let counts = |value: &f32| !nonzero || *value != 0.0;
    let (mean, deviation) = moments(voxels.iter().copied().filter(counts));
    z_score_by(voxels, nonzero, mean, deviation);
}

/// As [`z_score`], with the moments of the channel of which these are a part.
pub(crate) fn z_score_by(voxels: &mut [f32], nonzero: bool, mean: f64, deviation: f64) {
    let counts = |value: &f32| !nonzero || *value != 0.0;
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
    for value in voxels.iter_mut().filter(|value| counts(value)) {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

/// Adds Gaussian noise.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, RandomNoise}};
/// let noise = Compose::new().then(RandomNoise { probability: 1.0, deviation: (0.1, 0.1) })?;
/// let image = Tensor::zeros(&[1, 8, 8], DType::F32, Device::Cpu)?;
/// let sample = noise.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert!(sample.image()?.to_vec::<f32>()?.iter().all(|v| *v != 0.0 && v.abs() < 1.0));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RandomNoise {
    /// The probability of application.
    pub probability: f64,
    /// The range of the standard deviation, in the units of the image.
    pub deviation: (f64, f64),
}

impl Default for RandomNoise {
    fn default() -> Self {
        Self { probability: 0.1, deviation: (0.0, 0.1) }
    }
}

impl Transform for RandomNoise {
    fn name(&self) -> &str {
        "noise"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.probability)?;
        check_range("deviation", self.deviation, 0.0)
    }

    fn effect(&self, kind: Kind) -> Effect {
        intensity_effect(kind)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if random.bernoulli(self.probability) {
            let deviation = random.uniform_in(self.deviation.0, self.deviation.1);
            each_channel(&mut sample, |voxels| {
                voxels.iter_mut().for_each(|value| *value += (deviation * random.normal()) as f32);
            })?;
        }
        Ok(sample)
    }
}

/// Multiplies the intensities by a factor.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, RandomBrightness}};
/// let brighter = Compose::new().then(RandomBrightness { probability: 1.0, factor: (2.0, 2.0) })?;
/// let image = Tensor::ones(&[1, 2, 2], DType::F32, Device::Cpu)?;
/// let sample = brighter.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert_eq!(sample.image()?.to_vec::<f32>()?, [2.0; 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RandomBrightness {
    /// The probability of application.
    pub probability: f64,
    /// The range of the factor.
    pub factor: (f64, f64),
}

impl Default for RandomBrightness {
    fn default() -> Self {
        Self { probability: 0.15, factor: (0.75, 1.25) }
    }
}

impl Transform for RandomBrightness {
    fn name(&self) -> &str {
        "brightness"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.probability)?;
        check_range("factor", self.factor, f64::NEG_INFINITY)
    }

    fn effect(&self, kind: Kind) -> Effect {
        intensity_effect(kind)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if random.bernoulli(self.probability) {
            let factor = random.uniform_in(self.factor.0, self.factor.1) as f32;
            each_channel(&mut sample, |voxels| voxels.iter_mut().for_each(|value| *value *= factor))?;
        }
        Ok(sample)
    }
}

/// Scales the intensities of each channel about their mean, clipped to the original minimum and maximum.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, RandomContrast}};
/// let contrast = Compose::new().then(RandomContrast { probability: 1.0, factor: (0.5, 0.5) })?;
/// let image = Tensor::from_slice(&[0.0f32, 0.0, 2.0, 2.0], &[1, 2, 2], Device::Cpu)?;
/// let sample = contrast.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert_eq!(sample.image()?.to_vec::<f32>()?, [0.5, 0.5, 1.5, 1.5]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RandomContrast {
    /// The probability of application.
    pub probability: f64,
    /// The range of the factor.
    pub factor: (f64, f64),
}

impl Default for RandomContrast {
    fn default() -> Self {
        Self { probability: 0.15, factor: (0.75, 1.25) }
    }
}

impl Transform for RandomContrast {
    fn name(&self) -> &str {
        "contrast"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.probability)?;
        check_range("factor", self.factor, f64::NEG_INFINITY)
    }

    fn effect(&self, kind: Kind) -> Effect {
        intensity_effect(kind)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if random.bernoulli(self.probability) {
            check_images("contrast", &sample)?;
            let factor = random.uniform_in(self.factor.0, self.factor.1);
            each_channel(&mut sample, |voxels| {
                let mean = moments(voxels.iter().copied()).0;
                let (low, high) = extremes(voxels);
                for value in voxels {
                    *value = (((f64::from(*value) - mean) * factor + mean) as f32).clamp(low, high);
                }
            })?;
        }
        Ok(sample)
    }
}

/// Gamma transform: scales the intensities of each channel to 0 to 1 by minimum and maximum, raises them to a power, and
/// scales back.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, RandomGamma}};
/// let gamma = Compose::new().then(RandomGamma { probability: 1.0, exponent: (2.0, 2.0), keep_moments: false })?;
/// let image = Tensor::from_slice(&[0.0f32, 0.5, 1.0], &[1, 1, 3], Device::Cpu)?;
/// let sample = gamma.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert_eq!(sample.image()?.to_vec::<f32>()?, [0.0, 0.25, 1.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RandomGamma {
    /// The probability of application.
    pub probability: f64,
    /// The range of the exponent.
    pub exponent: (f64, f64),
    /// Whether mean and standard deviation are restored afterwards.
    pub keep_moments: bool,
}

impl Default for RandomGamma {
    fn default() -> Self {
        Self { probability: 0.3, exponent: (0.7, 1.5), keep_moments: true }
    }
}

impl Transform for RandomGamma {
    fn name(&self) -> &str {
        "gamma"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.probability)?;
        // 0 to a power of 0 or less is 1 or infinite.
        check_range("exponent", self.exponent, f64::from(f32::MIN_POSITIVE))
    }

    fn effect(&self, kind: Kind) -> Effect {
        intensity_effect(kind)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if random.bernoulli(self.probability) {
            check_images("gamma", &sample)?;
            let exponent = random.uniform_in(self.exponent.0, self.exponent.1) as f32;
            let mut overflow = false;
            each_channel(&mut sample, |voxels| {
                let (low, high) = extremes(voxels);
                let range = high - low;
                overflow |= range.is_infinite();
                if range.is_infinite() || range <= 0.0 {
                    return;
                }
                let before = moments(voxels.iter().copied());
                voxels.iter_mut().for_each(|v| *v = ((*v - low) / range).powf(exponent) * range + low);
                if self.keep_moments {
                    let after = moments(voxels.iter().copied());
                    let scale = before.1 / after.1.max(f64::MIN_POSITIVE);
                    voxels.iter_mut().for_each(|v| *v = ((f64::from(*v) - after.0) * scale + before.0) as f32);
                }
            })?;
            if overflow {
                return Err(Error::argument("gamma", "a difference of two intensities exceeds f32's range")
                    .expected("intensities within 1e38"));
            }
        }
        Ok(sample)
    }
}
