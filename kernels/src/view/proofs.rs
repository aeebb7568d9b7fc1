//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::{View, reference};
use crate::{testing, testing::Proven};

impl Proven for View {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::view(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = testing::shape(random, 1, 4);
        let x = testing::values(random, &shape)?;
        let axis = random.below(shape.len() as u64) as usize;
        let view = match random.below(4) {
            0 => View::Permute(random.permutation(shape.len())?),
            1 => {
                let (size, step) = (shape[axis], 1 + random.below(3) as usize);
                let start = random.below(size as u64 + 1) as usize;
                let most = (size - start).div_ceil(step);
                View::Slice { axis, start, length: random.below(most as u64 + 1) as usize, step }
            }
            2 => {
                let mut narrow = shape.clone();
                narrow[axis] = 1;
                let mut wide = narrow.clone();
                wide[axis] = random.below(4) as usize;
                wide.insert(0, 1 + random.below(2) as usize);
                return Ok((View::Expand(wide), vec![testing::values(random, &narrow)?]));
            }
            _ => {
                let mut shape = shape.clone();
                let last = shape.pop().unwrap_or(1);
                match shape.last_mut() {
                    Some(size) => *size *= last,
                    None => shape.extend([1, last]),
                }
                View::Reshape(shape)
            }
        };
        Ok((view, vec![x]))
    }
}
