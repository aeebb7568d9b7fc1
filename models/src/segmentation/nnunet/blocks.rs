//! The blocks of nnU-Net's networks, with the names of `dynamic_network_architectures`, where each layer is registered
//! twice.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, AveragePool, Conv, Dropout, DropoutOptions, Kernel, Module, NormOptions, Pass, Scope, Window,
    init::Init,
};

use super::NnUNetConfig;
use crate::{
    blocks::{After, ConvDropoutNorm, NormChoice, saving::add_activation},
    segmentation::levels::{function, he},
};

/// What all blocks of a network have in common.
pub(super) struct Spec<'a> {
    pub(super) config: &'a NnUNetConfig,
    norm: Option<NormOptions>,
    activation: Activation,
    ones: Vec<usize>,
}

/// Channels before and after a layer, and its kernel size and stride.
#[derive(Clone, Copy)]
pub(super) struct Sizes<'a> {
    pub(super) channels: [usize; 2],
    pub(super) kernel: &'a [usize],
    pub(super) stride: &'a [usize],
}

/// Which parts a layer has.
#[derive(Clone, Copy)]
struct Parts {
    bias: bool,
    dropout: bool,
    activation: bool,
    /// Whether γ is 0 at first: a residual block then begins as its shortcut.
    zero: bool,
}

impl<'a> Spec<'a> {
    pub(super) fn new(config: &'a NnUNetConfig) -> Result<Self> {
        let norm = config.norm.options().map(|options| options.epsilon(config.norm_epsilon));
        let activation = function("nnunet", config.activation)?;
        Ok(Self { config, norm, activation, ones: vec![1; config.rank] })
    }

    /// Strides of 1.
    pub(super) fn ones(&self) -> &[usize] {
        &self.ones
    }

    /// Convolution, dropout, norm and activation: `conv` and `norm` in `scope`, and both again below `all_modules`.
    fn layer(&self, mut scope: Scope<'_>, sizes: Sizes<'_>, parts: Parts) -> Result<ConvDropoutNorm> {
        let Sizes { channels: [in_channels, channels], kernel, stride } = sizes;
        let config = self.config;
        let padding: Vec<usize> = kernel.iter().map(|size| (size - 1) / 2).collect();
        let options = he(Kernel::new(config.rank, kernel).stride(stride).padding(padding), parts.bias);
        let conv = Conv::new(scope.at("conv"), in_channels, channels, options)?;
        let dropped = config.dropout.filter(|_| parts.dropout);
        let options = |probability| DropoutOptions::new(probability).whole_channels(config.dropout_channels);
        let dropout = dropped.map(|probability| Dropout::new(scope.at("dropout"), options(probability))).transpose()?;
        let after = After {
            norm: self.norm.map(|norm| if parts.zero { norm.weight(Init::Constant(0.0)) } else { norm }),
            activation: Some(self.activation).filter(|_| parts.activation),
            activation_first: config.activation_first,
        };
        let place = 1 + usize::from(dropout.is_some()) + usize::from(config.activation_first && parts.activation);
        let layer = ConvDropoutNorm::new(scope.at("norm"), conv, dropout, after)?;
        scope.alias_all("all_modules.0", "conv")?;
        if !matches!(config.norm, NormChoice::None | NormChoice::Instance) {
            scope.alias_all(&format!("all_modules.{place}"), "norm")?;
        }
        Ok(layer)
    }

    /// A layer with all parts that the configuration has.
    pub(super) fn whole(&self, scope: Scope<'_>, sizes: Sizes<'_>) -> Result<ConvDropoutNorm> {
        self.layer(scope, sizes, Parts { bias: self.config.conv_bias, dropout: true, activation: true, zero: false })
    }
}

/// Plain layers (`convs.K`) or residual blocks (`blocks.K`), of which the first has the stride.
#[derive(Debug)]
pub(super) enum Blocks {
    Plain(Vec<ConvDropoutNorm>),
    Residual(Vec<Residual>),
}

impl Blocks {
    pub(super) fn plain(mut scope: Scope<'_>, spec: &Spec<'_>, count: usize, sizes: Sizes<'_>) -> Result<Self> {
        let mut scope = scope.at("convs");
        let rest = Sizes { channels: [sizes.channels[1]; 2], kernel: sizes.kernel, stride: spec.ones() };
        let layer = |place| spec.whole(scope.at(place), if place == 0 { sizes } else { rest });
        Ok(Self::Plain((0..count).map(layer).collect::<Result<_>>()?))
    }

    pub(super) fn residual(
        mut scope: Scope<'_>,
        spec: &Spec<'_>,
        count: usize,
        sizes: Sizes<'_>,
        bottleneck: Option<usize>,
    ) -> Result<Self> {
        let mut scope = scope.at("blocks");
        let rest = Sizes { channels: [sizes.channels[1]; 2], kernel: sizes.kernel, stride: spec.ones() };
        let block = |place| Residual::new(scope.at(place), spec, if place == 0 { sizes } else { rest }, bottleneck);
        Ok(Self::Residual((0..count).map(block).collect::<Result<_>>()?))
    }

    /// The output for two inputs concatenated along channels.
    pub(super) fn forward_two(&self, first: Var, second: Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Plain(layers) => {
                let Some((head, rest)) = layers.split_first() else { return Ok(first) };
                let y = head.forward_two(first, second, pass)?;
                rest.iter().try_fold(y, |y, layer| layer.forward(&y, pass))
            }
            Self::Residual(_) => {
                let joined = Var::concat(&[&first, &second], 1)?;
                drop((first, second));
                self.forward(&joined, pass)
            }
        }
    }
}

impl Module for Blocks {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Plain(layers) => layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, pass)),
            Self::Residual(blocks) => blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, pass)),
        }
    }
}

/// A residual block as in ResNet-D (He et al. 2019): two layers, or three with a bottleneck; the shortcut is averaged
/// over the stride, and projected if the channels change.
#[derive(Debug)]
pub(super) struct Residual {
    layers: Vec<ConvDropoutNorm>,
    activation: Activation,
    pool: Option<AveragePool>,
    projection: Option<ConvDropoutNorm>,
}

impl Residual {
    fn new(mut scope: Scope<'_>, spec: &Spec<'_>, sizes: Sizes<'_>, bottleneck: Option<usize>) -> Result<Self> {
        let Sizes { channels: [in_channels, channels], kernel, stride } = sizes;
        let (ones, bias) = (spec.ones(), spec.config.conv_bias);
        let inner = |channels, kernel| Sizes { channels, kernel, stride: ones };
        let last = Parts { bias, dropout: false, activation: false, zero: true };
        let layers = match bottleneck {
            None => vec![
                spec.whole(scope.at("conv1"), sizes)?,
                spec.layer(scope.at("conv2"), inner([channels, channels], kernel), last)?,
            ],
            Some(narrow) => {
                let first = Parts { activation: true, zero: false, ..last };
                vec![
                    spec.layer(scope.at("conv1"), inner([in_channels, narrow], ones), first)?,
                    spec.whole(scope.at("conv2"), Sizes { channels: [narrow; 2], kernel, stride })?,
                    spec.layer(scope.at("conv3"), inner([narrow, channels], ones), last)?,
                ]
            }
        };
        let strided = stride.iter().any(|&stride| stride != 1);
        let pool = strided.then(|| AveragePool::new(Window::new(stride))).transpose()?;
        let projection = match in_channels == channels {
            true => None,
            false => {
                let parts = Parts { bias: false, zero: false, ..last };
                let mut skip = scope.at("skip");
                let sizes = inner([in_channels, channels], ones);
                Some(spec.layer(skip.at(usize::from(strided)), sizes, parts)?)
            }
        };
        Ok(Self { layers, activation: spec.activation, pool, projection })
    }
}

impl Module for Residual {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.layers.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, pass))?;
        let mut shortcut = x.clone();
        if let Some(pool) = &self.pool {
            shortcut = pool.forward(&shortcut, pass)?;
        }
        if let Some(projection) = &self.projection {
            shortcut = projection.forward(&shortcut, pass)?;
        }
        add_activation(y, &shortcut, self.activation)
    }
}
