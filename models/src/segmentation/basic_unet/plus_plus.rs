//! MONAI's BasicUNetPlusPlus.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Conv, Kernel, Module, Named, Network, Pass, Scope, Stage};

use super::{BasicUpsampling, Down, Fields, LEAST, LEVELS, Plan, TwoConv, UpCat, UpCatChannels};
use crate::{
    blocks::{ActivationChoice, NormChoice},
    check,
    config::{Card, Config, Preset, Task},
    segmentation::fit,
};

/// The configuration of a [`BasicUNetPlusPlus`].
///
/// ```
/// use tomograd_models::BasicUNetPlusPlusConfig;
/// let config = BasicUNetPlusPlusConfig { deep_supervision: true, ..BasicUNetPlusPlusConfig::new(2, 1, 2) };
/// assert_eq!(config.features, [32, 32, 64, 128, 256, 32]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "basic_unet_plus_plus")]
pub struct BasicUNetPlusPlusConfig {
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
    /// Whether the outputs of the nodes X⁰¹, X⁰² and X⁰³ are given as well.
    #[serde(default)]
    pub deep_supervision: bool,
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

impl BasicUNetPlusPlusConfig {
    /// A network with MONAI's defaults.
    pub fn new(rank: usize, in_channels: usize, classes: usize) -> Self {
        Self {
            rank,
            in_channels,
            classes,
            features: super::default_features(),
            deep_supervision: false,
            activation: super::default_activation(),
            norm: super::default_norm(),
            bias: true,
            dropout: 0.0,
            upsampling: super::default_upsampling(),
        }
    }

    fn plan(&self) -> Result<Plan> {
        let Self { rank, in_channels, classes, ref features, activation, norm, bias, dropout, upsampling, .. } = *self;
        let operation = "basic_unet_plus_plus";
        Fields { operation, rank, in_channels, classes, features, activation, norm, bias, dropout, upsampling }.plan()
    }
}

impl Config for BasicUNetPlusPlusConfig {
    type Network = BasicUNetPlusPlus;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "MONAI's BasicUNetPlusPlus: nested dense skip connections, deep supervision",
        source: "Zhou et al.: UNet++: A Nested U-Net Architecture for Medical Image Segmentation, 2018, arXiv:1807.10165",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/basic_unetplusplus.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let wide = Self { features: vec![64, 128, 256, 512, 1024, 128], ..Self::new(2, 1, 2) };
        vec![
            Preset::new("basic_unet_plus_plus_3d", Self::new(3, 1, 2)),
            Preset::new("basic_unet_plus_plus_2d", Self::new(2, 1, 2)),
            Preset::new("basic_unet_plus_plus_2d_wide", wide),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<BasicUNetPlusPlus> {
        BasicUNetPlusPlus::new(scope, self)
    }
}

/// A node of the decoder in row `row`, its inputs being the map below and all maps before it in its row.
#[derive(Debug)]
struct Node {
    block: UpCat,
    stage: Stage,
}

/// MONAI's `BasicUNetPlusPlus` (Zhou et al. 2018): between encoder and decoder stand nodes Xⁱʲ, each of which upsamples the
/// node below and convolves it with all nodes before it at its level i. X⁰¹ to X⁰⁴ have the image's size, and a head each.
///
/// Input (N, C, spatial...), for all sizes of at least 16. Outputs (N, classes, spatial...): `logits` (of X⁰⁴), and with deep
/// supervision `logits_0_1`, `logits_0_2`, `logits_0_3`, in training and in inference. (The original's list has X⁰¹ to X⁰⁴ in
/// this order. It has the heads of all four in any case; without deep supervision those of the others are frozen here.)
///
/// State-dict names are MONAI's: `conv_0_0.conv_0.conv`, `conv_1_0.convs.conv_0.conv`, …, `upcat_0_1.upsample.deconv`,
/// `upcat_0_1.convs.conv_0.conv`, …, `final_conv_0_1`, …. Stages: `conv_I_0`, `upcat_I_J`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{BasicUNetPlusPlusConfig, Model};
/// let config = BasicUNetPlusPlusConfig { features: vec![4, 4, 8, 8, 16, 4], ..BasicUNetPlusPlusConfig::new(2, 1, 3) };
/// let config = BasicUNetPlusPlusConfig { deep_supervision: true, ..config };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 32, 24], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.get("logits_0_2")?.shape(), [1, 3, 32, 24]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct BasicUNetPlusPlus {
    rank: usize,
    deep_supervision: bool,
    first: (TwoConv, Stage),
    down: Vec<(Down, Stage)>,
    /// Node (i, j) is `nodes[j - 1][i]`.
    nodes: Vec<Vec<Node>>,
    heads: Vec<Conv>,
}

impl BasicUNetPlusPlus {
    fn new(mut scope: Scope<'_>, config: &BasicUNetPlusPlusConfig) -> Result<Self> {
        let plan = config.plan()?;
        scope.whole(|scope| Self::make(scope, config, &plan))
    }

    fn make(scope: &mut Scope<'_>, config: &BasicUNetPlusPlusConfig, plan: &Plan) -> Result<Self> {
        let features = plan.features;
        let conv = TwoConv::new(scope.at("conv_0_0"), plan, config.in_channels, features[0])?;
        let first = (conv, scope.stage("conv_0_0", features[0], 1)?);
        let mut down = Vec::new();
        for row in 1..LEVELS {
            let name = format!("conv_{row}_0");
            let block = Down::new(scope.at(&name), plan, features[row - 1], features[row])?;
            down.push((block, scope.stage(&name, features[row], 1 << row)?));
        }
        let mut nodes = Vec::new();
        for column in 1..LEVELS {
            let mut of_column = Vec::new();
            for row in 0..LEVELS - column {
                let (name, own) = (format!("upcat_{row}_{column}"), features[row]);
                let out = if column + 1 == LEVELS { features[LEVELS] } else { own };
                // The product of two checked numbers.
                let channels = UpCatChannels { coarse: features[row + 1], fine: own * column, out, halves: row > 0 };
                let block = UpCat::new(scope.at(&name), plan, channels)?;
                of_column.push(Node { block, stage: scope.stage(&name, out, 1 << row)? });
            }
            nodes.push(of_column);
        }
        let head = |column: usize| {
            let channels = if column + 1 == LEVELS { features[LEVELS] } else { features[0] };
            let place = scope.at(format!("final_conv_0_{column}"));
            Conv::new(place, channels, config.classes, Kernel::new(plan.rank, 1))
        };
        let heads = (1..LEVELS).map(head).collect::<Result<_>>()?;
        if !config.deep_supervision {
            (1..LEVELS - 1).for_each(|column| scope.at(format!("final_conv_0_{column}")).freeze());
        }
        Ok(Self { rank: plan.rank, deep_supervision: config.deep_supervision, first, down, nodes, heads })
    }
}

impl Network for BasicUNetPlusPlus {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::smallest("basic_unet_plus_plus", x.shape(), self.rank, LEAST)?;
        let (conv, stage) = &self.first;
        let mut outputs = Vec::new();
        // The maps of each row so far, of which the last diagonal is the last reader.
        let mut rows = vec![vec![pass.stage(*stage, conv.forward(x, pass)?)?]];
        for (diagonal, (block, stage)) in self.down.iter().enumerate() {
            let mut below = pass.stage(*stage, block.forward(&rows[diagonal][0], pass)?)?;
            let is_last = diagonal + 1 == self.down.len();
            if !is_last {
                rows.push(vec![below.clone()]);
            }
            for row in (0..=diagonal).rev() {
                let column = diagonal + 1 - row;
                let node = &self.nodes[column - 1][row];
                let before = fit::joined(&rows[row])?;
                if is_last {
                    rows[row].clear();
                }
                below = pass.stage(node.stage, node.block.forward(below, before, pass)?)?;
                if !is_last {
                    rows[row].push(below.clone());
                }
            }
            if self.deep_supervision || is_last {
                outputs.push(self.heads[diagonal].forward(&below, pass)?);
            }
        }
        let logits = outputs.pop().into_iter().map(|main| ("logits".to_owned(), main));
        let others = outputs.into_iter().enumerate().map(|(at, y)| (format!("logits_0_{}", at + 1), y));
        Ok(logits.chain(others).collect())
    }
}
