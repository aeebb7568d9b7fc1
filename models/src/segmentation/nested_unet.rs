//! UNet++ as its common PyTorch version has it.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, Interpolation, Kernel, MaxPool, Module, Named, Network, NormKind, Pass, Scope, Stage, Upsample,
    UpsampleOptions,
};

use super::fit;
use crate::{
    blocks::{DoubleConv, DoubleConvOptions},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`NestedUNet`].
///
/// ```
/// use tomograd_models::NestedUNetConfig;
/// let config = NestedUNetConfig { deep_supervision: true, ..NestedUNetConfig::new(3, 1) };
/// assert_eq!(config.widths, [32, 64, 128, 256, 512]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "nested_unet")]
pub struct NestedUNetConfig {
    /// The number of spatial axes.
    #[serde(default = "NestedUNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    #[serde(default = "NestedUNetConfig::widths")]
    pub widths: Vec<usize>,
    /// Whether the nodes of the finest level have a head each, whose outputs are given as well.
    #[serde(default)]
    pub deep_supervision: bool,
}

/// The most levels: there are half as many nodes as the square of their number.
const MOST_LEVELS: usize = 12;

impl NestedUNetConfig {
    /// The original's sizes: 2D, widths 32, 64, 128, 256, 512.
    pub fn new(in_channels: usize, classes: usize) -> Self {
        Self { rank: Self::two(), in_channels, classes, widths: Self::widths(), deep_supervision: false }
    }

    fn two() -> usize {
        2
    }

    fn widths() -> Vec<usize> {
        vec![32, 64, 128, 256, 512]
    }

    fn check(&self) -> Result<()> {
        let (name, most) = ("nested_unet", check::MOST_CHANNELS);
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], most)?;
        check::sizes(name, "classes", &[self.classes], most)?;
        check::length(name, "widths", self.widths.len(), 2, MOST_LEVELS)?;
        check::sizes(name, "widths", &self.widths, most)
    }
}

impl Config for NestedUNetConfig {
    type Network = NestedUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "UNet++: nested dense skip connections, deep supervision",
        source: "Zhou et al.: UNet++: A Nested U-Net Architecture for Medical Image Segmentation, 2018, \
                 arXiv:1807.10165; redesigned skip connections, 2019, arXiv:1912.05074",
        code: Some("https://github.com/4uiiurz1/pytorch-nested-unet, after https://github.com/MrGiovanni/UNetPlusPlus"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let supervised = Self { deep_supervision: true, ..Self::new(3, 1) };
        vec![Preset::new("nested_unet", Self::new(3, 1)), Preset::new("nested_unet_deep_supervision", supervised)]
    }

    fn build(&self, scope: Scope<'_>) -> Result<NestedUNet> {
        NestedUNet::new(scope, self)
    }
}

/// A node Xⁱʲ and the stage after it.
#[derive(Debug)]
struct Node {
    block: DoubleConv,
    stage: Stage,
}

/// UNet++ (Zhou et al. 2018) as in pytorch-nested-unet: nodes Xⁱʲ of two 3-wide convolutions with batch norm and ReLU; Xⁱ⁰ is
/// the encoder with 2× max pooling, and each other node reads all nodes before it at its level i, and the one below upsampled
/// (linear, with aligned corners).
///
/// Input (N, C, spatial...), each size a multiple of 2^(levels − 1). Outputs (N, classes, spatial...): `logits` (of the last
/// node, X⁰⁴ for five levels), and with deep supervision `logits_1`, `logits_2`, … (of X⁰¹, X⁰², …), in training and in
/// inference. (The original's list has them in the order X⁰¹, …, X⁰⁴.)
///
/// State-dict names are the original's: `conv0_0.conv1`, `conv0_0.bn1`, `conv0_0.conv2`, `conv0_0.bn2`, `conv1_0`, …,
/// `conv0_4`; `final`, with deep supervision `final1`, `final2`, …. Stages: `convI_J`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, NestedUNetConfig};
/// let config = NestedUNetConfig { widths: vec![4, 8, 16], deep_supervision: true, ..NestedUNetConfig::new(1, 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 16, 12], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.names().collect::<Vec<_>>(), ["logits", "logits_1"]);
/// assert_eq!(outputs.main()?.shape(), [1, 2, 16, 12]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct NestedUNet {
    rank: usize,
    deep_supervision: bool,
    pool: MaxPool,
    up: Upsample,
    /// Node (i, j) is `nodes[j][i]`.
    nodes: Vec<Vec<Node>>,
    heads: Vec<Conv>,
}

impl NestedUNet {
    fn new(mut scope: Scope<'_>, config: &NestedUNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &NestedUNetConfig) -> Result<Self> {
        let NestedUNetConfig { rank, in_channels, classes, ref widths, deep_supervision } = *config;
        let options =
            DoubleConvOptions::new(rank, NormKind::Batch, Activation::Relu).names([["conv1", "bn1"], ["conv2", "bn2"]]);
        let mut nodes = Vec::new();
        for column in 0..widths.len() {
            let mut of_column = Vec::new();
            for (row, &width) in widths.iter().enumerate().take(widths.len() - column) {
                let from = match (row, column) {
                    (0, 0) => in_channels,
                    (_, 0) => widths[row - 1],
                    _ => width * column + widths[row + 1],
                };
                let name = format!("conv{row}_{column}");
                let block = DoubleConv::new(scope.at(&name), from, width, options)?;
                of_column.push(Node { block, stage: scope.stage(&name, width, 1 << row)? });
            }
            nodes.push(of_column);
        }
        let last = widths.len() - 1;
        let mut head = |name: String| Conv::new(scope.at(name), widths[0], classes, Kernel::new(rank, 1));
        let heads = match deep_supervision {
            true => (1..=last).map(|column| head(format!("final{column}"))).collect::<Result<_>>()?,
            false => vec![head("final".to_owned())?],
        };
        let up = Upsample::new(UpsampleOptions::new(2).mode(Interpolation::LinearCorners))?;
        Ok(Self { rank, deep_supervision, pool: MaxPool::new(2)?, up, nodes, heads })
    }
}

impl Network for NestedUNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        let last = self.nodes.len() - 1;
        fit::multiples("nested_unet", x, &vec![1 << last; self.rank])?;
        let encode = |row: usize, x: &Var| {
            let node = &self.nodes[0][row];
            pass.stage(node.stage, node.block.forward(x, pass)?)
        };
        let mut outputs = Vec::new();
        // The maps of each row so far, of which the last diagonal is the last reader.
        let mut rows = vec![vec![encode(0, x)?]];
        for diagonal in 1..=last {
            let pooled = self.pool.forward(&rows[diagonal - 1][0], pass)?;
            let mut below = encode(diagonal, &pooled)?;
            drop(pooled);
            let is_last = diagonal == last;
            if !is_last {
                rows.push(vec![below.clone()]);
            }
            for row in (0..diagonal).rev() {
                let node = &self.nodes[diagonal - row][row];
                let grown = self.up.forward(&below, pass)?;
                drop(below);
                let before = fit::joined(&rows[row])?;
                if is_last {
                    rows[row].clear();
                }
                below = pass.stage(node.stage, node.block.forward_two(before, grown, pass)?)?;
                if !is_last {
                    rows[row].push(below.clone());
                }
            }
            if self.deep_supervision {
                outputs.push(self.heads[diagonal - 1].forward(&below, pass)?);
            } else if is_last {
                outputs.push(self.heads[0].forward(&below, pass)?);
            }
        }
        let logits = outputs.pop().into_iter().map(|main| ("logits".to_owned(), main));
        let others = outputs.into_iter().enumerate().map(|(at, y)| (format!("logits_{}", at + 1), y));
        Ok(logits.chain(others).collect())
    }
}
