//! Half-UNet.

use std::f64::consts::SQRT_2;

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Interpolation, Kernel, MaxPool, Module, Named, Network, NormKind,
    NormOptions, Pass, Scope, Stage,
    init::{Distribution, Fan, Init},
};

use super::outputs;
use crate::{
    blocks::{conv_norm, saving::add},
    check,
    config::{Card, Config, Preset, Task},
};

/// The convolutions of a [`HalfUNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HalfUNetConvolution {
    /// Ghost modules (Han et al. 2020): a convolution makes half of the channels, and a depthwise convolution of these the
    /// other half. The paper's numbers of parameters are those of this one.
    Ghost,
    /// Ghost modules whose second half is a depthwise convolution without bias and a 1-wide one behind it, as in common Keras
    /// code.
    GhostSeparable,
    /// A convolution makes all channels (Half-UNet† of the paper).
    Full,
}

/// The interpolation of the coarse feature maps of a [`HalfUNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HalfUNetUpsampling {
    /// Linear.
    Linear,
    /// Nearest neighbour.
    Nearest,
}

/// The configuration of a [`HalfUNet`].
///
/// ```
/// use tomograd_models::HalfUNetConfig;
/// let config = HalfUNetConfig { in_channels: 3, sigmoid: false, ..HalfUNetConfig::new(2) };
/// assert_eq!((config.width, config.levels), (64, 5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "half_unet")]
pub struct HalfUNetConfig {
    /// The number of spatial axes.
    #[serde(default = "HalfUNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of output maps.
    pub classes: usize,
    /// Channels of all levels; even with Ghost modules.
    #[serde(default = "HalfUNetConfig::sixty_four")]
    pub width: usize,
    /// The number of levels, each half the size of the previous one.
    #[serde(default = "HalfUNetConfig::five")]
    pub levels: usize,
    /// The convolutions.
    #[serde(default = "HalfUNetConfig::ghost")]
    pub convolution: HalfUNetConvolution,
    /// The interpolation of the coarse feature maps.
    #[serde(default = "HalfUNetConfig::linear")]
    pub upsampling: HalfUNetUpsampling,
    /// Whether the outputs are probabilities (a sigmoid of each map), as those of the original, instead of logits, which
    /// losses and predictions here need.
    #[serde(default = "HalfUNetConfig::yes")]
    pub sigmoid: bool,
}

impl HalfUNetConfig {
    /// The paper's network: 2D, one input channel, Ghost modules, linear interpolation, probabilities.
    pub fn new(classes: usize) -> Self {
        let (convolution, upsampling) = (Self::ghost(), Self::linear());
        Self { rank: 2, in_channels: 1, classes, width: 64, levels: 5, convolution, upsampling, sigmoid: true }
    }

    fn two() -> usize {
        2
    }

    fn five() -> usize {
        5
    }

    fn sixty_four() -> usize {
        64
    }

    fn ghost() -> HalfUNetConvolution {
        HalfUNetConvolution::Ghost
    }

    fn linear() -> HalfUNetUpsampling {
        HalfUNetUpsampling::Linear
    }

    fn yes() -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        check::sizes("half_unet", "rank", &[self.rank], 3)?;
        check::sizes("half_unet", "levels", &[self.levels], check::MOST_LEVELS)?;
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes), ("width", self.width)] {
            check::sizes("half_unet", field, &[size], check::MOST_CHANNELS)?;
        }
        if self.convolution != HalfUNetConvolution::Full && !self.width.is_multiple_of(2) {
            return Err(Error::argument("half_unet", format!("width is {}, with Ghost modules", self.width))
                .expected("an even number"));
        }
        Ok(())
    }
}

impl Config for HalfUNetConfig {
    type Network = HalfUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "a U-Net of one width whose decoder is a sum of all scales: 0.2 million parameters",
        source: "Lu et al.: Half-UNet: A Simplified U-Net Architecture for Medical Image Segmentation, 2022, \
                 doi:10.3389/fninf.2022.911679",
        code: None,
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let (separable, nearest) = (HalfUNetConvolution::GhostSeparable, HalfUNetUpsampling::Nearest);
        let keras = Self { convolution: separable, upsampling: nearest, ..Self::new(1) };
        vec![
            Preset::new("half_unet", Self::new(1)),
            Preset::new("half_unet_keras", keras),
            Preset::new("half_unet_full", Self { convolution: HalfUNetConvolution::Full, ..Self::new(1) }),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<HalfUNet> {
        HalfUNet::new(scope, self)
    }
}

/// Keras' `he_normal`, which Keras versions of the network give their convolutions.
const HE_NORMAL: Init = Init::Scaled { gain: SQRT_2, fan: Fan::In, distribution: Distribution::TruncatedNormal };
/// Keras' default, that of the other layers.
const GLOROT: Init = Init::xavier_uniform();

/// A kernel of width 1, whose bias starts at 0 as in Keras.
fn one(rank: usize) -> Kernel {
    Kernel::new(rank, 1).bias_filled(Init::Constant(0.0))
}

/// A Ghost module, or a plain convolution with norm and ReLU.
#[derive(Debug)]
struct Ghost {
    main: ConvNormActivation,
    /// One or two convolutions that make the other half of the channels.
    cheap: Vec<Conv>,
}

impl Ghost {
    fn new(mut scope: Scope<'_>, config: &HalfUNetConfig, in_channels: usize) -> Result<Self> {
        let HalfUNetConfig { rank, width, convolution, .. } = *config;
        // Keras' norm.
        let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu).epsilon(1e-3).momentum(0.01);
        let three = || Kernel::new(rank, 3).padding(1).bias_filled(Init::Constant(0.0));
        let half = if convolution == HalfUNetConvolution::Full { width } else { width / 2 };
        let main = conv_norm(&mut scope, ["conv", "bn"], [in_channels, half], three().weight(HE_NORMAL), norm)?;
        let mut cheap = |name: &str, kernel: Kernel| Conv::new(scope.at(name), half, half, kernel.weight(GLOROT));
        let cheap = match convolution {
            HalfUNetConvolution::Full => Vec::new(),
            HalfUNetConvolution::Ghost => vec![cheap("depthwise", three().groups(half))?],
            HalfUNetConvolution::GhostSeparable => {
                vec![cheap("depthwise", three().groups(half).bias(false))?, cheap("pointwise", one(rank))?]
            }
        };
        Ok(Self { main, cheap })
    }

    /// The second half of the channels, from the first.
    fn other_half(&self, first: &Var, pass: &Pass) -> Result<Option<Var>> {
        let Some((start, rest)) = self.cheap.split_first() else { return Ok(None) };
        let y = rest.iter().try_fold(start.forward(first, pass)?, |y, conv| conv.forward(&y, pass))?;
        y.relu().map(Some)
    }
}

/// Two Ghost modules; the halves of the first one's channels are never joined.
#[derive(Debug)]
struct GhostPair([Ghost; 2]);

impl GhostPair {
    fn new(mut scope: Scope<'_>, config: &HalfUNetConfig, in_channels: usize) -> Result<Self> {
        let first = Ghost::new(scope.at(0), config, in_channels)?;
        Ok(Self([first, Ghost::new(scope.at(1), config, config.width)?]))
    }

    fn forward(&self, x: Var, pass: &Pass) -> Result<Var> {
        let Self([first, second]) = self;
        let mut half = first.main.forward(&x, pass)?;
        drop(x);
        half = match first.other_half(&half, pass)? {
            Some(other) => second.main.forward_two(&half, &other, pass)?,
            None => second.main.forward(&half, pass)?,
        };
        match second.other_half(&half, pass)? {
            Some(other) => Var::concat(&[&half, &other], 1),
            None => Ok(half),
        }
    }
}

/// Half-UNet (Lu et al. 2022): an encoder of one width, whose feature maps of all scales are interpolated to the size of the
/// image and added, and two more modules at this size. Input (N, C, spatial...), sizes at least 2^(levels − 1), 16 in the
/// original; output (N, classes, spatial...): `probabilities`, or `logits` if the configuration's `sigmoid` is false.
///
/// State-dict names: `encoder.L.0.conv` the convolution of the first module of level L, `encoder.L.0.bn` its norm,
/// `encoder.L.0.depthwise` (and `encoder.L.0.pointwise`) the cheap half, `encoder.L.1.…` the second module, `decoder.0.…`,
/// `decoder.1.…`, `head`. Stages: `encoder.L`, each half the size of the previous one, `sum`, `decoder`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{HalfUNetConfig, Model};
/// let config = HalfUNetConfig { width: 4, levels: 3, sigmoid: false, ..HalfUNetConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 9, 14], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2, 9, 14]);
/// assert_eq!(model.features(&image, &["encoder.2"])?.main()?.shape(), [1, 4, 2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct HalfUNet {
    rank: usize,
    upsampling: Interpolation,
    sigmoid: bool,
    pool: MaxPool,
    encoder: Vec<(GhostPair, Stage)>,
    sum: Stage,
    decoder: (GhostPair, Stage),
    head: Conv,
}

impl HalfUNet {
    fn new(mut scope: Scope<'_>, config: &HalfUNetConfig) -> Result<Self> {
        config.check()?;
        let HalfUNetConfig { rank, in_channels, classes, width, levels, sigmoid, .. } = *config;
        let upsampling = match config.upsampling {
            HalfUNetUpsampling::Linear => Interpolation::Linear,
            HalfUNetUpsampling::Nearest => Interpolation::Nearest,
        };
        scope.whole(|scope| {
            let mut encoder = Vec::new();
            for level in 0..levels {
                let channels = if level == 0 { in_channels } else { width };
                let block = GhostPair::new(scope.at("encoder").at(level), config, channels)?;
                encoder.push((block, scope.stage(&format!("encoder.{level}"), width, 1 << level)?));
            }
            let sum = scope.stage("sum", width, 1)?;
            let decoder = GhostPair::new(scope.at("decoder"), config, width)?;
            let decoder = (decoder, scope.stage("decoder", width, 1)?);
            let head = Conv::new(scope.at("head"), width, classes, one(rank).weight(GLOROT))?;
            Ok(Self { rank, upsampling, sigmoid, pool: MaxPool::new(2)?, encoder, sum, decoder, head })
        })
    }
}

impl Network for HalfUNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        let least = 1 << (self.encoder.len() - 1);
        check::smallest("half_unet", image.shape(), self.rank, least)?;
        let size = &image.shape()[2..];
        let (mut x, mut maps) = (image.clone(), Vec::new());
        for (level, (block, stage)) in self.encoder.iter().enumerate() {
            if level > 0 {
                x = self.pool.forward(&x, pass)?;
            }
            x = pass.stage(*stage, block.forward(x, pass)?)?;
            maps.push(x.clone());
        }
        drop(x);
        let mut maps = maps.into_iter();
        let mut sum = maps.next().unwrap_or_else(|| image.clone());
        for map in maps {
            sum = add(sum, &map.interpolate(size, self.upsampling)?)?;
        }
        sum = pass.stage(self.sum, sum)?;
        let (block, stage) = &self.decoder;
        let x = pass.stage(*stage, block.forward(sum, pass)?)?;
        outputs::named(self.sigmoid, [("", self.head.forward(&x, pass)?)])
    }
}
