//! Reference and random cases of the scan.

use tomograd_core::{Random, Result, Tensor};

use super::{
    SelectiveScan,
    cpu::{PART_CHANNELS, STEPS},
    reference,
};
use crate::testing::{self, Proven};

impl Proven for SelectiveScan {
    /// The reference propagates the rounding errors step by step; the tolerance covers what it leaves out (products of
    /// errors, and subnormal numbers).
    const TOLERANCE: f64 = 4.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let [output, _] = reference::scan(self, inputs)?;
        Ok(vec![output])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let [_, bound] = reference::scan(self, inputs)?;
        Ok(vec![testing::map(&bound, |bound| 1e-30 + bound)?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut groups = 1 + random.below(3) as usize;
        let mut rows = [0, 1, 3, 5, 16, 17, 33][random.below(7) as usize];
        let mut batch = random.below(4) as usize;
        let mut states = [0, 1, 2, 3, 5, 16, 17][random.below(7) as usize];
        let mut length = match random.below(4) {
            // Around the boundaries of chunks.
            0 => [0, 63, 64, 65, 80, 131][random.below(6) as usize],
            _ => testing::size(random),
        };
        if testing::at_corner(random) {
            // One size around a block boundary, another 1: the channels of the backward pass's parts, the states, the chunks
            // of steps.
            (batch, groups) = (1 + random.below(2) as usize, 1);
            let small = [(); 2].map(|()| 1 + random.below(3) as usize);
            [rows, states, length] = match random.below(4) {
                0 => [testing::around(random, &[16, 32, PART_CHANNELS]), small[0], 1],
                1 => [1, testing::around(random, &[2, 16, 64]), small[1]],
                2 => [small[0], 1, testing::around(random, &[16, STEPS, 2 * STEPS])],
                _ => [1, small[0], testing::around(random, &[16, STEPS, 2 * STEPS])],
            };
            if random.bernoulli(0.3) {
                groups = std::mem::replace(&mut rows, 1);
            }
        }
        let channels = groups * rows;
        let op = Self {
            skip: random.bernoulli(0.5),
            gate: random.bernoulli(0.5),
            delta_bias: random.bernoulli(0.5),
            delta_softplus: random.bernoulli(0.5),
        };
        let over_states = match groups {
            1 if random.bernoulli(0.5) => vec![batch, states, length],
            _ => vec![batch, groups, states, length],
        };
        let over_time = [batch, channels, length];
        // Without softplus, Δ must be positive: a state that grows at every step would lose all digits.
        let delta = testing::values(random, &over_time)?;
        let delta = if op.delta_softplus { delta } else { testing::map(&delta, |delta| 0.1 + 0.5 * delta.abs())? };
        // In some cases the decay is so fast that exp(Δ a) is subnormal or zero.
        let rate = if random.bernoulli(0.2) { 300.0 } else { 1.0 };
        let a = testing::map(&testing::values(random, &[channels, states])?, |a| -0.05 - rate * a.abs())?;
        let mut inputs = vec![testing::values(random, &over_time)?, delta, a];
        inputs.extend([testing::values(random, &over_states)?, testing::values(random, &over_states)?]);
        if op.skip {
            inputs.push(testing::values(random, &[channels])?);
        }
        if op.gate {
            inputs.push(testing::values(random, &over_time)?);
        }
        if op.delta_bias {
            let bias = testing::values(random, &[channels])?;
            inputs.push(if op.delta_softplus { bias } else { testing::map(&bias, f64::abs)? });
        }
        Ok((op, inputs))
    }
}
