//! Reference and random cases of the norm.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{Norm, Statistics};
use crate::{
    elementwise::{Chain, Function, reference::larger},
    testing,
    testing::Proven,
};

/// The largest absolute value.
pub(crate) fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_vec_f64()?.into_iter().fold(0.0, |largest, value| larger(largest, value.abs())))
}

/// Statistics from the definition, of differences from the first element divided by the largest difference. So a large mean
/// costs no accuracy, and no square overflows.
pub(super) struct Plain {
    first: f64,
    unit: f64,
    pub count: f64,
    /// Mean and variance of the scaled differences.
    shift: f64,
    variance: f64,
}

impl Plain {
    pub fn of(values: &[f64]) -> Self {
        let (first, count) = (values.first().copied().unwrap_or(0.0), values.len() as f64);
        let unit = values.iter().fold(0.0, |largest, value| larger(largest, (value / 2.0 - first / 2.0).abs()));
        let unit = if unit == 0.0 { 1.0 } else { unit };
        let mut set = Self { first, unit, count, shift: 0.0, variance: 0.0 };
        let terms = count.max(1.0);
        set.shift = testing::exact_sum(values.iter().map(|&value| set.distance(value))) / terms;
        set.variance =
            testing::exact_sum(values.iter().map(|&value| (set.distance(value) - set.shift).powi(2))) / terms;
        set
    }

    /// Half the difference from the first element, in units of `unit`; halved so that it is always finite.
    fn distance(&self, value: f64) -> f64 {
        (value / 2.0 - self.first / 2.0) / self.unit
    }

    pub fn mean(&self) -> f64 {
        self.first + 2.0 * (self.unit * self.shift)
    }

    /// Σ (x − mean)².
    pub fn squares(&self) -> f64 {
        4.0 * (self.variance * self.count * self.unit * self.unit)
    }

    /// (x − mean) / √(variance + ε).
    pub fn normal(&self, value: f64, epsilon: f64) -> f64 {
        (self.distance(value) - self.shift) / (self.variance + epsilon / self.unit / self.unit / 4.0).sqrt()
    }
}

impl Norm {
    /// A random norm for `channels` channels, and its inputs after x. Batch statistics need more than one value per channel.
    pub(crate) fn random(random: &mut Random, channels: usize, values: usize) -> Result<(Self, Vec<Tensor>)> {
        let groups =
            (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).max_by_key(|g| (*g < channels, *g));
        let statistics = match random.below(4) {
            0 => Statistics::Group(groups.unwrap_or(1)),
            1 if values > 1 => Statistics::Batch,
            2 => Statistics::Running,
            _ => Statistics::Instance,
        };
        // A smooth activation, so that finite differences can check its gradient at any values.
        let activation = [None, Some(Function::Tanh), Some(Function::Silu)][random.below(3) as usize];
        // A large ε makes the function smooth for few values, as finite differences need; `tests` uses small ones.
        let norm = Self { statistics, epsilon: 0.1, affine: random.bernoulli(0.7), activation };
        let mut inputs = Vec::new();
        for _ in 1..norm.input_count() {
            inputs.push(testing::values(random, &[channels])?);
        }
        if statistics == Statistics::Running
            && let Some(variance) = inputs.last_mut()
        {
            *variance = testing::map(variance, |v| v.abs() + 0.5)?;
        }
        Ok((norm, inputs))
    }
}

impl Proven for Norm {
    /// Sums over a set, a square root and a division in sequence.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = &inputs[0];
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        let voxels: usize = x.shape()[2..].iter().product();
        let values = x.to_vec::<f64>()?;
        let rest: Vec<Vec<f64>> = inputs[1..].iter().map(Tensor::to_vec::<f64>).collect::<Result<_>>()?;
        let set = |i: usize| self.set_of(i / (channels * voxels), i / voxels % channels, channels);
        let mut sets = vec![Vec::new(); self.set_count(batch, channels)];
        values.iter().enumerate().for_each(|(i, &value)| sets[set(i)].push(value));
        let plain: Vec<Plain> = sets.iter().map(|set| Plain::of(set)).collect();
        let mut y: Vec<f64> = Vec::with_capacity(values.len());
        for (i, &value) in values.iter().enumerate() {
            let channel = i / voxels % channels;
            let normal = match self.statistics {
                Statistics::Running => {
                    let first = 2 * usize::from(self.affine);
                    (value - rest[first][channel]) / (rest[first + 1][channel] + self.epsilon).sqrt()
                }
                _ => plain[set(i)].normal(value, self.epsilon),
            };
            y.push(if self.affine { rest[0][channel] * normal + rest[1][channel] } else { normal });
        }
        let mut y = Tensor::from_slice(&y, x.shape(), Device::Cpu)?;
        if let Some(function) = self.activation {
            y = Chain::unary(function).reference(&[y])?.remove(0);
        }
        let mut outputs = vec![y];
        if self.statistics == Statistics::Batch {
            let means: Vec<f64> = plain.iter().map(Plain::mean).collect();
            let unbiased: Vec<f64> = plain
                .iter()
                .map(|set| if set.count == 0.0 { -0.0 } else { set.squares() / (set.count - 1.0) })
                .collect();
            outputs.push(Tensor::from_slice(&means, &[channels], Device::Cpu)?);
            outputs.push(Tensor::from_slice(&unbiased, &[channels], Device::Cpu)?);
        }
        Ok(outputs)
    }

    /// (1 + |γ|) (1 + |y|), however large the mean is: for elements near the mean, the difference from it is exact, and
    /// elements far from it increase the deviation. (A flat activation reduces |y|, but the error even more.)
    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let voxels: usize = shape[2..].iter().product();
        let gamma = if self.affine { inputs[1].to_vec::<f64>()? } else { vec![1.0; shape[1]] };
        let y = reference[0].to_vec::<f64>()?;
        let bound = |(i, y): (usize, &f64)| (1.0 + gamma[i / voxels % shape[1]].abs()) * (1.0 + y.abs());
        let bounds: Vec<f64> = y.iter().enumerate().map(bound).collect();
        let mut scales = vec![Tensor::from_slice(&bounds, shape, Device::Cpu)?];
        // Mean and variance of a batch; the error of a mean is proportional to the values, even if they cancel.
        let sizes = [largest(&inputs[0])?, 0.0];
        for (output, size) in reference[1..].iter().zip(sizes) {
            scales.push(testing::map(output, |y| 1.0 + y.abs() + size)?);
        }
        Ok(scales)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = testing::shape(random, 3, 5);
        let many = shape.len() == 5 && shape.iter().product::<usize>() > 600;
        let shape: Vec<usize> = shape.iter().map(|&size| if many { size.min(5) } else { size }).collect();
        let channels = shape[1];
        let values = shape.iter().product::<usize>() / channels.max(1);
        let (norm, rest) = Self::random(random, channels, values)?;
        let mut inputs = vec![testing::values(random, &shape)?];
        inputs.extend(rest);
        Ok((norm, inputs))
    }
}
