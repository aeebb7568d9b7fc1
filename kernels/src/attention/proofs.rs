//! Random cases of attention.

use tomograd_core::{Random, Result, Tensor};

use super::{
    Attention, BIASES,
    cpu::{ELEMENT_BLOCKS, KEY_BLOCKS, QUERY_BLOCKS},
    reference,
};
use crate::{testing, testing::Proven};

/// A bias that broadcasts to `full` in some way: normal values, or in some cases a mask of 0, −100 and −∞.
fn bias(random: &mut Random, full: &[usize]) -> Result<Tensor> {
    let lead = random.below(full.len() as u64 + 1) as usize;
    let shape: Vec<usize> = full[lead..].iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
    let mask = random.bernoulli(0.4);
    let values = testing::values(random, &shape)?;
    testing::map(&values, |value| match value {
        value if !mask => value,
        ..-1.0 => f64::NEG_INFINITY,
        -1.0..-0.5 => -100.0,
        _ => 0.0,
    })
}

impl Proven for Attention {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let [y, _] = reference::attention(self, inputs)?;
        Ok(vec![y])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let [_, bound] = reference::attention(self, inputs)?;
        Ok(vec![bound])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut batch = testing::shape(random, 0, 2);
        let mut size = || testing::size(random);
        let (mut queries, mut keys, mut size, mut value) = (size(), size(), size(), size());
        if random.bernoulli(0.15) {
            // Several blocks of queries and of keys, and several parts of the keys.
            batch = vec![1 + random.below(2) as usize];
            (queries, keys) = (1 + random.below(300) as usize, 1 + random.below(700) as usize);
        }
        if random.bernoulli(0.1) {
            // Windowed attention: one block of keys, and in some cases a few queries after whole vectors of queries.
            (queries, keys, value) =
                (1 + random.below(120) as usize, 1 + random.below(128) as usize, 16 * value.min(4));
        }
        if testing::at_corner(random) {
            // One size around a block boundary, another 1, and in some cases both queries and keys around a boundary.
            batch = [vec![], vec![2], vec![1, 3]][random.below(3) as usize].clone();
            let blocks: [&[usize]; 4] = [&QUERY_BLOCKS, &KEY_BLOCKS, &ELEMENT_BLOCKS, &ELEMENT_BLOCKS];
            let (long, other) = (random.below(4) as usize, 1 + random.below(3) as usize);
            let mut sizes = [(); 4].map(|()| 1 + random.below(5) as usize);
            sizes[long] = testing::around(random, blocks[long]);
            sizes[(long + other) % 4] = 1;
            if random.bernoulli(0.4) {
                let further = 1 - long.min(1);
                sizes[further] = testing::around(random, &blocks[further][..4]);
            }
            [queries, keys, size, value] = sizes;
        }
        let scale = random.bernoulli(0.3).then(|| random.normal());
        let op = Self { scale, causal: random.bernoulli(0.3) };
        let mut inputs = Vec::new();
        for matrix in [[queries, size], [keys, size], [keys, value]] {
            inputs.push(testing::values(random, &[&batch[..], &matrix].concat())?);
        }
        let full = [&batch[..], &[queries, keys]].concat();
        for _ in 0..random.below(BIASES as u64 + 1) {
            inputs.push(bias(random, &full)?);
        }
        Ok((op, inputs))
    }
}
