//! The common part of the Inception networks: blocks of parallel branches whose outputs are concatenated.

mod googlenet;
mod inception_v3;

pub use googlenet::{GoogLeNet, GoogLeNetConfig};
pub use inception_v3::{InceptionV3, InceptionV3Config};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Device, Error, Result, Tensor};
use tomograd_nn::{
    Activation, AveragePool, ConvNormActivation, Kernel, MaxPool, Module, NormKind, NormOptions, Pass, Scope, Stage,
    init::Init,
};

use super::IMAGENET;
use crate::{blocks::conv_norm, check};

/// A pooling layer at the beginning of a branch.
#[derive(Debug)]
enum Pooling {
    Max(MaxPool),
    Average(AveragePool),
}

/// A convolution of a branch: name, the original's number of channels, and kernel.
type Layer = (&'static str, usize, Kernel);

/// The description of a branch.
struct BranchSpec {
    pool: Option<Pooling>,
    layers: Vec<Layer>,
    /// Convolutions that all read the output of the last layer, and whose outputs are concatenated.
    ends: Vec<Layer>,
}

impl BranchSpec {
    fn new(layers: impl Into<Vec<Layer>>) -> Self {
        Self { pool: None, layers: layers.into(), ends: Vec::new() }
    }

    fn pooled(pool: Pooling, layers: impl Into<Vec<Layer>>) -> Self {
        Self { pool: Some(pool), ..Self::new(layers) }
    }

    fn ends(mut self, ends: impl Into<Vec<Layer>>) -> Self {
        self.ends = ends.into();
        self
    }
}

/// Pooling, convolutions in a row, and perhaps convolutions side by side.
#[derive(Debug)]
struct Branch {
    pool: Option<Pooling>,
    layers: Vec<ConvNormActivation>,
    ends: Vec<ConvNormActivation>,
}

impl Branch {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Vec<Var>> {
        let pooled = match &self.pool {
            Some(Pooling::Max(pool)) => pool.forward(x, pass)?,
            Some(Pooling::Average(pool)) => pool.forward(x, pass)?,
            None => x.clone(),
        };
        let y = self.layers.iter().try_fold(pooled, |y, layer| layer.forward(&y, pass))?;
        match self.ends.is_empty() {
            true => Ok(vec![y]),
            false => self.ends.iter().map(|end| end.forward(&y, pass)).collect(),
        }
    }
}

/// A block of parallel branches.
#[derive(Debug)]
struct Mixed {
    branches: Vec<Branch>,
    stage: Stage,
}

impl Module for Mixed {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut parts = Vec::new();
        for branch in &self.branches {
            parts.extend(branch.forward(x, pass)?);
        }
        pass.stage(self.stage, Var::concat(&parts.iter().collect::<Vec<_>>(), 1)?)
    }
}

/// What the layers of a network have in common.
#[derive(Debug, Clone, Copy)]
struct Builder {
    /// The channels of the first convolution: all channels of the original are multiplied by `width / original`.
    width: usize,
    original: usize,
    /// The standard deviation of the weights of convolutions. torchvision truncates the normal distribution at ±2, which is so many
    /// deviations that it changes nothing.
    deviation: f64,
}

impl Builder {
    /// Checks the field `width`; channels are whole numbers if it is a multiple of `unit`.
    fn check(self, operation: &str, unit: usize) -> Result<()> {
        // No layer has more than 2^6 times the channels of the first.
        check::sizes(operation, "width", &[self.width], check::MOST_CHANNELS >> 6)?;
        match self.width.is_multiple_of(unit) {
            true => Ok(()),
            false => Err(Error::argument(operation, format!("width is {}", self.width))
                .expected(format!("a multiple of {unit}"))),
        }
    }

    /// The channels of a layer that has this number of them in the original.
    fn channels(self, original: usize) -> usize {
        original * self.width / self.original
    }

    /// A convolution without bias (`conv`), batch norm with ε = 10⁻³ (`bn`) and ReLU, and its number of output channels.
    fn unit(
        self,
        scope: &mut Scope<'_>,
        in_channels: usize,
        (name, channels, kernel): Layer,
    ) -> Result<(ConvNormActivation, usize)> {
        let channels = self.channels(channels);
        let norm = NormOptions::new(NormKind::Batch).epsilon(1e-3).activation(Activation::Relu);
        let kernel = kernel.bias(false).weight(Init::Normal(self.deviation));
        Ok((conv_norm(&mut scope.at(name), ["conv", "bn"], [in_channels, channels], kernel, norm)?, channels))
    }

    fn branch(self, scope: &mut Scope<'_>, in_channels: usize, spec: BranchSpec) -> Result<(Branch, usize)> {
        let BranchSpec { pool, layers: specs, ends: end_specs } = spec;
        let (mut layers, mut channels) = (Vec::new(), in_channels);
        for layer in specs {
            let (layer, outputs) = self.unit(scope, channels, layer)?;
            layers.push(layer);
            channels = outputs;
        }
        let (mut ends, mut end_channels) = (Vec::new(), 0);
        for end in end_specs {
            let (end, outputs) = self.unit(scope, channels, end)?;
            ends.push(end);
            end_channels += outputs;
        }
        let channels = if ends.is_empty() { channels } else { end_channels };
        Ok((Branch { pool, layers, ends }, channels))
    }

    /// The block called `name`, whose feature map is downsampled by `reduction`, and its number of output channels.
    fn mixed(
        self,
        scope: &mut Scope<'_>,
        name: &str,
        in_channels: usize,
        reduction: usize,
        specs: Vec<BranchSpec>,
    ) -> Result<(Mixed, usize)> {
        let (mut branches, mut channels) = (Vec::new(), 0);
        for spec in specs {
            let (branch, outputs) = self.branch(&mut scope.at(name), in_channels, spec)?;
            branches.push(branch);
            channels += outputs;
        }
        Ok((Mixed { branches, stage: scope.stage(name, channels, reduction)? }, channels))
    }
}

/// Checks that `transform_input` is used with three channels.
fn check_transform(operation: &str, transform_input: bool, in_channels: usize) -> Result<()> {
    if !transform_input || in_channels == IMAGENET.mean.len() {
        return Ok(());
    }
    Err(Error::argument(operation, format!("transform_input with in_channels {in_channels}"))
        .expected("3 channels: red, green and blue"))
}

/// An image that was normalised by ImageNet's means and deviations, normalised by means and deviations of 0.5 instead, with which
/// the published weights were trained.
fn transformed(x: &Var, pass: &Pass) -> Result<Var> {
    let shape = [1, IMAGENET.mean.len(), 1, 1];
    let each = |number: fn((&f64, &f64)) -> f64| -> Result<Var> {
        let numbers: Vec<f64> = IMAGENET.mean.iter().zip(IMAGENET.deviation).map(number).collect();
        let tensor = Tensor::from_slice(&numbers, &shape, Device::Cpu)?.to(x.value().device())?;
        Ok(pass.input(&tensor.converted(x.dtype())?))
    };
    let (scale, shift) = (each(|(_, deviation)| deviation / 0.5)?, each(|(mean, _)| (mean - 0.5) / 0.5)?);
    x.mul(&scale)?.add(&shift)
}
