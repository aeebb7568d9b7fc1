//! MONAI's generator.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{Linear, Module, Named, Network, Pass, Scope};

use crate::{
    Sizes,
    blocks::{ConvAdn, ConvStyle, Place, Unit, levels},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`Generator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "generator")]
pub struct GeneratorConfig {
    /// The number of random numbers for an image.
    pub latent_size: usize,
    /// The size of the map that the linear layer makes of them, a number for each spatial axis.
    pub start_size: Vec<usize>,
    /// Its channels.
    pub start_channels: usize,
    /// Channels of each layer; the last number is that of the image.
    pub channels: Vec<usize>,
    /// The factor by which each layer enlarges the map.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of the residual unit behind each transposed convolution; 0: none.
    #[serde(default = "GeneratorConfig::two")]
    pub residual_units: usize,
    /// What all convolutions have in common.
    #[serde(default)]
    pub style: ConvStyle,
}

impl GeneratorConfig {
    /// A network with MONAI's defaults, which doubles the map in each layer.
    pub fn new(
        latent_size: usize,
        start_channels: usize,
        start_size: impl Into<Vec<usize>>,
        channels: impl Into<Vec<usize>>,
    ) -> Self {
        let channels = channels.into();
        Self {
            latent_size,
            start_size: start_size.into(),
            start_channels,
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

impl Config for GeneratorConfig {
    type Network = Generator;

    const CARD: Card = Card {
        task: Task::Generation,
        ranks: &[1, 2, 3],
        about: "a linear layer and transposed convolutions: an image from a vector of random numbers",
        source: "Goodfellow et al.: Generative Adversarial Networks, 2014, arXiv:1406.2661; as in MONAI, Cardoso et al. 2022, \
                 arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/generator.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("generator", Self::new(64, 64, [8, 8], [32, 16, 1])),
            Preset::new("generator_3d", Self::new(64, 64, [8, 8, 8], [32, 16, 1])),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<Generator> {
        Generator::new(scope, self)
    }
}

/// MONAI's `Generator`: a linear layer, whose output becomes a small map, and transposed convolutions, each with a residual unit. Input
/// `latent` (N, ...) with `latent_size` numbers for each image, output `image` (N, C, spatial...).
///
/// State-dict names are MONAI's: `linear`, `conv.layer_0.0.conv`, `conv.layer_0.1.conv.unit0.conv`, …, without residual units
/// `conv.layer_0.conv`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{GeneratorConfig, Model};
/// let model = Model::new(&GeneratorConfig::new(5, 8, [4, 3], [4, 1]), Device::Cpu, Seed::new(1))?;
/// let latent = Tensor::normal(&[2, 5], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&latent)?.shape(), [2, 1, 16, 12]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    latent: usize,
    start: Vec<usize>,
    linear: Linear,
    layers: Vec<(ConvAdn, Option<Unit>)>,
}

impl Generator {
    fn new(mut scope: Scope<'_>, config: &GeneratorConfig) -> Result<Self> {
        let (name, rank) = ("generator", config.start_size.len());
        check::length(name, "start_size", rank, 1, 3)?;
        check::sizes(name, "start_size", &config.start_size, check::MOST_CHANNELS)?;
        check::sizes(name, "latent_size", &[config.latent_size], check::MOST_CHANNELS)?;
        check::sizes(name, "start_channels", &[config.start_channels], check::MOST_CHANNELS)?;
        let units = config.style.layers(name, rank)?;
        let strides = levels(name, rank, &config.channels, &config.strides, config.residual_units)?;
        let start = [&[config.start_channels][..], &config.start_size].concat();
        let flat = check::product(name, "the product of start_channels and start_size", &start)?;
        scope.whole(|scope| {
            let linear = Linear::new(scope.at("linear"), config.latent_size, flat)?;
            let (mut from, mut layers, ones) = (config.start_channels, Vec::new(), vec![1; rank]);
            let has_units = config.residual_units > 0;
            for (layer, (&to, stride)) in config.channels.iter().zip(&strides).enumerate() {
                let is_last = layer + 1 == config.channels.len();
                let path = format!("conv.layer_{layer}");
                let place = Place::new([from, to], stride).bare(is_last || has_units);
                let name = if has_units { format!("{path}.0") } else { path.clone() };
                let conv = units.up(scope.at(name), place, units.kernel())?;
                let place = Place::new([to, to], &ones).bare(is_last);
                let unit = has_units
                    .then(|| units.residual(scope.at(format!("{path}.1")), place, config.residual_units))
                    .transpose()?;
                layers.push((conv, unit));
                from = to;
            }
            Ok(Self { latent: config.latent_size, start, linear, layers })
        })
    }
}

impl Network for Generator {
    fn inputs(&self) -> &'static [&'static str] {
        &["latent"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("latent")?;
        check::numbers("generator", x.shape(), self.latent)?;
        let start = [&x.shape()[..1], &self.start].concat();
        let x = self.linear.forward(&x.flatten(1..)?, pass)?.reshape(&start)?;
        let image = self.layers.iter().try_fold(x, |x, (conv, unit)| {
            let x = conv.forward(&x, pass)?;
            unit.as_ref().map_or(Ok(x.clone()), |unit| unit.forward(&x, pass))
        })?;
        Ok(Named::from([("image", image)]))
    }
}
