//! V-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Dropout, DropoutOptions, Kernel, Module, Norm, NormKind,
    NormOptions, PRelu, Pass, Scope, Stage,
};

use super::fit;
use crate::{
    blocks::{
        conv_norm,
        saving::{add, add_activation},
    },
    check,
    config::{Card, Config, Preset, Task},
};

/// The activation of a [`VNet`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VNetActivation {
    /// ELU with α = 1.
    #[default]
    Elu,
    /// PReLU with a slope for each channel, as in the paper.
    Prelu,
    /// Leaky ReLU of slope 0.01.
    LeakyRelu,
    /// ReLU.
    Relu,
}

/// The configuration of a [`VNet`]. Optional fields have MONAI's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "vnet")]
pub struct VNetConfig {
    /// The number of spatial axes, 1 to 3.
    #[serde(default = "VNetConfig::three")]
    pub rank: usize,
    /// Input channels; they divide `width`.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels at full resolution; they double from each level to the next.
    #[serde(default = "VNetConfig::sixteen")]
    pub width: usize,
    /// The activation.
    #[serde(default)]
    pub activation: VNetActivation,
    /// Whether the convolutions have a bias. Those of the decoder's residual blocks never have one; the transposed ones
    /// and the last one always have.
    #[serde(default)]
    pub bias: bool,
    /// Dropout before the convolutions of the two coarsest encoder levels.
    #[serde(default = "VNetConfig::half")]
    pub dropout_down: f64,
    /// Dropout before the upsampling of the two coarsest decoder levels.
    #[serde(default = "VNetConfig::half")]
    pub dropout_up: f64,
    /// Dropout of the skip connections of the two coarsest decoder levels.
    #[serde(default = "VNetConfig::half")]
    pub dropout_skip: f64,
    /// Dropout of the skip connections of the two finest decoder levels; 0.5 in MONAI.
    #[serde(default = "VNetConfig::half")]
    pub dropout_skip_fine: f64,
    /// Whether dropout drops whole channels instead of single elements.
    #[serde(default = "VNetConfig::yes")]
    pub dropout_channels: bool,
}

/// The number of levels below full resolution.
const LEVELS: usize = 4;

impl VNetConfig {
    /// MONAI's network for volumes.
    pub fn new(in_channels: usize, classes: usize) -> Self {
        let (rank, width, activation, bias) = (3, 16, VNetActivation::Elu, false);
        let (dropout_down, dropout_up, dropout_skip, dropout_skip_fine) = (0.5, 0.5, 0.5, 0.5);
        Self {
            rank,
            in_channels,
            classes,
            width,
            activation,
            bias,
            dropout_down,
            dropout_up,
            dropout_skip,
            dropout_skip_fine,
            dropout_channels: true,
        }
    }

    fn three() -> usize {
        3
    }

    fn sixteen() -> usize {
        16
    }

    fn half() -> f64 {
        0.5
    }

    fn yes() -> bool {
        true
    }

    /// The activation if it is a function without parameters.
    fn function(&self) -> Option<Activation> {
        match self.activation {
            VNetActivation::Elu => Some(Activation::Elu(1.0)),
            VNetActivation::LeakyRelu => Some(Activation::LeakyRelu(0.01)),
            VNetActivation::Relu => Some(Activation::Relu),
            VNetActivation::Prelu => None,
        }
    }

    /// Batch norm with the activation, if that is a function.
    fn norm(&self) -> NormOptions {
        let norm = NormOptions::new(NormKind::Batch);
        self.function().map_or(norm, |function| norm.activation(function))
    }

    fn check(&self) -> Result<()> {
        check::sizes("vnet", "rank", &[self.rank], 3)?;
        check::sizes("vnet", "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes("vnet", "classes", &[self.classes], check::MOST_CHANNELS)?;
        check::sizes("vnet", "width", &[self.width], check::MOST_CHANNELS >> LEVELS)?;
        for (field, probability) in [
            ("dropout_down", self.dropout_down),
            ("dropout_up", self.dropout_up),
            ("dropout_skip", self.dropout_skip),
            ("dropout_skip_fine", self.dropout_skip_fine),
        ] {
            check::probability("vnet", field, probability)?;
        }
        let Self { width, in_channels, .. } = self;
        if !width.is_multiple_of(*in_channels) {
            return Err(Error::argument("vnet", format!("in_channels is {in_channels}, and width {width}"))
                .expected("a width that is a multiple of in_channels"));
        }
        Ok(())
    }
}

impl Config for VNetConfig {
    type Network = VNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "residual U-Net with convolutions of 5 voxels and the Dice loss",
        source: "Milletari et al.: V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation, 2016, \
                 arXiv:1606.04797",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/vnet.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![Preset::new("vnet", Self::new(1, 1))]
    }

    fn build(&self, scope: Scope<'_>) -> Result<VNet> {
        VNet::new(scope, self)
    }
}

/// The learned slopes of an activation that has any.
#[derive(Debug)]
struct Slopes(Option<PRelu>);

impl Slopes {
    fn new(scope: Scope<'_>, channels: usize, config: &VNetConfig) -> Result<Self> {
        let learned = config.activation == VNetActivation::Prelu;
        Ok(Self(learned.then(|| PRelu::new(scope, channels)).transpose()?))
    }

    /// The activation after a norm that has the function, if it is one.
    fn after_norm(&self, x: Var, pass: &Pass) -> Result<Var> {
        self.0.as_ref().map_or(Ok(x.clone()), |layer| layer.forward(&x, pass))
    }
}

/// The activation after a sum.
#[derive(Debug)]
struct Act(Option<Activation>, Slopes);

impl Act {
    fn new(scope: Scope<'_>, channels: usize, config: &VNetConfig) -> Result<Self> {
        Ok(Self(config.function(), Slopes::new(scope, channels, config)?))
    }

    /// The activation of x + y.
    fn of_sum(&self, x: Var, y: &Var, pass: &Pass) -> Result<Var> {
        match self.0 {
            Some(function) => add_activation(x, y, function),
            None => self.1.after_norm(add(x, y)?, pass),
        }
    }
}

impl Module for Act {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self.0 {
            Some(function) => function.forward(x, pass),
            None => self.1.after_norm(x.clone(), pass),
        }
    }
}

/// A convolution of 5 voxels and batch norm with these options: `conv_block` in `scope`.
fn five(
    scope: &mut Scope<'_>,
    channels: [usize; 2],
    bias: bool,
    norm: NormOptions,
    config: &VNetConfig,
) -> Result<ConvNormActivation> {
    let kernel = Kernel::new(config.rank, 5).padding(2).bias(bias);
    conv_norm(&mut scope.at("conv_block"), ["conv", "adn.N"], channels, kernel, norm)
}

/// The convolutions of a residual block, and the activation after the sum.
#[derive(Debug)]
struct Residual {
    convolutions: Vec<(ConvNormActivation, Slopes)>,
    last: Act,
}

impl Residual {
    /// `ops` in `scope`; `last` was made before.
    fn new(
        scope: &mut Scope<'_>,
        channels: usize,
        count: usize,
        bias: bool,
        last: Act,
        config: &VNetConfig,
    ) -> Result<Self> {
        let mut scope = scope.at("ops");
        let one = |place: usize| {
            let mut scope = scope.at(place);
            let slopes = Slopes::new(scope.at("act_function"), channels, config)?;
            Ok((five(&mut scope, [channels, channels], bias, config.norm(), config)?, slopes))
        };
        Ok(Self { convolutions: (0..count).map(one).collect::<Result<_>>()?, last })
    }

    /// activation(convolutions(x) + shortcut).
    fn run(&self, x: Var, shortcut: &Var, pass: &Pass) -> Result<Var> {
        let mut y = x;
        for (layer, slopes) in &self.convolutions {
            y = slopes.after_norm(layer.forward(&y, pass)?, pass)?;
        }
        self.last.of_sum(y, shortcut, pass)
    }
}

fn dropout(scope: Scope<'_>, probability: f64, config: &VNetConfig) -> Result<Dropout> {
    Dropout::new(scope, DropoutOptions::new(probability).whole_channels(config.dropout_channels))
}

/// x after the dropout, if there is one; x itself is freed.
fn after_dropout(dropout: Option<&Dropout>, x: Var, pass: &Pass) -> Result<Var> {
    dropout.map_or(Ok(x.clone()), |dropout| dropout.forward(&x, pass))
}

/// The names of the levels are those of the original's channels, whatever the width.
fn name(prefix: &str, level: usize) -> String {
    format!("{prefix}_tr{}", 16 << level)
}

/// A level of the encoder: a strided convolution that doubles the channels, and a residual block.
#[derive(Debug)]
struct Down {
    conv: ConvNormActivation,
    slopes: Slopes,
    dropout: Option<Dropout>,
    block: Residual,
    stage: Stage,
}

impl Down {
    fn new(scope: &mut Scope<'_>, level: usize, config: &VNetConfig) -> Result<Self> {
        let (name, channels, count) = (name("down", level), config.width << level, [0, 1, 2, 3, 2][level]);
        let mut inner = scope.at(&name);
        let kernel = Kernel::new(config.rank, 2).stride(2).bias(config.bias);
        let conv = conv_norm(&mut inner, ["down_conv", "bn1"], [channels / 2, channels], kernel, config.norm())?;
        let slopes = Slopes::new(inner.at("act_function1"), channels, config)?;
        let last = Act::new(inner.at("act_function2"), channels, config)?;
        let block = Residual::new(&mut inner, channels, count, config.bias, last, config)?;
        let dropped = level > 2;
        let dropout = dropped.then(|| dropout(inner.at("dropout"), config.dropout_down, config)).transpose()?;
        Ok(Self { conv, slopes, dropout, block, stage: scope.stage(&name, channels, 1 << level)? })
    }
}

impl Module for Down {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let down = self.slopes.after_norm(self.conv.forward(x, pass)?, pass)?;
        let y = self.dropout.as_ref().map_or(Ok(down.clone()), |dropout| dropout.forward(&down, pass))?;
        pass.stage(self.stage, self.block.run(y, &down, pass)?)
    }
}

/// A level of the decoder: a transposed convolution, concatenation with the skip connection, and a residual block.
#[derive(Debug)]
struct Up {
    dropout: Option<Dropout>,
    dropout_skip: Dropout,
    conv: ConvTranspose,
    norm: Norm,
    slopes: Slopes,
    block: Residual,
    stage: Stage,
}

impl Up {
    fn new(scope: &mut Scope<'_>, level: usize, config: &VNetConfig) -> Result<Self> {
        let (name, channels, count) = (name("up", level), config.width << level, [0, 1, 1, 2, 2][level]);
        let in_channels = if level == LEVELS { channels } else { 2 * channels };
        let mut inner = scope.at(&name);
        let kernel = Kernel::new(config.rank, 2).stride(2);
        let conv = ConvTranspose::new(inner.at("up_conv"), in_channels, channels / 2, kernel)?;
        let norm = Norm::after(inner.at("bn1"), &conv, config.norm())?;
        let coarse = level > 2;
        let dropped = coarse.then(|| dropout(inner.at("dropout"), config.dropout_up, config)).transpose()?;
        let probability = if coarse { config.dropout_skip } else { config.dropout_skip_fine };
        let dropout_skip = dropout(inner.at("dropout2"), probability, config)?;
        let slopes = Slopes::new(inner.at("act_function1"), channels / 2, config)?;
        let last = Act::new(inner.at("act_function2"), channels, config)?;
        let block = Residual::new(&mut inner, channels, count, false, last, config)?;
        let stage = scope.stage(&name, channels, 1 << (level - 1))?;
        Ok(Self { dropout: dropped, dropout_skip, conv, norm, slopes, block, stage })
    }

    fn run(&self, x: Var, skip: Var, pass: &Pass) -> Result<Var> {
        let x = after_dropout(self.dropout.as_ref(), x, pass)?;
        let skip = after_dropout(Some(&self.dropout_skip), skip, pass)?;
        let up = self.norm.forward(&self.conv.forward(&x, pass)?, pass)?;
        drop(x);
        let up = self.slopes.after_norm(up, pass)?;
        let joined = Var::concat(&[&up, &skip], 1)?;
        drop((up, skip));
        pass.stage(self.stage, self.block.run(joined.clone(), &joined, pass)?)
    }
}

/// V-Net (Milletari et al. 2016) as in MONAI: residual blocks of convolutions of 5 voxels, each with batch norm and an
/// activation; strided and transposed convolutions between the levels. The first block adds the input, whose channels
/// are repeated. Input (N, C, spatial...) with sizes that are multiples of 16, output (N, classes, spatial...).
///
/// State-dict names are MONAI's: `in_tr.conv_block.conv`, `in_tr.conv_block.adn.N`, `down_tr32.down_conv`,
/// `down_tr32.bn1`, `down_tr32.ops.0.conv_block.conv`, …, `up_tr256.up_conv`, …, `out_tr.conv2`; PReLU adds
/// `act_function`, `act_function1`, …. Stages: `in_tr`, `down_tr32` (1/2 of the input size), `down_tr64`, `down_tr128`,
/// `down_tr256` (1/16), `up_tr256` (1/8), …, `up_tr32`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, VNetConfig};
/// let config = VNetConfig { width: 2, ..VNetConfig::new(1, 3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 32], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 3, 16, 16, 32]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct VNet {
    rank: usize,
    first: ConvNormActivation,
    first_act: Act,
    first_stage: Stage,
    down: Vec<Down>,
    up: Vec<Up>,
    last: ConvNormActivation,
    last_slopes: Slopes,
    head: Conv,
}

impl VNet {
    fn new(mut scope: Scope<'_>, config: &VNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| {
            let VNetConfig { rank, in_channels, classes, width, bias, .. } = *config;
            let mut inner = scope.at("in_tr");
            let first_act = Act::new(inner.at("act_function"), width, config)?;
            let plain = NormOptions::new(NormKind::Batch);
            let first = five(&mut inner, [in_channels, width], bias, plain, config)?;
            let first_stage = scope.stage("in_tr", width, 1)?;
            let down = (1..=LEVELS).map(|level| Down::new(scope, level, config)).collect::<Result<_>>()?;
            let up = (1..=LEVELS).rev().map(|level| Up::new(scope, level, config)).collect::<Result<_>>()?;
            let mut inner = scope.at("out_tr");
            let last_slopes = Slopes::new(inner.at("act_function1"), classes, config)?;
            let last = five(&mut inner, [2 * width, classes], bias, config.norm(), config)?;
            let head = Conv::new(inner.at("conv2"), classes, classes, Kernel::new(rank, 1))?;
            Ok(Self { rank, first, first_act, first_stage, down, up, last, last_slopes, head })
        })
    }

    /// The first block: the input's channels are repeated up to the width, which needs no copy.
    fn enter(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.first.forward(x, pass)?;
        let [batch, channels, ref spatial @ ..] = *x.shape() else { return Ok(y) };
        let repeats = [&[batch, y.shape()[1] / channels, channels], spatial].concat();
        let sum = y.reshape(&repeats)?.add(&x.unsqueeze(1)?)?.reshape(y.shape())?;
        drop(y);
        pass.stage(self.first_stage, self.first_act.forward(&sum, pass)?)
    }
}

impl Module for VNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        fit::multiples("vnet", x, &vec![1 << LEVELS; self.rank])?;
        let mut skips = vec![self.enter(x, pass)?];
        for down in &self.down {
            let next = down.forward(&skips[skips.len() - 1], pass)?;
            skips.push(next);
        }
        let mut skips = skips.into_iter().rev();
        let Some(mut x) = skips.next() else { return Ok(x.clone()) };
        for (up, skip) in self.up.iter().zip(skips) {
            x = up.run(x, skip, pass)?;
        }
        self.head.forward(&self.last_slopes.after_norm(self.last.forward(&x, pass)?, pass)?, pass)
    }
}
