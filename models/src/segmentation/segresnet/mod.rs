//! SegResNet, with its variational autoencoder.

mod vae;

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Dropout, DropoutOptions, Interpolation, Kernel, Module, Named,
    Network, Norm, NormKind, NormOptions, Pass, Scope, Stage,
};

use super::{
    fit,
    levels::{check_norm, function},
};
use crate::{
    blocks::{ActivationChoice, NormChoice, SubpixelUpsample, saving::add},
    check,
    config::{Card, Config, Preset, Task},
};
use vae::{SMALLEST, Vae};

pub use vae::SegResNetVae;

/// The upsampling of a [`SegResNet`], by 2 along each axis, behind a convolution of 1 voxel that halves the channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegResNetUpsampling {
    /// Linear interpolation.
    #[default]
    NonTrainable,
    /// A transposed convolution.
    Deconv,
    /// A convolution whose channels become voxels, and an average of neighbours.
    PixelShuffle,
}

/// The configuration of a [`SegResNet`]. Optional fields have MONAI's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "segresnet")]
pub struct SegResNetConfig {
    /// The number of spatial axes, 1 to 3.
    #[serde(default = "SegResNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels of the first level; they double from level to level.
    #[serde(default = "SegResNetConfig::eight")]
    pub init_filters: usize,
    /// The number of residual blocks of each level of the encoder.
    #[serde(default = "SegResNetConfig::down")]
    pub blocks_down: Vec<usize>,
    /// The number of residual blocks of each level of the decoder, from the coarsest to the finest; one fewer than in
    /// the encoder.
    #[serde(default = "SegResNetConfig::up")]
    pub blocks_up: Vec<usize>,
    /// The norm before each convolution.
    #[serde(default = "SegResNetConfig::group")]
    pub norm: NormChoice,
    /// The activation, a function without learned numbers.
    #[serde(default = "SegResNetConfig::relu")]
    pub activation: ActivationChoice,
    /// The upsampling.
    #[serde(default)]
    pub upsampling: SegResNetUpsampling,
    /// Dropout after the first convolution: of whole channels, in 1D of single elements.
    #[serde(default)]
    pub dropout: f64,
    /// The variational autoencoder, if there is one.
    #[serde(default)]
    pub vae: Option<SegResNetVae>,
}

/// The largest number of blocks of a level.
const MOST_BLOCKS: usize = 256;

impl SegResNetConfig {
    /// MONAI's network for volumes, with 32 channels at the first level, as in the paper.
    pub fn new(in_channels: usize, classes: usize) -> Self {
        Self {
            rank: 3,
            in_channels,
            classes,
            init_filters: 32,
            blocks_down: Self::down(),
            blocks_up: Self::up(),
            norm: Self::group(),
            activation: Self::relu(),
            upsampling: SegResNetUpsampling::NonTrainable,
            dropout: 0.0,
            vae: None,
        }
    }

    fn three() -> usize {
        3
    }

    fn eight() -> usize {
        8
    }

    fn down() -> Vec<usize> {
        vec![1, 2, 2, 4]
    }

    fn up() -> Vec<usize> {
        vec![1, 1, 1]
    }

    fn group() -> NormChoice {
        NormChoice::Group(8)
    }

    fn relu() -> ActivationChoice {
        ActivationChoice::Relu
    }

    /// The factor by which the coarsest level is smaller than the input.
    fn zoom(&self) -> usize {
        1 << (self.blocks_down.len() - 1)
    }

    fn check(&self) -> Result<()> {
        check::sizes("segresnet", "rank", &[self.rank], 3)?;
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes)] {
            check::sizes("segresnet", field, &[size], check::MOST_CHANNELS)?;
        }
        let levels = self.blocks_down.len();
        check::length("segresnet", "blocks_down", levels, 1, check::MOST_LEVELS)?;
        check::length("segresnet", "blocks_up", self.blocks_up.len(), levels - 1, levels - 1)?;
        check::sizes("segresnet", "blocks_down", &self.blocks_down, MOST_BLOCKS)?;
        check::sizes("segresnet", "blocks_up", &self.blocks_up, MOST_BLOCKS)?;
        check::sizes("segresnet", "init_filters", &[self.init_filters], check::MOST_CHANNELS >> (levels - 1))?;
        check::probability("segresnet", "dropout", self.dropout)?;
        function("segresnet", self.activation)?;
        if self.norm == NormChoice::None {
            return Err(Error::argument("segresnet", "norm is none").expected("group, instance or batch norm"));
        }
        let narrowest = if self.vae.is_some() { SMALLEST } else { self.init_filters };
        check_norm("segresnet", self.norm, "init_filters", &[self.init_filters, narrowest])?;
        self.vae.as_ref().map_or(Ok(()), |vae| vae.check(self.rank, self.zoom()))
    }
}

impl Config for SegResNetConfig {
    type Network = SegResNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "residual encoder with group norm and a small decoder, also with a variational autoencoder",
        source: "Myronenko: 3D MRI brain tumor segmentation using autoencoder regularization, 2018, arXiv:1810.11654",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/segresnet.py"),
        weights_licence: Some("Apache-2.0 (MONAI model zoo: brats_mri_segmentation)"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let brats = Self { init_filters: 16, dropout: 0.2, ..Self::new(4, 3) };
        let vae = SegResNetVae::new([160, 192, 128]);
        vec![
            Preset::new("segresnet", Self::new(1, 2)),
            Preset::new("segresnet_brats", brats).size([224, 224, 144]),
            Preset::new("segresnet_vae", Self { dropout: 0.2, vae: Some(vae), ..Self::new(4, 3) })
                .size([160, 192, 128]),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<SegResNet> {
        SegResNet::new(scope, self)
    }
}

/// What all layers of a network have in common.
struct Spec<'a> {
    config: &'a SegResNetConfig,
    /// The norm, with the activation.
    norm: NormOptions,
    activation: Activation,
}

impl<'a> Spec<'a> {
    fn new(config: &'a SegResNetConfig) -> Result<Self> {
        let activation = function("segresnet", config.activation)?;
        let norm = config.norm.options().unwrap_or_else(|| NormOptions::new(NormKind::Instance));
        Ok(Self { config, norm: norm.activation(activation), activation })
    }

    /// A convolution of an odd size: `conv` in `scope`.
    fn conv(
        &self,
        mut scope: Scope<'_>,
        [in_channels, channels]: [usize; 2],
        [size, stride]: [usize; 2],
        bias: bool,
    ) -> Result<Conv> {
        let kernel = Kernel::new(self.config.rank, size).stride(stride).padding(size / 2).bias(bias);
        Conv::new(scope.at("conv"), in_channels, channels, kernel)
    }

    /// Norm, activation and a convolution of 1 voxel: `0` and `2` in `scope`.
    fn head(&self, mut scope: Scope<'_>, channels: usize, classes: usize) -> Result<(Norm, Conv)> {
        let norm = Norm::new(scope.at(0), channels, self.norm)?;
        Ok((norm, self.conv(scope.at(2), [channels, classes], [1, 1], true)?))
    }
}

/// A residual block: norm and activation come before each of its two convolutions.
#[derive(Debug)]
struct Residual {
    norm: Norm,
    first: ConvNormActivation,
    second: Conv,
}

impl Residual {
    fn new(mut scope: Scope<'_>, spec: &Spec<'_>, channels: usize) -> Result<Self> {
        let norm = Norm::new(scope.at("norm1"), channels, spec.norm)?;
        let inner = Norm::new(scope.at("norm2"), channels, spec.norm)?;
        let first = spec.conv(scope.at("conv1"), [channels; 2], [3, 1], false)?;
        let second = spec.conv(scope.at("conv2"), [channels; 2], [3, 1], false)?;
        Ok(Self { norm, first: ConvNormActivation::new(first, inner)?, second })
    }

    /// `count` blocks, called by the numbers from `start`.
    fn several(
        mut scope: Scope<'_>,
        spec: &Spec<'_>,
        channels: usize,
        start: usize,
        count: usize,
    ) -> Result<Vec<Self>> {
        (start..start + count).map(|place| Self::new(scope.at(place), spec, channels)).collect()
    }
}

impl Module for Residual {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut y = self.first.forward(&self.norm.forward(x, pass)?, pass)?;
        y = self.second.forward(&y, pass)?;
        add(y, x)
    }
}

/// Upsampling by 2.
#[derive(Debug)]
enum Double {
    Linear,
    Deconv(ConvTranspose),
    PixelShuffle(SubpixelUpsample),
}

impl Double {
    fn new(mut scope: Scope<'_>, spec: &Spec<'_>, channels: usize) -> Result<Self> {
        let rank = spec.config.rank;
        Ok(match spec.config.upsampling {
            SegResNetUpsampling::NonTrainable => Self::Linear,
            SegResNetUpsampling::Deconv => {
                let kernel = Kernel::new(rank, 2).stride(2);
                Self::Deconv(ConvTranspose::new(scope.at("deconv"), channels, channels, kernel)?)
            }
            SegResNetUpsampling::PixelShuffle => {
                Self::PixelShuffle(SubpixelUpsample::new(scope.at("pixelshuffle"), rank, channels, channels)?)
            }
        })
    }
}

impl Module for Double {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Linear => {
                let size: Vec<usize> = x.shape().iter().skip(2).map(|size| 2 * size).collect();
                x.interpolate(&size, Interpolation::Linear)
            }
            Self::Deconv(layer) => layer.forward(x, pass),
            Self::PixelShuffle(layer) => layer.forward(x, pass),
        }
    }
}

/// A level of the encoder.
#[derive(Debug)]
struct Down {
    conv: Option<Conv>,
    blocks: Vec<Residual>,
    stage: Stage,
}

/// A level of the decoder: a convolution that halves the channels, upsampling, the sum with the skip connection,
/// residual blocks.
#[derive(Debug)]
struct Up {
    conv: Conv,
    double: Double,
    blocks: Vec<Residual>,
    stage: Stage,
}

impl Up {
    fn run(&self, x: Var, skip: Option<Var>, pass: &Pass) -> Result<Var> {
        let half = self.conv.forward(&x, pass)?;
        drop(x);
        let mut y = self.double.forward(&half, pass)?;
        drop(half);
        if let Some(skip) = skip {
            y = add(y, &skip)?;
        }
        self.blocks.iter().try_fold(y, |y, block| block.forward(&y, pass))
    }
}

/// SegResNet (Myronenko 2018): a deep residual encoder, whose blocks have norm and activation before the convolutions,
/// and a small decoder that adds the skip connections. Input (N, C, spatial...) with sizes that are multiples of
/// 2^(levels − 1), output `logits` (N, classes, spatial...). With a variational autoencoder, a training pass has the
/// second output `vae_loss`, a scalar to be added to the loss (with a factor of 0.1 in the paper): the error of the
/// reconstruction of the image plus the distance of the latent variables from a normal distribution.
///
/// State-dict names are MONAI's: `convInit.conv`, `down_layers.0.1.norm1`, `down_layers.1.0.conv`, …,
/// `up_layers.0.0.conv1.conv`, `up_samples.0.0.conv`, `up_samples.0.1.deconv`, `conv_final.0`, `conv_final.2.conv`,
/// `vae_down.0`, `vae_fc1`, …. Stages: `down_layers.K` and `up_layers.K`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, SegResNetConfig};
/// let config = SegResNetConfig { init_filters: 8, ..SegResNetConfig::new(4, 3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 4, 16, 8, 8], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 3, 16, 8, 8]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SegResNet {
    /// The factor by which the coarsest level is smaller, for each axis.
    units: Vec<usize>,
    first: Conv,
    dropout: Dropout,
    encoder: Vec<Down>,
    decoder: Vec<Up>,
    head: (Norm, Conv),
    vae: Option<Vae>,
}

impl SegResNet {
    fn new(mut scope: Scope<'_>, config: &SegResNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &SegResNetConfig) -> Result<Self> {
        let (spec, filters) = (Spec::new(config)?, config.init_filters);
        let first = spec.conv(scope.at("convInit"), [config.in_channels, filters], [3, 1], false)?;
        let mut encoder = Vec::new();
        for (level, &count) in config.blocks_down.iter().enumerate() {
            let (name, channels) = (format!("down_layers.{level}"), filters << level);
            let mut inner = scope.at(&name);
            let conv = (level > 0).then(|| spec.conv(inner.at(0), [channels / 2, channels], [3, 2], false));
            let conv = conv.transpose()?;
            let blocks = Residual::several(inner, &spec, channels, 1, count)?;
            encoder.push(Down { conv, blocks, stage: scope.stage(&name, channels, 1 << level)? });
        }
        let levels = config.blocks_up.len();
        let mut blocks_up = Vec::new();
        for (place, &count) in config.blocks_up.iter().enumerate() {
            let (name, channels) = (format!("up_layers.{place}"), filters << (levels - 1 - place));
            let blocks = Residual::several(scope.at(&name), &spec, channels, 0, count)?;
            blocks_up.push((blocks, scope.stage(&name, channels, 1 << (levels - 1 - place))?));
        }
        let mut decoder = Vec::new();
        for (place, (blocks, stage)) in blocks_up.into_iter().enumerate() {
            let channels = filters << (levels - 1 - place);
            let mut inner = scope.at("up_samples");
            let mut inner = inner.at(place);
            let conv = spec.conv(inner.at(0), [2 * channels, channels], [1, 1], false)?;
            decoder.push(Up { conv, double: Double::new(inner.at(1), &spec, channels)?, blocks, stage });
        }
        let head = spec.head(scope.at("conv_final"), filters, config.classes)?;
        let options = DropoutOptions::new(config.dropout).whole_channels(config.rank > 1);
        let dropout = Dropout::new(scope.at("dropout"), options)?;
        let vae = config.vae.as_ref().map(|vae| Vae::new(scope, &spec, vae)).transpose()?;
        Ok(Self { units: vec![config.zoom(); config.rank], first, dropout, encoder, decoder, head, vae })
    }
}

impl Network for SegResNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        fit::multiples("segresnet", image, &self.units)?;
        let mut x = self.dropout.forward(&self.first.forward(image, pass)?, pass)?;
        let mut skips = Vec::new();
        for level in &self.encoder {
            if let Some(conv) = &level.conv {
                x = conv.forward(&x, pass)?;
            }
            x = level.blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?;
            x = pass.stage(level.stage, x)?;
            skips.push(x.clone());
        }
        let coarsest = skips.pop().filter(|_| pass.is_training());
        for up in &self.decoder {
            x = pass.stage(up.stage, up.run(x, skips.pop(), pass)?)?;
        }
        let logits = self.head.1.forward(&self.head.0.forward(&x, pass)?, pass)?;
        let mut outputs = Named::from([("logits", logits)]);
        if let (Some(vae), Some(coarsest)) = (&self.vae, coarsest) {
            outputs.insert("vae_loss", vae.loss(image, &coarsest, &self.decoder, pass)?);
        }
        Ok(outputs)
    }
}
