//! MONAI's discriminator and critic.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{Module, Named, Network, Pass, Scope};

use crate::{
    Sizes,
    blocks::ConvStyle,
    config::{Card, Config, Preset, Task},
    regression::{Fields, Strided},
};

/// How a [`Discriminator`] computes its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorHead {
    /// A linear layer and a sigmoid: a probability (MONAI's `Discriminator`).
    Sigmoid,
    /// A linear layer: logits (MONAI's `Discriminator` without last activation).
    Linear,
    /// The mean of all numbers, for Wasserstein GANs (MONAI's `Critic`).
    Mean,
}

/// The configuration of a [`Discriminator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "discriminator")]
pub struct DiscriminatorConfig {
    /// Input channels.
    pub in_channels: usize,
    /// The size of the image, a number for each spatial axis.
    pub size: Vec<usize>,
    /// How the score is computed.
    #[serde(default = "DiscriminatorConfig::sigmoid")]
    pub head: DiscriminatorHead,
    /// Channels of each layer.
    pub channels: Vec<usize>,
    /// The stride of each layer.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of each layer, which is then a residual unit; 0: single convolutions.
    #[serde(default = "DiscriminatorConfig::two")]
    pub residual_units: usize,
    /// What all convolutions have in common; MONAI's default has a dropout of 0.25.
    #[serde(default = "DiscriminatorConfig::dropping")]
    pub style: ConvStyle,
}

impl DiscriminatorConfig {
    /// A network with MONAI's defaults and a stride of 2 in all layers, of one input channel.
    pub fn new(size: impl Into<Vec<usize>>, channels: impl Into<Vec<usize>>) -> Self {
        let channels = channels.into();
        Self {
            in_channels: 1,
            size: size.into(),
            head: Self::sigmoid(),
            strides: vec![Sizes::All(2); channels.len()],
            channels,
            residual_units: 2,
            style: Self::dropping(),
        }
    }

    fn sigmoid() -> DiscriminatorHead {
        DiscriminatorHead::Sigmoid
    }

    fn two() -> usize {
        2
    }

    fn dropping() -> ConvStyle {
        ConvStyle { dropout: 0.25, ..ConvStyle::default() }
    }
}

impl Config for DiscriminatorConfig {
    type Network = Discriminator;

    const CARD: Card = Card {
        task: Task::Discrimination,
        ranks: &[1, 2, 3],
        about: "strided residual units: whether an image is real (discriminator), or a score of it (critic)",
        source: "Goodfellow et al.: Generative Adversarial Networks, 2014, arXiv:1406.2661; critic: Arjovsky et al. 2017, \
                 arXiv:1701.07875; as in MONAI, Cardoso et al. 2022, arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/classifier.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let base = Self::new([64, 64], [8, 16, 32, 64]);
        let mean = Self { head: DiscriminatorHead::Mean, ..base.clone() };
        vec![
            Preset::new("discriminator", base),
            Preset::new("critic", mean).source("Arjovsky, Chintala, Bottou: Wasserstein GAN, 2017, arXiv:1701.07875"),
            Preset::new("discriminator_3d", Self::new([64, 64, 64], [8, 16, 32, 64])),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<Discriminator> {
        Discriminator::new(scope, self)
    }
}

/// MONAI's `Discriminator` or `Critic`: strided residual units, and one number for an image. Input `image` (N, C, spatial...) of the
/// configuration's size, output `score` (N, 1).
///
/// State-dict names are MONAI's: `net.layer_0.conv.unit0.conv`, …, `net.layer_0.residual`, …, and `final.1` unless the score is a mean.
/// Stages: `layer_0`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{DiscriminatorConfig, Model};
/// let model = Model::new(&DiscriminatorConfig::new([16, 12], [4, 8]), Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[3, 1, 16, 12], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [3, 1]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Discriminator {
    net: Strided,
    head: DiscriminatorHead,
}

impl Discriminator {
    fn new(mut scope: Scope<'_>, config: &DiscriminatorConfig) -> Result<Self> {
        let fields = Fields {
            operation: "discriminator",
            in_channels: config.in_channels,
            size: &config.size,
            channels: &config.channels,
            strides: &config.strides,
            residual_units: config.residual_units,
            style: &config.style,
        };
        let outputs = (config.head != DiscriminatorHead::Mean).then_some(1);
        let net = scope.whole(|scope| Strided::new(scope, &fields, outputs))?;
        Ok(Self { net, head: config.head })
    }
}

impl Network for Discriminator {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let y = self.net.forward(inputs.get("image")?, pass)?;
        let images = y.shape()[0];
        let score = match self.head {
            DiscriminatorHead::Sigmoid => y.sigmoid()?,
            DiscriminatorHead::Linear => y,
            DiscriminatorHead::Mean => y.mean(1)?.reshape(&[images, 1])?,
        };
        Ok(Named::from([("score", score)]))
    }
}
