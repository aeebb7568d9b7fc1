//! The plain 3D U-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Module, NormKind, Pass, Scope};

use super::{Layers, UNetSpec};
use crate::config::{Card, Config, Preset, Task};

/// The configuration of a [`UNet3d`].
///
/// ```
/// use tomograd_models::UNet3dConfig;
/// let config = UNet3dConfig { in_channels: 4, widths: vec![16, 32, 64], ..UNet3dConfig::new(3) };
/// assert_eq!(config.classes, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "unet3d")]
pub struct UNet3dConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
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

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[3],
        about: "3D U-Net: strided convolutions, instance norm, leaky ReLU, transposed convolutions",
        source: "after Çiçek et al.: 3D U-Net, 2016, arXiv:1606.06650; norm, activation and strides as in nnU-Net (Isensee et \
                 al. 2021, doi:10.1038/s41592-020-01008-z)",
        code: None,
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![Preset::new("plain", Self::new(3))]
    }

    fn build(&self, scope: Scope<'_>) -> Result<UNet3d> {
        UNet3d::new(scope, self)
    }
}

/// A plain 3D U-Net: strided 3³ convolutions, 2³ transposed convolutions, instance norm, leaky ReLU with slope 0.01.
/// Input (N, C, D, H, W), output (N, classes, D, H, W); sizes must be multiples of 2^(levels − 1).
///
/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`. Stages: `enc.L`, `dec.L`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{UNet3d, UNet3dConfig};
/// use tomograd_nn::{Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let net = UNet3d::new(params.root(), &UNet3dConfig { in_channels: 1, classes: 3, widths: vec![2, 4] })?;
/// let pass = Pass::eval(&params)?;
/// let image = Tensor::zeros(&[1, 1, 8, 6, 4], DType::F32, Device::Cpu)?;
/// assert_eq!(net.forward(&pass.input(&image), &pass)?.shape(), [1, 3, 8, 6, 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UNet3d(Layers);

impl UNet3d {
    /// Creates the network's parameters in `scope`.
    ///
    /// # Errors
    /// When there are no widths or more than 24, a number of channels is 0 or more than 2²⁴, a name is taken, or memory runs
    /// out; then no parameter is created.
    pub fn new(scope: Scope<'_>, config: &UNet3dConfig) -> Result<Self> {
        let spec = UNetSpec {
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
        Ok(Self(Layers::new(scope, &spec)?))
    }
}

impl Module for UNet3d {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.0.forward(x, pass)
    }
}
