//! Reference and random cases.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{DiceCe, cpu, reference};
use crate::{testing, testing::Proven};

impl Proven for DiceCe {
    /// An exponential, a logarithm, and quotients of sums of f32 probabilities.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::dice_ce(self, &inputs[0], &inputs[1])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape: Vec<usize> = testing::shape(random, 2, 4).iter().map(|&size| size.max(1)).collect();
        if random.bernoulli(0.15) {
            shape = testing::corner(random, 3, 4, &[cpu::BLOCK]);
        }
        shape[1] = 2 + random.below(4) as usize;
        let classes = shape[1];
        let ignore_index = random.bernoulli(0.4).then_some(-1);
        let both = random.below(3);
        let op = Self {
            dice_weight: if both == 0 { 0.0 } else { 0.7 },
            ce_weight: if both == 1 { 0.0 } else { 1.3 },
            smooth: 0.1,
            include_background: random.bernoulli(0.5),
            batch_dice: random.bernoulli(0.5),
            ignore_index,
            class_weights: random.bernoulli(0.4).then(|| (0..classes).map(|c| 0.5 + c as f64).collect()),
        };
        let labels_shape: Vec<usize> = [&shape[..1], &shape[2..]].concat();
        let count = labels_shape.iter().product();
        let labels: Vec<i64> = (0..count)
            .map(|i| match ignore_index {
                // The first voxel isn't ignored, so that Σ w isn't zero.
                Some(ignored) if i > 0 && random.bernoulli(0.3) => ignored,
                _ => random.below(classes as u64) as i64,
            })
            .collect();
        let labels = Tensor::from_slice(&labels, &labels_shape, Device::Cpu)?;
        Ok((op, vec![testing::values(random, &shape)?, labels]))
    }

    fn is_differentiable(&self, index: usize) -> bool {
        index == 0
    }
}
