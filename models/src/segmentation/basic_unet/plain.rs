//! MONAI's BasicUNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Conv, Kernel, Module, Pass, Scope, Stage};

use super::{BasicUpsampling, Down, Fields, LEAST, LEVELS, Plan, TwoConv, UpCat, UpCatChannels};
use crate::{
    blocks::{ActivationChoice, NormChoice},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`BasicUNet`].
///
/// ```
/// use tomograd_models::{BasicUNetConfig, blocks::NormChoice};
/// let config = BasicUNetConfig { norm: NormChoice::Group(4), ..BasicUNetConfig::new(2, 1, 2) };
/// assert_eq!(config.features, [32, 32, 64, 128, 256, 32]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "basic_unet")]
pub struct BasicUNetConfig {
    /// The number of spatial axes (MONAI's `spatial_dims`).
    #[serde(default = "super::three")]
    pub rank: usize,
    /// Input channels.
    #[serde(default = "super::one")]
    pub in_channels: usize,
    /// Number of classes, the channels of the logits (MONAI's `out_channels`).
    #[serde(default = "super::two")]
    pub classes: usize,
    /// Six numbers: the channels of the five levels, and those of the last block.
    #[serde(default = "super::default_features")]
    pub features: Vec<usize>,
    /// The activation.
    #[serde(default = "super::default_activation")]
    pub activation: ActivationChoice,
    /// The norm.
    #[serde(default = "super::default_norm")]
    pub norm: NormChoice,
    /// Whether convolutions have a bias.
    #[serde(default = "super::yes")]
    pub bias: bool,
    /// The probability with which an element is dropped in training, between norm and activation.
    #[serde(default)]
    pub dropout: f64,
    /// The upsampling.
    #[serde(default = "super::default_upsampling")]
    pub upsampling: BasicUpsampling,
}

impl BasicUNetConfig {
    /// A network with MONAI's defaults.
    pub fn new(rank: usize, in_channels: usize, classes: usize) -> Self {
        Self {
            rank,
            in_channels,
            classes,
            features: super::default_features(),
            activation: super::default_activation(),
            norm: super::default_norm(),
            bias: true,
            dropout: 0.0,
            upsampling: super::default_upsampling(),
        }
    }

    fn plan(&self) -> Result<Plan> {
        let Self { rank, in_channels, classes, ref features, activation, norm, bias, dropout, upsampling } = *self;
        let operation = "basic_unet";
        Fields { operation, rank, in_channels, classes, features, activation, norm, bias, dropout, upsampling }.plan()
    }
}

impl Config for BasicUNetConfig {
    type Network = BasicUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "MONAI's BasicUNet: five levels, max pooling, instance norm and leaky ReLU, any size of image",
        source: "Falk et al.: U-Net: deep learning for cell counting, detection, and morphometry, 2019, \
                 doi:10.1038/s41592-018-0261-2",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/basic_unet.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let wide = Self { features: vec![64, 128, 256, 512, 1024, 128], ..Self::new(2, 1, 2) };
        vec![
            Preset::new("basic_unet_3d", Self::new(3, 1, 2)),
            Preset::new("basic_unet_2d", Self::new(2, 1, 2)),
            Preset::new("basic_unet_2d_wide", wide),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<BasicUNet> {
        BasicUNet::new(scope, self)
    }
}

/// MONAI's `BasicUNet` (after Falk et al. 2019): five levels of two 3-wide convolutions with norm and activation, 2× max
/// pooling, and a decoder that upsamples, concatenates the encoder's map before the upsampled one, and convolves twice.
///
/// Input (N, C, spatial...), output (N, classes, spatial...), for all sizes of at least 16: where pooling drops a voxel, the
/// decoder repeats the last one.
///
/// State-dict names are MONAI's: `conv_0.conv_0.conv`, `conv_0.conv_0.adn.N`, `conv_0.conv_1`, `down_1.convs.conv_0`, …,
/// `upcat_4.upsample.deconv`, `upcat_4.convs.conv_0`, …, `upcat_1`, `final_conv`. Stages: `conv_0`, `down_1`, …, `down_4`,
/// `upcat_4`, …, `upcat_1`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{BasicUNetConfig, Model};
/// let config = BasicUNetConfig { features: vec![4, 4, 8, 8, 16, 4], ..BasicUNetConfig::new(2, 1, 3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 37, 50], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 3, 37, 50]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct BasicUNet {
    rank: usize,
    first: (TwoConv, Stage),
    down: Vec<(Down, Stage)>,
    up: Vec<(UpCat, Stage)>,
    head: Conv,
}

impl BasicUNet {
    fn new(mut scope: Scope<'_>, config: &BasicUNetConfig) -> Result<Self> {
        let plan = config.plan()?;
        scope.whole(|scope| {
            let features = plan.features;
            let conv = TwoConv::new(scope.at("conv_0"), &plan, config.in_channels, features[0])?;
            let first = (conv, scope.stage("conv_0", features[0], 1)?);
            let mut down = Vec::new();
            for level in 1..LEVELS {
                let name = format!("down_{level}");
                let block = Down::new(scope.at(&name), &plan, features[level - 1], features[level])?;
                down.push((block, scope.stage(&name, features[level], 1 << level)?));
            }
            let mut up = Vec::new();
            for level in (1..LEVELS).rev() {
                let (fine, name) = (features[level - 1], format!("upcat_{level}"));
                let out = if level == 1 { features[LEVELS] } else { fine };
                let channels = UpCatChannels { coarse: features[level], fine, out, halves: level > 1 };
                let block = UpCat::new(scope.at(&name), &plan, channels)?;
                up.push((block, scope.stage(&name, out, 1 << (level - 1))?));
            }
            let head = Conv::new(scope.at("final_conv"), features[LEVELS], config.classes, Kernel::new(plan.rank, 1))?;
            Ok(Self { rank: plan.rank, first, down, up, head })
        })
    }
}

impl Module for BasicUNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::smallest("basic_unet", x.shape(), self.rank, LEAST)?;
        let (conv, stage) = &self.first;
        let mut x = pass.stage(*stage, conv.forward(x, pass)?)?;
        let mut skips = Vec::new();
        for (block, stage) in &self.down {
            let below = pass.stage(*stage, block.forward(&x, pass)?)?;
            skips.push(std::mem::replace(&mut x, below));
        }
        for ((block, stage), skip) in self.up.iter().zip(skips.into_iter().rev()) {
            x = pass.stage(*stage, block.forward(x, skip, pass)?)?;
        }
        self.head.forward(&x, pass)
    }
}
