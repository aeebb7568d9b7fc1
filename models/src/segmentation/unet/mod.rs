//! The common part of the plain U-Nets (Ronneberger et al. 2015): two convolutions per level, transposed convolutions for
//! upsampling, and skip connections by concatenation, where the decoder's first convolution reads both inputs without a copy.

mod unet2d;
mod unet3d;

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{Activation, Conv, ConvTranspose, Kernel, MaxPool, Module, NormKind, Pass, Scope, Stage};

pub use unet2d::{UNet2d, UNet2dConfig};
pub use unet3d::{UNet3d, UNet3dConfig};

use crate::{
    blocks::{DoubleConv, DoubleConvOptions},
    check,
};

/// The differences between the U-Nets.
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

/// With more levels, an image of 2^(levels − 1) voxels along an axis would be larger than any.
const MOST_LEVELS: usize = 24;

impl UNetSpec<'_> {
    fn check(&self) -> Result<()> {
        check::sizes("unet", "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes("unet", "classes", &[self.classes], check::MOST_CHANNELS)?;
        check::length("unet", "widths", self.widths.len(), 1, MOST_LEVELS)?;
        check::sizes("unet", "widths", self.widths, check::MOST_CHANNELS)
    }
}

/// A block and the stage after it.
#[derive(Debug)]
struct Level {
    block: DoubleConv,
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
        Ok(Self { block, stage: scope.stage(name, channels, 1 << depth)? })
    }
}

/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`. Stages: `enc.L`, `dec.L`.
#[derive(Debug)]
struct UNet {
    rank: usize,
    skip_first: bool,
    pool: Option<MaxPool>,
    encoder: Vec<Level>,
    up: Vec<ConvTranspose>,
    decoder: Vec<Level>,
    head: Conv,
}

impl UNet {
    fn new(mut scope: Scope<'_>, spec: &UNetSpec<'_>) -> Result<Self> {
        spec.check()?;
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
            up.push(ConvTranspose::new(scope.at("up").at(place), pair[1], pair[0], Kernel::new(rank, 2).stride(2))?);
        }
        let mut decoder = Vec::new();
        for (place, (depth, pair)) in pairs() {
            decoder.push(Level::new(scope, &format!("dec.{place}"), [2 * pair[0], pair[0]], depth, options)?);
        }
        let head = Conv::new(scope.at("head"), widths[0], spec.classes, Kernel::new(rank, 1))?;
        let pool = spec.pooled.then(|| MaxPool::new(2)).transpose()?;
        Ok(Self { rank, skip_first: spec.skip_first, pool, encoder, up, decoder, head })
    }
}

impl Module for UNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let unit = 1usize << self.up.len();
        if x.rank() != self.rank + 2 || x.shape()[2..].iter().any(|size| !size.is_multiple_of(unit)) {
            return Err(Error::shape("unet", "the input's size doesn't fit the levels")
                .expected(format!("(N, C, spatial...) with {} spatial axes, all multiples of {unit}", self.rank))
                .shapes([x.shape()]));
        }
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (depth, level) in self.encoder.iter().enumerate() {
            if let Some(pool) = self.pool.as_ref().filter(|_| depth > 0) {
                x = pool.forward(&x, pass)?;
            }
            x = pass.stage(level.stage, level.block.forward(&x, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((up, level), skip) in self.up.iter().zip(&self.decoder).zip(skips.into_iter().rev()) {
            let grown = up.forward(&x, pass)?;
            // Frees the coarse features before the fine ones are allocated.
            drop(x);
            let (first, second) = if self.skip_first { (skip, grown) } else { (grown, skip) };
            x = pass.stage(level.stage, level.block.forward_two(first, second, pass)?)?;
        }
        self.head.forward(&x, pass)
    }
}
