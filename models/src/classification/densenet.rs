//! Densely connected networks in 1D, 2D and 3D.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, AveragePool, Conv, ConvNormActivation, Dropout, DropoutOptions, Kernel, Linear, LinearOptions, MaxPool,
    Module, Norm, NormKind, NormOptions, Pass, Scope, Stage, Window,
    init::{Fan, Init},
};

use super::IMAGENET;
use crate::{
    blocks::saving::concat_again,
    check,
    config::{Card, Config, Preset, Task},
};

/// The original of a [`DenseNet`], which decides on state-dict names and on the kind of dropout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenseNetOriginal {
    /// torchvision: `features.denseblock1.denselayer1.norm1`, …, `classifier`; dropout of single elements.
    #[default]
    Torchvision,
    /// MONAI: `features.denseblock1.denselayer1.layers.norm1`, …, `class_layers.out`; dropout of whole channels in 2D and 3D.
    Monai,
}

/// The configuration of a [`DenseNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "densenet")]
pub struct DenseNetConfig {
    /// The number of spatial axes.
    #[serde(default = "DenseNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The number of layers of each dense block; between two blocks, channels and size are halved.
    pub layers: Vec<usize>,
    /// The channels that each layer adds.
    #[serde(default = "DenseNetConfig::thirty_two")]
    pub growth_rate: usize,
    /// Channels of the stem.
    #[serde(default = "DenseNetConfig::sixty_four")]
    pub width: usize,
    /// The channels between a layer's two convolutions, in units of `growth_rate`.
    #[serde(default = "DenseNetConfig::four")]
    pub bottleneck: usize,
    /// The probability of dropout behind each layer.
    #[serde(default)]
    pub dropout: f64,
    /// The original.
    #[serde(default)]
    pub original: DenseNetOriginal,
}

/// Blocks halve the image, so that more would need an image larger than any.
const MOST_BLOCKS: usize = 16;
/// The largest number of layers of a block.
const MOST_LAYERS: usize = 1024;

impl DenseNetConfig {
    /// A network for photographs: 2D, three input channels, 32 channels a layer, width 64.
    pub fn new(layers: impl Into<Vec<usize>>, classes: usize) -> Self {
        Self {
            rank: 2,
            in_channels: 3,
            classes,
            layers: layers.into(),
            growth_rate: 32,
            width: 64,
            bottleneck: 4,
            dropout: 0.0,
            original: DenseNetOriginal::Torchvision,
        }
    }

    fn two() -> usize {
        2
    }

    fn four() -> usize {
        4
    }

    fn thirty_two() -> usize {
        32
    }

    fn sixty_four() -> usize {
        64
    }

    /// The smallest size of an image along each axis: of the last block's feature map one voxel must be left.
    fn smallest(&self) -> usize {
        (4 << (self.layers.len() - 1)) - 3
    }

    fn check(&self) -> Result<()> {
        let most = check::MOST_CHANNELS;
        check::sizes("densenet", "rank", &[self.rank], 3)?;
        check::length("densenet", "layers", self.layers.len(), 1, MOST_BLOCKS)?;
        check::sizes("densenet", "layers", &self.layers, MOST_LAYERS)?;
        let fields = [("in_channels", self.in_channels), ("classes", self.classes), ("width", self.width)];
        for (field, size) in fields {
            check::sizes("densenet", field, &[size], most)?;
        }
        // A block's channels are at most those of 1024 layers beside the width, and half of the ones before.
        check::sizes("densenet", "growth_rate", &[self.growth_rate], most / MOST_LAYERS)?;
        check::sizes("densenet", "bottleneck", &[self.bottleneck], most / self.growth_rate)?;
        check::probability("densenet", "dropout", self.dropout)
    }
}

impl Config for DenseNetConfig {
    type Network = DenseNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "densely connected networks: each layer of a block reads the feature maps of all earlier ones",
        source: "Huang et al.: Densely Connected Convolutional Networks, 2016, arXiv:1608.06993",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/densenet.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let of = |layers: [usize; 4]| Self::new(layers, 1000);
        let torchvision = [
            ("densenet121", of([6, 12, 24, 16])),
            ("densenet161", Self { growth_rate: 48, width: 96, ..of([6, 12, 36, 24]) }),
            ("densenet169", of([6, 12, 32, 32])),
            ("densenet201", of([6, 12, 48, 32])),
        ];
        let torchvision =
            torchvision.map(|(name, config)| Preset { channels: Some(IMAGENET), ..Preset::new(name, config) });
        let monai = [
            ("monai_densenet121_3d", [6, 12, 24, 16]),
            ("monai_densenet169_3d", [6, 12, 32, 32]),
            ("monai_densenet201_3d", [6, 12, 48, 32]),
            ("monai_densenet264_3d", [6, 12, 64, 48]),
        ];
        let monai = monai.map(|(name, layers)| {
            let original = DenseNetOriginal::Monai;
            Preset::new(name, Self { rank: 3, in_channels: 1, original, ..Self::new(layers, 2) })
        });
        torchvision.into_iter().chain(monai).collect()
    }

    fn build(&self, scope: Scope<'_>) -> Result<DenseNet> {
        DenseNet::new(scope, self)
    }
}

/// Batch norm and ReLU, before a convolution.
fn norm_relu(scope: Scope<'_>, channels: usize) -> Result<Norm> {
    Norm::new(scope, channels, NormOptions::new(NormKind::Batch).activation(Activation::Relu))
}

fn conv(scope: Scope<'_>, channels: [usize; 2], kernel: Kernel) -> Result<Conv> {
    Conv::new(scope, channels[0], channels[1], kernel.bias(false).weight(Init::kaiming_normal(Fan::In)))
}

/// A layer of a dense block: norm, convolution of width 1, norm, convolution of width 3.
#[derive(Debug)]
struct Layer {
    norm: Norm,
    narrow: ConvNormActivation,
    conv: Conv,
    dropout: Dropout,
}

impl Layer {
    fn new(scope: &mut Scope<'_>, config: &DenseNetConfig, in_channels: usize) -> Result<Self> {
        let DenseNetConfig { rank, growth_rate, bottleneck, dropout, original, .. } = *config;
        let inner = bottleneck * growth_rate;
        let whole_channels = original == DenseNetOriginal::Monai && rank > 1;
        let norm = norm_relu(scope.at("norm1"), in_channels)?;
        let first = conv(scope.at("conv1"), [in_channels, inner], Kernel::new(rank, 1))?;
        let narrow = ConvNormActivation::new(first, norm_relu(scope.at("norm2"), inner)?)?;
        let conv = conv(scope.at("conv2"), [inner, growth_rate], Kernel::new(rank, 3).padding(1))?;
        let options = DropoutOptions::new(dropout).whole_channels(whole_channels);
        Ok(Self { norm, narrow, conv, dropout: Dropout::new(scope.at("dropout"), options)? })
    }
}

impl Module for Layer {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.narrow.forward(&self.norm.forward(x, pass)?, pass)?;
        self.dropout.forward(&self.conv.forward(&y, pass)?, pass)
    }
}

/// The way from one dense block to the next: norm, convolution of width 1 to half the channels, average pooling.
#[derive(Debug)]
struct Transition {
    norm: Norm,
    conv: Conv,
    pool: AveragePool,
}

impl Transition {
    fn new(scope: &mut Scope<'_>, rank: usize, channels: usize) -> Result<Self> {
        let norm = norm_relu(scope.at("norm"), channels)?;
        let conv = conv(scope.at("conv"), [channels, channels / 2], Kernel::new(rank, 1))?;
        Ok(Self { norm, conv, pool: AveragePool::new(2)? })
    }
}

impl Module for Transition {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.pool.forward(&self.conv.forward(&self.norm.forward(x, pass)?, pass)?, pass)
    }
}

/// A dense block with its stage and the transition behind it.
#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    stage: Stage,
    transition: Option<Transition>,
}

impl Block {
    /// The features of the block, concatenated.
    fn features(&self, x: Var, pass: &Pass) -> Result<Var> {
        let mut parts = vec![x];
        let joined = |parts: &[Var]| concat_again(&parts.iter().collect::<Vec<_>>());
        for layer in &self.layers {
            let new = layer.forward(&joined(&parts)?, pass)?;
            parts.push(new);
        }
        pass.stage(self.stage, joined(&parts)?)
    }
}

/// A densely connected network (DenseNet-BC, Huang et al. 2016). Input (N, C, spatial...), output (N, classes).
///
/// State-dict names are torchvision's or MONAI's, as [`DenseNetOriginal`] says. Stages: `stem` (1/2 of the input size),
/// `denseblock1` (1/4), and `denseblock2`, …, each half the size of the previous one. With four blocks, an image has 29 voxels
/// at least along each axis.
///
/// For the backward pass, the layers of a block keep its feature maps and not their concatenations, which are made again.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{DenseNetConfig, Model, registry::Config};
/// assert_eq!(DenseNetConfig::preset("densenet121")?.layers, [6, 12, 24, 16]);
/// let config = DenseNetConfig { rank: 3, in_channels: 1, width: 8, growth_rate: 4, ..DenseNetConfig::new([2, 2], 3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 3]);
/// assert_eq!(model.features(&volume, &["denseblock1"])?.main()?.shape(), [1, 16, 4, 4, 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct DenseNet {
    rank: usize,
    smallest: usize,
    conv0: ConvNormActivation,
    stem: Stage,
    pool: MaxPool,
    blocks: Vec<Block>,
    norm: Norm,
    classifier: Linear,
}

impl DenseNet {
    fn new(mut scope: Scope<'_>, config: &DenseNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &DenseNetConfig) -> Result<Self> {
        let DenseNetConfig { rank, in_channels, width, growth_rate, original, .. } = *config;
        // Stages are called by the blocks alone.
        let stem = scope.stage("stem", width, 2)?;
        let mut channels = width;
        let mut stages = Vec::new();
        for (block, &count) in config.layers.iter().enumerate() {
            channels += count * growth_rate;
            stages.push(scope.stage(&format!("denseblock{}", block + 1), channels, 4 << block)?);
            channels /= 2;
        }
        let mut features = scope.at("features");
        let seven = Kernel::new(rank, 7).stride(2).padding(3);
        let conv0 = conv(features.at("conv0"), [in_channels, width], seven)?;
        let conv0 = ConvNormActivation::new(conv0, norm_relu(features.at("norm0"), width)?)?;
        let pool = MaxPool::new(Window::new(3).stride(2).padding(1))?;
        let (mut blocks, mut channels) = (Vec::new(), width);
        for ((block, &count), stage) in config.layers.iter().enumerate().zip(stages) {
            let mut layers = Vec::new();
            let mut of_block = features.at(format!("denseblock{}", block + 1));
            for layer in 0..count {
                let mut of_layer = of_block.at(format!("denselayer{}", layer + 1));
                let mut of_layer = match original {
                    DenseNetOriginal::Torchvision => of_layer,
                    DenseNetOriginal::Monai => of_layer.at("layers"),
                };
                layers.push(Layer::new(&mut of_layer, config, channels)?);
                channels += growth_rate;
            }
            let transition = if block + 1 < config.layers.len() {
                let made = Transition::new(&mut features.at(format!("transition{}", block + 1)), rank, channels)?;
                channels /= 2;
                Some(made)
            } else {
                None
            };
            blocks.push(Block { layers, stage, transition });
        }
        let norm = norm_relu(features.at("norm5"), channels)?;
        let name = match original {
            DenseNetOriginal::Torchvision => "classifier",
            DenseNetOriginal::Monai => "class_layers.out",
        };
        let options = LinearOptions::new(config.classes).bias_filled(Init::Constant(0.0));
        let classifier = Linear::new(scope.at(name), channels, options)?;
        Ok(Self { rank, smallest: config.smallest(), conv0, stem, pool, blocks, norm, classifier })
    }
}

impl Module for DenseNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::smallest("densenet", x.shape(), self.rank, self.smallest)?;
        let mut x = self.pool.forward(&pass.stage(self.stem, self.conv0.forward(x, pass)?)?, pass)?;
        for block in &self.blocks {
            x = block.features(x, pass)?;
            if let Some(transition) = &block.transition {
                x = transition.forward(&x, pass)?;
            }
        }
        let x = self.norm.forward(&x, pass)?;
        self.classifier.forward(&x.mean_spatial()?.flatten(1..)?, pass)
    }
}
