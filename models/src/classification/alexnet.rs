//! AlexNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    AdaptiveAveragePool, Conv, Dropout, Kernel, Linear, LinearOptions, LocalResponseNorm, MaxPool, Module, Pass, Scope,
    Stage, Window, init::Init,
};

use super::IMAGENET;
use crate::{
    check,
    config::{Card, Config, Preset, Task},
};

/// Which original an [`AlexNet`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlexNetForm {
    /// torchvision's network (after Krizhevsky 2014): the first convolution has padding 2, no normalisation, dropout before the
    /// first two linear layers; PyTorch's initialisation. State-dict names: `features.0`, `.3`, `.6`, `.8`, `.10`,
    /// `classifier.1`, `.4`, `.6`.
    #[default]
    Torchvision,
    /// The network of the paper: no padding in the first convolution, local response normalisation behind the first two,
    /// dropout behind the first two linear layers; weights are normal with deviation 0.01, biases 1 in the second, fourth and
    /// fifth convolutions and the hidden linear layers and 0 elsewhere. State-dict names: `conv1`, …, `conv5`, `fc6`, `fc7`,
    /// `fc8`, as the layers are called in Caffe.
    Paper,
}

/// The configuration of an [`AlexNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "alexnet")]
pub struct AlexNetConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Which original the network follows.
    #[serde(default)]
    pub form: AlexNetForm,
    /// Channels of the five convolutions.
    #[serde(default = "AlexNetConfig::torchvision_widths")]
    pub widths: Vec<usize>,
    /// Groups of the second, fourth and fifth convolutions; the paper had two, one on each of its two GPUs.
    #[serde(default = "AlexNetConfig::one")]
    pub groups: usize,
    /// Outputs of the two hidden linear layers.
    #[serde(default = "AlexNetConfig::hidden")]
    pub hidden: usize,
    /// Probability of the dropout in training, from 0 to below 1.
    #[serde(default = "AlexNetConfig::half")]
    pub dropout: f64,
}

/// The size to which the last feature map is pooled.
const POOLED: usize = 6;

impl AlexNetConfig {
    /// torchvision's network for `classes` classes of photographs.
    pub fn new(classes: usize) -> Self {
        let (widths, groups, hidden, dropout) = (Self::torchvision_widths(), 1, Self::hidden(), Self::half());
        Self { in_channels: 3, classes, form: AlexNetForm::Torchvision, widths, groups, hidden, dropout }
    }

    /// The network of the paper for `classes` classes of photographs.
    pub fn paper(classes: usize) -> Self {
        Self { form: AlexNetForm::Paper, widths: vec![96, 256, 384, 384, 256], groups: 2, ..Self::new(classes) }
    }

    fn torchvision_widths() -> Vec<usize> {
        vec![64, 192, 384, 256, 256]
    }

    fn one() -> usize {
        1
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
            check::sizes("alexnet", field, &[size], check::MOST_CHANNELS)?;
        }
        check::length("alexnet", "widths", self.widths.len(), 5, 5)?;
        check::sizes("alexnet", "widths", &self.widths, check::MOST_CHANNELS)?;
        check::sizes("alexnet", "groups", &[self.groups], check::MOST_CHANNELS)?;
        if let Some(width) = self.widths.iter().find(|width| !width.is_multiple_of(self.groups)) {
            return Err(tomograd_core::Error::argument(
                "alexnet",
                format!("widths has {width}, and groups is {}", self.groups),
            )
            .expected("groups that divide all widths"));
        }
        check::probability("alexnet", "dropout", self.dropout)
    }
}

impl Config for AlexNetConfig {
    type Network = AlexNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[2],
        about: "five convolutions and three linear layers, torchvision's or the paper's",
        source: "Krizhevsky et al.: ImageNet Classification with Deep Convolutional Neural Networks, 2012, \
                 doi:10.1145/3065386; torchvision's: Krizhevsky: One weird trick for parallelizing convolutional neural \
                 networks, 2014, arXiv:1404.5997",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/alexnet.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset { channels: Some(IMAGENET), ..Preset::new("alexnet", Self::new(1000)) }.source(
                "Krizhevsky: One weird trick for parallelizing convolutional neural networks, 2014, arXiv:1404.5997",
            ),
            Preset::new("alexnet_2012", Self::paper(1000)).size([227, 227]),
        ]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<AlexNet> {
        self.check()?;
        scope.whole(|scope| AlexNet::make(scope, self))
    }
}

/// AlexNet (Krizhevsky et al. 2012): five convolutions with ReLU, three of them followed by max pooling with overlapping
/// windows; then three linear layers with dropout. Input (N, C, H, W) of at least 63 × 63 pixels (the paper's form: 67 × 67),
/// output (N, classes). The last feature map is pooled to 6 × 6 by averaging, which changes nothing for the sizes of
/// the originals (224 × 224, the paper's form 227 × 227).
///
/// [`AlexNetForm`] has the state-dict names. Stages: `conv1` (1/4 of the input size), `conv2` (1/8), `conv3`, `conv4`, `conv5`
/// (1/16), each behind its ReLU.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{AlexNetConfig, Model, registry::Config};
/// assert_eq!(AlexNetConfig::preset("alexnet_2012")?.groups, 2);
/// let config = AlexNetConfig { in_channels: 1, widths: vec![4, 8, 8, 8, 8], hidden: 16, ..AlexNetConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 64, 80], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct AlexNet {
    smallest: usize,
    convolutions: Vec<(Conv, Stage)>,
    norm: Option<LocalResponseNorm>,
    pool: MaxPool,
    average: AdaptiveAveragePool,
    /// Whether dropout comes before a hidden linear layer instead of behind it.
    dropout_first: bool,
    hidden: Vec<(Dropout, Linear)>,
    output: Linear,
}

impl AlexNet {
    fn make(scope: &mut Scope<'_>, config: &AlexNetConfig) -> Result<Self> {
        let paper = config.form == AlexNetForm::Paper;
        let names = match paper {
            false => ["features.0", "features.3", "features.6", "features.8", "features.10"],
            true => ["conv1", "conv2", "conv3", "conv4", "conv5"],
        };
        let first_padding = if paper { 0 } else { 2 };
        let kernels = [
            Kernel::d2(11).stride(4).padding(first_padding),
            Kernel::d2(5).padding(2).groups(config.groups),
            Kernel::d2(3).padding(1),
            Kernel::d2(3).padding(1).groups(config.groups),
            Kernel::d2(3).padding(1).groups(config.groups),
        ];
        let filled = |kernel: Kernel, bias: f64| match paper {
            true => kernel.weight(Init::Normal(0.01)).bias_filled(Init::Constant(bias)),
            false => kernel,
        };
        let (mut convolutions, mut channels) = (Vec::new(), config.in_channels);
        for (place, (kernel, &width)) in kernels.into_iter().zip(&config.widths).enumerate() {
            let kernel = filled(kernel, [0.0, 1.0, 0.0, 1.0, 1.0][place]);
            let conv = Conv::new(scope.at(names[place]), channels, width, kernel)?;
            convolutions.push((conv, scope.stage(&format!("conv{}", place + 1), width, [4, 8, 16, 16, 16][place])?));
            channels = width;
        }
        let options = |outputs: usize, bias: f64| match paper {
            true => LinearOptions::new(outputs).weight(Init::Normal(0.01)).bias_filled(Init::Constant(bias)),
            false => LinearOptions::new(outputs),
        };
        let names = match paper {
            false => ["classifier.0", "classifier.1", "classifier.3", "classifier.4", "classifier.6"],
            true => ["drop6", "fc6", "drop7", "fc7", "fc8"],
        };
        let (mut hidden, mut inputs) = (Vec::new(), channels * POOLED * POOLED);
        for pair in names[..4].chunks(2) {
            let dropout = Dropout::new(scope.at(pair[0]), config.dropout)?;
            hidden.push((dropout, Linear::new(scope.at(pair[1]), inputs, options(config.hidden, 1.0))?));
            inputs = config.hidden;
        }
        Ok(Self {
            // With which the last pooling has a window of three.
            smallest: if paper { 67 } else { 63 },
            convolutions,
            norm: if paper { Some(LocalResponseNorm::new(5)?) } else { None },
            pool: MaxPool::new(Window::new(3).stride(2))?,
            average: AdaptiveAveragePool::new(POOLED)?,
            dropout_first: !paper,
            hidden,
            output: Linear::new(scope.at(names[4]), inputs, options(config.classes, 0.0))?,
        })
    }
}

impl Module for AlexNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::smallest("alexnet", x.shape(), 2, self.smallest)?;
        let mut x = x.clone();
        for (place, (conv, stage)) in self.convolutions.iter().enumerate() {
            x = pass.stage(*stage, conv.forward(&x, pass)?.relu()?)?;
            if let (Some(norm), 0 | 1) = (&self.norm, place) {
                x = norm.forward(&x, pass)?;
            }
            if let 0 | 1 | 4 = place {
                x = self.pool.forward(&x, pass)?;
            }
        }
        x = self.average.forward(&x, pass)?.flatten(1..)?;
        for (dropout, linear) in &self.hidden {
            x = match self.dropout_first {
                true => linear.forward(&dropout.forward(&x, pass)?, pass)?.relu()?,
                false => dropout.forward(&linear.forward(&x, pass)?.relu()?, pass)?,
            };
        }
        self.output.forward(&x, pass)
    }
}
