//! Reference and random cases of the convolution operations.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{
    Conv, ConvActivation, ConvNormActivation, ConvShape, ConvTranspose,
    cpu::{AXIS_BLOCKS, CHANNEL_BLOCKS, PLANE_BLOCKS, TAP_BLOCKS},
    reference,
};
use crate::{
    Meta, Precision,
    elementwise::{Chain, Function},
    norm::{Norm, largest},
    testing,
    testing::Proven,
};

/// The values of one or two inputs, with their channels concatenated.
fn concatenated(x: &[Tensor]) -> Result<Vec<f64>> {
    let parts: Vec<Vec<f64>> = x.iter().map(Tensor::to_vec::<f64>).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for n in 0..x[0].shape()[0] {
        for (x, part) in x.iter().zip(&parts) {
            let size = x.shape()[1..].iter().product::<usize>();
            all.extend_from_slice(&part[n * size..][..size]);
        }
    }
    Ok(all)
}

/// (N, C, voxels) plus the bias of each channel.
fn with_bias(values: Vec<f64>, bias: Option<&Tensor>, voxels: usize) -> Result<Vec<f64>> {
    let Some(bias) = bias else { return Ok(values) };
    let bias = bias.to_vec::<f64>()?;
    Ok(values.into_iter().enumerate().map(|(i, value)| value + bias[i / voxels % bias.len()]).collect())
}

fn metas(inputs: &[Tensor]) -> Vec<Meta> {
    inputs.iter().map(Meta::from).collect()
}

fn pick(random: &mut Random, values: &[usize]) -> usize {
    values[random.below(values.len() as u64) as usize]
}

/// A random convolution with sizes around block boundaries, and its rank.
fn corner_shape(random: &mut Random) -> (usize, ConvShape) {
    loop {
        let rank = pick(random, &[1, 2, 2, 3, 3, 3]);
        let (shape, most) = match random.below(9) {
            0 => (channel_corner(random, rank), 400_000),
            1..=4 if rank > 1 => (winograd_corner(random, rank), 4_000_000),
            5 if rank > 1 => (tall_corner(random, rank), 100_000),
            _ => (axis_corner(random, rank), 100_000),
        };
        if shape.multiply_adds() <= most {
            return (rank, shape);
        }
    }
}

/// A shape whose spatial sizes are all 1.
fn unit_shape(random: &mut Random, groups: usize, group_inputs: usize, group_outputs: usize) -> ConvShape {
    ConvShape {
        batch: pick(random, &[1, 1, 2]),
        groups,
        in_channels: groups * group_inputs,
        out_channels: groups * group_outputs,
        input: [1; 3],
        kernel: [1; 3],
        stride: [1; 3],
        padding: [0; 3],
        dilation: [1; 3],
        precision: Precision::Strict,
    }
}

/// Sets a kernel for an axis of `size`, which may be smaller than the kernel, and enough padding for the kernel to fit.
fn tap_corner(random: &mut Random, shape: &mut ConvShape, axis: usize, size: usize, kernels: &[usize]) {
    let kernel = pick(random, kernels);
    let (stride, dilation) = (pick(random, &[1, 1, 2, 3]), pick(random, &[1, 1, 2]));
    let reach = dilation * (kernel - 1);
    let least = (reach + 1).saturating_sub(size).div_ceil(2);
    let padding = if random.bernoulli(0.5) { reach / 2 } else { random.below(reach as u64 + 1) as usize };
    (shape.input[axis], shape.kernel[axis], shape.padding[axis]) = (size, kernel, padding.max(least));
    (shape.stride[axis], shape.dilation[axis]) = (stride, dilation);
}

/// One long axis and others of a few voxels, mostly 1, with a kernel that may be larger; few channels, or one for each group.
fn axis_corner(random: &mut Random, rank: usize) -> ConvShape {
    let (groups, inputs, outputs) = match random.below(5) {
        0..3 => (pick(random, &[2, 3]), 1, pick(random, &[1, 1, 2, 4, 5])),
        3 => (1, 1, pick(random, &[1, 2, 5])),
        _ => (pick(random, &[1, 2]), pick(random, &[2, 3]), pick(random, &[1, 2, 3])),
    };
    let mut shape = unit_shape(random, groups, inputs, outputs);
    // Mostly the last axis is long, along which vectors run.
    let long = if random.bernoulli(0.5) { 2 } else { 3 - rank + random.below(rank as u64) as usize };
    let plain = random.bernoulli(0.5);
    for axis in 3 - rank..3 {
        let size = if axis == long { testing::around(random, &AXIS_BLOCKS) } else { pick(random, &[1, 1, 1, 2, 5]) };
        if plain {
            // Only a kernel, with the padding that keeps the size.
            let tall = testing::around(random, &TAP_BLOCKS[1..]);
            let kernel = if axis == long { pick(random, &[1, 3, 5]) } else { pick(random, &[3, 5, tall]) | 1 };
            (shape.input[axis], shape.kernel[axis], shape.padding[axis]) = (size, kernel, kernel / 2);
            continue;
        }
        let blocks = [(); 2].map(|()| testing::around(random, &TAP_BLOCKS));
        tap_corner(random, &mut shape, axis, size, &[1, 2, 3, 3, 3, blocks[0], blocks[1]]);
    }
    shape
}

/// One input channel in each group, and columns of so many taps that their weights are held in registers in several groups.
/// Every tap reads some voxels.
fn tall_corner(random: &mut Random, rank: usize) -> ConvShape {
    let (groups, outputs) = (pick(random, &[2, 3]), pick(random, &[1, 1, 2]));
    let mut shape = unit_shape(random, groups, 1, outputs);
    for axis in 3 - rank..3 {
        let (size, kernel) = if axis == 1 {
            let kernel = testing::around(random, &TAP_BLOCKS[1..]).max(3);
            (pick(random, &[kernel / 2 + 1, kernel, 17]), kernel)
        } else {
            (pick(random, &[1, 2, 5, 17]), pick(random, &[1, 3]))
        };
        (shape.input[axis], shape.kernel[axis], shape.padding[axis]) = (size, kernel, kernel / 2);
    }
    shape
}

/// Numbers of channels around block boundaries, with few voxels.
fn channel_corner(random: &mut Random, rank: usize) -> ConvShape {
    let mut channels = [(); 2].map(|()| 1 + random.below(3) as usize);
    channels[random.below(2) as usize] = testing::around(random, &CHANNEL_BLOCKS);
    let groups = pick(random, &[1, 1, 2]);
    let mut shape = unit_shape(random, groups, channels[0], channels[1]);
    if random.bernoulli(0.2) {
        // One input channel in each group.
        shape.groups = shape.in_channels;
        shape.out_channels = pick(random, &[1, 2, 5]) * shape.groups;
    }
    for axis in 3 - rank..3 {
        let size = pick(random, &[1, 2, 3, 5, 17]);
        tap_corner(random, &mut shape, axis, size, &[1, 1, 2, 3]);
    }
    shape
}

/// Shapes for which Winograd's path is possible in f32, with planes around tile boundaries.
fn winograd_corner(random: &mut Random, rank: usize) -> ConvShape {
    // Both numbers of channels around sixteen, or one around a strip.
    let mut channels = [(); 2].map(|()| testing::around(random, &CHANNEL_BLOCKS[1..2]).max(16));
    if random.bernoulli(0.3) {
        channels[random.below(2) as usize] = testing::around(random, &CHANNEL_BLOCKS[2..3]);
    }
    let mut shape = unit_shape(random, 1, channels[0], channels[1]);
    // With several planes, smaller ones, to limit the work.
    let planes = if rank == 3 { &PLANE_BLOCKS[..2] } else { &PLANE_BLOCKS[..] };
    let taps = if random.bernoulli(0.35) { 5 } else { 3 };
    for axis in 1..3 {
        let most = taps - 1;
        let padding = pick(random, &[0, most / 2, most / 2, most]);
        let output = testing::around(random, planes);
        let input = (output + most).saturating_sub(2 * padding).max(1);
        (shape.input[axis], shape.kernel[axis], shape.padding[axis]) = (input, taps, padding);
    }
    if rank == 3 {
        let kernel = if random.bernoulli(0.8) { taps } else { pick(random, &[1, 2, taps - 1]) };
        shape.kernel[0] = kernel;
        shape.padding[0] = random.below(kernel as u64) as usize;
        shape.input[0] = pick(random, &[1, 2, 3, 5]).max(kernel.saturating_sub(2 * shape.padding[0]));
    }
    shape
}

/// A random convolution of at most a few thousand multiplications, and its rank. Every second one has sizes around block
/// boundaries, since there are several paths to test.
pub(super) fn random_shape(random: &mut Random) -> (usize, ConvShape) {
    if random.bernoulli(0.5) {
        return corner_shape(random);
    }
    let rank = pick(random, &[1, 2, 3]);
    let groups = pick(random, &[1, 1, 1, 2, 3]);
    let depthwise = random.bernoulli(0.2);
    let many = random.bernoulli(0.1) && rank < 3;
    let channels = |random: &mut Random| if many { pick(random, &[16, 17]) } else { pick(random, &[1, 2, 3, 5]) };
    let (group_in, group_out) =
        if depthwise { (1, pick(random, &[1, 2])) } else { (channels(random), channels(random)) };
    let mut shape = ConvShape {
        batch: pick(random, &[0, 1, 1, 2, 2]),
        groups,
        in_channels: groups * group_in,
        out_channels: groups * group_out,
        input: [1; 3],
        kernel: [1; 3],
        stride: [1; 3],
        padding: [0; 3],
        dilation: [1; 3],
        precision: Precision::Strict,
    };
    let plain = random.bernoulli(0.3);
    for axis in 3 - rank..3 {
        shape.kernel[axis] = if plain { 3 } else { pick(random, &[1, 2, 3]) };
        shape.stride[axis] = if plain { 1 } else { pick(random, &[1, 1, 2, 3]) };
        shape.padding[axis] = if plain { 1 } else { pick(random, &[0, 1, 2]) };
        shape.dilation[axis] = if plain { 1 } else { pick(random, &[1, 1, 2]) };
        shape.input[axis] = pick(random, &[1, 2, 3, 5, 8]) + shape.dilation[axis] * (shape.kernel[axis] - 1);
    }
    (rank, shape)
}

impl Conv {
    fn random(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (rank, shape) = random_shape(random);
        let from = 3 - rank;
        let two_inputs = shape.in_channels > 1 && random.bernoulli(0.3);
        let op = Conv {
            stride: shape.stride[from..].to_vec(),
            padding: shape.padding[from..].to_vec(),
            dilation: shape.dilation[from..].to_vec(),
            groups: shape.groups,
            two_inputs,
            bias: random.bernoulli(0.5),
        };
        let first =
            if two_inputs { 1 + random.below(shape.in_channels as u64 - 1) as usize } else { shape.in_channels };
        let mut inputs = Vec::new();
        for channels in [first, shape.in_channels - first].into_iter().take(1 + usize::from(two_inputs)) {
            let size = [&[shape.batch, channels], &shape.input[from..]].concat();
            inputs.push(testing::values(random, &size)?);
        }
        let size = [&[shape.out_channels, shape.group_inputs()], &shape.kernel[from..]].concat();
        inputs.push(testing::values(random, &size)?);
        if op.bias {
            inputs.push(testing::values(random, &[shape.out_channels])?);
        }
        Ok((op, inputs))
    }

    fn reference_and_magnitude(&self, inputs: &[Tensor]) -> Result<[Tensor; 2]> {
        let metas = metas(inputs);
        let shape = self.shape(&metas, Precision::Strict)?;
        let x = concatenated(&inputs[..self.weight()])?;
        let (sums, magnitudes) = reference::forward(&shape, &x, &inputs[self.weight()].to_vec::<f64>()?)?;
        let bias = self.bias.then(|| &inputs[self.weight() + 1]);
        let absolute = bias.map(|bias| testing::map(bias, f64::abs)).transpose()?;
        let size = self.output(&metas, &shape).shape;
        let voxels = shape.output_voxels();
        let y = Tensor::from_slice(&with_bias(sums, bias, voxels)?, &size, Device::Cpu)?;
        let magnitude = Tensor::from_slice(&with_bias(magnitudes, absolute.as_ref(), voxels)?, &size, Device::Cpu)?;
        let terms = (shape.group_inputs() * shape.taps() + 1) as f64;
        Ok([y, testing::map(&magnitude, |sum| sum * terms)?])
    }
}

impl Proven for Conv {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let [y, _] = self.reference_and_magnitude(inputs)?;
        Ok(vec![y])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let [_, scale] = self.reference_and_magnitude(inputs)?;
        Ok(vec![scale])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        Self::random(random)
    }
}

impl ConvTranspose {
    fn reference_and_magnitude(&self, inputs: &[Tensor]) -> Result<[Tensor; 2]> {
        let metas = metas(inputs);
        let shape = self.shape(&metas, Precision::Strict)?;
        let (sums, magnitudes) =
            reference::backward_data(&shape, &inputs[0].to_vec::<f64>()?, &inputs[1].to_vec::<f64>()?)?;
        let bias = self.bias.then(|| &inputs[2]);
        let absolute = bias.map(|bias| testing::map(bias, f64::abs)).transpose()?;
        let size = crate::Op::infer(self, &metas)?.remove(0).shape;
        let voxels = shape.input_voxels();
        let y = Tensor::from_slice(&with_bias(sums, bias, voxels)?, &size, Device::Cpu)?;
        let magnitude = Tensor::from_slice(&with_bias(magnitudes, absolute.as_ref(), voxels)?, &size, Device::Cpu)?;
        let terms = (shape.group_outputs() * shape.taps() + 1) as f64;
        Ok([y, testing::map(&magnitude, |sum| sum * terms)?])
    }
}

impl Proven for ConvTranspose {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let [y, _] = self.reference_and_magnitude(inputs)?;
        Ok(vec![y])
    }

    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let [_, scale] = self.reference_and_magnitude(inputs)?;
        Ok(vec![scale])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (rank, shape) = random_shape(random);
        let from = 3 - rank;
        let output_padding = (from..3).map(|axis| random.below(shape.stride[axis] as u64) as usize).collect();
        let op = Self {
            stride: shape.stride[from..].to_vec(),
            // Padding is limited so that the output isn't empty.
            padding: (from..3)
                .map(|axis| {
                    let reach = shape.dilation[axis] * (shape.kernel[axis] - 1);
                    shape.padding[axis].min(((shape.input[axis] - 1) * shape.stride[axis] + reach) / 2)
                })
                .collect(),
            output_padding,
            dilation: shape.dilation[from..].to_vec(),
            groups: shape.groups,
            bias: random.bernoulli(0.5),
        };
        let size = [&[shape.batch, shape.in_channels], &shape.input[from..]].concat();
        let weight = [&[shape.in_channels, shape.group_outputs()], &shape.kernel[from..]].concat();
        let mut inputs = vec![testing::values(random, &size)?, testing::values(random, &weight)?];
        if op.bias {
            inputs.push(testing::values(random, &[shape.out_channels])?);
        }
        Ok((op, inputs))
    }
}

impl Proven for ConvActivation {
    /// That of the convolution, which the activation enlarges by at most its slope, is part of the scale.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Chain::unary(self.activation).reference(&self.conv.reference(inputs)?)
    }

    /// The rounding error δ of z, 1.2 of which may come out of an activation, and the activation's own.
    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        let z = self.conv.reference(inputs)?;
        let delta = self.conv.scale(inputs, &z)?[0].to_vec::<f64>()?;
        let own = Chain::unary(self.activation).scale(&z, reference)?[0].to_vec::<f64>()?;
        let factors = [Conv::TOLERANCE, Chain::TOLERANCE].map(|tolerance| tolerance / Self::TOLERANCE);
        let both: Vec<f64> =
            delta.iter().zip(own).map(|(delta, own)| 1.2 * factors[0] * delta + factors[1] * own).collect();
        Ok(vec![Tensor::from_slice(&both, reference[0].shape(), Device::Cpu)?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let (conv, inputs) = Conv::random(random)?;
        // Smooth ones, so that finite differences can check the gradient at any values; `tests` has ReLU.
        let activations = [Function::Tanh, Function::Silu, Function::Sigmoid];
        let activation = activations[random.below(activations.len() as u64) as usize];
        Ok((Self { conv, activation }, inputs))
    }
}

impl Proven for ConvNormActivation {
    /// As for the norm; the convolution's own tolerance of 8 is part of the scale.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let count = self.conv.input_count();
        let z = self.conv.reference(&inputs[..count])?;
        self.norm.reference(&[&z[..], &inputs[count..]].concat())
    }

    /// The rounding error of the convolution comes first, at most δ for each z. It changes a mean by up to δ and, through the
    /// deviation (at least √ε), x̂ by up to another |x̂| δ / deviation. The norm adds its own error.
    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        let count = self.conv.input_count();
        let z = self.conv.reference(&inputs[..count])?;
        let delta = largest(&self.conv.scale(&inputs[..count], &z)?[0])? * Conv::TOLERANCE / Self::TOLERANCE;
        let norm_inputs = [&z[..], &inputs[count..]].concat();
        let plain = Norm { activation: None, ..self.norm.clone() }.reference(&norm_inputs)?;
        let gamma = if self.norm.affine { largest(&inputs[count])? } else { 1.0 };
        let beta = if self.norm.affine { largest(&inputs[count + 1])? } else { 0.0 };
        let root = self.norm.epsilon.sqrt();
        let through = |y: f64| 1.2 * delta * (2.0 * gamma + y.abs() + beta) / root;
        let own = self.norm.scale(&norm_inputs, reference)?;
        let mut scales = Vec::new();
        for (k, (own, y)) in own.iter().zip([&plain[..1], &reference[1..]].concat()).enumerate() {
            let (own, y) = (own.to_vec::<f64>()?, y.to_vec::<f64>()?);
            // The variance changes by up to 2 deviations times δ, twice that for a count of 2.
            let moved = |y: f64| [through(y), delta, 4.0 * delta * y.max(0.0).sqrt() + delta * delta][k];
            let both: Vec<f64> = own.iter().zip(y).map(|(own, y)| own + moved(y)).collect();
            scales.push(Tensor::from_slice(&both, reference[k].shape(), Device::Cpu)?);
        }
        Ok(scales)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        // Long axes are excluded: the norm's reference is slow for large sets.
        let (conv, mut inputs, shape) = loop {
            let (conv, inputs) = Conv::random(random)?;
            let shape = conv.shape(&metas(&inputs), Precision::Strict)?;
            if shape.batch * shape.output_voxels() <= 300 {
                break (conv, inputs, shape);
            }
        };
        let (norm, more) = Norm::random(random, shape.out_channels, shape.batch * shape.output_voxels())?;
        inputs.extend(more);
        Ok((Self { conv, norm }, inputs))
    }
}
