//! MONAI's classifier.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{Activation, Module, Pass, Scope, check_activation};

use crate::{
    Sizes,
    blocks::{ActivationChoice, ConvStyle},
    check,
    config::{Card, Config, Preset, Task},
    regression::{Fields, Strided},
};

/// The configuration of a [`MonaiClassifier`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "monai_classifier")]
pub struct MonaiClassifierConfig {
    /// Input channels.
    pub in_channels: usize,
    /// The size of the image, a number for each spatial axis.
    pub size: Vec<usize>,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each layer.
    pub channels: Vec<usize>,
    /// The stride of each layer.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of each layer, which is then a residual unit; 0: single convolutions.
    #[serde(default = "MonaiClassifierConfig::two")]
    pub residual_units: usize,
    /// What all convolutions have in common.
    #[serde(default)]
    pub style: ConvStyle,
    /// An activation behind the last layer, with which the output isn't logits; a PReLU isn't possible.
    #[serde(default = "MonaiClassifierConfig::nothing")]
    pub last_activation: ActivationChoice,
}

impl MonaiClassifierConfig {
    /// A network with MONAI's defaults and a stride of 2 in all layers, of one input channel.
    pub fn new(size: impl Into<Vec<usize>>, classes: usize, channels: impl Into<Vec<usize>>) -> Self {
        let channels = channels.into();
        Self {
            in_channels: 1,
            size: size.into(),
            classes,
            strides: vec![Sizes::All(2); channels.len()],
            channels,
            residual_units: 2,
            style: ConvStyle::default(),
            last_activation: ActivationChoice::None,
        }
    }

    fn two() -> usize {
        2
    }

    fn nothing() -> ActivationChoice {
        ActivationChoice::None
    }
}

impl Config for MonaiClassifierConfig {
    type Network = MonaiClassifier;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "strided residual units and a linear layer",
        source: "Cardoso et al.: MONAI: An open-source framework for deep learning in healthcare, 2022, arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/classifier.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("monai_classifier", Self::new([64, 64], 6, [16, 32, 64])),
            Preset::new("monai_classifier_3d", Self::new([64, 64, 64], 2, [16, 32, 64, 64])),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<MonaiClassifier> {
        MonaiClassifier::new(scope, self)
    }
}

/// MONAI's `Classifier`: strided residual units, of which the last has neither norm nor activation at its end, and a linear layer.
/// Input (N, C, spatial...) of the configuration's size, output (N, classes).
///
/// State-dict names are MONAI's: `net.layer_0.conv.unit0.conv`, …, `net.layer_0.residual`, …, `final.1`. Stages: `layer_0`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, MonaiClassifierConfig};
/// let model = Model::new(&MonaiClassifierConfig::new([16, 12, 8], 3, [4, 8]), Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[2, 1, 16, 12, 8], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MonaiClassifier {
    net: Strided,
    activation: Option<Activation>,
}

impl MonaiClassifier {
    fn new(mut scope: Scope<'_>, config: &MonaiClassifierConfig) -> Result<Self> {
        let name = "monai_classifier";
        check::sizes(name, "classes", &[config.classes], check::MOST_CHANNELS)?;
        if config.last_activation == ActivationChoice::Prelu {
            return Err(Error::argument(name, "last_activation is a PReLU").expected("a function without parameters"));
        }
        config.last_activation.function().map_or(Ok(()), |function| check_activation("activation", function))?;
        let fields = Fields {
            operation: name,
            in_channels: config.in_channels,
            size: &config.size,
            channels: &config.channels,
            strides: &config.strides,
            residual_units: config.residual_units,
            style: &config.style,
        };
        let net = scope.whole(|scope| Strided::new(scope, &fields, Some(config.classes)))?;
        Ok(Self { net, activation: config.last_activation.function() })
    }
}

impl Module for MonaiClassifier {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.net.forward(x, pass)?;
        self.activation.map_or(Ok(y.clone()), |activation| activation.forward(&y, pass))
    }
}
