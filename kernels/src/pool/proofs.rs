//! References and random cases of pooling. The references only test for each voxel whether a window contains it.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, MaxPool, window::Strided};
use crate::{
    Meta, Op,
    elementwise::reference::larger,
    resample::reference::{image, separable},
    testing,
    testing::Proven,
};

/// Whether voxel `i` of an axis lies in window `o`.
fn strided(windows: Strided<'_>, axis: usize, o: usize, i: usize) -> bool {
    let place = (i + windows.padding[axis]).checked_sub(o * windows.stride[axis]);
    let dilation = windows.dilation.map_or(1, |dilation| dilation[axis]);
    place.is_some_and(|place| place.is_multiple_of(dilation) && place / dilation < windows.kernel[axis])
}

fn adaptive(input: usize, output: usize, o: usize, i: usize) -> bool {
    (o * input / output..((o + 1) * input).div_ceil(output)).contains(&i)
}

fn size(op: &impl Op, x: &Tensor) -> Result<Vec<usize>> {
    Ok(op.infer(&[Meta::from(x)])?.remove(0).shape.split_off(2))
}

/// The largest value of each window, by testing for each voxel whether it is `inside`.
fn maxima(x: &Tensor, size: &[usize], inside: impl Fn(usize, usize, usize) -> bool) -> Result<Tensor> {
    let (shape, spatial) = ([&x.shape()[..2], size].concat(), &x.shape()[2..]);
    let voxels: usize = spatial.iter().product();
    let windows: usize = size.iter().product();
    let values = x.to_vec::<f64>()?;
    let mut y = vec![f64::NEG_INFINITY; shape.iter().product()];
    for (index, y) in y.iter_mut().enumerate() {
        for i in 0..voxels {
            let (mut o, mut rest, mut all) = (index % windows, i, true);
            for axis in (0..size.len()).rev() {
                all &= inside(axis, o % size[axis], rest % spatial[axis]);
                (o, rest) = (o / size[axis], rest / spatial[axis]);
            }
            if all {
                *y = larger(*y, values[index / windows * voxels + i]);
            }
        }
    }
    Tensor::from_slice(&y, &shape, Device::Cpu)
}

/// Values that differ from each other by at least 0.01.
fn distinct(random: &mut Random, shape: &[usize]) -> Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f64> =
        random.permutation(count)?.into_iter().map(|i| 0.01 * (i as f64 - 0.5 * count as f64)).collect();
    Tensor::from_slice(&values, shape, Device::Cpu)
}

/// Random kernel, stride, padding and dilation that fit `input`.
fn attributes(random: &mut Random, input: &[usize], most_dilation: u64) -> [Vec<usize>; 4] {
    let mut all = [const { Vec::new() }; 4];
    let halves = random.bernoulli(0.3);
    // In some cases a window covers most of the axis.
    let most = if random.bernoulli(0.15) { 19 } else { 4 };
    for &input in input {
        let dilation = if halves { 1 } else { 1 + random.below(most_dilation) as usize };
        let fits = ((input - 1) / dilation + 1).min(most);
        let kernel = match halves {
            true => input.min(2),
            false if random.bernoulli(0.3) => fits,
            false => 1 + random.below(fits as u64) as usize,
        };
        let padding = if halves { 0 } else { random.below((dilation * (kernel - 1)).div_ceil(2) as u64 + 1) as usize };
        let stride = if halves { 2 } else { 1 + random.below(3) as usize };
        for (list, value) in all.iter_mut().zip([kernel, stride, padding, dilation]) {
            list.push(value);
        }
    }
    all
}

/// The rounding error of a weighted sum of voxels is bounded by the largest |x| times the number of voxels.
fn sum_scale(inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
    let largest = inputs[0].to_vec_f64()?.into_iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let voxels: usize = inputs[0].shape()[2..].iter().product();
    reference.iter().map(|y| testing::map(y, |_| largest * (voxels + 3) as f64)).collect()
}

impl Proven for MaxPool {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let inside = |axis, o, i| strided(self.strided(), axis, o, i);
        Ok(vec![maxima(&inputs[0], &size(self, &inputs[0])?, inside)?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = image(random);
        let [kernel, stride, padding, dilation] = attributes(random, &shape[2..], 3);
        let op = Self { kernel, stride, padding, dilation, ceil_mode: random.bernoulli(0.4) };
        Ok((op, vec![distinct(random, &shape)?]))
    }
}

impl Proven for AveragePool {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let spatial = &inputs[0].shape()[2..];
        let weight = |axis: usize, o: usize, i: usize| {
            let inside = (0..spatial[axis]).filter(|&i| strided(self.strided(), axis, o, i)).count();
            let start = o * self.stride[axis];
            let padded = (start + self.kernel[axis]).min(spatial[axis] + 2 * self.padding[axis]) - start;
            let divisor = if self.count_include_pad { padded } else { inside };
            if strided(self.strided(), axis, o, i) { 1.0 / divisor as f64 } else { 0.0 }
        };
        Ok(vec![separable(&inputs[0], &size(self, &inputs[0])?, weight)?])
    }

    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        sum_scale(inputs, reference)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = image(random);
        let [kernel, stride, padding, _] = attributes(random, &shape[2..], 1);
        let (ceil_mode, count_include_pad) = (random.bernoulli(0.4), random.bernoulli(0.5));
        let op = Self { kernel, stride, padding, ceil_mode, count_include_pad };
        Ok((op, vec![testing::values(random, &shape)?]))
    }
}

/// A random output size for adaptive pooling.
fn shares(random: &mut Random, input: &[usize]) -> Vec<usize> {
    input
        .iter()
        .map(|&input| if random.bernoulli(0.3) { 1 } else { 1 + random.below(input as u64 + 2) as usize })
        .collect()
}

impl Proven for AdaptiveMaxPool {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        Ok(vec![maxima(x, &self.output, |axis, o, i| adaptive(x.shape()[axis + 2], self.output[axis], o, i))?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = image(random);
        let mut output = shares(random, &shape[2..]);
        if random.bernoulli(0.1) {
            // One window with more voxels than a byte can index.
            shape =
                vec![1, 1 + random.below(2) as usize, testing::around(random, &[24]), testing::around(random, &[32])];
            output = vec![1, 1];
        }
        Ok((Self { output }, vec![distinct(random, &shape)?]))
    }
}

impl Proven for AdaptiveAveragePool {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let weight = |axis: usize, o: usize, i: usize| {
            let inside = |i: usize| adaptive(x.shape()[axis + 2], self.output[axis], o, i);
            let count = (0..x.shape()[axis + 2]).filter(|&i| inside(i)).count();
            if inside(i) { 1.0 / count as f64 } else { 0.0 }
        };
        Ok(vec![separable(x, &self.output, weight)?])
    }

    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        sum_scale(inputs, reference)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = image(random);
        Ok((Self { output: shares(random, &shape[2..]) }, vec![testing::values(random, &shape)?]))
    }
}
