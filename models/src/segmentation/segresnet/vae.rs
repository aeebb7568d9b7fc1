//! The variational autoencoder of SegResNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result, Tensor};
use tomograd_nn::{Activation, Conv, ConvNormActivation, Linear, Module, Norm, Pass, Scope};

use super::{Double, Spec, Up};
use crate::check;

/// The channels to which the autoencoder reduces those of the coarsest level.
pub(super) const SMALLEST: usize = 16;

/// The variational autoencoder of a [`SegResNet`](crate::SegResNet), which regularises the encoder in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegResNetVae {
    /// The size of the images in training, on which the inputs of the latent variables depend.
    pub image_size: Vec<usize>,
    /// The number of latent variables.
    #[serde(default = "SegResNetVae::latent")]
    pub latent: usize,
    /// Whether the standard deviations of the latent variables are estimated.
    #[serde(default)]
    pub estimate_deviation: bool,
    /// The standard deviation of all latent variables if it isn't estimated.
    #[serde(default = "SegResNetVae::deviation")]
    pub deviation: f64,
}

impl SegResNetVae {
    /// MONAI's autoencoder for images of this size: 256 latent variables with a standard deviation of 0.3.
    pub fn new(image_size: impl Into<Vec<usize>>) -> Self {
        let image_size = image_size.into();
        Self { image_size, latent: Self::latent(), estimate_deviation: false, deviation: Self::deviation() }
    }

    fn latent() -> usize {
        256
    }

    fn deviation() -> f64 {
        0.3
    }

    /// Checks the numbers, for a network of `rank` spatial axes whose coarsest level is smaller by `zoom`.
    pub(super) fn check(&self, rank: usize, zoom: usize) -> Result<()> {
        let unit = 2 * zoom;
        check::length("segresnet", "vae.image_size", self.image_size.len(), rank, rank)?;
        check::sizes("segresnet", "vae.image_size", &self.image_size, 1 << 16)?;
        check::sizes("segresnet", "vae.latent", &[self.latent], check::MOST_CHANNELS)?;
        if self.image_size.iter().any(|size| !size.is_multiple_of(unit)) {
            return Err(Error::argument("segresnet", format!("vae.image_size is {:?}", self.image_size))
                .expected(format!("multiples of {unit}")));
        }
        check::number("segresnet", "vae.deviation", self.deviation, 0.0..=1000.0)
    }
}

/// The layers of the variational autoencoder.
#[derive(Debug)]
pub(super) struct Vae {
    config: SegResNetVae,
    path: String,
    /// The spatial size of the latent map.
    size: Vec<usize>,
    down: (Norm, ConvNormActivation),
    mean: Linear,
    deviation: Linear,
    back: Linear,
    activation: Activation,
    up: (Conv, Double, Norm),
    head: (Norm, Conv),
}

impl Vae {
    pub(super) fn new(scope: &mut Scope<'_>, spec: &Spec<'_>, vae: &SegResNetVae) -> Result<Self> {
        let config = spec.config;
        let channels = config.init_filters * config.zoom();
        let size: Vec<usize> = vae.image_size.iter().map(|size| size / (2 * config.zoom())).collect();
        let elements = size.iter().product::<usize>() * SMALLEST;
        let mut inner = scope.at("vae_down");
        let first = Norm::new(inner.at(0), channels, spec.norm)?;
        let conv = spec.conv(inner.at(2), [channels, SMALLEST], [3, 2], true)?;
        let down = (first, ConvNormActivation::new(conv, Norm::new(inner.at(3), SMALLEST, spec.norm)?)?);
        let mean = Linear::new(scope.at("vae_fc1"), elements, vae.latent)?;
        let deviation = Linear::new(scope.at("vae_fc2"), elements, vae.latent)?;
        if !vae.estimate_deviation {
            scope.at("vae_fc2").freeze();
        }
        let back = Linear::new(scope.at("vae_fc3"), vae.latent, elements)?;
        let mut inner = scope.at("vae_fc_up_sample");
        let conv = spec.conv(inner.at(0), [SMALLEST, channels], [1, 1], false)?;
        let double = Double::new(inner.at(1), spec, channels)?;
        let up = (conv, double, Norm::new(inner.at(2), channels, spec.norm)?);
        let head = spec.head(scope.at("vae_conv_final"), config.init_filters, config.in_channels)?;
        let (activation, path) = (spec.activation, scope.at("vae").path().to_owned());
        Ok(Self { config: vae.clone(), path, size, down, mean, deviation, back, activation, up, head })
    }

    /// The reconstruction's mean square error and the latent variables' distance from a normal distribution.
    pub(super) fn loss(&self, image: &Var, coarsest: &Var, decoder: &[Up], pass: &Pass) -> Result<Var> {
        if image.shape()[2..] != self.config.image_size[..] {
            return Err(Error::shape("segresnet", "the autoencoder was made for another image size")
                .expected(format!("vae.image_size in training: {:?}", self.config.image_size))
                .shapes([image.shape()]));
        }
        let latent = self.down.1.forward(&self.down.0.forward(coarsest, pass)?, pass)?.flatten(1..)?;
        let mean = self.mean.forward(&latent, pass)?;
        let (seed, value) = (pass.random(&self.path), mean.value());
        let noise = pass.input(&Tensor::normal(mean.shape(), 0.0, 1.0, seed, mean.dtype(), value.device())?);
        let (z, distance) = match self.config.estimate_deviation {
            true => {
                let deviation = Activation::Softplus.forward(&self.deviation.forward(&latent, pass)?, pass)?;
                let squares = deviation.square()?;
                let entropy = squares.add(1e-8)?.log()?.add(1.0)?;
                let distance = mean.square()?.add(&squares)?.sub(&entropy)?.mean(..)?.mul(0.5)?;
                (mean.add(&deviation.mul(&noise)?)?, distance)
            }
            false => (mean.add(&noise.mul(self.config.deviation)?)?, mean.square()?.mean(..)?),
        };
        let map = self.activation.forward(&self.back.forward(&z, pass)?, pass)?;
        let map = map.reshape(&[&[image.shape()[0], SMALLEST], &self.size[..]].concat())?;
        let (conv, double, norm) = &self.up;
        let map = norm.forward(&double.forward(&conv.forward(&map, pass)?, pass)?, pass)?;
        let map = decoder.iter().try_fold(map, |map, up| up.run(map, None, pass))?;
        let again = self.head.1.forward(&self.head.0.forward(&map, pass)?, pass)?;
        distance.add(&again.sub(image)?.square()?.mean(..)?)
    }
}
