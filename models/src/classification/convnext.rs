//! ConvNeXt.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_kernels::elementwise::{BinaryFunction, Chain, Step};
use tomograd_nn::{
    Activation, Conv, Kernel, LayerNorm, LayerNormOptions, Linear, LinearOptions, Module, Pass, Scope, Slot, Stage,
    StochasticDepth, init::Init,
};

use super::IMAGENET;
use crate::{
    blocks::saving::activate,
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`ConvNeXt`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "convnext")]
pub struct ConvNeXtConfig {
    /// The number of spatial axes.
    #[serde(default = "ConvNeXtConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each stage.
    pub widths: Vec<usize>,
    /// The number of blocks of each stage.
    pub blocks: Vec<usize>,
    /// Stochastic depth: the probability rises linearly from 0 for the first block to this one for the last.
    #[serde(default)]
    pub stochastic_depth: f64,
    /// The initial value of the factors with which a block's output is multiplied (layer scale).
    #[serde(default = "ConvNeXtConfig::millionth")]
    pub layer_scale: f64,
}

/// Each stage but the first halves the image, so that more stages would need an image larger than any.
const MOST_STAGES: usize = 16;
/// The largest number of blocks of a stage.
const MOST_BLOCKS: usize = 1024;
/// ε of the layer norms.
const EPSILON: f64 = 1e-6;

impl ConvNeXtConfig {
    /// A network for photographs: 2D, three input channels.
    pub fn new(widths: impl Into<Vec<usize>>, blocks: impl Into<Vec<usize>>, classes: usize) -> Self {
        let (widths, blocks) = (widths.into(), blocks.into());
        Self { rank: 2, in_channels: 3, classes, widths, blocks, stochastic_depth: 0.0, layer_scale: 1e-6 }
    }

    fn two() -> usize {
        2
    }

    fn millionth() -> f64 {
        1e-6
    }

    fn check(&self) -> Result<()> {
        let (name, most) = ("convnext", check::MOST_CHANNELS);
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], most)?;
        check::sizes(name, "classes", &[self.classes], most)?;
        check::length(name, "widths", self.widths.len(), 1, MOST_STAGES)?;
        check::length(name, "blocks", self.blocks.len(), self.widths.len(), self.widths.len())?;
        // A block has four times the channels inside.
        check::sizes(name, "widths", &self.widths, most / 4)?;
        check::sizes(name, "blocks", &self.blocks, MOST_BLOCKS)?;
        check::probability(name, "stochastic_depth", self.stochastic_depth)?;
        check::number(name, "layer_scale", self.layer_scale, 0.0..=1e3)
    }
}

impl Config for ConvNeXtConfig {
    type Network = ConvNeXt;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "a convolutional network after the design of vision transformers: wide depthwise kernels, layer norm",
        source: "Liu et al.: A ConvNet for the 2020s, 2022, arXiv:2201.03545",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/convnext.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let sizes = [
            ("convnext_tiny", 96, 9, 0.1),
            ("convnext_small", 96, 27, 0.4),
            ("convnext_base", 128, 27, 0.5),
            ("convnext_large", 192, 27, 0.5),
        ];
        let preset = |(name, width, third, stochastic_depth)| {
            let config = Self::new([width, 2 * width, 4 * width, 8 * width], [3, 3, third, 3], 1000);
            Preset { channels: Some(IMAGENET), ..Preset::new(name, Self { stochastic_depth, ..config }) }
        };
        sizes.map(preset).into()
    }

    fn build(&self, scope: Scope<'_>) -> Result<ConvNeXt> {
        ConvNeXt::new(scope, self)
    }
}

/// The original truncates at ±2, a hundred standard deviations.
const NORMAL: Init = Init::Normal(0.02);

fn convolution(scope: Scope<'_>, channels: [usize; 2], kernel: Kernel) -> Result<Conv> {
    Conv::new(scope, channels[0], channels[1], kernel.weight(NORMAL).bias_filled(Init::Constant(0.0)))
}

fn linear(scope: Scope<'_>, inputs: usize, outputs: usize) -> Result<Linear> {
    let options = LinearOptions::new(outputs).weight(NORMAL).bias_filled(Init::Constant(0.0));
    Linear::new(scope, inputs, options)
}

fn layer_norm(scope: Scope<'_>, channels: usize) -> Result<LayerNorm> {
    LayerNorm::new(scope, LayerNormOptions::new(channels).epsilon(EPSILON))
}

/// The axes of (N, C, spatial...) with the channels last.
fn channels_last(rank: usize) -> Vec<usize> {
    [0].into_iter().chain(2..rank + 2).chain([1]).collect()
}

/// The axes of (N, spatial..., C) with the channels second.
fn channels_first(rank: usize) -> Vec<usize> {
    [0, rank + 1].into_iter().chain(1..=rank).collect()
}

/// A layer norm over the channels of (N, C, spatial...).
fn norm_channels(norm: &LayerNorm, x: &Var, pass: &Pass) -> Result<Var> {
    let rank = x.rank() - 2;
    norm.forward(&x.permute(&channels_last(rank))?, pass)?.permute(&channels_first(rank))
}

/// A residual block: depthwise convolution, layer norm, two linear layers with GELU between them, layer scale.
#[derive(Debug)]
struct Block {
    scale: Slot,
    depthwise: Conv,
    norm: LayerNorm,
    expand: Linear,
    project: Linear,
    drop: StochasticDepth,
}

impl Block {
    fn new(mut scope: Scope<'_>, config: &ConvNeXtConfig, channels: usize, drop: f64) -> Result<Self> {
        let shape = [&[channels][..], &vec![1; config.rank]].concat();
        let scale = scope.parameter("layer_scale", &shape, Init::Constant(config.layer_scale))?;
        let kernel = Kernel::new(config.rank, 7).padding(3).groups(channels);
        Ok(Self {
            scale,
            depthwise: convolution(scope.at("block.0"), [channels; 2], kernel)?,
            norm: layer_norm(scope.at("block.2"), channels)?,
            expand: linear(scope.at("block.3"), channels, 4 * channels)?,
            project: linear(scope.at("block.5"), 4 * channels, channels)?,
            drop: StochasticDepth::new(scope.at("stochastic_depth"), drop)?,
        })
    }
}

impl Module for Block {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let rank = x.rank() - 2;
        // One copy, into the layout of layer norm and linear layers; the way back is a view, which the sum reads. Each map is
        // freed when the next one is there.
        let mut y = self.norm.forward(&self.depthwise.forward(x, pass)?.permute(&channels_last(rank))?, pass)?;
        y = activate(self.expand.forward(&y, pass)?, Activation::Gelu)?;
        y = self.project.forward(&y, pass)?;
        // A skipped block is skipped before or after layer scale alike, and here its values are in order.
        y = self.drop.forward(&y, pass)?.permute(&channels_first(rank))?;
        let sum = Chain::binary(BinaryFunction::Mul).then(Step::Binary(BinaryFunction::Add, 2));
        Var::apply(sum, &[&y, &pass.parameter(self.scale)?, x])
    }
}

/// A stage: for all but the first, a norm and a convolution that halves the size, then blocks.
#[derive(Debug)]
struct Level {
    down: Option<(LayerNorm, Conv)>,
    blocks: Vec<Block>,
    stage: Stage,
}

/// ConvNeXt (Liu et al. 2022): 7-wide depthwise convolutions, layer norm and linear layers in residual blocks. Input
/// (N, C, spatial...) with sizes of at least 4 · 2^(stages − 1), 32 for the presets; output (N, classes). Rows that don't fill
/// a patch of the stem or of a downsampling are cut off, as in the original.
///
/// State-dict names are torchvision's: `features.0.0` and `.1` the stem, `features.1.0.layer_scale`, `features.1.0.block.0`, `.2`, `.3`
/// and `.5`, …, `features.2.0` and `.1` the downsampling, …, `classifier.0`, `classifier.2`. Stages: `stage1` (1/4 of the input
/// size), `stage2`, …, each half the size of the previous one.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{ConvNeXtConfig, Model, registry::Config};
/// assert_eq!(ConvNeXtConfig::preset("convnext_tiny")?.widths, [96, 192, 384, 768]);
/// let config = ConvNeXtConfig { rank: 3, in_channels: 1, ..ConvNeXtConfig::new([4, 8], [1, 2], 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2]);
/// assert_eq!(model.features(&volume, &["stage2"])?.main()?.shape(), [1, 8, 2, 2, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ConvNeXt {
    rank: usize,
    stem: (Conv, LayerNorm),
    levels: Vec<Level>,
    norm: LayerNorm,
    classifier: Linear,
}

impl ConvNeXt {
    fn new(mut scope: Scope<'_>, config: &ConvNeXtConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &ConvNeXtConfig) -> Result<Self> {
        let mut channels = config.widths[0];
        let four = Kernel::new(config.rank, 4).stride(4);
        let conv = convolution(scope.at("features.0.0"), [config.in_channels, channels], four)?;
        let stem = (conv, layer_norm(scope.at("features.0.1"), channels)?);
        let last = config.blocks.iter().sum::<usize>() - 1;
        let (mut levels, mut done) = (Vec::new(), 0);
        for (level, (&width, &count)) in config.widths.iter().zip(&config.blocks).enumerate() {
            let down = if level == 0 {
                None
            } else {
                let mut scope = scope.at(format!("features.{}", 2 * level));
                let norm = layer_norm(scope.at(0), channels)?;
                let two = Kernel::new(config.rank, 2).stride(2);
                Some((norm, convolution(scope.at(1), [channels, width], two)?))
            };
            channels = width;
            let mut blocks = Vec::new();
            for block in 0..count {
                let drop = config.stochastic_depth * done as f64 / last.max(1) as f64;
                let scope = scope.at(format!("features.{}.{block}", 2 * level + 1));
                blocks.push(Block::new(scope, config, channels, drop)?);
                done += 1;
            }
            let stage = scope.stage(&format!("stage{}", level + 1), channels, 4 << level)?;
            levels.push(Level { down, blocks, stage });
        }
        let norm = layer_norm(scope.at("classifier.0"), channels)?;
        let classifier = linear(scope.at("classifier.2"), channels, config.classes)?;
        Ok(Self { rank: config.rank, stem, levels, norm, classifier })
    }
}

impl Module for ConvNeXt {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::smallest("convnext", x.shape(), self.rank, 4 << (self.levels.len() - 1))?;
        let mut x = norm_channels(&self.stem.1, &self.stem.0.forward(x, pass)?, pass)?;
        for level in &self.levels {
            if let Some((norm, conv)) = &level.down {
                x = conv.forward(&norm_channels(norm, &x, pass)?, pass)?;
            }
            x = pass.stage(level.stage, level.blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?)?;
        }
        let x = self.norm.forward(&x.mean_spatial()?.flatten(1..)?, pass)?;
        self.classifier.forward(&x, pass)
    }
}
