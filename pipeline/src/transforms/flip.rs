//! Mirror images.

use tomograd_core::{Error, Random, Result};

use super::{Transform, check_probability};
use crate::{Sample, grid};

/// Mirrors image and label along each spatial axis with a probability of its own.
#[derive(Clone, Debug)]
pub struct Flip {
    probabilities: Option<Vec<f64>>,
}

impl Flip {
    /// With one probability for each spatial axis, in the order of the shape.
    pub fn new(probabilities: impl Into<Vec<f64>>) -> Self {
        Self { probabilities: Some(probabilities.into()) }
    }
}

/// Every axis with probability 0.5.
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

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        let (_, shape) = sample.dims("flip")?;
        let rank = sample.image.rank() - 1;
        let probabilities = self.probabilities.clone().unwrap_or_else(|| vec![0.5; rank]);
        if probabilities.len() != rank {
            return Err(Error::argument("flip", format!("{} probabilities", probabilities.len()))
                .expected("one for each spatial axis")
                .shapes([sample.image.shape()]));
        }
        for (axis, probability) in (3 - rank..3).zip(probabilities) {
            if random.bernoulli(probability) {
                grid::flip(sample.image.as_mut_slice::<f32>()?, shape, axis);
                if let Some(label) = &mut sample.label {
                    grid::flip(label.as_mut_slice::<u8>()?, shape, axis);
                }
            }
        }
        Ok(sample)
    }
}
