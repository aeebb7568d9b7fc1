//! Reference and random cases.

use tomograd_core::{DType, Random, Result, Tensor};

use super::{Cast, reference};
use crate::{testing, testing::Proven};

impl Proven for Cast {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::cast(&inputs[0], self.0)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = testing::shape(random, 0, 3);
        let dtype = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U8, DType::Bool]
            [random.below(8) as usize];
        Ok((Self(dtype), vec![testing::values(random, &shape)?]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        self.0 == DType::F64
    }
}
