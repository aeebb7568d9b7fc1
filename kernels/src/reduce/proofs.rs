//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::{ArgMax, Combine, Reduce, cpu, reference};
use crate::{testing, testing::Proven};

/// A random shape of `least` to four axes; in some cases around a block of columns, or with several segments of rows.
fn blocks(random: &mut Random, least: usize) -> Vec<usize> {
    let segment = cpu::GRAIN / cpu::BLOCK;
    match random.below(16) {
        0 | 1 => testing::corner(random, least, 3, &[cpu::BLOCK]),
        2 => vec![testing::around(random, &[segment]), testing::around(random, &[cpu::BLOCK])],
        _ => testing::shape(random, least, 4),
    }
}

impl Proven for Reduce {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::reduce(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = blocks(random, 0);
        let axes: Vec<usize> = (0..shape.len()).filter(|_| random.bernoulli(0.5)).collect();
        let empty = axes.iter().any(|&axis| shape[axis] == 0);
        let all = [Combine::Sum, Combine::Mean, Combine::Max, Combine::Min];
        let combine = if empty { Combine::Sum } else { all[random.below(4) as usize] };
        let keep_axes = random.bernoulli(0.5);
        Ok((Self { combine, axes, keep_axes }, vec![testing::values(random, &shape)?]))
    }

    /// The sum of n terms is accumulated in f64: one rounding for f32, at most n roundings for f64.
    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        if self.is_extreme() {
            return Ok(vec![testing::map(&self.reference(inputs)?[0], f64::abs)?]);
        }
        let magnitude = self.reference(&[testing::map(&inputs[0], f64::abs)?])?;
        let terms = self.axes.iter().map(|&axis| inputs[0].shape()[axis]).product::<usize>() as f64;
        Ok(vec![testing::map(&magnitude[0], |sum| sum * terms.max(1.0))?])
    }
}

impl Proven for ArgMax {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::arg_max(&inputs[0], self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = blocks(random, 1);
        let axis = random.below(shape.len() as u64) as usize;
        shape[axis] = shape[axis].max(1);
        // Values with ties, of which the first counts.
        Ok((Self { axis }, vec![testing::map(&testing::values(random, &shape)?, |x| (2.0 * x).round() / 2.0)?]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}
