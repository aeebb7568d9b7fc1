//! Reference and random cases.

use tomograd_core::{DType, Device, Random, Result, Tensor};

use super::{Concat, Gather, IndexSelect, OneHot, Pad, PadMode, ScatterAdd, Where, cpu, reference, split};
use crate::{testing, testing::Proven};

/// A random shape of `least` to `most` axes, for a case whose output has `each` elements for each of its elements. In some
/// cases a parallel chunk ends within a row.
fn shape_of_case(random: &mut Random, least: usize, most: usize, each: usize) -> Vec<usize> {
    if random.bernoulli(0.05) && most > 1 {
        let rows = 2 + random.below(3) as usize;
        return vec![rows, cpu::GRAIN / (rows * each) + 1 + random.below(9) as usize];
    }
    testing::shape(random, least, most)
}

/// The number of indices along an axis for x of `shape`: a few, or around the length of some vectors.
fn length_of_case(random: &mut Random, shape: &[usize]) -> usize {
    match shape.iter().product::<usize>() {
        4096.. => random.below(5) as usize,
        _ if random.bernoulli(0.2) => testing::around(random, &testing::VECTORS),
        _ => random.below(12) as usize,
    }
}

/// A random shape, and an axis of it that isn't empty.
fn indexed(random: &mut Random) -> (Vec<usize>, usize) {
    let mut shape = shape_of_case(random, 1, 4, 1);
    let axis = random.below(shape.len() as u64) as usize;
    shape[axis] = shape[axis].max(1);
    (shape, axis)
}

fn indices(random: &mut Random, shape: &[usize], size: usize) -> Result<Tensor> {
    let values: Vec<i64> = (0..shape.iter().product()).map(|_| random.below(size as u64) as i64).collect();
    Tensor::from_slice(&values, shape, Device::Cpu)
}

impl Proven for Gather {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::gather(&inputs[0], &inputs[1], self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (mut shape, axis) = indexed(random);
        let x = testing::values(random, &shape)?;
        let length = length_of_case(random, &shape);
        let size = std::mem::replace(&mut shape[axis], length);
        Ok((Self { axis }, vec![x, indices(random, &shape, size)?]))
    }

    fn is_differentiable(&self, index: usize) -> bool {
        index == 0
    }
}

impl Proven for IndexSelect {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (x, index) = (&inputs[0], &inputs[1]);
        let mut shape = vec![1; x.rank()];
        shape[self.axis] = index.count();
        let index = index.reshape(&shape)?;
        shape = x.shape().to_vec();
        shape[self.axis] = index.count();
        reference::gather(x, &index.expand(&shape)?, self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (shape, axis) = indexed(random);
        let count = length_of_case(random, &shape);
        Ok((Self { axis }, vec![testing::values(random, &shape)?, indices(random, &[count], shape[axis])?]))
    }

    fn is_differentiable(&self, index: usize) -> bool {
        index == 0
    }
}

impl Proven for ScatterAdd {
    /// Sums of up to 65 terms.
    const TOLERANCE: f64 = 128.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (outer, size, inner) = split(inputs[0].shape(), self.axis);
        reference::scatter_add(&inputs[0], &inputs[1], &inputs[2], [outer, size, inner])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let magnitude = |x: &Tensor| testing::map(x, f64::abs);
        self.reference(&[magnitude(&inputs[0])?, inputs[1].clone(), magnitude(&inputs[2])?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (mut shape, axis) = indexed(random);
        let x = testing::values(random, &shape)?;
        let length = length_of_case(random, &shape);
        let size = std::mem::replace(&mut shape[axis], length);
        Ok((Self { axis }, vec![x, indices(random, &shape, size)?, testing::values(random, &shape)?]))
    }

    fn is_differentiable(&self, index: usize) -> bool {
        index != 1
    }
}

impl Proven for Where {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::choose(&inputs[0], &inputs[1], &inputs[2])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = shape_of_case(random, 0, 3, 1);
        let condition = testing::map(&testing::values(random, &shape)?, |x| f64::from(x > 0.0))?;
        let narrow: Vec<usize> = shape.iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
        let (a, b) = (testing::values(random, &shape)?, testing::values(random, &narrow)?);
        Ok((Self, vec![condition.converted(DType::Bool)?, a, b]))
    }

    fn is_differentiable(&self, index: usize) -> bool {
        index > 0
    }
}

impl Proven for OneHot {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::one_hot(&inputs[0], self.classes, self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let classes = if random.bernoulli(0.2) { 17 } else { 1 + random.below(5) as usize };
        let shape = shape_of_case(random, 0, 3, classes);
        let labels: Vec<i64> = (0..shape.iter().product()).map(|_| random.below(classes as u64) as i64).collect();
        let dtype = [DType::F32, DType::F64, DType::F16, DType::U8, DType::Bool][random.below(5) as usize];
        let axis = random.below(shape.len() as u64 + 1) as usize;
        Ok((Self { classes, axis, dtype }, vec![Tensor::from_slice(&labels, &shape, Device::Cpu)?]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}

impl Proven for Concat {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::concat(inputs, self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = shape_of_case(random, 1, 4, 1);
        let axis = random.below(shape.len() as u64) as usize;
        let count = 1 + random.below(3) as usize;
        let whole = shape[axis];
        let mut input = || {
            // If the axis was long, some inputs keep its length, and others get a part of it.
            shape[axis] = match whole {
                ..10 => random.below(6) as usize,
                _ if random.bernoulli(0.5) => whole,
                _ => whole.div_ceil(count),
            };
            testing::values(random, &shape)
        };
        let inputs = [input()?, input()?, input()?];
        Ok((Self { axis }, inputs[..count].to_vec()))
    }
}

impl Proven for Pad {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::pad(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = shape_of_case(random, 0, 4, 1);
        let mode = [PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate][random.below(3) as usize];
        let mut widths = || -> Vec<usize> {
            let most = |size: usize| match mode {
                PadMode::Constant(_) => 3,
                PadMode::Reflect => size.saturating_sub(1).min(4),
                PadMode::Replicate => 3 * size.min(1),
            };
            shape.iter().map(|&size| random.below(most(size) as u64 + 1) as usize).collect()
        };
        let (before, after) = (widths(), widths());
        Ok((Self { before, after, mode }, vec![testing::values(random, &shape)?]))
    }
}
