//! DynUNet, MONAI's network after nnU-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvTranspose, Dropout, Interpolation, Kernel, Module, Named, Network, Pass, Scope, Stage,
};

use super::levels::{InputSizes, Levels, check_norm, function, he};
use crate::{
    blocks::{ActivationChoice, After, ConvDropoutNorm, NormChoice, saving::add_activation},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`DynUNet`]. Optional fields have MONAI's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "dynunet")]
pub struct DynUNetConfig {
    /// The number of spatial axes, 1 to 3.
    #[serde(default = "DynUNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// The kernel size of each level along each axis, odd numbers; three levels at least.
    pub kernel_size: Vec<Vec<usize>>,
    /// The stride of each level along each axis. The logits are as large as the first level.
    pub strides: Vec<Vec<usize>>,
    /// The channels of each level; by default 32, doubled from level to level up to 320 (512 in 2D).
    #[serde(default)]
    pub filters: Option<Vec<usize>>,
    /// Whether the encoder's blocks are residual.
    #[serde(default)]
    pub residual: bool,
    /// The number of auxiliary heads: number k reads level k + 1. 0 to the number of levels − 2.
    #[serde(default)]
    pub deep_supervision: usize,
    /// The norm.
    #[serde(default = "DynUNetConfig::instance")]
    pub norm: NormChoice,
    /// The activation, a function without learned numbers.
    #[serde(default = "DynUNetConfig::leaky")]
    pub activation: ActivationChoice,
    /// Dropout of single elements after each convolution.
    #[serde(default)]
    pub dropout: f64,
    /// Whether the transposed convolutions have a bias.
    #[serde(default)]
    pub trans_bias: bool,
}

impl DynUNetConfig {
    /// A network for volumes with cubic kernels of 3 voxels and a stride of 2 at each of `levels` levels but the first.
    pub fn new(in_channels: usize, classes: usize, levels: usize) -> Self {
        // One more than is taken is enough to be refused.
        let levels = levels.min(check::MOST_LEVELS + 1);
        Self {
            rank: 3,
            in_channels,
            classes,
            kernel_size: vec![vec![3; 3]; levels],
            strides: (0..levels).map(|level| vec![if level == 0 { 1 } else { 2 }; 3]).collect(),
            filters: None,
            residual: false,
            deep_supervision: 0,
            norm: Self::instance(),
            activation: Self::leaky(),
            dropout: 0.0,
            trans_bias: false,
        }
    }

    fn three() -> usize {
        3
    }

    fn instance() -> NormChoice {
        NormChoice::InstanceAffine
    }

    fn leaky() -> ActivationChoice {
        ActivationChoice::LeakyRelu(0.01)
    }

    fn levels(&self) -> Levels<'_> {
        let Self { rank, kernel_size, strides, .. } = self;
        let fields = ["kernel_size", "strides"];
        Levels { operation: "dynunet", rank: *rank, fields, kernels: kernel_size, strides }
    }

    /// The channels of each level.
    fn channels(&self) -> Vec<usize> {
        let most = if self.rank == 3 { 320 } else { 512 };
        let default = || (0..self.strides.len()).map(|level| most.min(32 << level.min(8))).collect();
        self.filters.clone().unwrap_or_else(default)
    }

    fn check(&self) -> Result<()> {
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes)] {
            check::sizes("dynunet", field, &[size], check::MOST_CHANNELS)?;
        }
        let levels = self.levels();
        levels.check(3)?;
        let (channels, count) = (self.channels(), self.strides.len());
        check::length("dynunet", "filters", channels.len(), count, count)?;
        check::sizes("dynunet", "filters", &channels, check::MOST_CHANNELS >> 1)?;
        check_norm("dynunet", self.norm, "filters", &channels)?;
        function("dynunet", self.activation)?;
        check::probability("dynunet", "dropout", self.dropout)?;
        // The paddings of the convolutions, and of a residual block's shortcut of 1 voxel, must not be negative.
        let too_large = |(&kernel, &stride): (&usize, &usize)| stride > kernel + 1 || self.residual && stride > 2;
        for level in 0..count {
            if self.kernel_size[level].iter().zip(&self.strides[level]).any(too_large) {
                let what = format!(
                    "kernel_size[{level}] is {:?}, and strides[{level}] {:?}",
                    self.kernel_size[level], self.strides[level]
                );
                return Err(Error::argument("dynunet", what)
                    .expected("strides of at most the kernel size + 1, and of at most 2 with residual blocks"));
            }
        }
        if self.deep_supervision > count - 2 {
            let what = format!("deep_supervision is {}, and there are {count} levels", self.deep_supervision);
            return Err(Error::argument("dynunet", what).expected(format!("at most {}", count - 2)));
        }
        Ok(())
    }
}

impl Config for DynUNetConfig {
    type Network = DynUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "MONAI's U-Net after nnU-Net: kernels and strides of each level, instance norm, deep supervision",
        source: "Isensee et al.: Automated Design of Deep Learning Methods for Biomedical Image Segmentation, 2019, \
                 arXiv:1904.08128; Futrega et al.: Optimized U-Net for Brain Tumor Segmentation, 2021, arXiv:2110.03352",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/dynunet.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let brats = Self { filters: Some(vec![64, 96, 128, 192, 256, 384, 512]), ..Self::new(5, 3, 7) };
        vec![
            Preset::new("dynunet", Self::new(1, 3, 4)),
            Preset::new("dynunet_residual", Self { residual: true, ..Self::new(1, 3, 6) }),
            Preset::new("dynunet_brats21", Self { deep_supervision: 2, ..brats })
                .size([128, 128, 128])
                .source("Futrega et al.: Optimized U-Net for Brain Tumor Segmentation, 2021, arXiv:2110.03352"),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<DynUNet> {
        DynUNet::new(scope, self)
    }
}

/// What all blocks of a network have in common.
struct Spec<'a> {
    config: &'a DynUNetConfig,
    after: After,
}

impl Spec<'_> {
    fn dropout(&self, scope: Scope<'_>) -> Result<Option<Dropout>> {
        let dropout = self.config.dropout;
        (dropout > 0.0).then(|| Dropout::new(scope, dropout)).transpose()
    }

    /// A convolution without bias: `NAME.conv` in `scope`.
    fn conv(
        &self,
        scope: &mut Scope<'_>,
        name: &str,
        [in_channels, channels]: [usize; 2],
        kernel: &[usize],
        stride: &[usize],
    ) -> Result<Conv> {
        let padding: Vec<usize> =
            kernel.iter().zip(stride).map(|(kernel, stride)| (kernel + 1).saturating_sub(*stride) / 2).collect();
        let kernel = he(Kernel::new(self.config.rank, kernel).stride(stride).padding(padding), false);
        Conv::new(scope.at(name).at("conv"), in_channels, channels, kernel)
    }

    /// A convolution of 1 voxel with bias, and dropout: `conv.conv` in `scope`.
    fn head(&self, mut scope: Scope<'_>, channels: usize) -> Result<Head> {
        let mut scope = scope.at("conv");
        let kernel = he(Kernel::new(self.config.rank, 1), true);
        let conv = Conv::new(scope.at("conv"), channels, self.config.classes, kernel)?;
        Ok(Head { conv, dropout: self.dropout(scope.at("dropout"))? })
    }
}

/// A convolution of 1 voxel that gives logits.
#[derive(Debug)]
struct Head {
    conv: Conv,
    dropout: Option<Dropout>,
}

impl Module for Head {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.conv.forward(x, pass)?;
        self.dropout.as_ref().map_or(Ok(y.clone()), |dropout| dropout.forward(&y, pass))
    }
}

/// Two convolutions, each with a norm and an activation; in a residual block the shortcut is added before the last
/// activation.
#[derive(Debug)]
struct Block {
    first: ConvDropoutNorm,
    second: ConvDropoutNorm,
    /// The activation after the sum.
    residual: Option<Activation>,
    shortcut: Option<ConvDropoutNorm>,
}

impl Block {
    fn new(
        mut scope: Scope<'_>,
        spec: &Spec<'_>,
        [in_channels, channels]: [usize; 2],
        [kernel, stride]: [&[usize]; 2],
        residual: bool,
    ) -> Result<Self> {
        let scope = &mut scope;
        let ones = vec![1; kernel.len()];
        let (after, inner) = (spec.after, [channels, channels]);
        let plain = After { activation: None, ..after };
        // All convolutions come before the norms in the state dict.
        let first = spec.conv(scope, "conv1", [in_channels, channels], kernel, stride)?;
        let second = spec.conv(scope, "conv2", inner, kernel, &ones)?;
        let dropouts = [spec.dropout(scope.at("dropout1"))?, spec.dropout(scope.at("dropout2"))?];
        let [dropout1, dropout2] = dropouts;
        let first = ConvDropoutNorm::new(scope.at("norm1"), first, dropout1, after)?;
        let second = ConvDropoutNorm::new(scope.at("norm2"), second, dropout2, if residual { plain } else { after })?;
        let projected = residual && (in_channels != channels || stride.iter().any(|&stride| stride != 1));
        let shortcut = match projected {
            true => {
                let conv = spec.conv(scope, "conv3", [in_channels, channels], &ones, stride)?;
                let dropout = spec.dropout(scope.at("dropout3"))?;
                Some(ConvDropoutNorm::new(scope.at("norm3"), conv, dropout, plain)?)
            }
            false => None,
        };
        Ok(Self { first, second, residual: after.activation.filter(|_| residual), shortcut })
    }
}

impl Module for Block {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.second.forward(&self.first.forward(x, pass)?, pass)?;
        let Some(activation) = self.residual else { return Ok(y) };
        let shortcut = self.shortcut.as_ref().map_or(Ok(x.clone()), |shortcut| shortcut.forward(x, pass))?;
        add_activation(y, &shortcut, activation)
    }
}

/// A level of the decoder.
#[derive(Debug)]
struct Up {
    conv: ConvTranspose,
    dropout: Option<Dropout>,
    block: Block,
    head: Option<Head>,
    stage: Stage,
}

impl Up {
    fn run(&self, x: Var, skip: Var, pass: &Pass) -> Result<Var> {
        let mut up = self.conv.forward(&x, pass)?;
        drop(x);
        if let Some(dropout) = &self.dropout {
            up = dropout.forward(&up, pass)?;
        }
        let y = self.block.first.forward_two(up, skip, pass)?;
        pass.stage(self.stage, self.block.second.forward(&y, pass)?)
    }
}

/// DynUNet, MONAI's U-Net after nnU-Net (Isensee et al. 2019): two convolutions for each level, strides instead of
/// pooling, transposed convolutions for upsampling. Input (N, C, spatial...); the product of all strides divides the
/// sizes. With instance norm the coarsest level needs two voxels.
///
/// The output `logits` is (N, classes, spatial...). With deep supervision, a training pass also has `logits_1`,
/// `logits_2`, …: the logits of the next coarser levels, interpolated (nearest neighbour) to the size of `logits`.
/// MONAI stacks all of them along a new axis 1.
///
/// State-dict names are MONAI's: `input_block.conv1.conv`, `input_block.norm1`, `downsamples.0.conv1.conv`, …,
/// `bottleneck`, `upsamples.0.transp_conv.conv`, `upsamples.0.conv_block.conv1.conv`, …, `output_block.conv.conv`,
/// `deep_supervision_heads.0`, …, and all again below `skip_layers`. Stages: `input_block`, `downsamples.K`,
/// `bottleneck`, `upsamples.K`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{DynUNetConfig, Model};
/// let config = DynUNetConfig { filters: Some(vec![4, 8, 8]), ..DynUNetConfig::new(1, 3, 3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 12, 8], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 3, 16, 12, 8]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct DynUNet {
    sizes: InputSizes,
    encoder: Vec<(Block, Stage)>,
    /// From the coarsest level to the finest.
    decoder: Vec<Up>,
    head: Head,
}

impl DynUNet {
    fn new(mut scope: Scope<'_>, config: &DynUNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &DynUNetConfig) -> Result<Self> {
        let (levels, channels) = (config.levels(), config.channels());
        let (reductions, count) = (levels.reductions(), channels.len());
        let activation = Some(function("dynunet", config.activation)?);
        let after = After { norm: config.norm.options(), activation, activation_first: false };
        let spec = Spec { config, after };
        let names: Vec<String> = (0..count)
            .map(|level| match level {
                0 => "input_block".to_owned(),
                _ if level == count - 1 => "bottleneck".to_owned(),
                _ => format!("downsamples.{}", level - 1),
            })
            .collect();
        let mut encoder = Vec::new();
        let mut in_channels = config.in_channels;
        for (level, name) in names.iter().enumerate() {
            let lists = [&config.kernel_size[level][..], &config.strides[level]];
            let block = Block::new(scope.at(name), &spec, [in_channels, channels[level]], lists, config.residual)?;
            encoder.push((block, scope.stage(name, channels[level], &reductions[level])?));
            in_channels = channels[level];
        }
        let mut decoder = Vec::new();
        for (place, level) in (0..count - 1).rev().enumerate() {
            let name = format!("upsamples.{place}");
            let mut inner = scope.at(&name);
            let [coarse, fine] = [channels[level + 1], channels[level]];
            let stride = &config.strides[level + 1];
            let kernel = he(Kernel::new(config.rank, stride).stride(stride), config.trans_bias);
            let conv = ConvTranspose::new(inner.at("transp_conv").at("conv"), coarse, fine, kernel)?;
            let dropout = spec.dropout(inner.at("transp_conv").at("dropout"))?;
            let ones = vec![1; config.rank];
            let lists = [&config.kernel_size[level + 1][..], &ones];
            let block = Block::new(inner.at("conv_block"), &spec, [2 * fine, fine], lists, false)?;
            let stage = scope.stage(&name, fine, &reductions[level])?;
            decoder.push(Up { conv, dropout, block, head: None, stage });
        }
        let head = spec.head(scope.at("output_block"), channels[0])?;
        for level in 1..=config.deep_supervision {
            let mut heads = scope.at("deep_supervision_heads");
            decoder[count - 2 - level].head = Some(spec.head(heads.at(level - 1), channels[level])?);
        }
        again(scope, &names, config.deep_supervision)?;
        let first = |stride: usize, kernel: usize| {
            let padding = (kernel + 1).saturating_sub(stride) / 2;
            (stride, (2 * padding + stride).saturating_sub(kernel))
        };
        Ok(Self { sizes: InputSizes::new(&levels, config.norm, first), encoder, decoder, head })
    }
}

/// The names below `skip_layers`: MONAI's recursive module has all blocks again.
fn again(scope: &mut Scope<'_>, encoder: &[String], heads: usize) -> Result<()> {
    let Some((bottleneck, finer)) = encoder.split_last() else { return Ok(()) };
    let mut at = "skip_layers".to_owned();
    let mut places = Vec::new();
    for name in finer {
        scope.alias_all(&format!("{at}.downsample"), name)?;
        places.push(at.clone());
        at.push_str(".next_layer");
    }
    scope.alias_all(&at, bottleneck)?;
    for (place, (level, at)) in places.iter().enumerate().rev().enumerate() {
        scope.alias_all(&format!("{at}.upsample"), &format!("upsamples.{place}"))?;
        if (1..=heads).contains(&level) {
            scope.alias_all(&format!("{at}.super_head"), &format!("deep_supervision_heads.{}", level - 1))?;
        }
    }
    Ok(())
}

impl Network for DynUNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        self.sizes.check(image)?;
        let (mut skips, mut x) = (Vec::new(), image.clone());
        for (block, stage) in &self.encoder {
            x = pass.stage(*stage, block.forward(&x, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        let mut auxiliary = Vec::new();
        for up in &self.decoder {
            let Some(skip) = skips.pop() else { break };
            x = up.run(x, skip, pass)?;
            if let Some(head) = up.head.as_ref().filter(|_| pass.is_training()) {
                auxiliary.push(head.forward(&x, pass)?);
            }
        }
        let logits = self.head.forward(&x, pass)?;
        let size = logits.shape()[2..].to_vec();
        let mut outputs = Named::from([("logits", logits)]);
        for (place, map) in auxiliary.into_iter().rev().enumerate() {
            outputs.insert(format!("logits_{}", place + 1), map.interpolate(&size, Interpolation::Nearest)?);
        }
        Ok(outputs)
    }
}
