//! MONAI's autoencoder.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Module, Named, Network, Pass, Scope, Stage};

use crate::{
    Sizes,
    blocks::{ConvAdn, ConvStyle, Place, Unit, Units, levels},
    check,
    config::{Card, Config, Preset, Task},
};

/// The layers between encoder and decoder of an [`AutoEncoder`], which keep the size of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InnerLayers {
    /// Output channels of each layer.
    pub channels: Vec<usize>,
    /// The dilation of each layer; empty: 1 for all.
    pub dilations: Vec<usize>,
    /// The number of convolutions of each, which is then a residual unit; 0: single convolutions. 2 by default.
    pub residual_units: usize,
}

impl Default for InnerLayers {
    /// No layers.
    fn default() -> Self {
        Self { channels: Vec::new(), dilations: Vec::new(), residual_units: 2 }
    }
}

/// The configuration of an [`AutoEncoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "autoencoder")]
pub struct AutoEncoderConfig {
    /// The number of spatial axes.
    #[serde(default = "AutoEncoderConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Channels of each level of the encoder.
    pub channels: Vec<usize>,
    /// The stride of each level.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of each level of the encoder, which is then a residual unit; 0: single convolutions.
    #[serde(default)]
    pub residual_units: usize,
    /// Layers between encoder and decoder; none by default.
    #[serde(default)]
    pub inner: InnerLayers,
    /// The size of the transposed convolutions' kernels, odd numbers.
    #[serde(default = "AutoEncoderConfig::three")]
    pub up_kernel: Sizes,
    /// What all convolutions have in common.
    #[serde(default)]
    pub style: ConvStyle,
}

/// The largest dilation.
const MOST_DILATION: usize = 1 << 10;
/// The most layers between encoder and decoder, and convolutions in one of them.
const MOST_INNER: usize = 64;

impl AutoEncoderConfig {
    /// A network with MONAI's defaults and one stride for all levels, of one input and output channel.
    pub fn new(rank: usize, channels: impl Into<Vec<usize>>, stride: usize) -> Self {
        let channels = channels.into();
        Self {
            rank,
            in_channels: 1,
            out_channels: 1,
            strides: vec![Sizes::All(stride); channels.len()],
            channels,
            residual_units: 0,
            inner: InnerLayers::default(),
            up_kernel: Self::three(),
            style: ConvStyle::default(),
        }
    }

    fn two() -> usize {
        2
    }

    fn three() -> Sizes {
        Sizes::All(3)
    }
}

/// The fields of an autoencoder's configuration, those of a [`VarAutoEncoder`](super::VarAutoEncoder) too.
pub(super) struct Fields<'a> {
    pub(super) operation: &'static str,
    pub(super) rank: usize,
    pub(super) ends: [usize; 2],
    pub(super) channels: &'a [usize],
    pub(super) strides: &'a [Sizes],
    pub(super) residual_units: usize,
    pub(super) inner: &'a InnerLayers,
    pub(super) up_kernel: &'a Sizes,
    pub(super) style: &'a ConvStyle,
}

/// Checked [`Fields`].
pub(super) struct Plan<'a> {
    fields: Fields<'a>,
    layers: Units,
    pub(super) strides: Vec<Vec<usize>>,
    up_kernel: Vec<usize>,
}

impl<'a> Fields<'a> {
    pub(super) fn plan(self) -> Result<Plan<'a>> {
        let name = self.operation;
        let layers = self.style.layers(name, self.rank)?;
        check::sizes(name, "in_channels", &[self.ends[0]], check::MOST_CHANNELS)?;
        check::sizes(name, "out_channels", &[self.ends[1]], check::MOST_CHANNELS)?;
        let strides = levels(name, self.rank, self.channels, self.strides, self.residual_units)?;
        let up_kernel = self.up_kernel.odd(name, "up_kernel", self.rank)?;
        let InnerLayers { channels, dilations, residual_units } = self.inner;
        check::length(name, "inner.channels", channels.len(), 0, MOST_INNER)?;
        check::sizes(name, "inner.channels", channels, check::MOST_CHANNELS)?;
        if !dilations.is_empty() {
            check::length(name, "inner.dilations", dilations.len(), channels.len(), channels.len())?;
        }
        check::sizes(name, "inner.dilations", dilations, MOST_DILATION)?;
        check::counts(name, "inner.residual_units", *residual_units, MOST_INNER)?;
        Ok(Plan { fields: self, layers, strides, up_kernel })
    }
}

/// The encoder of an autoencoder, with the layers behind it.
#[derive(Debug)]
pub(super) struct Encoder {
    levels: Vec<(Unit, Stage)>,
    inner: Vec<Unit>,
    pub(super) out_channels: usize,
}

impl Encoder {
    pub(super) fn new(scope: &mut Scope<'_>, plan: &Plan<'_>) -> Result<Self> {
        let Plan { fields, layers, strides, .. } = plan;
        let (mut from, mut reduction) = (fields.ends[0], vec![1usize; fields.rank]);
        let mut levels = Vec::new();
        for (level, (&to, stride)) in fields.channels.iter().zip(strides).enumerate() {
            let name = format!("encode.encode_{level}");
            let unit = layers.layer(scope.at(&name), Place::new([from, to], stride), fields.residual_units)?;
            reduction.iter_mut().zip(stride).for_each(|(all, stride)| *all = all.saturating_mul(*stride));
            levels.push((unit, scope.stage(&format!("encode.{level}"), to, &reduction[..])?));
            from = to;
        }
        let (mut inner, ones) = (Vec::new(), vec![1; fields.rank]);
        for (at, &to) in fields.inner.channels.iter().enumerate() {
            let dilation = fields.inner.dilations.get(at).copied().unwrap_or(1);
            let place = Place::new([from, to], &ones).dilation(dilation);
            let scope = scope.at(format!("intermediate.inter_{at}"));
            inner.push(layers.layer(scope, place, fields.inner.residual_units)?);
            from = to;
        }
        Ok(Self { levels, inner, out_channels: from })
    }
}

impl Module for Encoder {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut x = x.clone();
        for (unit, stage) in &self.levels {
            x = pass.stage(*stage, unit.forward(&x, pass)?)?;
        }
        self.inner.iter().try_fold(x, |x, unit| unit.forward(&x, pass))
    }
}

/// The decoder of an autoencoder.
#[derive(Debug)]
pub(super) struct Decoder {
    levels: Vec<(ConvAdn, Option<Unit>)>,
}

impl Decoder {
    /// A decoder of a code with `from` channels.
    pub(super) fn new(scope: &mut Scope<'_>, plan: &Plan<'_>, mut from: usize) -> Result<Self> {
        let Plan { fields, layers, strides, up_kernel } = plan;
        let (ones, has_units) = (vec![1; fields.rank], fields.residual_units > 0);
        let below = fields.channels.iter().rev().skip(1).chain([&fields.ends[1]]);
        let mut made = Vec::new();
        for (at, (&to, stride)) in below.zip(strides.iter().rev()).enumerate() {
            let is_last = at + 1 == strides.len();
            let mut scope = scope.at(format!("decode.decode_{at}"));
            let place = Place::new([from, to], stride).bare(is_last && !has_units);
            let conv = layers.up(scope.at("conv"), place, up_kernel)?;
            let place = Place::new([to, to], &ones).bare(is_last);
            let unit = has_units.then(|| layers.residual(scope.at("resunit"), place, 1)).transpose()?;
            made.push((conv, unit));
            from = to;
        }
        Ok(Self { levels: made })
    }
}

impl Module for Decoder {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.levels.iter().try_fold(x.clone(), |x, (conv, unit)| {
            let x = conv.forward(&x, pass)?;
            unit.as_ref().map_or(Ok(x.clone()), |unit| unit.forward(&x, pass))
        })
    }
}

impl Config for AutoEncoderConfig {
    type Network = AutoEncoder;

    const CARD: Card = Card {
        task: Task::Reconstruction,
        ranks: &[1, 2, 3],
        about: "an autoencoder of strided and transposed convolutions, with or without residual units",
        source: "Cardoso et al.: MONAI: An open-source framework for deep learning in healthcare, 2022, arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/autoencoder.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let inner = InnerLayers { channels: vec![8, 8, 8], dilations: vec![1, 2, 4], residual_units: 2 };
        vec![
            Preset::new("autoencoder", Self::new(2, [4, 8, 16], 2)),
            Preset::new("autoencoder_dilated", Self { inner, ..Self::new(2, [4], 2) }),
            Preset::new("autoencoder_3d", Self { residual_units: 2, ..Self::new(3, [16, 32, 64], 2) }),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<AutoEncoder> {
        AutoEncoder::new(scope, self)
    }
}

/// MONAI's `AutoEncoder`: an encoder of strided convolutions, optional layers of constant size, and a decoder of transposed
/// convolutions, without skips. Input `image` (N, C, spatial...), output `reconstruction` (N, C_out, spatial...), whose sizes are
/// those of the input rounded up to multiples of the product of the strides.
///
/// State-dict names are MONAI's: `encode.encode_0.conv`, `.adn.A`, …, `intermediate.inter_0`, …, `decode.decode_0.conv.conv`, with
/// residual units `encode.encode_0.conv.unit0.conv`, `.residual`, `decode.decode_0.resunit`. Stages: `encode.0`, `encode.1`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{AutoEncoderConfig, Model};
/// let model = Model::new(&AutoEncoderConfig::new(3, [4, 8], 2), Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 8, 8, 12], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 1, 8, 8, 12]);
/// assert_eq!(model.features(&volume, &["encode.1"])?.main()?.shape(), [1, 8, 2, 2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct AutoEncoder {
    rank: usize,
    encoder: Encoder,
    decoder: Decoder,
}

impl AutoEncoder {
    fn new(mut scope: Scope<'_>, config: &AutoEncoderConfig) -> Result<Self> {
        let plan = Fields {
            operation: "autoencoder",
            rank: config.rank,
            ends: [config.in_channels, config.out_channels],
            channels: &config.channels,
            strides: &config.strides,
            residual_units: config.residual_units,
            inner: &config.inner,
            up_kernel: &config.up_kernel,
            style: &config.style,
        }
        .plan()?;
        scope.whole(|scope| {
            let encoder = Encoder::new(scope, &plan)?;
            let decoder = Decoder::new(scope, &plan, encoder.out_channels)?;
            Ok(Self { rank: config.rank, encoder, decoder })
        })
    }
}

impl Network for AutoEncoder {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::rank("autoencoder", x.shape(), self.rank)?;
        let y = self.decoder.forward(&self.encoder.forward(x, pass)?, pass)?;
        Ok(Named::from([("reconstruction", y)]))
    }
}
