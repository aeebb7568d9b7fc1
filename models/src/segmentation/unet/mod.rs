//! The common part of the plain U-Nets (Ronneberger et al. 2015): two convolutions per level, and skip connections by
//! concatenation, where the decoder's first convolution reads both inputs without a copy.

mod original;
mod unet2d;
mod unet3d;

use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_kernels::index::PadMode;
use tomograd_nn::{
    Activation, Conv, ConvTranspose, Dropout, Kernel, MaxPool, Module, NormKind, Pass, Scope, Stage, Upsample,
};

pub use original::{UNet, UNetConfig, UNetUpsampling};
pub use unet2d::{UNet2d, UNet2dConfig};
pub use unet3d::{UNet3d, UNet3dConfig};

use super::fit;
use crate::{
    blocks::{DoubleConv, DoubleConvOptions},
    check,
};

/// The differences between [`UNet2d`] and [`UNet3d`].
#[derive(Debug)]
struct UNetSpec<'a> {
    /// The number of spatial axes.
    rank: usize,
    in_channels: usize,
    classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    widths: &'a [usize],
    norm: NormKind,
    activation: Activation,
    /// Whether convolutions followed by a norm have a bias.
    bias: bool,
    /// Whether downsampling is 2× max pooling instead of a stride of the first convolution.
    pooled: bool,
    /// Whether the channels of the skip connection come before the upsampled ones.
    skip_first: bool,
}

/// Checks the numbers that all U-Nets have.
fn check(in_channels: usize, classes: usize, widths: &[usize]) -> Result<()> {
    check::sizes("unet", "in_channels", &[in_channels], check::MOST_CHANNELS)?;
    check::sizes("unet", "classes", &[classes], check::MOST_CHANNELS)?;
    check::length("unet", "widths", widths.len(), 1, check::MOST_LEVELS)?;
    check::sizes("unet", "widths", widths, check::MOST_CHANNELS)
}

/// A block and the stage after it.
#[derive(Debug)]
struct Level {
    block: DoubleConv,
    dropout: Option<Dropout>,
    stage: Stage,
}

impl Level {
    /// The level called `name`, whose feature map is downsampled by 2^`depth` along each axis.
    fn new(
        scope: &mut Scope<'_>,
        name: &str,
        [in_channels, channels]: [usize; 2],
        depth: usize,
        options: DoubleConvOptions,
    ) -> Result<Self> {
        let block = DoubleConv::new(scope.at(name), in_channels, channels, options)?;
        Ok(Self { block, dropout: None, stage: scope.stage(name, channels, 1 << depth)? })
    }

    fn finish(&self, x: Var, pass: &Pass) -> Result<Var> {
        let x = match &self.dropout {
            Some(dropout) => dropout.forward(&x, pass)?,
            None => x,
        };
        pass.stage(self.stage, x)
    }
}

/// How a level's skip connection and the upsampled map get one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// They have it: other inputs are refused.
    Exact,
    /// Zeros around the upsampled map.
    Pad,
    /// The middle of the skip connection, since each convolution takes two voxels off.
    Crop,
}

/// Upsampling by 2.
#[derive(Debug)]
enum Up {
    Transposed(ConvTranspose),
    Linear(Upsample),
}

/// The layers of a U-Net, whatever their names.
#[derive(Debug)]
struct Layers {
    rank: usize,
    skip_first: bool,
    fit: Fit,
    pool: Option<MaxPool>,
    encoder: Vec<Level>,
    up: Vec<Up>,
    decoder: Vec<Level>,
    head: Conv,
}

impl Layers {
    /// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4`
    /// (the second ones), `up.L`, `dec.L.0` ..., `head`. Stages: `enc.L`, `dec.L`.
    fn new(mut scope: Scope<'_>, spec: &UNetSpec<'_>) -> Result<Self> {
        check(spec.in_channels, spec.classes, spec.widths)?;
        scope.whole(|scope| Self::make(scope, spec))
    }

    fn make(scope: &mut Scope<'_>, spec: &UNetSpec<'_>) -> Result<Self> {
        let UNetSpec { rank, widths, .. } = *spec;
        let options = DoubleConvOptions::new(rank, spec.norm, spec.activation).bias(spec.bias);
        let mut encoder: Vec<Level> = Vec::new();
        let mut channels = spec.in_channels;
        for (depth, &width) in widths.iter().enumerate() {
            let stride = if spec.pooled || depth == 0 { 1 } else { 2 };
            let options = options.stride(stride);
            encoder.push(Level::new(scope, &format!("enc.{depth}"), [channels, width], depth, options)?);
            channels = width;
        }
        // From the coarsest pair of levels to the finest.
        let pairs = || widths.windows(2).enumerate().rev().enumerate();
        let mut up = Vec::new();
        for (place, (_, pair)) in pairs() {
            let kernel = Kernel::new(rank, 2).stride(2);
            up.push(Up::Transposed(ConvTranspose::new(scope.at("up").at(place), pair[1], pair[0], kernel)?));
        }
        let mut decoder = Vec::new();
        for (place, (depth, pair)) in pairs() {
            decoder.push(Level::new(scope, &format!("dec.{place}"), [2 * pair[0], pair[0]], depth, options)?);
        }
        let head = Conv::new(scope.at("head"), widths[0], spec.classes, Kernel::new(rank, 1))?;
        let pool = spec.pooled.then(|| MaxPool::new(2)).transpose()?;
        Ok(Self { rank, skip_first: spec.skip_first, fit: Fit::Exact, pool, encoder, up, decoder, head })
    }

    fn check_input(&self, x: &Var) -> Result<()> {
        let levels = self.up.len();
        match self.fit {
            Fit::Exact => fit::multiples("unet", x, &vec![1 << levels; self.rank]),
            Fit::Pad => check::smallest("unet", x.shape(), self.rank, 1 << levels),
            Fit::Crop => original::check_unpadded(x, self.rank, levels),
        }
    }
}

impl Module for Layers {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.check_input(x)?;
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (depth, level) in self.encoder.iter().enumerate() {
            if let Some(pool) = self.pool.as_ref().filter(|_| depth > 0) {
                x = pool.forward(&x, pass)?;
            }
            x = level.finish(level.block.forward(&x, pass)?, pass)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((up, level), skip) in self.up.iter().zip(&self.decoder).zip(skips.into_iter().rev()) {
            let grown = match up {
                Up::Transposed(up) => up.forward(&x, pass)?,
                Up::Linear(up) => up.forward(&x, pass)?,
            };
            // Frees the coarse features before the fine ones are allocated.
            drop(x);
            let (skip, grown) = match self.fit {
                Fit::Exact => (skip, grown),
                Fit::Pad => {
                    let spatial = skip.shape()[2..].to_vec();
                    (skip, fit::padded(grown, &spatial, PadMode::Constant(0.0))?)
                }
                Fit::Crop => (fit::cropped(skip, &grown.shape()[2..])?, grown),
            };
            let (first, second) = if self.skip_first { (skip, grown) } else { (grown, skip) };
            x = level.finish(level.block.forward_two(first, second, pass)?, pass)?;
        }
        self.head.forward(&x, pass)
    }
}
