//! The plain 3D U-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Module, NormKind, Pass, Scope};

use crate::{
    registry::Config,
    unet::{Plan, UNet},
};

/// The sizes of a [`UNet3d`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "unet3d")]
pub struct UNet3dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels of each level, the finest first.
    pub widths: Vec<usize>,
}

impl UNet3dConfig {
    /// One input channel and widths 32, 64, 128, 256.
    pub fn new(classes: usize) -> Self {
        Self { in_channels: 1, classes, widths: vec![32, 64, 128, 256] }
    }
}

impl Config for UNet3dConfig {
    type Network = UNet3d;

    fn build(&self, scope: Scope<'_>) -> Result<UNet3d> {
        UNet3d::new(scope, self)
    }
}

/// A plain 3D U-Net: strided 3³ convolutions down, 2³ transposed convolutions up, instance norm, leaky ReLU of slope 0.01.
/// Input (N, C, D, H, W), output (N, classes, D, H, W); sizes must be multiples of 2^(levels − 1).
///
/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`.
#[derive(Debug)]
pub struct UNet3d(UNet);

impl UNet3d {
    /// Makes the network's parameters in `scope`.
    ///
    /// # Errors
    /// When there are no widths or more than 24, a number of channels is 0 or beyond 2²⁴, a name is taken, or memory runs out;
    /// then no parameter is made.
    pub fn new(scope: Scope<'_>, config: &UNet3dConfig) -> Result<Self> {
        let plan = Plan {
            name: "unet3d",
            rank: 3,
            in_channels: config.in_channels,
            classes: config.classes,
            widths: &config.widths,
            norm: NormKind::Instance,
            activation: Activation::LeakyRelu(0.01),
            bias: true,
            pooled: false,
            skip_first: false,
        };
        Ok(Self(UNet::new(scope, &plan)?))
    }
}

impl Module for UNet3d {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.0.forward(x, pass)
    }
}
