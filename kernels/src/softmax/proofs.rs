//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::{LogSoftmax, Softmax, cpu, reference};
use crate::{testing, testing::Proven};

macro_rules! proof {
    ($logarithm:literal) => {
        /// An exponential, and a sum of up to 65 exponentials; for longer sums see `scale`.
        const TOLERANCE: f64 = 64.0;

        fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
            let longer = (inputs[0].shape()[self.axis] as f64 / 64.0).max(1.0);
            reference.iter().map(|output| testing::map(output, |y| longer * (1.0 + y.abs()))).collect()
        }

        fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            reference::softmax(&inputs[0], self.axis, $logarithm)
        }

        fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
            if random.bernoulli(0.08) {
                // Several tiles of columns, or long rows.
                let shape = [cpu::LONG, cpu::COLUMNS].map(|block| testing::around(random, &[block, block + 2]));
                let axis = usize::from(random.bernoulli(0.3));
                return Ok((Self { axis }, vec![testing::values(random, &shape)?]));
            }
            let shape = testing::shape(random, 1, 4);
            let axis = random.below(shape.len() as u64) as usize;
            Ok((Self { axis }, vec![testing::values(random, &shape)?]))
        }
    };
}

impl Proven for Softmax {
    proof!(false);
}

impl Proven for LogSoftmax {
    proof!(true);
}
