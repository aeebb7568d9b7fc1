//! The 2D U-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Module, NormKind, Pass, Scope};

use super::{Layers, UNetSpec};
use crate::config::{Card, Config, Preset, Task};

/// The configuration of a [`UNet2d`].
///
/// ```
/// use tomograd_models::UNet2dConfig;
/// let config = UNet2dConfig { in_channels: 3, widths: vec![16, 32, 64], ..UNet2dConfig::new(2) };
/// assert_eq!(config.classes, 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "unet2d")]
pub struct UNet2dConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    pub widths: Vec<usize>,
}

impl UNet2dConfig {
    /// One input channel and widths 64, 128, 256, 512, 1024.
    pub fn new(classes: usize) -> Self {
        Self { in_channels: 1, classes, widths: vec![64, 128, 256, 512, 1024] }
    }
}

impl Config for UNet2dConfig {
    type Network = UNet2d;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[2],
        about: "2D U-Net with padded convolutions, batch norm, ReLU and maximum pooling",
        source: "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, \
                 arXiv:1505.04597",
        code: Some("https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![Preset::new("ronneberger2015", Self::new(2))]
    }

    fn build(&self, scope: Scope<'_>) -> Result<UNet2d> {
        UNet2d::new(scope, self)
    }
}

/// Ronneberger's U-Net (2015) with padded convolutions, batch norm, ReLU, max pooling and transposed convolutions.
/// Input (N, C, H, W), output (N, classes, H, W); sizes must be multiples of 2^(levels − 1).
///
/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`. Stages: `enc.L`, `dec.L`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{UNet2d, UNet2dConfig};
/// use tomograd_nn::{Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let net = UNet2d::new(params.root(), &UNet2dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] })?;
/// let pass = Pass::eval(&params)?;
/// let image = Tensor::zeros(&[1, 1, 8, 6], DType::F32, Device::Cpu)?;
/// assert_eq!(net.forward(&pass.input(&image), &pass)?.shape(), [1, 2, 8, 6]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UNet2d(Layers);

impl UNet2d {
    /// Creates the network's parameters in `scope`.
    ///
    /// # Errors
    /// When there are no widths or more than 24, a number of channels is 0 or more than 2²⁴, a name is taken, or memory runs
    /// out; then no parameter is created.
    pub fn new(scope: Scope<'_>, config: &UNet2dConfig) -> Result<Self> {
        let spec = UNetSpec {
            rank: 2,
            in_channels: config.in_channels,
            classes: config.classes,
            widths: &config.widths,
            norm: NormKind::Batch,
            activation: Activation::Relu,
            bias: false,
            pooled: true,
            skip_first: true,
        };
        Ok(Self(Layers::new(scope, &spec)?))
    }
}

impl Module for UNet2d {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.0.forward(x, pass)
    }
}
