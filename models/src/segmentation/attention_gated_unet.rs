//! The Attention U-Net of its authors' repository, Attention-Gated-Networks.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Interpolation, Kernel, MaxPool, Module, NormKind, NormOptions, Pass, Scope,
    Stage, Upsample, UpsampleOptions,
    init::{Fan, Init},
};

use super::fit;
use crate::{
    Sizes,
    blocks::{
        DoubleConv, DoubleConvOptions, conv_norm,
        saving::{activate, add},
    },
    check,
    config::{Card, Config, Preset, Task},
};

/// How a gate of an [`AttentionGatedUNet`] makes its weights from the sum of both features (`nonlocal_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMode {
    /// Sigmoid after a ReLU.
    Concatenation,
    /// Sigmoid after a softplus.
    ConcatenationDebug,
    /// Softmax over all voxels after a ReLU.
    ConcatenationResidual,
}

/// The configuration of an [`AttentionGatedUNet`].
///
/// ```
/// use tomograd_models::AttentionGatedUNetConfig;
/// let config = AttentionGatedUNetConfig { gates: 2, ..AttentionGatedUNetConfig::new(1, 4) };
/// assert_eq!(config.widths, [16, 32, 64, 128, 256]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "attention_gated_unet")]
pub struct AttentionGatedUNetConfig {
    /// The number of spatial axes.
    #[serde(default = "AttentionGatedUNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest: 64, 128, 256, 512, 1024 over the original's `feature_scale`.
    #[serde(default = "AttentionGatedUNetConfig::widths")]
    pub widths: Vec<usize>,
    /// The number of gates in each attention block.
    #[serde(default = "AttentionGatedUNetConfig::one")]
    pub gates: usize,
    /// How gates make their weights.
    #[serde(default = "AttentionGatedUNetConfig::concatenation")]
    pub gate_mode: GateMode,
    /// The factor by which a gate's weights are coarser than the map that it multiplies (`attention_dsample`).
    #[serde(default = "AttentionGatedUNetConfig::two")]
    pub gate_stride: Sizes,
}

/// The most gates in a block.
const MOST_GATES: usize = 64;
/// The largest stride of a gate.
const MOST_STRIDE: usize = 1 << 10;

impl AttentionGatedUNetConfig {
    /// The original's sizes for `feature_scale` 4: 3D, widths 16, 32, 64, 128, 256, one gate in each block.
    pub fn new(in_channels: usize, classes: usize) -> Self {
        Self {
            rank: Self::three(),
            in_channels,
            classes,
            widths: Self::widths(),
            gates: Self::one(),
            gate_mode: Self::concatenation(),
            gate_stride: Self::two(),
        }
    }

    fn one() -> usize {
        1
    }

    fn two() -> Sizes {
        Sizes::All(2)
    }

    fn three() -> usize {
        3
    }

    fn widths() -> Vec<usize> {
        vec![16, 32, 64, 128, 256]
    }

    fn concatenation() -> GateMode {
        GateMode::Concatenation
    }

    /// Checks the numbers, and returns the gates' stride for each axis.
    fn check(&self) -> Result<Vec<usize>> {
        let (name, most) = ("attention_gated_unet", check::MOST_CHANNELS);
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], most)?;
        check::sizes(name, "classes", &[self.classes], most >> 5)?;
        check::length(name, "widths", self.widths.len(), 3, check::MOST_LEVELS)?;
        check::sizes(name, "widths", &self.widths, most)?;
        check::sizes(name, "gates", &[self.gates], MOST_GATES)?;
        self.gate_stride.checked(name, "gate_stride", self.rank, MOST_STRIDE)
    }
}

impl Config for AttentionGatedUNetConfig {
    type Network = AttentionGatedUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "the authors' Attention U-Net: grid attention gates with a gating signal, deep supervision of all levels",
        source: "Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, 2018, arXiv:1804.03999; Schlemper \
                 et al. 2019, doi:10.1016/j.media.2019.01.012",
        code: Some("https://github.com/ozan-oktay/Attention-Gated-Networks"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("unet_ct_single_att_dsv", Self::new(1, 4)),
            Preset::new("unet_ct_multi_att_dsv", Self { gates: 2, ..Self::new(1, 4) }).source(
                "Schlemper et al.: Attention gated networks: Learning to leverage salient regions in medical images, 2019, \
                 doi:10.1016/j.media.2019.01.012",
            ),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<AttentionGatedUNet> {
        AttentionGatedUNet::new(scope, self)
    }
}

/// The norm of all layers, with the original's initial weights around 1.
fn batch() -> NormOptions {
    NormOptions::new(NormKind::Batch).weight(Init::NormalAround { mean: 1.0, deviation: 0.02 })
}

/// The initialisation of all convolutions.
const WEIGHT: Init = Init::kaiming_normal(Fan::In);

/// A kernel of width 1.
fn one(rank: usize) -> Kernel {
    Kernel::new(rank, 1).weight(WEIGHT)
}

/// A convolution of width 1 and its batch norm (`0`, `1`), with or without ReLU.
fn one_wide(mut scope: Scope<'_>, rank: usize, channels: [usize; 2], relu: bool) -> Result<ConvNormActivation> {
    let options = batch();
    let options = if relu { options.activation(Activation::Relu) } else { options };
    conv_norm(&mut scope, ["0", "1"], channels, one(rank), options)
}

/// A grid attention gate: weights for each voxel from a map and a coarser gating signal, by which the map is multiplied.
#[derive(Debug)]
struct Gate {
    mode: GateMode,
    out: ConvNormActivation,
    theta: Conv,
    phi: Conv,
    psi: Conv,
}

impl Gate {
    fn new(
        mut scope: Scope<'_>,
        config: &AttentionGatedUNetConfig,
        stride: &[usize],
        [channels, signal]: [usize; 2],
    ) -> Result<Self> {
        let rank = config.rank;
        let out = one_wide(scope.at("W"), rank, [channels, channels], false)?;
        let coarse = Kernel::new(rank, stride).stride(stride).bias(false).weight(WEIGHT);
        let theta = Conv::new(scope.at("theta"), channels, channels, coarse)?;
        let phi = Conv::new(scope.at("phi"), signal, channels, one(rank))?;
        let psi = Conv::new(scope.at("psi"), channels, 1, one(rank))?;
        Ok(Self { mode: config.gate_mode, out, theta, phi, psi })
    }

    fn forward(&self, x: &Var, signal: &Var, pass: &Pass) -> Result<Var> {
        let theta = self.theta.forward(x, pass)?;
        let phi = self.phi.forward(signal, pass)?.interpolate(&theta.shape()[2..], Interpolation::Linear)?;
        let sum = add(theta, &phi)?;
        drop(phi);
        let function = match self.mode {
            GateMode::ConcatenationDebug => Activation::Softplus,
            GateMode::Concatenation | GateMode::ConcatenationResidual => Activation::Relu,
        };
        let sum = activate(sum, function)?;
        let psi = self.psi.forward(&sum, pass)?;
        drop(sum);
        let weight = match self.mode {
            GateMode::ConcatenationResidual => psi.flatten(2..)?.softmax(2)?.reshape(psi.shape())?,
            GateMode::Concatenation | GateMode::ConcatenationDebug => activate(psi, Activation::Sigmoid)?,
        };
        let weight = weight.interpolate(&x.shape()[2..], Interpolation::Linear)?;
        self.out.forward(&x.mul(&weight)?, pass)
    }
}

/// The gates of a skip connection, and the convolution of their outputs.
#[derive(Debug)]
struct Gates(Vec<Gate>, ConvNormActivation);

impl Gates {
    fn forward(&self, x: &Var, signal: &Var, pass: &Pass) -> Result<Var> {
        let gated = self.0.iter().map(|gate| gate.forward(x, signal, pass)).collect::<Result<Vec<_>>>()?;
        let joined = fit::joined(&gated)?;
        drop(gated);
        self.1.forward(&joined, pass)
    }
}

/// The decoder's part of a level: gates (not at the finest one), convolutions, and the head for deep supervision.
#[derive(Debug)]
struct Level {
    gates: Option<Gates>,
    block: DoubleConv,
    head: Conv,
    stage: Stage,
}

/// The Attention U-Net of its authors (`unet_CT_single_att_dsv_3D`, `unet_CT_multi_att_dsv_3D`; Oktay et al. 2018): a U-Net
/// with batch norm, max pooling and trilinear upsampling. A gate multiplies each skip connection but the finest one; its
/// weights, at half the map's resolution, come from the map and from the level below, the coarsest of which is the gating
/// signal. The maps of all levels are turned into logits at full size, and a last convolution combines them.
///
/// Input (N, C, spatial...), output (N, classes, spatial...); sizes must be multiples of 2^(levels − 1).
///
/// State-dict names are the original's: `conv1.conv1.0` (convolution), `conv1.conv1.1` (its norm), `conv1.conv2.0`, …,
/// `center.conv1.0`, `gating.conv1.0`, `attentionblock2.gate_block_1.W.0`, `.theta`, `.phi`, `.psi`,
/// `attentionblock2.combine_gates.0`, …, `up_concat4.conv.conv1.0`, …, `dsv4.dsv.0`, …, `dsv1`, `final`. Stages: `conv1`, …,
/// `center`, `gating`, `up_concat4`, …, `up_concat1`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{AttentionGatedUNetConfig, Model};
/// let config = AttentionGatedUNetConfig { widths: vec![4, 8, 16], ..AttentionGatedUNetConfig::new(1, 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 8, 12, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2, 8, 12, 16]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct AttentionGatedUNet {
    rank: usize,
    pool: MaxPool,
    up: Upsample,
    encoder: Vec<(DoubleConv, Stage)>,
    gating: (ConvNormActivation, Stage),
    /// From the coarsest level.
    decoder: Vec<Level>,
    last: Conv,
}

impl AttentionGatedUNet {
    fn new(mut scope: Scope<'_>, config: &AttentionGatedUNetConfig) -> Result<Self> {
        let stride = config.check()?;
        scope.whole(|scope| Self::make(scope, config, &stride))
    }

    fn make(scope: &mut Scope<'_>, config: &AttentionGatedUNetConfig, stride: &[usize]) -> Result<Self> {
        let AttentionGatedUNetConfig { rank, ref widths, classes, .. } = *config;
        let options = DoubleConvOptions::new(rank, batch(), Activation::Relu)
            .weight(WEIGHT)
            .names([["conv1.0", "conv1.1"], ["conv2.0", "conv2.1"]]);
        let last = widths.len() - 1;
        let (mut encoder, mut from) = (Vec::new(), config.in_channels);
        for (level, &width) in widths.iter().enumerate() {
            let name = if level == last { "center".to_owned() } else { format!("conv{}", level + 1) };
            let block = DoubleConv::new(scope.at(&name), from, width, options)?;
            encoder.push((block, scope.stage(&name, width, 1 << level)?));
            from = width;
        }
        let layer = one_wide(scope.at("gating.conv1"), rank, [from, from], true)?;
        let gating = (layer, scope.stage("gating", from, 1 << last)?);
        let mut gates = vec![None];
        for level in 1..last {
            let mut scope = scope.at(format!("attentionblock{}", level + 1));
            let channels = [widths[level], widths[level + 1]];
            let gate = |at: usize| Gate::new(scope.at(format!("gate_block_{at}")), config, stride, channels);
            let of_level = (1..=config.gates).map(gate).collect::<Result<Vec<_>>>()?;
            let joined = [channels[0] * config.gates, channels[0]];
            gates.push(Some(Gates(of_level, one_wide(scope.at("combine_gates"), rank, joined, true)?)));
        }
        let (mut blocks, mut heads) = (Vec::new(), Vec::new());
        for level in (0..last).rev() {
            let name = format!("up_concat{}", level + 1);
            let from = widths[level + 1] + widths[level];
            let block = DoubleConv::new(scope.at(&name).at("conv"), from, widths[level], options)?;
            blocks.push((block, scope.stage(&name, widths[level], 1 << level)?));
        }
        for level in (0..last).rev() {
            let name = if level == 0 { "dsv1".to_owned() } else { format!("dsv{}.dsv.0", level + 1) };
            heads.push(Conv::new(scope.at(name), widths[level], classes, one(rank))?);
        }
        let decoder = gates.into_iter().rev().zip(blocks).zip(heads);
        let level = |((gates, (block, stage)), head)| Level { gates, block, head, stage };
        let decoder = decoder.map(level).collect();
        let last = Conv::new(scope.at("final"), classes * last, classes, one(rank))?;
        let up = Upsample::new(UpsampleOptions::new(2).mode(Interpolation::Linear))?;
        Ok(Self { rank, pool: MaxPool::new(2)?, up, encoder, gating, decoder, last })
    }
}

impl Module for AttentionGatedUNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let levels = self.decoder.len();
        fit::multiples("attention_gated_unet", x, &vec![1 << levels; self.rank])?;
        let size = x.shape()[2..].to_vec();
        let mut skips: Vec<Var> = Vec::new();
        for (block, stage) in &self.encoder {
            let pooled = skips.last().map(|map| self.pool.forward(map, pass)).transpose()?;
            skips.push(pass.stage(*stage, block.forward(pooled.as_ref().unwrap_or(x), pass)?)?);
        }
        let mut below = skips.pop().unwrap_or_else(|| x.clone());
        let mut signal = Some(pass.stage(self.gating.1, self.gating.0.forward(&below, pass)?)?);
        let mut logits = Vec::new();
        for (level, skip) in self.decoder.iter().zip(skips.into_iter().rev()) {
            let gated = match &level.gates {
                Some(gates) => gates.forward(&skip, signal.as_ref().unwrap_or(&below), pass)?,
                None => skip.clone(),
            };
            // The gating signal serves the coarsest level only.
            signal = None;
            drop(skip);
            let grown = self.up.forward(&below, pass)?;
            below = pass.stage(level.stage, level.block.forward_two(gated, grown, pass)?)?;
            logits.push(level.head.forward(&below, pass)?);
        }
        drop(below);
        let grown = logits.into_iter().rev().map(|map| match map.shape()[2..] == size[..] {
            true => Ok(map),
            false => map.interpolate(&size, Interpolation::Linear),
        });
        let joined = fit::joined(&grown.collect::<Result<Vec<_>>>()?)?;
        self.last.forward(&joined, pass)
    }
}
