//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::{CumulativeSum, cpu, reference};
use crate::{testing, testing::Proven};

impl Proven for CumulativeSum {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::sum(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = match random.below(12) {
            0 => testing::corner(random, 1, 3, &[cpu::BLOCK]),
            // Several chunks of whole planes.
            1 => vec![2 + random.below(3) as usize, cpu::GRAIN / 2 + random.below(9) as usize],
            _ => testing::shape(random, 1, 4),
        };
        let axis = random.below(shape.len() as u64) as usize;
        Ok((Self { axis, reverse: random.bernoulli(0.5) }, vec![testing::values(random, &shape)?]))
    }

    /// As for a sum: one rounding for f32, one for each term for f64.
    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let magnitude = self.reference(&[testing::map(&inputs[0], f64::abs)?])?;
        let terms = inputs[0].shape()[self.axis].max(1) as f64;
        Ok(vec![testing::map(&magnitude[0], |sum| sum * terms)?])
    }
}
