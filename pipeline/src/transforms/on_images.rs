//! Intensity transforms of selected images.

use tomograd_core::{Error, Random, Result};

use super::{Effect, Transform};
use crate::{Field, Kind, Sample, names};

/// An intensity transform that acts only on the images with these names.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Field, Sample, transforms::{Compose, OnImages, ZScore}};
/// let image = Tensor::arange(16, DType::F32, Device::Cpu)?.reshape(&[1, 4, 4])?;
/// let sample = Sample::empty("case").with("mr", Field::Image(image.clone()))?.with("ct", Field::Image(image.clone()))?;
/// let prepared = Compose::new().then(OnImages::new(["mr"], ZScore::default()))?.apply(sample, Seed::new(0))?;
/// assert_eq!(prepared.get("ct")?.tensor()?.to_vec::<f32>()?, image.to_vec::<f32>()?);
/// assert!(prepared.get("mr")?.tensor()?.to_vec::<f32>()?[0] < 0.0);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OnImages<T> {
    names: Vec<String>,
    transform: T,
}

impl<T: Transform> OnImages<T> {
    /// Applies `transform` to the images with these names.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>, transform: T) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), transform }
    }
}

/// The random numbers are the same as without the restriction.
impl<T: Transform> Transform for OnImages<T> {
    fn name(&self) -> &str {
        self.transform.name()
    }

    fn check(&self) -> Result<()> {
        let moves = |kind: &Kind| *kind != Kind::Image && self.transform.effect(*kind) != Effect::Kept;
        if self.names.is_empty() || Kind::ALL.iter().any(moves) {
            return Err(Error::argument("on_images", format!("{} on {} images", self.name(), self.names.len()))
                .expected(
                    "a change of intensities, and at least one name: what moves voxels moves all fields together",
                ));
        }
        self.transform.check()
    }

    fn effect(&self, kind: Kind) -> Effect {
        self.transform.effect(kind)
    }

    fn key(&self) -> Option<String> {
        Some(format!("{:?} {}", self.names, self.transform.key()?))
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        let is_image = |(_, field): &(&str, &Field)| field.kind() == Kind::Image;
        for name in &self.names {
            let images = || sample.fields().filter(is_image).map(|(name, _)| name);
            if !images().any(|image| image == name) {
                return Err(names::unknown("on_images", "image", name, images()));
            }
        }
        let (mut others, mut chosen) = (Vec::new(), Vec::new());
        for (place, (name, field)) in sample.take_fields().into_iter().enumerate() {
            let part = if self.names.contains(&name) { &mut chosen } else { &mut others };
            part.push((place, (name, field)));
        }
        let places: Vec<usize> = chosen.iter().map(|(place, _)| *place).collect();
        let chosen = sample.with_fields(chosen.into_iter().map(|(_, field)| field))?;
        sample = self.transform.apply(chosen, random)?;
        others.extend(places.into_iter().zip(sample.take_fields()));
        others.sort_by_key(|(place, _)| *place);
        sample.with_fields(others.into_iter().map(|(_, field)| field))
    }
}
