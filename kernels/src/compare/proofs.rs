//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::{Compare, cpu, reference};
use crate::{testing, testing::Proven};

impl Proven for Compare {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::compare(*self, &inputs[0], &inputs[1])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let all = [
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::LessEqual,
            Compare::Greater,
            Compare::GreaterEqual,
        ];
        let compare = all[random.below(6) as usize];
        let shape = match random.below(20) {
            // A parallel chunk ends within a row.
            0 => vec![3, cpu::GRAIN / 3 + 1 + random.below(9) as usize],
            _ => testing::shape(random, 0, 4),
        };
        // Integers, many of them equal.
        let mut values = |shape: &[usize]| testing::map(&testing::values(random, shape)?, f64::round);
        let x = values(&shape)?;
        let y = if shape.len() % 2 == 1 { values(&[])? } else { values(&shape)? };
        if random.bernoulli(0.3) {
            return Ok((compare, vec![y, x]));
        }
        let narrow: Vec<usize> = shape.iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
        let lead = random.below(narrow.len() as u64 + 1) as usize;
        let broadcast = testing::map(&testing::values(random, &narrow[lead..])?, f64::round)?;
        Ok((compare, vec![x, if random.bernoulli(0.5) { broadcast } else { y }]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}
