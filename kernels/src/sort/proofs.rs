//! Reference and random cases.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{Sort, cpu, reference};
use crate::{testing, testing::Proven};

impl Proven for Sort {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::sort(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = match random.below(20) {
            // Several chunks of lines.
            0 => vec![2 + random.below(3) as usize, cpu::GRAIN / 3 + random.below(9) as usize],
            _ => testing::shape(random, 1, 4),
        };
        let axis = random.below(shape.len() as u64) as usize;
        let count = random.bernoulli(0.5).then(|| random.below(shape[axis] as u64 + 1) as usize);
        let order = random.permutation(shape.iter().product())?;
        // Positive and negative values at least 1/32 apart, since the order of equal elements has no derivative.
        let values: Vec<f64> = order.iter().map(|&i| (i as f64 - order.len() as f64 / 2.0) / 32.0).collect();
        let x = Tensor::from_slice(&values, &shape, Device::Cpu)?;
        Ok((Self { axis, descending: random.bernoulli(0.5), count }, vec![x]))
    }
}
