//! References and random cases of the matrix products.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{
    Linear, Matmul,
    cpu::product::SEGMENT,
    cpu::{COLUMN_BLOCK, K_BLOCK, ROW_BLOCK, tile::ROW_UNIT},
};
use crate::{Meta, Op, testing, testing::Proven};

fn absolute(inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    inputs.iter().map(|x| testing::map(x, f64::abs)).collect()
}

/// `terms` times the result for absolute values: the scale of the rounding error of a sum of products.
fn scale_of(op: &impl Proven, inputs: &[Tensor], terms: usize) -> Result<Vec<Tensor>> {
    op.reference(&absolute(inputs)?)?.iter().map(|y| testing::map(y, |y| (terms + 1) as f64 * y)).collect()
}

/// Sizes of the kernel's tiles and blocks along m, n and k.
const BLOCKS: [usize; 8] = [8, 16, ROW_UNIT, 48, K_BLOCK, ROW_BLOCK, 2 * K_BLOCK, COLUMN_BLOCK];

/// m, n and k: one or two around block boundaries, the others small.
fn corner(random: &mut Random) -> [usize; 3] {
    let mut sizes = [(); 3].map(|()| 1 + random.below(3) as usize);
    sizes[random.below(3) as usize] = testing::around(random, &BLOCKS);
    if random.bernoulli(0.3) {
        sizes[random.below(3) as usize] = testing::around(random, &BLOCKS[..4]);
    }
    sizes
}

impl Proven for Matmul {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let shape = self.infer(&inputs.iter().map(Meta::from).collect::<Vec<_>>())?.remove(0).shape;
        let (batch, matrix) = shape.split_at(shape.len() - 2);
        let full = |x: &Tensor| x.expand(&[batch, &x.shape()[x.rank() - 2..]].concat())?.to_vec::<f64>();
        let (a, b) = (full(&inputs[0])?, full(&inputs[1])?);
        let (m, n, k) = (matrix[0], matrix[1], inputs[1].shape()[inputs[1].rank() - 2]);
        let mut y = vec![0.0; shape.iter().product()];
        for (i, y) in y.iter_mut().enumerate() {
            let (p, i, j) = (i / (m * n), i / n % m, i % n);
            *y = (0..k).map(|step| a[(p * m + i) * k + step] * b[(p * k + step) * n + j]).sum();
        }
        Ok(vec![Tensor::from_slice(&y, &shape, Device::Cpu)?])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        scale_of(self, inputs, inputs[0].shape().last().copied().unwrap_or(0))
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut batch: Vec<usize> = (0..random.below(4)).map(|_| random.below(4) as usize).collect();
        let mut sizes = [testing::size(random), testing::size(random), testing::size(random)];
        if testing::at_corner(random) {
            batch.truncate(1);
            sizes = corner(random);
        }
        let [m, n, k] = sizes;
        let mut operand = |matrix: [usize; 2]| {
            let skipped = random.below(batch.len() as u64 + 1) as usize;
            let mut shape: Vec<usize> =
                batch[skipped..].iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
            shape.extend(matrix);
            testing::values(random, &shape)
        };
        Ok((Self, vec![operand([m, k])?, operand([k, n])?]))
    }
}

impl Proven for Linear {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (x, weight) = (inputs[0].to_vec::<f64>()?, inputs[1].to_vec::<f64>()?);
        let (out, features) = (inputs[1].shape()[0], inputs[1].shape()[1]);
        let bias = if self.bias { inputs[2].to_vec::<f64>()? } else { vec![0.0; out] };
        let mut shape = inputs[0].shape().to_vec();
        shape[inputs[0].rank() - 1] = out;
        let mut y = Vec::new();
        for row in 0..inputs[0].shape()[..inputs[0].rank() - 1].iter().product() {
            for o in 0..out {
                y.push((0..features).fold(bias[o], |y, i| y + x[row * features + i] * weight[o * features + i]));
            }
        }
        Ok(vec![Tensor::from_slice(&y, &shape, Device::Cpu)?])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        scale_of(self, inputs, inputs[1].shape()[1])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = testing::shape(random, 1, 3);
        if random.bernoulli(0.1) {
            // With many rows, the gradient of the weight is summed in segments.
            shape = vec![1100, 1 + random.below(3) as usize];
        }
        let (mut out, bias) = (testing::size(random), random.bernoulli(0.5));
        if testing::at_corner(random) {
            let [rows, features, outputs] = corner(random);
            (shape, out) = (vec![rows, features], outputs);
            if random.bernoulli(0.2) {
                shape[0] = testing::around(random, &[2 * SEGMENT]);
            }
        }
        let weight = testing::values(random, &[out, shape[shape.len() - 1]])?;
        let mut inputs = vec![testing::values(random, &shape)?, weight];
        if bias {
            inputs.push(testing::values(random, &[out])?);
        }
        Ok((Self { bias }, inputs))
    }
}
