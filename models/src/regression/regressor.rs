//! MONAI's regressor.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{Module, Named, Network, Pass, Scope};

use super::strided::{Fields, Strided};
use crate::{
    Sizes,
    blocks::ConvStyle,
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`Regressor`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "regressor")]
pub struct RegressorConfig {
    /// Input channels.
    pub in_channels: usize,
    /// The size of the image, a number for each spatial axis.
    pub size: Vec<usize>,
    /// The shape of the prediction for an image.
    pub out_shape: Vec<usize>,
    /// Channels of each layer.
    pub channels: Vec<usize>,
    /// The stride of each layer.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of each layer, which is then a residual unit; 0: single convolutions.
    #[serde(default = "RegressorConfig::two")]
    pub residual_units: usize,
    /// What all convolutions have in common.
    #[serde(default)]
    pub style: ConvStyle,
}

/// The most axes of a prediction.
const MOST_AXES: usize = 4;

impl RegressorConfig {
    /// A network with MONAI's defaults and a stride of 2 in all layers, of one input channel.
    pub fn new(size: impl Into<Vec<usize>>, out_shape: impl Into<Vec<usize>>, channels: impl Into<Vec<usize>>) -> Self {
        let channels = channels.into();
        Self {
            in_channels: 1,
            size: size.into(),
            out_shape: out_shape.into(),
            strides: vec![Sizes::All(2); channels.len()],
            channels,
            residual_units: 2,
            style: ConvStyle::default(),
        }
    }

    fn two() -> usize {
        2
    }
}

impl Config for RegressorConfig {
    type Network = Regressor;

    const CARD: Card = Card {
        task: Task::Regression,
        ranks: &[1, 2, 3],
        about: "strided residual units and a linear layer: a few numbers for an image, such as landmarks or an age",
        source: "Cardoso et al.: MONAI: An open-source framework for deep learning in healthcare, 2022, arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/regressor.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("regressor", Self::new([64, 64], [2], [2, 4, 8])),
            Preset::new("regressor_3d", Self::new([64, 64, 64], [1], [16, 32, 64, 64])),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<Regressor> {
        Regressor::new(scope, self)
    }
}

/// MONAI's `Regressor`: strided residual units, of which the last has neither norm nor activation at its end, and a linear layer. Input
/// `image` (N, C, spatial...) of the configuration's size, output `prediction` (N, out_shape...).
///
/// State-dict names are MONAI's: `net.layer_0.conv.unit0.conv`, …, `net.layer_0.residual`, …, `final.1`. Stages: `layer_0`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, RegressorConfig};
/// let model = Model::new(&RegressorConfig::new([16, 12], [3, 2], [4, 8]), Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[5, 1, 16, 12], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [5, 3, 2]); // three landmarks of two coordinates
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Regressor {
    net: Strided,
    out_shape: Vec<usize>,
}

impl Regressor {
    fn new(mut scope: Scope<'_>, config: &RegressorConfig) -> Result<Self> {
        let name = "regressor";
        check::length(name, "out_shape", config.out_shape.len(), 1, MOST_AXES)?;
        let outputs = check::product(name, "the product of out_shape", &config.out_shape)?;
        let fields = Fields {
            operation: name,
            in_channels: config.in_channels,
            size: &config.size,
            channels: &config.channels,
            strides: &config.strides,
            residual_units: config.residual_units,
            style: &config.style,
        };
        let net = scope.whole(|scope| Strided::new(scope, &fields, Some(outputs)))?;
        Ok(Self { net, out_shape: config.out_shape.clone() })
    }
}

impl Network for Regressor {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let y = self.net.forward(inputs.get("image")?, pass)?;
        let shape = [&y.shape()[..1], &self.out_shape].concat();
        Ok(Named::from([("prediction", y.reshape(&shape)?)]))
    }
}
