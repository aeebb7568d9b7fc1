//! EfficientNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, ConvNormActivation, Dropout, Kernel, Linear, LinearOptions, Module, NormKind, NormOptions, Pass, Scope,
    Stage, StochasticDepth,
    init::{Fan, Init},
};

use super::IMAGENET;
use crate::{
    blocks::{SqueezeExcitation, SqueezeExcitationOptions, conv_norm, saving::add},
    check,
    config::{Card, Config, Preset, Task},
};

/// A stage of an [`EfficientNet`] before compound scaling: inverted residual blocks of the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EfficientNetStage {
    /// The ratio of a block's inner channels to its input channels.
    pub expansion: usize,
    /// The size of the depthwise convolution's kernel, an odd number.
    pub kernel: usize,
    /// The stride of the first block, 1 or 2.
    pub stride: usize,
    /// Output channels, for a `width` of 1.
    pub channels: usize,
    /// The number of blocks, for a `depth` of 1.
    pub blocks: usize,
}

/// The configuration of an [`EfficientNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "efficientnet")]
pub struct EfficientNetConfig {
    /// The number of spatial axes.
    #[serde(default = "EfficientNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The factor of all numbers of channels, which are rounded to multiples of 8 as in the paper's code.
    #[serde(default = "EfficientNetConfig::one")]
    pub width: f64,
    /// The factor of all numbers of blocks, which are rounded up.
    #[serde(default = "EfficientNetConfig::one")]
    pub depth: f64,
    /// Channels of the stem, for a `width` of 1.
    #[serde(default = "EfficientNetConfig::thirty_two")]
    pub stem: usize,
    /// The stages; the default is that of all networks of the paper.
    #[serde(default = "EfficientNetConfig::paper_stages")]
    pub stages: Vec<EfficientNetStage>,
    /// The probability of dropout before the last layer.
    #[serde(default = "EfficientNetConfig::fifth")]
    pub dropout: f64,
    /// Stochastic depth: block i of n is skipped with this probability times i / n.
    #[serde(default = "EfficientNetConfig::fifth")]
    pub stochastic_depth: f64,
    /// ε of the batch norms.
    #[serde(default = "EfficientNetConfig::epsilon")]
    pub norm_epsilon: f64,
    /// The weight of a new batch in the batch norms' running statistics.
    #[serde(default = "EfficientNetConfig::momentum")]
    pub norm_momentum: f64,
}

/// The largest number of stages.
const MOST_STAGES: usize = 16;
/// The largest number of blocks of a stage.
const MOST_BLOCKS: usize = 256;
/// The largest kernel.
const MOST_KERNEL: usize = 63;
/// The largest factor of channels and blocks.
const MOST_FACTOR: f64 = 64.0;

/// The multiple of 8 nearest to `channels`, unless it is more than a tenth less; then the next one. At least 8.
fn rounded(channels: f64) -> usize {
    // A checked number of channels fits 64 bits.
    let nearest = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (nearest as f64) < 0.9 * channels { nearest + 8 } else { nearest }
}

impl EfficientNetConfig {
    /// The network for photographs of this `width`, `depth` and `dropout`: 2D, three input channels.
    pub fn new(width: f64, depth: f64, dropout: f64, classes: usize) -> Self {
        Self {
            rank: 2,
            in_channels: 3,
            classes,
            width,
            depth,
            stem: Self::thirty_two(),
            stages: Self::paper_stages(),
            dropout,
            stochastic_depth: Self::fifth(),
            norm_epsilon: Self::epsilon(),
            norm_momentum: Self::momentum(),
        }
    }

    fn one() -> f64 {
        1.0
    }

    fn two() -> usize {
        2
    }

    fn thirty_two() -> usize {
        32
    }

    fn fifth() -> f64 {
        0.2
    }

    fn epsilon() -> f64 {
        1e-5
    }

    fn momentum() -> f64 {
        0.1
    }

    fn paper_stages() -> Vec<EfficientNetStage> {
        let stage = |[expansion, kernel, stride, channels, blocks]: [usize; 5]| EfficientNetStage {
            expansion,
            kernel,
            stride,
            channels,
            blocks,
        };
        let table = [
            [1, 3, 1, 16, 1],
            [6, 3, 2, 24, 2],
            [6, 5, 2, 40, 2],
            [6, 3, 2, 80, 3],
            [6, 5, 1, 112, 3],
            [6, 5, 2, 192, 4],
            [6, 3, 1, 320, 1],
        ];
        table.map(stage).into()
    }

    /// The stages after compound scaling.
    fn scaled(&self) -> Vec<EfficientNetStage> {
        let scaled = |stage: &EfficientNetStage| EfficientNetStage {
            channels: rounded(stage.channels as f64 * self.width),
            blocks: (stage.blocks as f64 * self.depth).ceil() as usize,
            ..*stage
        };
        self.stages.iter().map(scaled).collect()
    }

    fn check(&self) -> Result<()> {
        let (name, most) = ("efficientnet", check::MOST_CHANNELS);
        check::sizes(name, "rank", &[self.rank], 3)?;
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes), ("stem", self.stem)] {
            check::sizes(name, field, &[size], most)?;
        }
        for (field, factor) in [("width", self.width), ("depth", self.depth)] {
            check::number(name, field, factor, 1.0 / MOST_FACTOR..=MOST_FACTOR)?;
        }
        check::probability(name, "dropout", self.dropout)?;
        check::probability(name, "stochastic_depth", self.stochastic_depth)?;
        check::number(name, "norm_epsilon", self.norm_epsilon, 1e-12..=1.0)?;
        check::number(name, "norm_momentum", self.norm_momentum, 0.0..=1.0)?;
        check::length(name, "stages", self.stages.len(), 1, MOST_STAGES)?;
        for (at, stage) in self.stages.iter().enumerate() {
            let fields = [
                ("expansion", stage.expansion, most),
                ("kernel", stage.kernel, MOST_KERNEL),
                ("stride", stage.stride, 2),
                ("channels", stage.channels, most),
                ("blocks", stage.blocks, MOST_BLOCKS),
            ];
            for (field, size, most) in fields {
                check::sizes(name, &format!("stages[{at}].{field}"), &[size], most)?;
            }
            if stage.kernel % 2 == 0 {
                return Err(
                    Error::argument(name, format!("stages[{at}].kernel is {}", stage.kernel)).expected("an odd number")
                );
            }
        }
        // Numbers up to 2^24 times a factor up to 64, and an expansion up to 2^24: nothing overflows 64 bits.
        let stem = rounded(self.stem as f64 * self.width);
        check::sizes(name, "stem times width", &[stem], most)?;
        let mut channels = stem;
        for (at, stage) in self.scaled().into_iter().enumerate() {
            check::sizes(name, &format!("stages[{at}].channels times width"), &[stage.channels], most)?;
            check::sizes(name, &format!("stages[{at}].blocks times depth"), &[stage.blocks], MOST_BLOCKS)?;
            let inner = channels.max(stage.channels) * stage.expansion;
            check::sizes(name, &format!("stages[{at}].expansion times channels"), &[inner], most)?;
            channels = stage.channels;
        }
        Ok(())
    }
}

impl Config for EfficientNetConfig {
    type Network = EfficientNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "inverted residual blocks with squeeze and excitation, scaled in width and depth together",
        source: "Tan and Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, arXiv:1905.11946",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/efficientnet.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let sizes = [
            ("efficientnet_b0", 1.0, 1.0, 0.2, 224),
            ("efficientnet_b1", 1.0, 1.1, 0.2, 240),
            ("efficientnet_b2", 1.1, 1.2, 0.3, 288),
            ("efficientnet_b3", 1.2, 1.4, 0.3, 300),
            ("efficientnet_b4", 1.4, 1.8, 0.4, 380),
            ("efficientnet_b5", 1.6, 2.2, 0.4, 456),
            ("efficientnet_b6", 1.8, 2.6, 0.5, 528),
            ("efficientnet_b7", 2.0, 3.1, 0.5, 600),
        ];
        let preset = |(at, (name, width, depth, dropout, size)): (usize, (&'static str, f64, f64, f64, usize))| {
            let mut config = Self::new(width, depth, dropout, 1000);
            if at >= 5 {
                // The published weights of the large ones were trained elsewhere than those of the small ones.
                (config.norm_epsilon, config.norm_momentum) = (1e-3, 0.01);
            }
            Preset { channels: Some(IMAGENET), ..Preset::new(name, config).size([size, size]) }
        };
        sizes.into_iter().enumerate().map(preset).collect()
    }

    fn build(&self, scope: Scope<'_>) -> Result<EfficientNet> {
        EfficientNet::new(scope, self)
    }
}

/// Convolution without bias that keeps the size, batch norm, and SiLU if `activation` is true: torchvision's names.
fn conv_norm_silu(
    mut scope: Scope<'_>,
    config: &EfficientNetConfig,
    channels: [usize; 2],
    kernel: Kernel,
    activation: bool,
) -> Result<ConvNormActivation> {
    let kernel = kernel.bias(false).weight(Init::kaiming_normal(Fan::Out));
    let options = NormOptions::new(NormKind::Batch).epsilon(config.norm_epsilon).momentum(config.norm_momentum);
    let options = if activation { options.activation(Activation::Silu) } else { options };
    conv_norm(&mut scope, ["0", "1"], channels, kernel, options)
}

/// An inverted residual block (Sandler et al. 2018) with squeeze and excitation: few channels, many inside.
#[derive(Debug)]
struct MbConv {
    /// The expansion, if there is one, and the depthwise convolution.
    first: Vec<ConvNormActivation>,
    excitation: SqueezeExcitation,
    project: ConvNormActivation,
    /// For a block with a shortcut.
    drop: Option<StochasticDepth>,
}

impl MbConv {
    fn new(
        scope: &mut Scope<'_>,
        config: &EfficientNetConfig,
        stage: &EfficientNetStage,
        in_channels: usize,
        drop: f64,
    ) -> Result<Self> {
        let one = || Kernel::new(config.rank, 1);
        // The original rounds the expanded channels, too.
        let inner = rounded((in_channels * stage.expansion) as f64);
        let mut block = scope.at("block");
        let mut first = Vec::new();
        if inner != in_channels {
            first.push(conv_norm_silu(block.at(0), config, [in_channels, inner], one(), true)?);
        }
        let kernel = Kernel::new(config.rank, stage.kernel).stride(stage.stride).padding(stage.kernel / 2);
        first.push(conv_norm_silu(block.at(first.len()), config, [inner; 2], kernel.groups(inner), true)?);
        let options = SqueezeExcitationOptions::new(config.rank, (in_channels / 4).max(1));
        let options = options.activation(Activation::Silu).weight(Init::kaiming_normal(Fan::Out));
        let options = options.bias(Init::Constant(0.0));
        let excitation = SqueezeExcitation::new(block.at(first.len()), inner, options)?;
        let project = conv_norm_silu(block.at(first.len() + 1), config, [inner, stage.channels], one(), false)?;
        let drop = (stage.stride == 1 && in_channels == stage.channels)
            .then(|| StochasticDepth::new(scope.at("stochastic_depth"), drop))
            .transpose()?;
        Ok(Self { first, excitation, project, drop })
    }
}

impl Module for MbConv {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.first.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, pass))?;
        let y = self.project.forward(&self.excitation.scaled(y, pass)?, pass)?;
        match &self.drop {
            Some(drop) => add(drop.forward(&y, pass)?, x),
            None => Ok(y),
        }
    }
}

/// EfficientNet (Tan and Le 2019): inverted residual blocks with squeeze and excitation, whose width and depth grow together.
/// Input (N, C, spatial...) of any size, output (N, classes).
///
/// State-dict names are torchvision's: `features.0.0` and `.1` the stem, `features.1.0.block.0.0`, …, `features.8.0` the last
/// convolution, `classifier.1`. Stages: `stem` (1/2 of the input size), `stage1`, …, `stage7` (1/2, 1/4, 1/8, 1/16, 1/16, 1/32, 1/32
/// with the paper's stages).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{EfficientNetConfig, Model, registry::Config};
/// assert_eq!(EfficientNetConfig::preset("efficientnet_b4")?.depth, 1.8);
/// let config = EfficientNetConfig { rank: 3, in_channels: 1, ..EfficientNetConfig::new(0.1, 0.1, 0.2, 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2]);
/// assert_eq!(model.features(&volume, &["stage2"])?.main()?.shape(), [1, 8, 4, 4, 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct EfficientNet {
    rank: usize,
    stem: (ConvNormActivation, Stage),
    stages: Vec<(Vec<MbConv>, Stage)>,
    last: ConvNormActivation,
    dropout: Dropout,
    classifier: Linear,
}

impl EfficientNet {
    fn new(mut scope: Scope<'_>, config: &EfficientNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &EfficientNetConfig) -> Result<Self> {
        let mut channels = rounded(config.stem as f64 * config.width);
        let kernel = Kernel::new(config.rank, 3).stride(2).padding(1);
        let conv = conv_norm_silu(scope.at("features.0"), config, [config.in_channels, channels], kernel, true)?;
        let stem = (conv, scope.stage("stem", channels, 2)?);
        let scaled = config.scaled();
        let count: usize = scaled.iter().map(|stage| stage.blocks).sum();
        let (mut stages, mut done, mut reduction) = (Vec::new(), 0, 2);
        for (place, stage) in scaled.iter().enumerate() {
            let mut blocks = Vec::new();
            reduction *= stage.stride;
            for block in 0..stage.blocks {
                let stage = EfficientNetStage { stride: if block == 0 { stage.stride } else { 1 }, ..*stage };
                let drop = config.stochastic_depth * done as f64 / count as f64;
                let mut scope = scope.at(format!("features.{}.{block}", place + 1));
                blocks.push(MbConv::new(&mut scope, config, &stage, channels, drop)?);
                channels = stage.channels;
                done += 1;
            }
            stages.push((blocks, scope.stage(&format!("stage{}", place + 1), channels, reduction)?));
        }
        let name = format!("features.{}", scaled.len() + 1);
        let last = conv_norm_silu(scope.at(name), config, [channels, 4 * channels], Kernel::new(config.rank, 1), true)?;
        let dropout = Dropout::new(scope.at("classifier.0"), config.dropout)?;
        let bound = 1.0 / (config.classes as f64).sqrt();
        let options = LinearOptions::new(config.classes).weight(Init::Uniform(bound));
        let classifier = Linear::new(scope.at("classifier.1"), 4 * channels, options.bias_filled(Init::Constant(0.0)))?;
        Ok(Self { rank: config.rank, stem, stages, last, dropout, classifier })
    }
}

impl Module for EfficientNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::rank("efficientnet", x.shape(), self.rank)?;
        let mut x = pass.stage(self.stem.1, self.stem.0.forward(x, pass)?)?;
        for (blocks, stage) in &self.stages {
            x = pass.stage(*stage, blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?)?;
        }
        x = self.last.forward(&x, pass)?.mean_spatial()?.flatten(1..)?;
        self.classifier.forward(&self.dropout.forward(&x, pass)?, pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_as_in_the_papers_code() {
        // From torchvision's _make_divisible.
        for (channels, expected) in [(1.0, 8), (11.9, 16), (17.6, 16), (35.2, 32), (44.0, 48), (132.0, 136)] {
            assert_eq!(rounded(channels), expected, "{channels}");
        }
    }

    /// The paper's factors of depth α = 1.2, width β = 1.1 and size γ = 1.15 double the cost: α β² γ² ≈ 2.
    #[test]
    fn compound_scaling_doubles_the_cost() {
        let (depth, width, size): (f64, f64, f64) = (1.2, 1.1, 1.15);
        let cost = depth * width.powi(2) * size.powi(2);
        assert!((cost - 2.0).abs() < 0.1, "{cost}");
        // B3 is two such steps from B0, with a little rounding: 1.2² = 1.44 and 1.1² = 1.21.
        let b3 = EfficientNetConfig::preset("efficientnet_b3").unwrap();
        assert!((b3.depth - depth.powi(2)).abs() < 0.05 && (b3.width - width.powi(2)).abs() < 0.05);
    }
}
