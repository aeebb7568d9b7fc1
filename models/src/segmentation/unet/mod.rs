//! What the plain U-Nets have in common (Ronneberger et al. 2015): two convolutions a level, transposed convolutions up, skips
//! by concatenation, which the first convolution of a decoder level reads in place.

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Kernel, MaxPool, Module, Norm, NormKind, NormOptions, Pass,
    Scope,
};

/// How the U-Nets differ.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub name: &'static str,
    /// The number of spatial axes.
    pub rank: usize,
    pub in_channels: usize,
    pub classes: usize,
    /// Channels of each level, the finest first.
    pub widths: &'a [usize],
    pub norm: NormKind,
    pub activation: Activation,
    /// Whether the convolutions before norms have a bias.
    pub bias: bool,
    /// Whether levels are 2× maximum pooled, instead of a stride of the first convolution.
    pub pooled: bool,
    /// Whether the skip's channels come before those from below.
    pub skip_first: bool,
}

/// With more levels an image of 2^(levels − 1) voxels along an axis would be larger than any.
const MOST_LEVELS: usize = 24;
/// No layer has more channels.
const MOST_CHANNELS: usize = 1 << 24;

impl Plan<'_> {
    /// Checks all numbers; gives the channels of the finest level.
    fn check(&self) -> Result<usize> {
        let Some(&finest) = self.widths.first().filter(|_| self.widths.len() <= MOST_LEVELS) else {
            return Err(Error::argument(self.name, format!("{} widths", self.widths.len()))
                .expected(format!("channels of one to {MOST_LEVELS} levels")));
        };
        let channels = [&[self.in_channels, self.classes], self.widths].concat();
        if channels.iter().any(|channels| !(1..=MOST_CHANNELS).contains(channels)) {
            let Plan { in_channels, classes, widths, .. } = self;
            let what = format!("{in_channels} input channels, {classes} classes and widths {widths:?}");
            return Err(Error::argument(self.name, what).expected(format!("numbers from 1 to {MOST_CHANNELS}")));
        }
        Ok(finest)
    }
}

/// (convolution of 3 → norm → activation) twice; the first convolution has the stride.
#[derive(Debug)]
struct Block {
    first: ConvNormActivation,
    second: ConvNormActivation,
}

impl Block {
    fn new(mut scope: Scope<'_>, plan: &Plan<'_>, in_channels: usize, channels: usize, stride: usize) -> Result<Self> {
        let norm = NormOptions::new(plan.norm).activation(plan.activation);
        let mut layer = |place: usize, in_channels: usize, stride: usize| -> Result<ConvNormActivation> {
            let kernel = Kernel::new(plan.rank, 3).stride(stride).padding(1).bias(plan.bias);
            let conv = Conv::new(scope.at(place), in_channels, channels, kernel)?;
            ConvNormActivation::new(conv, Norm::new(scope.at(place + 1), channels, norm)?)
        };
        Ok(Self { first: layer(0, in_channels, stride)?, second: layer(3, channels, 1)? })
    }
}

/// State-dict names: `enc.L.0.weight` (first convolution of level L), `enc.L.1.weight` (its norm), `enc.L.3`, `enc.L.4` (the
/// second ones), `up.L`, `dec.L.0` ..., `head`.
#[derive(Debug)]
pub(crate) struct UNet {
    name: &'static str,
    rank: usize,
    skip_first: bool,
    pool: Option<MaxPool>,
    encoder: Vec<Block>,
    up: Vec<ConvTranspose>,
    decoder: Vec<Block>,
    head: Conv,
}

impl UNet {
    pub(crate) fn new(mut scope: Scope<'_>, plan: &Plan<'_>) -> Result<Self> {
        let finest = plan.check()?;
        scope.whole(|scope| Self::make(scope, plan, finest))
    }

    fn make(scope: &mut Scope<'_>, plan: &Plan<'_>, finest: usize) -> Result<Self> {
        let (widths, rank) = (plan.widths, plan.rank);
        let mut encoder = vec![Block::new(scope.at("enc.0"), plan, plan.in_channels, finest, 1)?];
        for (level, pair) in widths.windows(2).enumerate() {
            let stride = if plan.pooled { 1 } else { 2 };
            encoder.push(Block::new(scope.at(format!("enc.{}", level + 1)), plan, pair[0], pair[1], stride)?);
        }
        let mut up = Vec::new();
        for (level, pair) in widths.windows(2).rev().enumerate() {
            let scope = scope.at(format!("up.{level}"));
            up.push(ConvTranspose::new(scope, pair[1], pair[0], Kernel::new(rank, 2).stride(2))?);
        }
        let mut decoder = Vec::new();
        for (level, pair) in widths.windows(2).rev().enumerate() {
            decoder.push(Block::new(scope.at(format!("dec.{level}")), plan, 2 * pair[0], pair[0], 1)?);
        }
        let head = Conv::new(scope.at("head"), finest, plan.classes, Kernel::new(rank, 1))?;
        let pool = plan.pooled.then(|| MaxPool::new(2)).transpose()?;
        Ok(Self { name: plan.name, rank, skip_first: plan.skip_first, pool, encoder, up, decoder, head })
    }
}

impl Module for UNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let unit = 1usize << self.up.len();
        if x.rank() != self.rank + 2 || x.shape()[2..].iter().any(|size| !size.is_multiple_of(unit)) {
            return Err(Error::shape(self.name, "the input's size doesn't fit the levels")
                .expected(format!("(N, C, spatial...) with {} spatial axes, all multiples of {unit}", self.rank))
                .shapes([x.shape()]));
        }
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (level, block) in self.encoder.iter().enumerate() {
            if let Some(pool) = self.pool.as_ref().filter(|_| level > 0) {
                x = pool.forward(&x, pass)?;
            }
            x = block.second.forward(&block.first.forward(&x, pass)?, pass)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((up, block), skip) in self.up.iter().zip(&self.decoder).zip(skips.into_iter().rev()) {
            let grown = up.forward(&x, pass)?;
            // Let go of the coarse features before the fine ones are made.
            drop(x);
            let (first, second) = if self.skip_first { (skip, grown) } else { (grown, skip) };
            let joined = block.first.forward_two(&first, &second, pass)?;
            drop((first, second));
            x = block.second.forward(&joined, pass)?;
        }
        self.head.forward(&x, pass)
    }
}
