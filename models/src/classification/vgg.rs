//! VGG networks.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, AdaptiveAveragePool, Conv, ConvNormActivation, Dropout, Kernel, Linear, LinearOptions, MaxPool, Module,
    Norm, NormKind, NormOptions, Pass, Scope, Stage,
    init::{Fan, Init},
};

use super::IMAGENET;
use crate::{
    blocks::ConvActivation,
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`Vgg`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "vgg")]
pub struct VggConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The number of convolutions of each block; each block ends with max pooling, which halves the size.
    pub convolutions: Vec<usize>,
    /// Channels of each block.
    #[serde(default = "VggConfig::paper_widths")]
    pub widths: Vec<usize>,
    /// Whether a batch norm follows each convolution.
    #[serde(default)]
    pub batch_norm: bool,
    /// Outputs of the two hidden linear layers.
    #[serde(default = "VggConfig::hidden")]
    pub hidden: usize,
    /// Probability of the dropout behind the two hidden linear layers in training, from 0 to below 1.
    #[serde(default = "VggConfig::half")]
    pub dropout: f64,
}

/// Each block halves the image, so that more blocks would need an image larger than any.
const MOST_BLOCKS: usize = 16;
/// The largest number of convolutions of a block.
const MOST_CONVOLUTIONS: usize = 1024;
/// The size to which the last feature map is pooled.
const POOLED: usize = 7;

impl VggConfig {
    /// A network for photographs with the paper's widths: three input channels, no batch norm.
    pub fn new(convolutions: impl Into<Vec<usize>>, classes: usize) -> Self {
        let (convolutions, widths) = (convolutions.into(), Self::paper_widths());
        let (hidden, dropout) = (Self::hidden(), Self::half());
        Self { in_channels: 3, classes, convolutions, widths, batch_norm: false, hidden, dropout }
    }

    fn paper_widths() -> Vec<usize> {
        vec![64, 128, 256, 512, 512]
    }

    fn hidden() -> usize {
        4096
    }

    fn half() -> f64 {
        0.5
    }

    fn check(&self) -> Result<()> {
        let sizes = [("in_channels", self.in_channels), ("classes", self.classes), ("hidden", self.hidden)];
        for (field, size) in sizes {
            check::sizes("vgg", field, &[size], check::MOST_CHANNELS)?;
        }
        check::length("vgg", "convolutions", self.convolutions.len(), 1, MOST_BLOCKS)?;
        check::sizes("vgg", "convolutions", &self.convolutions, MOST_CONVOLUTIONS)?;
        check::length("vgg", "widths", self.widths.len(), self.convolutions.len(), self.convolutions.len())?;
        check::sizes("vgg", "widths", &self.widths, check::MOST_CHANNELS)?;
        check::probability("vgg", "dropout", self.dropout)
    }
}

impl Config for VggConfig {
    type Network = Vgg;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[2],
        about: "blocks of 3-wide convolutions and max pooling, then three linear layers",
        source: "Simonyan and Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, \
                 arXiv:1409.1556",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/vgg.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let sizes = [
            (["vgg11", "vgg11_bn"], [1, 1, 2, 2, 2]),
            (["vgg13", "vgg13_bn"], [2, 2, 2, 2, 2]),
            (["vgg16", "vgg16_bn"], [2, 2, 3, 3, 3]),
            (["vgg19", "vgg19_bn"], [2, 2, 4, 4, 4]),
        ];
        let preset = |name, convolutions, batch_norm| {
            let config = Self { batch_norm, ..Self::new(convolutions, 1000) };
            Preset { channels: Some(IMAGENET), ..Preset::new(name, config) }
        };
        sizes
            .into_iter()
            .flat_map(|([plain, norm], blocks)| [preset(plain, blocks, false), preset(norm, blocks, true)])
            .collect()
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Vgg> {
        self.check()?;
        scope.whole(|scope| Vgg::make(scope, self))
    }
}

/// A VGG network (Simonyan and Zisserman 2014): blocks of 3-wide convolutions with ReLU, each followed by 2-wide max pooling; then
/// three linear layers with dropout. Input (N, C, H, W) of at least 2^blocks pixels along each axis, 32 × 32 for five blocks;
/// output (N, classes). The last feature map is pooled to 7 × 7 by averaging, which changes nothing for 224 × 224.
///
/// State-dict names are torchvision's: `features.K` where K counts convolutions, norms, activations and poolings, and
/// `classifier.0`, `classifier.3`, `classifier.6`. Stages: `block1` (of the input's size), `block2` (1/2), …: the last
/// activations of each block, before its pooling.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, VggConfig, registry::Config};
/// assert!(VggConfig::preset("vgg16_bn")?.batch_norm);
/// let config = VggConfig { in_channels: 1, widths: vec![4, 8], hidden: 16, ..VggConfig::new([1, 2], 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 28, 28], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2]);
/// assert_eq!(model.features(&image, &["block2"])?.main()?.shape(), [1, 8, 14, 14]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Vgg {
    blocks: Vec<(Vec<ConvActivation>, Stage)>,
    pool: MaxPool,
    average: AdaptiveAveragePool,
    hidden: Vec<(Linear, Dropout)>,
    output: Linear,
}

impl Vgg {
    fn make(scope: &mut Scope<'_>, config: &VggConfig) -> Result<Self> {
        let kernel = Kernel::d2(3).padding(1).weight(Init::kaiming_normal(Fan::Out)).bias_filled(Init::Constant(0.0));
        let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
        // The place in torchvision's sequence of layers.
        let mut place = 0;
        let (mut blocks, mut channels) = (Vec::new(), config.in_channels);
        for (block, (&count, &width)) in config.convolutions.iter().zip(&config.widths).enumerate() {
            let mut units = Vec::new();
            for _ in 0..count {
                let conv = Conv::new(scope.at("features").at(place), channels, width, kernel.clone())?;
                place += 2;
                units.push(match config.batch_norm {
                    false => ConvActivation::Plain(conv, Activation::Relu),
                    true => {
                        let norm = Norm::new(scope.at("features").at(place - 1), width, norm)?;
                        place += 1;
                        ConvActivation::Normed(ConvNormActivation::new(conv, norm)?)
                    }
                });
                channels = width;
            }
            place += 1;
            blocks.push((units, scope.stage(&format!("block{}", block + 1), width, 1 << block)?));
        }
        let options =
            |outputs: usize| LinearOptions::new(outputs).weight(Init::Normal(0.01)).bias_filled(Init::Constant(0.0));
        let (mut hidden, mut inputs) = (Vec::new(), channels * POOLED * POOLED);
        for place in [0, 3] {
            let linear = Linear::new(scope.at("classifier").at(place), inputs, options(config.hidden))?;
            hidden.push((linear, Dropout::new(scope.at("classifier").at(place + 2), config.dropout)?));
            inputs = config.hidden;
        }
        let output = Linear::new(scope.at("classifier.6"), inputs, options(config.classes))?;
        let (pool, average) = (MaxPool::new(2)?, AdaptiveAveragePool::new(POOLED)?);
        Ok(Self { blocks, pool, average, hidden, output })
    }
}

impl Module for Vgg {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::smallest("vgg", x.shape(), 2, 1 << self.blocks.len())?;
        let mut x = x.clone();
        for (units, stage) in &self.blocks {
            x = pass.stage(*stage, units.iter().try_fold(x, |x, unit| unit.forward(&x, pass))?)?;
            x = self.pool.forward(&x, pass)?;
        }
        x = self.average.forward(&x, pass)?.flatten(1..)?;
        for (linear, dropout) in &self.hidden {
            x = dropout.forward(&linear.forward(&x, pass)?.relu()?, pass)?;
        }
        self.output.forward(&x, pass)
    }
}
