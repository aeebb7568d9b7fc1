//! MONAI's Attention U-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{Activation, Conv, ConvNormActivation, Kernel, Module, NormKind, NormOptions, Pass, Scope, Stage};

use super::fit;
use crate::{
    Sizes,
    blocks::{
        ActivationChoice, Adn, ConvAdn, NormChoice, Place, Unit, Units, checked_strides, conv_norm,
        saving::{activate, add},
    },
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of an [`AttentionUNet`].
///
/// ```
/// use tomograd_models::{AttentionUNetConfig, Sizes};
/// let config = AttentionUNetConfig::new(2, 1, 2, [16, 32, 64], 2);
/// assert_eq!(config.strides, [Sizes::All(2), Sizes::All(2)]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "attention_unet")]
pub struct AttentionUNetConfig {
    /// The number of spatial axes (MONAI's `spatial_dims`).
    #[serde(default = "AttentionUNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits (MONAI's `out_channels`).
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    pub channels: Vec<usize>,
    /// The stride from each level to the next.
    pub strides: Vec<Sizes>,
    /// The kernel size of the encoder's convolutions, odd numbers.
    #[serde(default = "AttentionUNetConfig::kernel")]
    pub kernel: Sizes,
    /// The kernel size of transposed convolutions, odd numbers.
    #[serde(default = "AttentionUNetConfig::kernel")]
    pub up_kernel: Sizes,
    /// The probability with which an element is dropped in training, in the encoder and where skip connections are merged.
    #[serde(default)]
    pub dropout: f64,
}

impl AttentionUNetConfig {
    /// A network with MONAI's defaults and one stride for all levels.
    pub fn new(
        rank: usize,
        in_channels: usize,
        classes: usize,
        channels: impl Into<Vec<usize>>,
        stride: usize,
    ) -> Self {
        let channels = channels.into();
        let strides = vec![Sizes::All(stride); channels.len().saturating_sub(1)];
        let (kernel, up_kernel) = (Self::kernel(), Self::kernel());
        Self { rank, in_channels, classes, channels, strides, kernel, up_kernel, dropout: 0.0 }
    }

    fn three() -> usize {
        3
    }

    fn kernel() -> Sizes {
        Sizes::All(3)
    }

    fn plan(&self) -> Result<Plan> {
        let name = "attention_unet";
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes(name, "classes", &[self.classes], check::MOST_CHANNELS)?;
        check::length(name, "channels", self.channels.len(), 2, check::MOST_LEVELS)?;
        check::sizes(name, "channels", &self.channels, check::MOST_CHANNELS)?;
        let last = self.channels.len() - 1;
        if let Some(at) = self.channels[..last].iter().position(|&channels| channels < 2) {
            return Err(Error::argument(name, format!("channels[{at}] is {}", self.channels[at]))
                .expected("2 at least: the gate has half of them"));
        }
        check::probability(name, "dropout", self.dropout)?;
        let strides = checked_strides(name, self.rank, &self.strides, last)?;
        let kernel = self.kernel.odd(name, "kernel", self.rank)?;
        let up_kernel = self.up_kernel.odd(name, "up_kernel", self.rank)?;
        let adn = Adn::new(NormChoice::Batch, ActivationChoice::Relu);
        let dropping = adn.clone().dropout(self.dropout);
        Ok(Plan {
            rank: self.rank,
            strides,
            encoder: Units::new(self.rank, kernel, true, dropping),
            up: Units::new(self.rank, up_kernel, true, adn),
            dropout: self.dropout,
        })
    }
}

impl Config for AttentionUNetConfig {
    type Network = AttentionUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "MONAI's AttentionUnet: a gate on each skip connection, driven by the decoder",
        source: "Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, 2018, arXiv:1804.03999",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/attentionunet.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let channels = [64, 128, 256, 512, 1024];
        vec![
            Preset::new("attention_unet_3d", Self::new(3, 1, 2, channels, 2)),
            Preset::new("attention_unet_2d", Self::new(2, 1, 2, channels, 2)),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<AttentionUNet> {
        AttentionUNet::new(scope, self)
    }
}

/// The checked numbers of a configuration.
struct Plan {
    rank: usize,
    strides: Vec<Vec<usize>>,
    encoder: Units,
    /// The transposed convolutions, which have no dropout.
    up: Units,
    dropout: f64,
}

/// Two convolutions with batch norm and ReLU, the first with a stride: `conv.0`, `conv.1`.
#[derive(Debug)]
struct ConvBlock(Unit, Unit);

impl ConvBlock {
    fn new(mut scope: Scope<'_>, plan: &Plan, [from, to]: [usize; 2], stride: &[usize]) -> Result<Self> {
        let ones = vec![1; plan.rank];
        let first = plan.encoder.layer(scope.at("conv.0"), Place::new([from, to], stride), 0)?;
        Ok(Self(first, plan.encoder.layer(scope.at("conv.1"), Place::new([to, to], &ones), 0)?))
    }
}

impl Module for ConvBlock {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.1.forward(&self.0.forward(x, pass)?, pass)
    }
}

/// The gate of a skip connection: it multiplies the encoder's map by a number from 0 to 1 for each voxel, computed from that
/// map and the decoder's.
#[derive(Debug)]
struct Gate {
    of_decoder: ConvNormActivation,
    of_encoder: ConvNormActivation,
    psi: ConvNormActivation,
}

impl Gate {
    fn new(scope: &mut Scope<'_>, rank: usize, channels: usize) -> Result<Self> {
        let inner = channels / 2;
        let mut layer = |name: &str, from: usize, to: usize, options: NormOptions| {
            conv_norm(&mut scope.at(name), ["0.conv", "1"], [from, to], Kernel::new(rank, 1), options)
        };
        let plain = NormOptions::new(NormKind::Batch);
        Ok(Self {
            of_decoder: layer("W_g", channels, inner, plain)?,
            of_encoder: layer("W_x", channels, inner, plain)?,
            psi: layer("psi", inner, 1, plain.activation(Activation::Sigmoid))?,
        })
    }

    fn forward(&self, decoder: &Var, encoder: &Var, pass: &Pass) -> Result<Var> {
        let sum = add(self.of_decoder.forward(decoder, pass)?, &self.of_encoder.forward(encoder, pass)?)?;
        let weight = self.psi.forward(&activate(sum, Activation::Relu)?, pass)?;
        encoder.mul(&weight)
    }
}

/// The decoder's part of a level: upsampling, gate, and the convolution of both.
#[derive(Debug)]
struct Level {
    gate: Gate,
    up: ConvAdn,
    merge: ConvAdn,
    stage: Stage,
}

/// MONAI's `AttentionUnet` (Oktay et al. 2018): a U-Net of strided convolutions with batch norm, in which the decoder's map
/// decides for each voxel how much of the skip connection passes.
///
/// Input (N, C, spatial...), output (N, classes, spatial...); sizes must be multiples of the product of the strides.
///
/// State-dict names are MONAI's, which follow its recursion: `model.0.conv.0.conv` the first level's convolutions,
/// `model.1.attention.W_g.0.conv`, `W_x`, `psi` its gate, `model.1.upconv.up.conv`, `model.1.merge.conv`,
/// `model.1.submodule.0` the second level's convolutions, `model.1.submodule.1.attention` its gate, …; `model.2.conv` the
/// head. Stages: `enc.L`, `dec.L`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{AttentionUNetConfig, Model};
/// let model = Model::new(&AttentionUNetConfig::new(2, 1, 2, [4, 8, 16], 2), Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 16, 12], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2, 16, 12]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct AttentionUNet {
    units: Vec<usize>,
    encoder: Vec<(ConvBlock, Stage)>,
    /// From the finest level.
    decoder: Vec<Level>,
    head: Conv,
}

impl AttentionUNet {
    fn new(mut scope: Scope<'_>, config: &AttentionUNetConfig) -> Result<Self> {
        let plan = config.plan()?;
        scope.whole(|scope| Self::make(scope, config, &plan))
    }

    fn make(scope: &mut Scope<'_>, config: &AttentionUNetConfig, plan: &Plan) -> Result<Self> {
        let (channels, last) = (&config.channels, config.channels.len() - 1);
        let ones = vec![1; plan.rank];
        let mut reduction = ones.clone();
        let block = ConvBlock::new(scope.at("model.0"), plan, [config.in_channels, channels[0]], &ones)?;
        let mut encoder = vec![(block, scope.stage("enc.0", channels[0], 1)?)];
        let (mut decoder, mut place) = (Vec::new(), "model.1".to_owned());
        for (level, (pair, stride)) in channels.windows(2).zip(&plan.strides).enumerate() {
            let [own, below] = [pair[0], pair[1]];
            let gate = Gate::new(&mut scope.at(format!("{place}.attention")), plan.rank, own)?;
            let scope_of_up = scope.at(format!("{place}.upconv.up"));
            let up = plan.up.up(scope_of_up, Place::new([below, own], stride), plan.up.kernel())?;
            // The original's defaults for this convolution aren't those of the others.
            let adn = Adn::new(NormChoice::Instance, ActivationChoice::Prelu).dropout(plan.dropout);
            let three = Kernel::new(plan.rank, 3).padding(1);
            let merge = ConvAdn::new(scope.at(format!("{place}.merge")), 2 * own, own, three, &adn)?;
            let stage = scope.stage(&format!("dec.{level}"), own, &reduction)?;
            decoder.push(Level { gate, up, merge, stage });
            reduction = reduction.iter().zip(stride).map(|(a, b)| a.saturating_mul(*b)).collect();
            let name = if level + 1 < last { format!("{place}.submodule.0") } else { format!("{place}.submodule") };
            let block = ConvBlock::new(scope.at(name), plan, [own, below], stride)?;
            encoder.push((block, scope.stage(&format!("enc.{}", level + 1), below, &reduction)?));
            place.push_str(".submodule.1");
        }
        let head = Conv::new(scope.at("model.2.conv"), channels[0], config.classes, Kernel::new(plan.rank, 1))?;
        Ok(Self { units: reduction, encoder, decoder, head })
    }
}

impl Module for AttentionUNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        fit::multiples("attention_unet", x, &self.units)?;
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (block, stage) in &self.encoder {
            x = pass.stage(*stage, block.forward(&x, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        for (level, skip) in self.decoder.iter().rev().zip(skips.into_iter().rev()) {
            let grown = level.up.forward(&x, pass)?;
            // Frees the coarse features before the fine ones are allocated.
            drop(x);
            let gated = level.gate.forward(&grown, &skip, pass)?;
            drop(skip);
            x = pass.stage(level.stage, level.merge.forward_two(gated, grown, pass)?)?;
        }
        self.head.forward(&x, pass)
    }
}
