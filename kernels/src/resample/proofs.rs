//! Reference and random cases.

use tomograd_core::{DType, Random, Result, Tensor};

use super::{Interpolate, Interpolation, reference};
use crate::{testing, testing::Proven};

impl Proven for Interpolate {
    /// A position is rounded before its weights are computed, so the weights are less exact than a product.
    const TOLERANCE: f64 = 32.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let weight = |axis: usize, o: usize, i: usize| {
            let position = self.mode.position(o, inputs[0].shape()[axis + 2], self.size[axis]);
            (1.0 - (position - i as f64).abs()).max(0.0)
        };
        Ok(vec![reference::separable(&inputs[0], &self.size, weight)?])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let largest = inputs[0].to_vec_f64()?.into_iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        let size = self.size.iter().chain(inputs[0].shape()).fold(1, |m, &size| m.max(size)) as f64;
        let shape = [&inputs[0].shape()[..2], &self.size].concat();
        Ok(vec![Tensor::full(&shape, largest * size, DType::F64, inputs[0].device())?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = reference::image(random);
        let mode = [Interpolation::Nearest, Interpolation::Linear, Interpolation::LinearCorners];
        let size = shape[2..].iter().map(|&input| match random.below(6) {
            0 => 2 * input,
            1 => (input / 2).max(1),
            2 => input,
            3 => 1,
            // So large that rows are mapped before they are summed.
            4 => (3 * input).min(70),
            _ => 1 + random.below(9) as usize,
        });
        let size = size.collect();
        let op = Self { size, mode: mode[random.below(3) as usize] };
        Ok((op, vec![testing::values(random, &shape)?]))
    }
}
