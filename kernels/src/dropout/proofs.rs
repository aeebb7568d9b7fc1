//! Reference and random cases.

use tomograd_core::{Random, Result, Seed, Tensor};

use super::{Dropout, reference};
use crate::{testing, testing::Proven};

impl Proven for Dropout {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::dropout(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = testing::shape(random, 0, 4);
        let probability = [0.0, 0.1, 0.5, 0.9][random.below(4) as usize];
        let op = Self { seed: Seed::new(random.next_u64()), probability, whole_channels: random.bernoulli(0.4) };
        Ok((op, vec![testing::values(random, &shape)?]))
    }
}
