//! The networks of nnU-Net.

mod blocks;
mod plans;

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{Conv, ConvTranspose, Kernel, Module, Named, Network, Pass, Scope, Stage};

use super::levels::{InputSizes, Levels, check_norm, function, he};
use crate::{
    blocks::{ActivationChoice, NormChoice},
    check,
    config::{Card, Config, Preset, Task},
};
use blocks::{Blocks, Sizes, Spec};

/// Which of nnU-Net's networks an [`NnUNet`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NnUNetArchitecture {
    /// `PlainConvUNet`: layers of convolution, norm and activation.
    #[default]
    PlainConv,
    /// `ResidualEncoderUNet`: an encoder of residual blocks behind a stem, and a plain decoder.
    ResidualEncoder,
    /// `ResidualUNet`: residual blocks in the decoder too.
    Residual,
}

/// The configuration of an [`NnUNet`]. [`from_plans`](Self::from_plans) reads it from nnU-Net's plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "nnunet")]
pub struct NnUNetConfig {
    /// The number of spatial axes, 1 to 3.
    #[serde(default = "NnUNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// The network.
    #[serde(default)]
    pub architecture: NnUNetArchitecture,
    /// Channels of each level, `features_per_stage`.
    pub features: Vec<usize>,
    /// The kernel size of each level along each axis, odd numbers.
    pub kernel_sizes: Vec<Vec<usize>>,
    /// The stride of each level along each axis. The logits are as large as the first level.
    pub strides: Vec<Vec<usize>>,
    /// The number of layers or residual blocks of each level of the encoder.
    pub blocks: Vec<usize>,
    /// The number of layers or residual blocks of each level of the decoder, from the coarsest to the finest; one fewer
    /// than levels.
    pub decoder_blocks: Vec<usize>,
    /// Whether convolutions have a bias; projections of shortcuts never have one, and the last convolutions always.
    #[serde(default = "NnUNetConfig::yes")]
    pub conv_bias: bool,
    /// The norm.
    #[serde(default = "NnUNetConfig::instance")]
    pub norm: NormChoice,
    /// The ε of the norm.
    #[serde(default = "NnUNetConfig::epsilon")]
    pub norm_epsilon: f64,
    /// The activation, a function without learned numbers.
    #[serde(default = "NnUNetConfig::leaky")]
    pub activation: ActivationChoice,
    /// Whether the activation comes before the norm (in a plain network).
    #[serde(default)]
    pub activation_first: bool,
    /// Dropout between convolution and norm. With 0 there is a layer that drops nothing, which counts in the original's
    /// names.
    #[serde(default)]
    pub dropout: Option<f64>,
    /// Whether dropout drops whole channels instead of single elements.
    #[serde(default = "NnUNetConfig::yes")]
    pub dropout_channels: bool,
    /// Whether there are logits of each level of the decoder.
    #[serde(default = "NnUNetConfig::yes")]
    pub deep_supervision: bool,
    /// The inner channels of the encoder's residual blocks of each level, which then have a bottleneck.
    #[serde(default)]
    pub bottleneck_channels: Option<Vec<usize>>,
    /// The channels of the stem before an encoder of residual blocks; by default those of the first level.
    #[serde(default)]
    pub stem_channels: Option<usize>,
}

/// The largest number of blocks of a level.
const MOST_BLOCKS: usize = 64;

impl NnUNetConfig {
    /// A plain network for volumes with cubic kernels of 3 voxels, a stride of 2 at each level but the first, and two
    /// layers a level: what nnU-Net plans for isotropic volumes.
    pub fn new(in_channels: usize, classes: usize, features: impl Into<Vec<usize>>) -> Self {
        let features = features.into();
        let levels = features.len();
        Self {
            rank: 3,
            in_channels,
            classes,
            architecture: NnUNetArchitecture::PlainConv,
            kernel_sizes: vec![vec![3; 3]; levels],
            strides: (0..levels).map(|level| vec![if level == 0 { 1 } else { 2 }; 3]).collect(),
            blocks: vec![2; levels],
            decoder_blocks: vec![2; levels.saturating_sub(1)],
            features,
            conv_bias: true,
            norm: Self::instance(),
            norm_epsilon: Self::epsilon(),
            activation: Self::leaky(),
            activation_first: false,
            dropout: None,
            dropout_channels: true,
            deep_supervision: true,
            bottleneck_channels: None,
            stem_channels: None,
        }
    }

    /// A network with an encoder of residual blocks, as nnU-Net's residual planners make it; `strides` are those of
    /// each level.
    fn residual_encoder(strides: &[[usize; 3]]) -> Self {
        let levels = strides.len();
        let features: Vec<usize> = (0..levels).map(|level| 320.min(32 << level)).collect();
        Self {
            architecture: NnUNetArchitecture::ResidualEncoder,
            strides: strides.iter().map(|stride| stride.to_vec()).collect(),
            blocks: [1, 3, 4].into_iter().chain(std::iter::repeat(6)).take(levels).collect(),
            decoder_blocks: vec![1; levels - 1],
            ..Self::new(1, 3, features)
        }
    }

    fn three() -> usize {
        3
    }

    fn yes() -> bool {
        true
    }

    fn epsilon() -> f64 {
        1e-5
    }

    fn instance() -> NormChoice {
        NormChoice::InstanceAffine
    }

    fn leaky() -> ActivationChoice {
        ActivationChoice::LeakyRelu(0.01)
    }

    fn levels(&self) -> Levels<'_> {
        let Self { rank, kernel_sizes, strides, .. } = self;
        let fields = ["kernel_sizes", "strides"];
        Levels { operation: "nnunet", rank: *rank, fields, kernels: kernel_sizes, strides }
    }

    fn is_residual(&self) -> bool {
        self.architecture != NnUNetArchitecture::PlainConv
    }

    fn check(&self) -> Result<()> {
        let most = check::MOST_CHANNELS >> 1;
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes)] {
            check::sizes("nnunet", field, &[size], most)?;
        }
        let levels = self.levels();
        levels.check(2)?;
        let count = self.strides.len();
        for (field, list, length, most) in [
            ("features", &self.features, count, most),
            ("blocks", &self.blocks, count, MOST_BLOCKS),
            ("decoder_blocks", &self.decoder_blocks, count - 1, MOST_BLOCKS),
        ] {
            check::length("nnunet", field, list.len(), length, length)?;
            check::sizes("nnunet", field, list, most)?;
        }
        function("nnunet", self.activation)?;
        check::number("nnunet", "norm_epsilon", self.norm_epsilon, 1e-12..=1000.0)?;
        check::probability("nnunet", "dropout", self.dropout.unwrap_or(0.0))?;
        if let Some(channels) = &self.bottleneck_channels {
            check::length("nnunet", "bottleneck_channels", channels.len(), count, count)?;
            check::sizes("nnunet", "bottleneck_channels", channels, most)?;
        }
        check::sizes("nnunet", "stem_channels", &[self.stem_channels.unwrap_or(1)], most)?;
        let none = Vec::new();
        let bottleneck = self.bottleneck_channels.as_ref().unwrap_or(&none);
        check_norm("nnunet", self.norm, "bottleneck_channels", bottleneck)?;
        check_norm("nnunet", self.norm, "stem_channels", self.stem_channels.as_slice())?;
        check_norm("nnunet", self.norm, "features", &self.features)?;
        let residual = self.is_residual();
        for (field, given, fits) in [
            ("activation_first", self.activation_first, !residual),
            ("bottleneck_channels", self.bottleneck_channels.is_some(), residual),
            ("stem_channels", self.stem_channels.is_some(), residual),
        ] {
            if given && !fits {
                let what = format!("{field} is given, and architecture is {:?}", self.architecture);
                let expected = if residual { "a plain network" } else { "residual blocks" };
                return Err(Error::argument("nnunet", what).expected(expected));
            }
        }
        Ok(())
    }
}

impl Config for NnUNetConfig {
    type Network = NnUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "the U-Nets of nnU-Net, plain or with residual encoders, from its plans",
        source: "Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, 2021, \
                 doi:10.1038/s41592-020-01008-z; residual encoders: Isensee et al.: nnU-Net Revisited, 2024, arXiv:2404.09556",
        code: Some("https://github.com/MIC-DKFZ/dynamic-network-architectures"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let (one, two, flat) = ([1; 3], [2; 3], [1, 2, 2]);
        let plane = Self {
            rank: 2,
            kernel_sizes: vec![vec![3; 2]; 4],
            strides: [1, 2, 2, 2].map(|stride| vec![stride; 2]).to_vec(),
            ..Self::new(1, 3, [32, 64, 128, 256])
        };
        let residual = |name, strides: &[[usize; 3]], size: [usize; 3]| {
            let source = "Isensee et al.: nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation, 2024, \
                          arXiv:2404.09556";
            Preset::new(name, Self::residual_encoder(strides)).size(size).source(source)
        };
        vec![
            Preset::new("nnunet_3d_fullres_hippocampus", Self::new(1, 3, [32, 64, 128, 256])).size([40, 56, 40]),
            Preset::new("nnunet_2d_hippocampus", plane).size([56, 40]),
            residual("resenc_m", &[one, two, two, two, two, flat], [80, 192, 160]),
            residual("resenc_l", &[one, two, two, two, two, flat, flat], [112, 256, 256]),
            residual("resenc_xl", &[one, two, two, two, two, two, flat], [192, 256, 256]),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<NnUNet> {
        NnUNet::new(scope, self)
    }
}

/// A level of the encoder or the decoder.
#[derive(Debug)]
struct Level {
    blocks: Blocks,
    stage: Stage,
}

/// A U-Net of nnU-Net (Isensee et al. 2021): `PlainConvUNet`, `ResidualEncoderUNet` or `ResidualUNet` of
/// `dynamic_network_architectures`. Strides instead of pooling, transposed convolutions for upsampling. Input (N, C,
/// spatial...); the product of all strides divides the sizes. With instance norm the coarsest level needs two voxels.
///
/// The output `logits` is (N, classes, spatial...). With deep supervision, `logits_1`, `logits_2`, … are those of the
/// next coarser levels of the decoder, in training and inference, as in the original, whose list starts with the finest
/// ones too. Without it, the convolutions for the coarser logits are there, as in the original, but unused and frozen.
///
/// State-dict names are the original's: `encoder.stages.0.0.convs.0.conv`, `encoder.stages.0.0.convs.0.norm` (with
/// residual blocks `encoder.stem.convs.0.conv`, `encoder.stages.0.blocks.0.conv1.conv`, …),
/// `decoder.stages.0.convs.0.conv`, `decoder.transpconvs.0`, `decoder.seg_layers.0`; besides, each layer is again below
/// `all_modules`, and the encoder below `decoder.encoder`. Stages: `encoder.stages.K` and `decoder.stages.K`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, NnUNetConfig};
/// use tomograd_nn::Named;
/// let model = Model::new(&NnUNetConfig::new(1, 3, [4, 8, 8]), Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 12, 8], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&Named::from([("image", volume)]))?;
/// assert_eq!(outputs.get("logits")?.shape(), [1, 3, 16, 12, 8]);
/// assert_eq!(outputs.get("logits_1")?.shape(), [1, 3, 8, 6, 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct NnUNet {
    sizes: InputSizes,
    deep_supervision: bool,
    stem: Option<Blocks>,
    encoder: Vec<Level>,
    /// From the coarsest level to the finest, as all that follows.
    up: Vec<ConvTranspose>,
    decoder: Vec<Level>,
    heads: Vec<Conv>,
}

impl NnUNet {
    fn new(mut scope: Scope<'_>, config: &NnUNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &NnUNetConfig) -> Result<Self> {
        let (spec, levels) = (Spec::new(config)?, config.levels());
        let (reductions, features) = (levels.reductions(), &config.features);
        let mut channels = config.in_channels;
        let mut stem = None;
        if config.is_residual() {
            let width = config.stem_channels.unwrap_or(features[0]);
            let sizes = Sizes { channels: [channels, width], kernel: &config.kernel_sizes[0], stride: spec.ones() };
            stem = Some(Blocks::plain(scope.at("encoder").at("stem"), &spec, 1, sizes)?);
            channels = width;
        }
        let mut encoder = Vec::new();
        for (level, &width) in features.iter().enumerate() {
            let name = format!("encoder.stages.{level}");
            let (kernel, stride) = (&config.kernel_sizes[level], &config.strides[level]);
            let (sizes, count) = (Sizes { channels: [channels, width], kernel, stride }, config.blocks[level]);
            let blocks = match config.is_residual() {
                true => {
                    let bottleneck = config.bottleneck_channels.as_ref().map(|channels| channels[level]);
                    Blocks::residual(scope.at(&name), &spec, count, sizes, bottleneck)?
                }
                false => Blocks::plain(scope.at(&name).at(0), &spec, count, sizes)?,
            };
            encoder.push(Level { blocks, stage: scope.stage(&name, width, &reductions[level])? });
            channels = width;
        }
        scope.alias_all("decoder.encoder", "encoder")?;
        // From the coarsest pair of levels to the finest.
        let places = || (0..features.len() - 1).rev().enumerate();
        let mut decoder = Vec::new();
        for (place, level) in places() {
            let (name, width) = (format!("decoder.stages.{place}"), features[level]);
            let kernel = &config.kernel_sizes[level];
            let sizes = Sizes { channels: [2 * width, width], kernel, stride: spec.ones() };
            let count = config.decoder_blocks[place];
            let blocks = match config.architecture {
                NnUNetArchitecture::Residual => Blocks::residual(scope.at(&name), &spec, count, sizes, None)?,
                _ => Blocks::plain(scope.at(&name), &spec, count, sizes)?,
            };
            decoder.push(Level { blocks, stage: scope.stage(&name, width, &reductions[level])? });
        }
        let mut scope = scope.at("decoder");
        let mut up = Vec::new();
        for (place, level) in places() {
            let stride = &config.strides[level + 1];
            let kernel = he(Kernel::new(config.rank, stride).stride(stride), config.conv_bias);
            let scope = &mut scope.at("transpconvs");
            up.push(ConvTranspose::new(scope.at(place), features[level + 1], features[level], kernel)?);
        }
        let mut heads = Vec::new();
        for (place, level) in places() {
            let mut scope = scope.at("seg_layers");
            let kernel = he(Kernel::new(config.rank, 1), true);
            heads.push(Conv::new(scope.at(place), features[level], config.classes, kernel)?);
            if level > 0 && !config.deep_supervision {
                scope.at(place).freeze();
            }
        }
        let residual = config.is_residual();
        // A convolution rounds up; the average pooling of a shortcut rounds down, so that the sizes must be multiples.
        let first = |stride: usize, _| if residual { (1, 0) } else { (stride, stride - 1) };
        let sizes = InputSizes::new(&levels, config.norm, first);
        Ok(Self { sizes, deep_supervision: config.deep_supervision, stem, encoder, up, decoder, heads })
    }
}

impl Network for NnUNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        self.sizes.check(image)?;
        let mut x = self.stem.as_ref().map_or(Ok(image.clone()), |stem| stem.forward(image, pass))?;
        let mut skips = Vec::new();
        for level in &self.encoder {
            x = pass.stage(level.stage, level.blocks.forward(&x, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        let mut logits = Vec::new();
        for (place, (up, level)) in self.up.iter().zip(&self.decoder).enumerate() {
            let Some(skip) = skips.pop() else { break };
            let grown = up.forward(&x, pass)?;
            drop(x);
            x = pass.stage(level.stage, level.blocks.forward_two(grown, skip, pass)?)?;
            if self.deep_supervision || place + 1 == self.heads.len() {
                logits.push(self.heads[place].forward(&x, pass)?);
            }
        }
        let name = |level: usize| if level == 0 { "logits".to_owned() } else { format!("logits_{level}") };
        Ok(logits.into_iter().rev().enumerate().map(|(level, logits)| (name(level), logits)).collect())
    }
}
