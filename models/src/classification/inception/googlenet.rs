//! GoogLeNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    AdaptiveAveragePool, ConvNormActivation, Dropout, Kernel, Linear, LinearOptions, MaxPool, Module, Named, Network,
    Pass, Scope, Stage, Window, init::Init,
};

use super::{BranchSpec, Builder, Mixed, Pooling, check_transform, transformed};
use crate::{
    check,
    classification::IMAGENET,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`GoogLeNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "googlenet")]
pub struct GoogLeNetConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of the first convolution, a multiple of 8; all others follow in the original's proportions.
    #[serde(default = "GoogLeNetConfig::width")]
    pub width: usize,
    /// Whether there are two auxiliary heads, which run in training alone.
    #[serde(default = "GoogLeNetConfig::yes")]
    pub auxiliary: bool,
    /// Whether images that are normalised by ImageNet's statistics are normalised again to those with which the published
    /// weights were trained: needs three channels.
    #[serde(default)]
    pub transform_input: bool,
    /// Probability of the dropout before the last layer in training, from 0 to below 1.
    #[serde(default = "GoogLeNetConfig::dropout")]
    pub dropout: f64,
    /// Probability of the dropout in the auxiliary heads, from 0 to below 1.
    #[serde(default = "GoogLeNetConfig::auxiliary_dropout")]
    pub auxiliary_dropout: f64,
}

const NAME: &str = "googlenet";
/// The standard deviation of initial weights.
const DEVIATION: f64 = 0.01;
/// The size to which the feature maps of the auxiliary heads are pooled.
const POOLED: usize = 4;

/// The blocks: name, downsampling, and channels of the 1-wide convolution, of the 3-wide one with its reduction, of the second
/// one, and behind the pooling.
const BLOCKS: [(&str, usize, [usize; 6]); 9] = [
    ("inception3a", 8, [64, 96, 128, 16, 32, 32]),
    ("inception3b", 8, [128, 128, 192, 32, 96, 64]),
    ("inception4a", 16, [192, 96, 208, 16, 48, 64]),
    ("inception4b", 16, [160, 112, 224, 24, 64, 64]),
    ("inception4c", 16, [128, 128, 256, 24, 64, 64]),
    ("inception4d", 16, [112, 144, 288, 32, 64, 64]),
    ("inception4e", 16, [256, 160, 320, 32, 128, 128]),
    ("inception5a", 32, [256, 160, 320, 32, 128, 128]),
    ("inception5b", 32, [384, 192, 384, 48, 128, 128]),
];
/// The blocks whose outputs the auxiliary heads read.
const AUXILIARY: [&str; 2] = ["inception4a", "inception4d"];

impl GoogLeNetConfig {
    /// A network for photographs: three input channels, auxiliary heads.
    pub fn new(classes: usize) -> Self {
        Self {
            in_channels: 3,
            classes,
            width: Self::width(),
            auxiliary: true,
            transform_input: false,
            dropout: Self::dropout(),
            auxiliary_dropout: Self::auxiliary_dropout(),
        }
    }

    fn width() -> usize {
        64
    }

    fn yes() -> bool {
        true
    }

    fn dropout() -> f64 {
        0.2
    }

    fn auxiliary_dropout() -> f64 {
        0.7
    }

    fn builder(&self) -> Builder {
        Builder { width: self.width, original: Self::width(), deviation: DEVIATION }
    }

    fn check(&self) -> Result<()> {
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes)] {
            check::sizes(NAME, field, &[size], check::MOST_CHANNELS)?;
        }
        self.builder().check(NAME, 8)?;
        check_transform(NAME, self.transform_input, self.in_channels)?;
        check::probability(NAME, "dropout", self.dropout)?;
        check::probability(NAME, "auxiliary_dropout", self.auxiliary_dropout)
    }
}

impl Config for GoogLeNetConfig {
    type Network = GoogLeNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[2],
        about: "blocks of parallel convolutions of several sizes (Inception v1), with two auxiliary heads",
        source: "Szegedy et al.: Going Deeper with Convolutions, 2014, arXiv:1409.4842",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/googlenet.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let config = Self { transform_input: true, ..Self::new(1000) };
        vec![Preset { channels: Some(IMAGENET), ..Preset::new("googlenet", config) }]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<GoogLeNet> {
        self.check()?;
        scope.whole(|scope| GoogLeNet::make(scope, self))
    }
}

/// The branches of a block. As in torchvision, the third has a 3-wide convolution where the paper has a 5-wide one.
fn branches([one, reduced, three, reduced_again, second, pooled]: [usize; 6]) -> Result<Vec<BranchSpec>> {
    let (point, wide) = (|| Kernel::d2(1), || Kernel::d2(3).padding(1));
    let pool = MaxPool::new(Window::new(3).stride(1).padding(1))?;
    Ok(vec![
        BranchSpec::new([("branch1", one, point())]),
        BranchSpec::new([("branch2.0", reduced, point()), ("branch2.1", three, wide())]),
        BranchSpec::new([("branch3.0", reduced_again, point()), ("branch3.1", second, wide())]),
        BranchSpec::pooled(Pooling::Max(pool), [("branch4.1", pooled, point())]),
    ])
}

/// A linear layer with the original's initial weights.
fn linear(scope: Scope<'_>, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::new(scope, inputs, LinearOptions::new(outputs).weight(Init::Normal(DEVIATION)))
}

/// An auxiliary head.
#[derive(Debug)]
struct Auxiliary {
    average: AdaptiveAveragePool,
    conv: ConvNormActivation,
    hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

impl Auxiliary {
    fn new(scope: &mut Scope<'_>, config: &GoogLeNetConfig, in_channels: usize) -> Result<Self> {
        let (conv, channels) = config.builder().unit(scope, in_channels, ("conv", 128, Kernel::d2(1)))?;
        let hidden = config.builder().channels(1024);
        Ok(Self {
            average: AdaptiveAveragePool::new(POOLED)?,
            conv,
            hidden: linear(scope.at("fc1"), channels * POOLED * POOLED, hidden)?,
            dropout: Dropout::new(scope.at("dropout"), config.auxiliary_dropout)?,
            output: linear(scope.at("fc2"), hidden, config.classes)?,
        })
    }
}

impl Module for Auxiliary {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let x = self.conv.forward(&self.average.forward(x, pass)?, pass)?.flatten(1..)?;
        let x = self.hidden.forward(&x, pass)?.relu()?;
        self.output.forward(&self.dropout.forward(&x, pass)?, pass)
    }
}

/// GoogLeNet, also called Inception v1 (Szegedy et al. 2014), with batch norm as in torchvision: each block has four branches,
/// among them a 1-wide convolution, two reductions with a 3-wide convolution each, and max pooling; two auxiliary heads help to
/// train the early blocks. Input (N, C, H, W) of at least 15 × 15 pixels.
///
/// Outputs: `logits` (N, classes), and in training with auxiliary heads `logits_aux2` (of `inception4d`) and `logits_aux1` (of
/// `inception4a`), in torchvision's order; the paper adds their losses with a weight of 0.3.
///
/// State-dict names are torchvision's: `conv1.conv`, `conv1.bn`, `conv2`, `conv3`, `inception3a.branch1`,
/// `inception3a.branch2.0`, …, `aux1.conv`, `aux1.fc1`, `aux1.fc2`, …, `fc`. Stages: `conv1` (1/2 of the input size), `conv3`
/// (1/4), `inception3a`, `inception3b` (1/8), `inception4a` to `inception4e` (1/16), `inception5a`, `inception5b` (1/32).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{GoogLeNetConfig, Model};
/// let config = GoogLeNetConfig { in_channels: 1, width: 8, ..GoogLeNetConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 28, 28], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct GoogLeNet {
    transform_input: bool,
    stem: [(ConvNormActivation, Option<Stage>); 3],
    /// Behind `conv1`, `conv3` and `inception3b`.
    pool: MaxPool,
    /// Behind `inception4e`.
    last_pool: MaxPool,
    blocks: Vec<Mixed>,
    auxiliary: Vec<Auxiliary>,
    dropout: Dropout,
    fc: Linear,
}

impl GoogLeNet {
    fn make(scope: &mut Scope<'_>, config: &GoogLeNetConfig) -> Result<Self> {
        let builder = config.builder();
        let seven = Kernel::d2(7).stride(2).padding(3);
        let (conv1, channels) = builder.unit(scope, config.in_channels, ("conv1", 64, seven))?;
        let conv1 = (conv1, Some(scope.stage("conv1", channels, 2)?));
        let (conv2, channels) = builder.unit(scope, channels, ("conv2", 64, Kernel::d2(1)))?;
        let (conv3, mut channels) = builder.unit(scope, channels, ("conv3", 192, Kernel::d2(3).padding(1)))?;
        let conv3 = (conv3, Some(scope.stage("conv3", channels, 4)?));
        let (mut blocks, mut read) = (Vec::new(), Vec::new());
        for (name, reduction, sizes) in BLOCKS {
            let (block, outputs) = builder.mixed(scope, name, channels, reduction, branches(sizes)?)?;
            blocks.push(block);
            channels = outputs;
            if AUXILIARY.contains(&name) {
                read.push(channels);
            }
        }
        let mut auxiliary = Vec::new();
        for (place, in_channels) in read.into_iter().enumerate().filter(|_| config.auxiliary) {
            auxiliary.push(Auxiliary::new(&mut scope.at(format!("aux{}", place + 1)), config, in_channels)?);
        }
        Ok(Self {
            transform_input: config.transform_input,
            stem: [conv1, (conv2, None), conv3],
            pool: MaxPool::new(Window::new(3).stride(2).ceil_mode(true))?,
            last_pool: MaxPool::new(Window::new(2).ceil_mode(true))?,
            blocks,
            auxiliary,
            dropout: Dropout::new(scope.at("dropout"), config.dropout)?,
            fc: linear(scope.at("fc"), channels, config.classes)?,
        })
    }
}

impl Network for GoogLeNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::smallest(NAME, x.shape(), 2, 15)?;
        let mut x = if self.transform_input { transformed(x, pass)? } else { x.clone() };
        for (place, (conv, stage)) in self.stem.iter().enumerate() {
            x = conv.forward(&x, pass)?;
            if let Some(stage) = stage {
                x = pass.stage(*stage, x)?;
            }
            if place != 1 {
                x = self.pool.forward(&x, pass)?;
            }
        }
        let (mut auxiliary, mut heads) = (self.auxiliary.iter().filter(|_| pass.is_training()), Vec::new());
        for (block, (name, ..)) in self.blocks.iter().zip(BLOCKS) {
            x = block.forward(&x, pass)?;
            if AUXILIARY.contains(&name) {
                heads.extend(auxiliary.next().map(|head| head.forward(&x, pass)).transpose()?);
            }
            match name {
                "inception3b" => x = self.pool.forward(&x, pass)?,
                "inception4e" => x = self.last_pool.forward(&x, pass)?,
                _ => (),
            }
        }
        let x = self.dropout.forward(&x.mean_spatial()?.flatten(1..)?, pass)?;
        let mut outputs = Named::from([("logits", self.fc.forward(&x, pass)?)]);
        for (place, head) in heads.into_iter().enumerate().rev() {
            outputs.insert(format!("logits_aux{}", place + 1), head);
        }
        Ok(outputs)
    }
}
