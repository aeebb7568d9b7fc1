//! A plain 3D U-Net: two convolutions a level, strided convolutions down, transposed convolutions up.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_kernels::elementwise::Function;
use tomograd_nn::{Conv, ConvNormActivation, ConvTranspose, Module, Norm, NormKind, Pass, Scope};

/// The sizes of a [`UNet3d`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// (conv 3³ → instance norm → leaky ReLU 0.01) twice; the first convolution has the stride.
#[derive(Debug)]
struct Block {
    first: ConvNormActivation,
    second: ConvNormActivation,
}

impl Block {
    fn new(mut scope: Scope<'_>, in_channels: usize, channels: usize, stride: usize) -> Result<Self> {
        let mut layer = |place: usize, in_channels: usize, stride: usize| -> Result<ConvNormActivation> {
            let conv = Conv::new(scope.at(place), in_channels, channels, &[3; 3])?.stride(stride).padding(1).build()?;
            let activation = Some(Function::LeakyRelu(0.01));
            Ok(ConvNormActivation::new(conv, Norm::new(scope.at(place + 1), NormKind::Instance, channels, activation)?))
        };
        Ok(Self { first: layer(0, in_channels, stride)?, second: layer(3, channels, 1)? })
    }
}

/// The network. Input (N, C, D, H, W), output (N, classes, D, H, W); sizes must be multiples of 2^(levels − 1).
///
/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`.
#[derive(Debug)]
pub struct UNet3d {
    encoder: Vec<Block>,
    up: Vec<ConvTranspose>,
    decoder: Vec<Block>,
    head: Conv,
}

impl UNet3d {
    /// Makes the network's parameters in `scope`.
    ///
    /// # Errors
    /// When there are no widths, or a name is taken.
    pub fn new(mut scope: Scope<'_>, config: &UNet3dConfig) -> Result<Self> {
        let widths = &config.widths;
        let Some(&finest) = widths.first() else {
            return Err(Error::argument("unet3d", "no widths").expected("channels of one level at least"));
        };
        let mut encoder = vec![Block::new(scope.at("enc.0"), config.in_channels, finest, 1)?];
        for (level, pair) in widths.windows(2).enumerate() {
            encoder.push(Block::new(scope.at(format!("enc.{}", level + 1)), pair[0], pair[1], 2)?);
        }
        let mut up = Vec::new();
        for (level, pair) in widths.windows(2).rev().enumerate() {
            up.push(ConvTranspose::new(scope.at(format!("up.{level}")), pair[1], pair[0], &[2; 3], 2)?);
        }
        let mut decoder = Vec::new();
        for (level, pair) in widths.windows(2).rev().enumerate() {
            decoder.push(Block::new(scope.at(format!("dec.{level}")), 2 * pair[0], pair[0], 1)?);
        }
        let head = Conv::new(scope.at("head"), finest, config.classes, &[1; 3])?.build()?;
        Ok(Self { encoder, up, decoder, head })
    }
}

impl Module for UNet3d {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let unit = 1usize << self.up.len();
        if x.rank() != 5 || x.shape()[2..].iter().any(|size| !size.is_multiple_of(unit)) {
            return Err(Error::shape("unet3d", "the input's size doesn't fit the levels")
                .expected(format!("(N, C, D, H, W) with D, H and W multiples of {unit}"))
                .shapes([x.shape()]));
        }
        let mut skips = Vec::new();
        let mut x = x.clone();
        for block in &self.encoder {
            x = block.second.forward(&block.first.forward(&x, pass)?, pass)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((up, block), skip) in self.up.iter().zip(&self.decoder).zip(skips.into_iter().rev()) {
            let grown = up.forward(&x, pass)?;
            // Let go of the coarse features before the fine ones are made.
            drop(x);
            let joined = block.first.forward_two(&grown, &skip, pass)?;
            drop((grown, skip));
            x = block.second.forward(&joined, pass)?;
        }
        self.head.forward(&x, pass)
    }
}
