//! Reference and random cases of the norm.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{Norm, Statistics};
use crate::{
    elementwise::{Chain, Function},
    registry,
    registry::Proven,
};

impl Norm {
    /// A random norm for `channels` channels, and its inputs after x. Batch statistics need more than one value a channel.
    pub(crate) fn random(random: &mut Random, channels: usize, values: usize) -> Result<(Self, Vec<Tensor>)> {
        let groups =
            (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).max_by_key(|g| (*g < channels, *g));
        let statistics = match random.below(4) {
            0 => Statistics::Group(groups.unwrap_or(1)),
            1 if values > 1 => Statistics::Batch,
            2 => Statistics::Running,
            _ => Statistics::Instance,
        };
        // A smooth activation, so that differences check its gradient wherever the values fall.
        let activation = [None, Some(Function::Tanh), Some(Function::Silu)][random.below(3) as usize];
        // A large ε keeps the statistics of few values smooth.
        let norm = Self { statistics, epsilon: 0.1, affine: random.bernoulli(0.7), activation };
        let mut inputs = Vec::new();
        for _ in 1..norm.input_count() {
            inputs.push(registry::values(random, &[channels])?);
        }
        if statistics == Statistics::Running
            && let Some(variance) = inputs.last_mut()
        {
            *variance = registry::map(variance, |v| v.abs() + 0.5)?;
        }
        Ok((norm, inputs))
    }
}

impl Proven for Norm {
    /// Sums over a set, a square root and a division follow one another.
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
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let squares = |values: &[f64]| values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f64>();
        let mut y: Vec<f64> = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            let channel = i / voxels % channels;
            let (mean, variance) = match self.statistics {
                Statistics::Running => {
                    let first = 2 * usize::from(self.affine);
                    (rest[first][channel], rest[first + 1][channel])
                }
                _ => (mean(&sets[set(i)]), squares(&sets[set(i)]) / sets[set(i)].len() as f64),
            };
            let normal = (value - mean) / (variance + self.epsilon).sqrt();
            y.push(if self.affine { rest[0][channel] * normal + rest[1][channel] } else { normal });
        }
        let mut y = Tensor::from_slice(&y, x.shape(), Device::Cpu)?;
        if let Some(function) = self.activation {
            y = Chain::unary(function).reference(&[y])?.remove(0);
        }
        let mut outputs = vec![y];
        if self.statistics == Statistics::Batch {
            let means: Vec<f64> = sets.iter().map(|set| if set.is_empty() { 0.0 } else { mean(set) }).collect();
            let unbiased: Vec<f64> = sets
                .iter()
                .map(|set| if set.is_empty() { -0.0 } else { squares(set) / (set.len() as f64 - 1.0) })
                .collect();
            outputs.push(Tensor::from_slice(&means, &[channels], Device::Cpu)?);
            outputs.push(Tensor::from_slice(&unbiased, &[channels], Device::Cpu)?);
        }
        Ok(outputs)
    }

    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        // Inputs, parameters and given statistics up to a few units enter products with 1/√ε ≈ 3.
        let largest = |tensor: &Tensor| Ok(tensor.to_vec_f64()?.into_iter().fold(1.0, |m: f64, v| m.max(v.abs())));
        let sizes: Vec<f64> = inputs.iter().map(largest).collect::<Result<_>>()?;
        let size = sizes[0] * sizes[0] * sizes[1..].iter().fold(1.0, |m: f64, s| m.max(*s)).powi(2);
        reference.iter().map(|output| registry::map(output, |y| size * (1.0 + y.abs()))).collect()
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = registry::shape(random, 3, 5);
        let many = shape.len() == 5 && shape.iter().product::<usize>() > 600;
        let shape: Vec<usize> = shape.iter().map(|&size| if many { size.min(5) } else { size }).collect();
        let channels = shape[1];
        let values = shape.iter().product::<usize>() / channels.max(1);
        let (norm, rest) = Self::random(random, channels, values)?;
        let mut inputs = vec![registry::values(random, &shape)?];
        inputs.extend(rest);
        Ok((norm, inputs))
    }
}
