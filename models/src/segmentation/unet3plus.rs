//! UNet 3+.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, AdaptiveMaxPool, Conv, ConvNormActivation, Dropout, Interpolation, Kernel, MaxPool, Module, Named,
    Network, NormKind, NormOptions, Pass, Scope, Stage, Upsample, UpsampleOptions,
    init::{Fan, Init},
};

use super::{fit, outputs};
use crate::{
    blocks::conv_norm,
    check,
    config::{Card, Config, Preset, Task},
};

/// The outputs of a [`UNet3Plus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UNet3PlusSupervision {
    /// One output, of the finest decoder level.
    None,
    /// An output of each level, the finest first.
    Deep,
    /// As `Deep`, and a classification-guided module: a classifier of the coarsest feature map decides whether the image shows
    /// the organ at all, and if not, all logits are set to 0.
    DeepGuided,
}

/// The configuration of a [`UNet3Plus`].
///
/// ```
/// use tomograd_models::{UNet3PlusConfig, UNet3PlusSupervision};
/// let config = UNet3PlusConfig { in_channels: 1, sigmoid: false, ..UNet3PlusConfig::new(2, UNet3PlusSupervision::Deep) };
/// assert_eq!(config.widths, [64, 128, 256, 512, 1024]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "unet3plus")]
pub struct UNet3PlusConfig {
    /// The number of spatial axes.
    #[serde(default = "UNet3PlusConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of maps of each output.
    pub classes: usize,
    /// Channels of each encoder level, from the finest to the coarsest. A decoder level has one branch of `widths[0]` channels
    /// for each level.
    #[serde(default = "UNet3PlusConfig::original_widths")]
    pub widths: Vec<usize>,
    /// The outputs.
    pub supervision: UNet3PlusSupervision,
    /// The probability of dropout in the classifier of the guided network.
    #[serde(default = "UNet3PlusConfig::half")]
    pub dropout: f64,
    /// Whether the outputs are probabilities (a sigmoid of each map), as those of the original, instead of logits, which
    /// losses and predictions here need.
    #[serde(default = "UNet3PlusConfig::yes")]
    pub sigmoid: bool,
}

impl UNet3PlusConfig {
    /// The authors' network: 2D, three input channels, probabilities.
    pub fn new(classes: usize, supervision: UNet3PlusSupervision) -> Self {
        let widths = Self::original_widths();
        Self { rank: 2, in_channels: 3, classes, widths, supervision, dropout: 0.5, sigmoid: true }
    }

    fn original_widths() -> Vec<usize> {
        vec![64, 128, 256, 512, 1024]
    }

    fn two() -> usize {
        2
    }

    fn half() -> f64 {
        0.5
    }

    fn yes() -> bool {
        true
    }

    /// Channels of the decoder levels.
    fn joined(&self) -> usize {
        self.widths[0] * self.widths.len()
    }

    fn check(&self) -> Result<()> {
        check::sizes("unet3plus", "rank", &[self.rank], 3)?;
        check::length("unet3plus", "widths", self.widths.len(), 2, MOST_LEVELS)?;
        for (field, sizes) in
            [("in_channels", &[self.in_channels][..]), ("classes", &[self.classes]), ("widths", &self.widths)]
        {
            check::sizes("unet3plus", field, sizes, check::MOST_CHANNELS)?;
        }
        check::probability("unet3plus", "dropout", self.dropout)
    }
}

/// With more levels, an image of 2^(levels − 1) voxels along an axis would be larger than any.
const MOST_LEVELS: usize = 16;
/// The initialisation of all convolutions.
const WEIGHT: Init = Init::kaiming_normal(Fan::In);
/// The initialisation of all norms' weights.
const SCALE: Init = Init::NormalAround { mean: 1.0, deviation: 0.02 };

impl Config for UNet3PlusConfig {
    type Network = UNet3Plus;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "a U-Net whose decoder levels see the feature maps of all scales",
        source: "Huang et al.: UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation, 2020, arXiv:2004.08790",
        code: Some("https://github.com/ZJUGiveLab/UNet-Version"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        use UNet3PlusSupervision::{Deep, DeepGuided, None};
        let names = [("unet_3plus", None), ("unet_3plus_deepsup", Deep), ("unet_3plus_deepsup_cgm", DeepGuided)];
        names.map(|(name, supervision)| Preset::new(name, Self::new(1, supervision)).size([320, 320])).into()
    }

    fn build(&self, scope: Scope<'_>) -> Result<UNet3Plus> {
        UNet3Plus::new(scope, self)
    }
}

/// A 3-wide kernel that keeps the size, with the original's initial weights.
fn three(rank: usize) -> Kernel {
    Kernel::new(rank, 3).padding(1).weight(WEIGHT)
}

/// A 3-wide convolution with batch norm and ReLU.
fn layer(scope: &mut Scope<'_>, rank: usize, names: [&str; 2], channels: [usize; 2]) -> Result<ConvNormActivation> {
    let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu).weight(SCALE);
    conv_norm(scope, names, channels, three(rank), norm)
}

/// `x` with 2^`doublings` times the size.
fn enlarged(x: &Var, doublings: usize, pass: &Pass) -> Result<Var> {
    if doublings == 0 {
        return Ok(x.clone());
    }
    let options = UpsampleOptions::new(1usize << doublings).mode(Interpolation::Linear);
    Upsample::new(options)?.forward(x, pass)
}

/// A decoder level: one branch for each scale, and the convolution that fuses them.
#[derive(Debug)]
struct Level {
    /// From the finest scale to the coarsest.
    branches: Vec<ConvNormActivation>,
    fusion: ConvNormActivation,
    stage: Stage,
}

impl Level {
    /// Level `level` (0 is the finest).
    fn new(scope: &mut Scope<'_>, config: &UNet3PlusConfig, level: usize) -> Result<Self> {
        let UNet3PlusConfig { rank, ref widths, .. } = *config;
        let (number, last) = (level + 1, widths.len() - 1);
        let mut branches = Vec::new();
        for (scale, &width) in widths.iter().enumerate() {
            let from = scale + 1;
            let (name, channels) = match scale {
                _ if scale < level => (format!("h{from}_PT_hd{number}"), width),
                _ if scale == level => (format!("h{from}_Cat_hd{number}"), width),
                _ if scale == last => (format!("hd{from}_UT_hd{number}"), width),
                _ => (format!("hd{from}_UT_hd{number}"), config.joined()),
            };
            let names = [&format!("{name}_conv")[..], &format!("{name}_bn")];
            branches.push(layer(scope, rank, names, [channels, widths[0]])?);
        }
        let joined = config.joined();
        let names = [&format!("conv{number}d_1")[..], &format!("bn{number}d_1")];
        let fusion = layer(scope, rank, names, [joined, joined])?;
        Ok(Self { branches, fusion, stage: scope.stage(&format!("hd{number}"), joined, 1 << level)? })
    }

    /// The feature map of level `level` from those of the encoder up to this level (finest first) and of the decoder beyond
    /// (coarsest first), each of which is dropped after its last use: the enlarged map of the coarsest level is larger than
    /// everything else.
    fn forward(&self, level: usize, encoder: &mut Vec<Var>, decoder: &mut [Option<Var>], pass: &Pass) -> Result<Var> {
        let mut parts = Vec::new();
        for (branch, (from, map)) in self.branches.iter().rev().zip(decoder.iter_mut().enumerate()) {
            let scale = self.branches.len() - 1 - from;
            let Some(coarse) = map.take() else { continue };
            let grown = enlarged(&coarse, scale - level, pass)?;
            if level > 0 {
                *map = Some(coarse);
            }
            parts.push(branch.forward(&grown, pass)?);
        }
        if let Some(own) = encoder.pop() {
            parts.push(self.branches[level].forward(&own, pass)?);
        }
        for (scale, (branch, map)) in self.branches.iter().zip(encoder.iter()).enumerate().rev() {
            let pooled = MaxPool::new(1usize << (level - scale))?.forward(map, pass)?;
            parts.push(branch.forward(&pooled, pass)?);
        }
        let joined = Var::concat(&parts.iter().rev().collect::<Vec<_>>(), 1)?;
        drop(parts);
        pass.stage(self.stage, self.fusion.forward(&joined, pass)?)
    }
}

/// UNet 3+ (Huang et al. 2020): each decoder level reads all finer encoder levels (maximum pooling), its own, and all coarser
/// decoder levels (linear interpolation), each through a convolution of `widths[0]` channels. Input (N, C, spatial...), sizes
/// multiples of 2^(levels − 1), 16 in the original; outputs (N, classes, spatial...), in training and in inference:
/// `probabilities`, and with deep supervision `probabilities_d2`, …, `probabilities_d5` of the coarser levels; `logits`,
/// `logits_d2`, … if the configuration's `sigmoid` is false.
///
/// In the guided network, `probabilities_presence` (N, 2) says whether the image shows the organ: if the second number isn't
/// the larger one, all logits of this image are multiplied by 0. No gradient passes through this decision, so the classifier
/// needs a loss of its own; the authors' code computes its output, but doesn't return it.
///
/// State-dict names are those of the authors' code: `conv1.conv1.0`, `conv1.conv1.1` (norm), `conv1.conv2.0`, …,
/// `h1_PT_hd4_conv`, `h1_PT_hd4_bn`, …, `conv4d_1`, `bn4d_1`, …, `outconv1`, …, `cls.1`. Stages: `h1`, …, `hd5` of the encoder, each
/// half the size of the previous one, and `hd4`, …, `hd1` of the decoder.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, UNet3PlusConfig, UNet3PlusSupervision};
/// let plain = UNet3PlusConfig::new(2, UNet3PlusSupervision::Deep);
/// let config = UNet3PlusConfig { rank: 3, in_channels: 1, widths: vec![2, 3, 4], sigmoid: false, ..plain };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 8, 4, 12], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", volume)].into())?;
/// assert_eq!(outputs.main()?.shape(), [1, 2, 8, 4, 12]);
/// assert_eq!(outputs.names().collect::<Vec<_>>(), ["logits", "logits_d2", "logits_d3"]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UNet3Plus {
    rank: usize,
    sigmoid: bool,
    pool: MaxPool,
    encoder: Vec<([ConvNormActivation; 2], Stage)>,
    /// From the coarsest to the finest.
    decoder: Vec<Level>,
    /// From the finest to the coarsest.
    heads: Vec<Conv>,
    classifier: Option<(Dropout, Conv)>,
}

impl UNet3Plus {
    fn new(mut scope: Scope<'_>, config: &UNet3PlusConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &UNet3PlusConfig) -> Result<Self> {
        let UNet3PlusConfig { rank, in_channels, classes, ref widths, supervision, dropout, sigmoid } = *config;
        let (mut encoder, mut channels) = (Vec::new(), in_channels);
        let last = widths.len() - 1;
        for (level, &width) in widths.iter().enumerate() {
            let mut block = scope.at(format!("conv{}", level + 1));
            let first = layer(&mut block.at("conv1"), rank, ["0", "1"], [channels, width])?;
            let second = layer(&mut block.at("conv2"), rank, ["0", "1"], [width, width])?;
            let name = format!("h{}{}", if level == last { "d" } else { "" }, level + 1);
            encoder.push(([first, second], scope.stage(&name, width, 1 << level)?));
            channels = width;
        }
        let decoder = (0..last).rev().map(|level| Level::new(scope, config, level)).collect::<Result<Vec<_>>>()?;
        let supervised = if supervision == UNet3PlusSupervision::None { 1 } else { widths.len() };
        let mut heads = Vec::new();
        for level in 0..supervised {
            let channels = if level == last { widths[last] } else { config.joined() };
            let name = format!("outconv{}", level + 1);
            heads.push(Conv::new(scope.at(name), channels, classes, three(rank))?);
        }
        let classifier = match supervision {
            UNet3PlusSupervision::DeepGuided => {
                let dropout = Dropout::new(scope.at("cls.0"), dropout)?;
                let kernel = Kernel::new(rank, 1).weight(WEIGHT);
                Some((dropout, Conv::new(scope.at("cls.1"), widths[last], 2, kernel)?))
            }
            _ => None,
        };
        Ok(Self { rank, sigmoid, pool: MaxPool::new(2)?, encoder, decoder, heads, classifier })
    }

    /// The logits of the presence classifier (N, 2), and what all other logits are multiplied by.
    fn presence(&self, x: &Var, pass: &Pass) -> Result<Option<(Var, Var)>> {
        let Some((dropout, conv)) = &self.classifier else { return Ok(None) };
        let maps = conv.forward(&dropout.forward(x, pass)?, pass)?;
        let logits = AdaptiveMaxPool::new(1)?.forward(&maps, pass)?.flatten(1..)?;
        let gate = logits.constant(logits.argmax(1)?).cast(logits.dtype())?;
        let mut shape = vec![1; x.rank()];
        shape[0] = x.shape()[0];
        let gate = gate.reshape(&shape)?;
        Ok(Some((logits, gate)))
    }
}

impl Network for UNet3Plus {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        let last = self.decoder.len();
        fit::multiples("unet3plus", image, &vec![1 << last; self.rank])?;
        let (mut x, mut encoder) = (image.clone(), Vec::new());
        for (level, ([first, second], stage)) in self.encoder.iter().enumerate() {
            if level > 0 {
                x = self.pool.forward(&x, pass)?;
            }
            x = first.forward(&x, pass)?;
            x = pass.stage(*stage, second.forward(&x, pass)?)?;
            encoder.push(x.clone());
        }
        encoder.pop();
        let presence = self.presence(&x, pass)?;
        // The logits of each level at its own size, from the coarsest.
        let mut logits = Vec::new();
        let mut head = |level: usize, x: &Var| -> Result<()> {
            if let Some(head) = self.heads.get(level) {
                logits.push((level, head.forward(x, pass)?));
            }
            Ok(())
        };
        head(last, &x)?;
        let mut decoder = vec![Some(x)];
        for (level, block) in (0..last).rev().zip(&self.decoder) {
            let map = block.forward(level, &mut encoder, &mut decoder, pass)?;
            head(level, &map)?;
            decoder.push(Some(map));
        }
        drop(decoder);
        let mut outputs = Vec::new();
        for (level, map) in logits.into_iter().rev() {
            let mut map = enlarged(&map, level, pass)?;
            if let Some((_, gate)) = &presence {
                map = map.mul(gate)?;
            }
            let suffix = if level == 0 { String::new() } else { format!("d{}", level + 1) };
            outputs.push((suffix, map));
        }
        outputs.extend(presence.map(|(logits, _)| ("presence".to_owned(), logits)));
        outputs::named(self.sigmoid, outputs)
    }
}
