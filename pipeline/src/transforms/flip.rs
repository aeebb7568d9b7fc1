//! Random mirroring.

use tomograd_core::{Error, Random, Result};

use super::{Effect, Transform, check_probability, debug_key, spatial::Map, spatial_effect};
use crate::{Field, Kind, Sample, grid};

/// Mirrors all fields on the grid along each spatial axis, with a separate probability for each.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, Flip}};
/// let image = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[1, 2, 2], Device::Cpu)?;
/// let flip = Compose::new().then(Flip::new([0.0, 1.0]))?; // never along H, always along W
/// let sample = flip.apply(Sample::new("case", &image, None)?, Seed::new(1))?;
/// assert_eq!(sample.image()?.to_vec::<f32>()?, [2.0, 1.0, 4.0, 3.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Flip {
    probabilities: Option<Vec<f64>>,
}

impl Flip {
    /// One probability per spatial axis, in the order of the shape.
    pub fn new(probabilities: impl Into<Vec<f64>>) -> Self {
        Self { probabilities: Some(probabilities.into()) }
    }
}

/// Probability 0.5 for every axis.
impl Default for Flip {
    fn default() -> Self {
        Self { probabilities: None }
    }
}

impl Transform for Flip {
    fn name(&self) -> &str {
        "flip"
    }

    fn check(&self) -> Result<()> {
        let Some(probabilities) = &self.probabilities else { return Ok(()) };
        if !(1..=3).contains(&probabilities.len()) {
            return Err(Error::argument("flip", format!("{} probabilities", probabilities.len()))
                .expected("one for each of 1 to 3 spatial axes"));
        }
        probabilities.iter().try_for_each(|&probability| check_probability(probability))
    }

    fn effect(&self, kind: Kind) -> Effect {
        spatial_effect(kind, Effect::Moved, Effect::Moved)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        let (shape, rank) = sample.dims("flip")?;
        let probabilities = self.probabilities.clone().unwrap_or_else(|| vec![0.5; rank]);
        if probabilities.len() != rank {
            return Err(Error::argument("flip", format!("{} probabilities", probabilities.len()))
                .expected(format!("one for each of the {rank} spatial axes")));
        }
        let mut map = Map::window([0; 3]);
        for (axis, probability) in (3 - rank..3).zip(probabilities) {
            if random.bernoulli(probability) {
                (map.matrix[axis][axis], map.offset[axis]) = (-1.0, shape[axis] as f64 - 1.0);
                for (_, field) in sample.fields_mut() {
                    match field {
                        Field::Image(image) => grid::flip(image.as_mut_slice::<f32>()?, shape, axis),
                        Field::Label(label) => grid::flip(label.as_mut_slice::<u8>()?, shape, axis),
                        _ => {}
                    }
                }
            }
        }
        map.move_shapes(&mut sample, shape)?;
        Ok(sample)
    }
}
