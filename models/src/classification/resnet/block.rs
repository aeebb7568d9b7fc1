//! The residual block and its shortcuts.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_kernels::index::PadMode;
use tomograd_nn::{
    Activation, ConvNormActivation, Kernel, Module, NormKind, NormOptions, Pass, Scope,
    init::{Fan, Init},
};

use super::{ResNetAttention, ResNetBlock, ResNetConfig, ResNetShortcut};
use crate::blocks::{Cbam, SqueezeExcitation, SqueezeExcitationOptions, conv_norm, saving::add_relu};

/// The initialisation of convolutions.
const KAIMING: Init = Init::kaiming_normal(Fan::Out);

/// Convolution without bias, batch norm and ReLU.
pub(super) fn conv_norm_relu(
    scope: &mut Scope<'_>,
    names: [&str; 2],
    channels: [usize; 2],
    kernel: Kernel,
) -> Result<ConvNormActivation> {
    let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
    conv_norm(scope, names, channels, kernel.bias(false).weight(KAIMING), norm)
}

/// What is added to the residual branch.
#[derive(Debug)]
enum Shortcut {
    /// The block's input.
    Identity,
    /// A convolution of width 1 and a norm.
    Projection(Box<ConvNormActivation>),
    /// Every `stride`-th voxel, and zeros in front of which the input's channels stand.
    ZeroPadding { stride: usize, zeros: usize },
}

impl Shortcut {
    fn new(scope: &mut Scope<'_>, config: &ResNetConfig, channels: [usize; 2], stride: usize) -> Result<Self> {
        let [in_channels, out_channels] = channels;
        if stride == 1 && in_channels == out_channels {
            return Ok(Self::Identity);
        }
        match config.shortcut {
            ResNetShortcut::Projection => {
                let mut kernel = Kernel::new(config.rank, 1).stride(stride).bias(config.shortcut_bias);
                // The authors of CBAM initialise convolutions by their names, which this one hasn't.
                if config.attention != ResNetAttention::Cbam {
                    kernel = kernel.weight(KAIMING);
                }
                let norm = NormOptions::new(NormKind::Batch);
                let layers = conv_norm(&mut scope.at("downsample"), ["0", "1"], channels, kernel, norm)?;
                Ok(Self::Projection(layers.into()))
            }
            ResNetShortcut::ZeroPadding => {
                Ok(Self::ZeroPadding { stride, zeros: out_channels.saturating_sub(in_channels) })
            }
        }
    }
}

impl Module for Shortcut {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Projection(projection) => projection.forward(x, pass),
            Self::ZeroPadding { stride, zeros } => {
                let every = |x: Var, axis: usize| x.slice(axis, 0, x.shape()[axis].div_ceil(*stride), *stride);
                let thinned = (2..x.rank()).try_fold(x.detach(), every)?;
                let mut after = vec![0; x.rank()];
                after[1] = *zeros;
                thinned.pad(&vec![0; x.rank()], &after, PadMode::Constant(0.0))
            }
        }
    }
}

/// The attention of a block.
#[derive(Debug)]
enum Attention {
    SqueezeExcitation(SqueezeExcitation),
    Cbam(Cbam),
}

impl Module for Attention {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::SqueezeExcitation(block) => block.forward(x, pass),
            Self::Cbam(block) => block.forward(x, pass),
        }
    }
}

/// A sixteenth of the channels, rounded to a multiple of 8, at least 8.
fn sixteenth(channels: usize) -> usize {
    ((channels / 16 + 4) / 8 * 8).max(8)
}

/// A residual block: convolutions, attention, and a shortcut.
#[derive(Debug)]
pub(super) struct Residual {
    main: Vec<ConvNormActivation>,
    attention: Option<Attention>,
    shortcut: Shortcut,
}

impl Residual {
    /// A block of layer `layer`, counted from 0.
    pub(super) fn new(
        scope: &mut Scope<'_>,
        config: &ResNetConfig,
        layer: usize,
        in_channels: usize,
        stride: usize,
    ) -> Result<Self> {
        let dilation = config.dilation(layer);
        let three = |stride: usize| Kernel::new(config.rank, 3).stride(stride).dilation(dilation).padding(dilation);
        let one = Kernel::new(config.rank, 1);
        let (planes, inner) = (config.planes(layer), config.inner(layer));
        let out_channels = planes * config.block.expansion();
        // As in timm, a branch with squeeze and excitation begins as zero, so that its block is the identity.
        let gamma = if config.attention == ResNetAttention::SqueezeExcitation { 0.0 } else { 1.0 };
        let last = |scope: &mut Scope<'_>, names, channels, kernel: Kernel| {
            let norm = NormOptions::new(NormKind::Batch).weight(Init::Constant(gamma));
            conv_norm(scope, names, channels, kernel.bias(false).weight(KAIMING), norm)
        };
        let main = match config.block {
            ResNetBlock::Basic => vec![
                conv_norm_relu(scope, ["conv1", "bn1"], [in_channels, planes], three(stride))?,
                last(scope, ["conv2", "bn2"], [planes, planes], three(1))?,
            ],
            ResNetBlock::Bottleneck => vec![
                conv_norm_relu(scope, ["conv1", "bn1"], [in_channels, inner], one.clone())?,
                conv_norm_relu(scope, ["conv2", "bn2"], [inner, inner], three(stride).groups(config.groups))?,
                last(scope, ["conv3", "bn3"], [inner, out_channels], one)?,
            ],
        };
        // The order of the state dict is that of each original.
        let channels = [in_channels, out_channels];
        let shortcut = |scope: &mut Scope<'_>| Shortcut::new(scope, config, channels, stride);
        let (attention, shortcut) = match config.attention {
            ResNetAttention::None => (None, shortcut(scope)?),
            ResNetAttention::SqueezeExcitation => {
                let options = SqueezeExcitationOptions::new(config.rank, sixteenth(out_channels)).weight(KAIMING);
                let block = SqueezeExcitation::new(scope.at("se"), out_channels, options)?;
                (Some(Attention::SqueezeExcitation(block)), shortcut(scope)?)
            }
            ResNetAttention::Cbam => {
                let shortcut = shortcut(scope)?;
                let block = Cbam::new(scope.at("cbam"), config.rank, out_channels, out_channels / 16)?;
                (Some(Attention::Cbam(block)), shortcut)
            }
        };
        Ok(Self { main, attention, shortcut })
    }
}

impl Module for Residual {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut y = self.main.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, pass))?;
        if let Some(attention) = &self.attention {
            y = attention.forward(&y, pass)?;
        }
        add_relu(y, &self.shortcut.forward(x, pass)?)
    }
}
