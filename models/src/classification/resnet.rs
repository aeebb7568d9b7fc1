//! Residual networks in 1D, 2D and 3D.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Kernel, Linear, MaxPool, Module, Norm, NormKind, NormOptions, Pass, Scope,
    Stage, Window,
    init::{Fan, Init},
};

use super::IMAGENET;
use crate::{
    check,
    config::{Card, Config, Preset, Task},
};

/// The kind of residual block of a [`ResNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResNetBlock {
    /// Two 3-wide convolutions.
    Basic,
    /// Convolutions of widths 1, 3 and 1; the second has the stride, and the third has four times the channels.
    Bottleneck,
}

impl ResNetBlock {
    /// The ratio of a block's output channels to its inner channels.
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The configuration of a [`ResNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "resnet")]
pub struct ResNetConfig {
    /// The number of spatial axes.
    #[serde(default = "ResNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The kind of block.
    pub block: ResNetBlock,
    /// The number of blocks of each layer; channels double and sizes halve from one layer to the next.
    pub layers: Vec<usize>,
    /// Channels of the stem, and of the first layer before the blocks' expansion.
    #[serde(default = "ResNetConfig::sixty_four")]
    pub width: usize,
    /// Groups of a bottleneck's 3-wide convolution.
    #[serde(default = "ResNetConfig::one")]
    pub groups: usize,
    /// Channels of each group for a `width` of 64; in general, each group of a bottleneck's 3-wide convolution has
    /// `width · 2^layer · width_per_group / 64` channels.
    #[serde(default = "ResNetConfig::sixty_four")]
    pub width_per_group: usize,
}

/// Each layer halves the image, so that more layers would need an image larger than any.
const MOST_LAYERS: usize = 16;
/// The largest number of blocks of a layer.
const MOST_BLOCKS: usize = 1024;

impl ResNetConfig {
    /// A network for photographs: 2D, three input channels, width 64, one group.
    pub fn new(block: ResNetBlock, layers: impl Into<Vec<usize>>, classes: usize) -> Self {
        let (rank, in_channels, width, groups, width_per_group) = (2, 3, 64, 1, 64);
        Self { rank, in_channels, classes, block, layers: layers.into(), width, groups, width_per_group }
    }

    fn one() -> usize {
        1
    }

    fn two() -> usize {
        2
    }

    fn sixty_four() -> usize {
        64
    }

    /// The channels of layer `layer` before the blocks' expansion.
    fn planes(&self, layer: usize) -> usize {
        self.width << layer
    }

    /// The inner channels of a bottleneck of layer `layer`.
    fn inner(&self, layer: usize) -> usize {
        self.planes(layer) * self.width_per_group / 64 * self.groups
    }

    fn check(&self) -> Result<()> {
        let most = check::MOST_CHANNELS;
        check::sizes("resnet", "rank", &[self.rank], 3)?;
        check::length("resnet", "layers", self.layers.len(), 1, MOST_LAYERS)?;
        check::sizes("resnet", "layers", &self.layers, MOST_BLOCKS)?;
        let last = self.layers.len() - 1;
        let fields = [("in_channels", self.in_channels), ("classes", self.classes), ("groups", self.groups)];
        for (field, size) in fields.into_iter().chain([("width_per_group", self.width_per_group)]) {
            check::sizes("resnet", field, &[size], most)?;
        }
        check::sizes("resnet", "width", &[self.width], most >> last >> 2)?;
        if self.block == ResNetBlock::Basic && (self.groups, self.width_per_group) != (1, 64) {
            let Self { groups, width_per_group, .. } = self;
            return Err(Error::argument(
                "resnet",
                format!("basic blocks with groups {groups}, width_per_group {width_per_group}"),
            )
            .expected("1 and 64, or blocks of the kind bottleneck"));
        }
        // Products of checked numbers, which don't overflow 64 bits.
        let inner = |layer: usize| (self.planes(layer) * self.width_per_group / 64).saturating_mul(self.groups);
        if inner(0) == 0 || inner(last) > most {
            let what =
                format!("width_per_group {} gives {} to {} channels", self.width_per_group, inner(0), inner(last));
            return Err(Error::argument("resnet", what).expected(format!("1 to {most}")));
        }
        Ok(())
    }
}

impl Config for ResNetConfig {
    type Network = ResNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "residual networks, also with groups (ResNeXt) and wide ones",
        source: "He et al.: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385; ResNeXt: Xie et al. 2016, \
                 arXiv:1611.05431; wide: Zagoruyko and Komodakis 2016, arXiv:1605.07146",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        use ResNetBlock::{Basic, Bottleneck};
        let sizes: [(&str, ResNetBlock, [usize; 4], usize, usize); 9] = [
            ("resnet18", Basic, [2, 2, 2, 2], 1, 64),
            ("resnet34", Basic, [3, 4, 6, 3], 1, 64),
            ("resnet50", Bottleneck, [3, 4, 6, 3], 1, 64),
            ("resnet101", Bottleneck, [3, 4, 23, 3], 1, 64),
            ("resnet152", Bottleneck, [3, 8, 36, 3], 1, 64),
            ("resnext50_32x4d", Bottleneck, [3, 4, 6, 3], 32, 4),
            ("resnext101_32x8d", Bottleneck, [3, 4, 23, 3], 32, 8),
            ("wide_resnet50_2", Bottleneck, [3, 4, 6, 3], 1, 128),
            ("wide_resnet101_2", Bottleneck, [3, 4, 23, 3], 1, 128),
        ];
        let preset = |(name, block, layers, groups, width_per_group)| {
            let config = Self { groups, width_per_group, ..Self::new(block, layers, 1000) };
            Preset { channels: Some(IMAGENET), ..Preset::new(name, config) }
        };
        sizes.map(preset).into()
    }

    fn build(&self, scope: Scope<'_>) -> Result<ResNet> {
        ResNet::new(scope, self)
    }
}

/// Convolution without bias, batch norm, and optionally an activation.
fn conv_norm(
    scope: &mut Scope<'_>,
    [conv, norm]: [&str; 2],
    [in_channels, channels]: [usize; 2],
    kernel: Kernel,
    activation: Option<Activation>,
) -> Result<ConvNormActivation> {
    let kernel = kernel.bias(false).weight(Init::kaiming_normal(Fan::Out));
    let conv = Conv::new(scope.at(conv), in_channels, channels, kernel)?;
    let options = NormOptions::new(NormKind::Batch);
    let options = activation.map_or(options, |activation| options.activation(activation));
    ConvNormActivation::new(conv, Norm::new(scope.at(norm), channels, options)?)
}

/// A residual block: convolutions and a shortcut, which has a projection if the size or the channels change.
#[derive(Debug)]
struct Residual {
    main: Vec<ConvNormActivation>,
    shortcut: Option<ConvNormActivation>,
}

impl Residual {
    fn new(
        scope: &mut Scope<'_>,
        config: &ResNetConfig,
        layer: usize,
        in_channels: usize,
        stride: usize,
    ) -> Result<Self> {
        let three = |stride: usize| Kernel::new(config.rank, 3).stride(stride).padding(1);
        let one = |stride: usize| Kernel::new(config.rank, 1).stride(stride);
        let (planes, inner) = (config.planes(layer), config.inner(layer));
        let out_channels = planes * config.block.expansion();
        let relu = Some(Activation::Relu);
        let main = match config.block {
            ResNetBlock::Basic => vec![
                conv_norm(scope, ["conv1", "bn1"], [in_channels, planes], three(stride), relu)?,
                conv_norm(scope, ["conv2", "bn2"], [planes, planes], three(1), None)?,
            ],
            ResNetBlock::Bottleneck => vec![
                conv_norm(scope, ["conv1", "bn1"], [in_channels, inner], one(1), relu)?,
                conv_norm(scope, ["conv2", "bn2"], [inner, inner], three(stride).groups(config.groups), relu)?,
                conv_norm(scope, ["conv3", "bn3"], [inner, out_channels], one(1), None)?,
            ],
        };
        let shortcut = if stride == 1 && in_channels == out_channels {
            None
        } else {
            let channels = [in_channels, out_channels];
            Some(conv_norm(&mut scope.at("downsample"), ["0", "1"], channels, one(stride), None)?)
        };
        Ok(Self { main, shortcut })
    }
}

impl Module for Residual {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.main.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, pass))?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, pass)?,
            None => x.clone(),
        };
        y.add(&shortcut)?.relu()
    }
}

/// A residual network (He et al. 2015; the stride is in a bottleneck's 3-wide convolution, as in torchvision). Input
/// (N, C, spatial...), output (N, classes).
///
/// State-dict names are torchvision's: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, …, `layer2.0.downsample.0`, …, `fc`.
/// Stages: `stem` (1/2 of the input size), `layer1` (1/4), and `layer2`, …, each half the size of the previous one.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, ResNetBlock, ResNetConfig, registry::Config};
/// assert_eq!(ResNetConfig::preset("resnet18")?.layers, [2, 2, 2, 2]);
/// let config = ResNetConfig { rank: 3, in_channels: 1, width: 4, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2]);
/// assert_eq!(model.features(&volume, &["layer2"])?.main()?.shape(), [1, 8, 2, 2, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ResNet {
    encoder: ResNetEncoder,
    fc: Linear,
}

impl ResNet {
    /// Creates the network's parameters in `scope`, with torchvision's initialisation.
    ///
    /// # Errors
    /// When a number of the configuration is 0 or too large, a name is taken, or memory runs out; then no parameter is
    /// created.
    pub fn new(mut scope: Scope<'_>, config: &ResNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| {
            let encoder = ResNetEncoder::make(scope, config)?;
            let channels = config.planes(config.layers.len() - 1) * config.block.expansion();
            Ok(Self { encoder, fc: Linear::new(scope.at("fc"), channels, config.classes)? })
        })
    }
}

impl Module for ResNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.fc.forward(&self.encoder.forward(x, pass)?.mean_spatial()?.flatten(1..)?, pass)
    }
}

/// A [`ResNet`] without its head (the configuration's `classes` is ignored): a backbone for other networks, which
/// [`collect`](Pass::collect) the feature maps of its stages. Its output is the last of these.
#[derive(Debug)]
pub struct ResNetEncoder {
    rank: usize,
    conv1: ConvNormActivation,
    stem: Stage,
    pool: MaxPool,
    layers: Vec<(Vec<Residual>, Stage)>,
}

impl ResNetEncoder {
    /// Creates the parameters in `scope`, with the same names as in the whole network.
    ///
    /// # Errors
    /// As [`ResNet::new`].
    pub fn new(mut scope: Scope<'_>, config: &ResNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &ResNetConfig) -> Result<Self> {
        let ResNetConfig { rank, in_channels, width, .. } = *config;
        let seven = Kernel::new(rank, 7).stride(2).padding(3);
        let conv1 = conv_norm(scope, ["conv1", "bn1"], [in_channels, width], seven, Some(Activation::Relu))?;
        let stem = scope.stage("stem", width, 2)?;
        let (mut layers, mut channels) = (Vec::new(), width);
        for (layer, &count) in config.layers.iter().enumerate() {
            let name = format!("layer{}", layer + 1);
            let mut blocks = Vec::new();
            for block in 0..count {
                let stride = if layer > 0 && block == 0 { 2 } else { 1 };
                blocks.push(Residual::new(&mut scope.at(&name).at(block), config, layer, channels, stride)?);
                channels = config.planes(layer) * config.block.expansion();
            }
            layers.push((blocks, scope.stage(&name, channels, 4 << layer)?));
        }
        let pool = MaxPool::new(Window::new(3).stride(2).padding(1))?;
        Ok(Self { rank, conv1, stem, pool, layers })
    }
}

impl Module for ResNetEncoder {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        if x.rank() != self.rank + 2 {
            return Err(Error::shape("resnet", format!("an input of {} axes", x.rank()))
                .expected(format!("(N, C, spatial...) with {} spatial axes", self.rank))
                .shapes([x.shape()]));
        }
        let mut x = self.pool.forward(&pass.stage(self.stem, self.conv1.forward(x, pass)?)?, pass)?;
        for (blocks, stage) in &self.layers {
            x = pass.stage(*stage, blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?)?;
        }
        Ok(x)
    }
}
