//! The configuration of residual networks: fields, checks and presets.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result};
use tomograd_nn::Scope;

use super::{
    super::{IMAGENET, KINETICS},
    ResNet,
};
use crate::{
    check,
    config::{Card, Config, Preset, Task},
};

/// The kind of residual block of a [`ResNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResNetBlock {
    /// Two 3-wide convolutions.
    Basic,
    /// Convolutions of widths 1, 3 and 1; the second has the stride, and the third has four times the channels.
    Bottleneck,
}

impl ResNetBlock {
    /// The ratio of a block's output channels to its inner channels.
    pub(super) fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The shortcut of a block that changes size or channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResNetShortcut {
    /// A convolution of width 1 and a batch norm (type B).
    #[default]
    Projection,
    /// Every `stride`-th voxel, with zeros as the additional channels (type A). As in the originals in 3D
    /// (3D-ResNets-PyTorch, MONAI), no gradient flows through it.
    ZeroPadding,
}

/// The attention at the end of a residual branch, before the shortcut is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResNetAttention {
    /// None.
    #[default]
    None,
    /// Squeeze and excitation with a sixteenth of the channels, rounded to a multiple of 8 (Hu et al. 2017), as in timm.
    SqueezeExcitation,
    /// Channel and spatial attention, the former with a sixteenth of the channels (CBAM, Woo et al. 2018).
    Cbam,
}

/// The configuration of a [`ResNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "resnet")]
pub struct ResNetConfig {
    /// The number of spatial axes.
    #[serde(default = "ResNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The kind of block.
    pub block: ResNetBlock,
    /// The number of blocks of each layer; channels double and sizes halve from one layer to the next.
    pub layers: Vec<usize>,
    /// Channels of the stem, and of the first layer before the blocks' expansion.
    #[serde(default = "ResNetConfig::sixty_four")]
    pub width: usize,
    /// Channels of each layer before the blocks' expansion; empty: they double from `width` on.
    #[serde(default)]
    pub widths: Vec<usize>,
    /// Groups of a bottleneck's 3-wide convolution.
    #[serde(default = "ResNetConfig::one")]
    pub groups: usize,
    /// Channels of each group for a `width` of 64; in general, each group of a bottleneck's 3-wide convolution has
    /// `width · 2^layer · width_per_group / 64` channels.
    #[serde(default = "ResNetConfig::sixty_four")]
    pub width_per_group: usize,
    /// The size of the stem's convolution: one number for all axes, or one for each. It is padded by half of it.
    #[serde(default = "ResNetConfig::seven")]
    pub stem_size: Vec<usize>,
    /// The stride of the stem's convolution: one number for all axes, or one for each.
    #[serde(default = "ResNetConfig::halved")]
    pub stem_stride: Vec<usize>,
    /// Whether the stem ends with max pooling, which halves the size.
    #[serde(default = "ResNetConfig::yes")]
    pub max_pool: bool,
    /// The dilation of the 3-wide convolutions of each layer; empty: 1 in all. A dilated layer has no stride, so that its maps are as
    /// large as those before (MedicalNet).
    #[serde(default)]
    pub dilations: Vec<usize>,
    /// The shortcut of blocks that change size or channels.
    #[serde(default)]
    pub shortcut: ResNetShortcut,
    /// Whether the convolution of a projection has a bias.
    #[serde(default)]
    pub shortcut_bias: bool,
    /// The attention at the end of residual branches.
    #[serde(default)]
    pub attention: ResNetAttention,
    /// Whether the bias of `fc` starts at 0, as MONAI's does, and not as PyTorch's default.
    #[serde(default)]
    pub zero_bias: bool,
}

/// Each layer halves the image, so that more layers would need an image larger than any.
const MOST_LAYERS: usize = 16;
/// The largest number of blocks of a layer.
const MOST_BLOCKS: usize = 1024;
/// The largest size and stride of the stem's convolution.
const LARGEST_STEM: usize = 1024;
/// The largest dilation.
const LARGEST_DILATION: usize = 1024;

impl ResNetConfig {
    /// A network for photographs: 2D, three input channels, width 64, one group.
    pub fn new(block: ResNetBlock, layers: impl Into<Vec<usize>>, classes: usize) -> Self {
        Self {
            rank: 2,
            in_channels: 3,
            classes,
            block,
            layers: layers.into(),
            width: 64,
            widths: Vec::new(),
            groups: 1,
            width_per_group: 64,
            stem_size: Self::seven(),
            stem_stride: Self::halved(),
            max_pool: true,
            dilations: Vec::new(),
            shortcut: ResNetShortcut::Projection,
            shortcut_bias: false,
            attention: ResNetAttention::None,
            zero_bias: false,
        }
    }

    fn one() -> usize {
        1
    }

    fn two() -> usize {
        2
    }

    fn sixty_four() -> usize {
        64
    }

    fn seven() -> Vec<usize> {
        vec![7]
    }

    fn halved() -> Vec<usize> {
        vec![2]
    }

    fn yes() -> bool {
        true
    }

    /// The channels of layer `layer` before the blocks' expansion.
    pub(super) fn planes(&self, layer: usize) -> usize {
        self.widths.get(layer).copied().unwrap_or(self.width << layer)
    }

    /// The dilation of layer `layer`, counted from 0.
    pub(super) fn dilation(&self, layer: usize) -> usize {
        self.dilations.get(layer).copied().unwrap_or(1)
    }

    /// The stride of layer `layer`, counted from 0.
    pub(super) fn stride(&self, layer: usize) -> usize {
        if layer == 0 || self.dilation(layer) > 1 { 1 } else { 2 }
    }

    /// The channels of the last layer; only for a checked configuration.
    pub(crate) fn out_channels(&self) -> usize {
        self.planes(self.layers.len().saturating_sub(1)) * self.block.expansion()
    }

    /// The inner channels of a bottleneck of layer `layer`.
    pub(super) fn inner(&self, layer: usize) -> usize {
        self.planes(layer) * self.width_per_group / 64 * self.groups
    }

    /// One number for each axis, from one for all or one for each.
    pub(super) fn each(&self, numbers: &[usize]) -> Vec<usize> {
        if let [number] = numbers { vec![*number; self.rank] } else { numbers.to_vec() }
    }

    pub(super) fn check(&self) -> Result<()> {
        let most = check::MOST_CHANNELS;
        check::sizes("resnet", "rank", &[self.rank], 3)?;
        check::length("resnet", "layers", self.layers.len(), 1, MOST_LAYERS)?;
        check::sizes("resnet", "layers", &self.layers, MOST_BLOCKS)?;
        let last = self.layers.len() - 1;
        let fields = [("in_channels", self.in_channels), ("classes", self.classes), ("groups", self.groups)];
        for (field, size) in fields.into_iter().chain([("width_per_group", self.width_per_group)]) {
            check::sizes("resnet", field, &[size], most)?;
        }
        if self.widths.is_empty() {
            check::sizes("resnet", "width", &[self.width], most >> last >> 2)?;
        } else {
            check::sizes("resnet", "width", &[self.width], most)?;
            check::length("resnet", "widths", self.widths.len(), self.layers.len(), self.layers.len())?;
            check::sizes("resnet", "widths", &self.widths, most >> 2)?;
        }
        if !self.dilations.is_empty() {
            check::length("resnet", "dilations", self.dilations.len(), self.layers.len(), self.layers.len())?;
            check::sizes("resnet", "dilations", &self.dilations, LARGEST_DILATION)?;
        }
        for (field, numbers) in [("stem_size", &self.stem_size), ("stem_stride", &self.stem_stride)] {
            if numbers.len() != 1 {
                check::length("resnet", field, numbers.len(), self.rank, self.rank)?;
            }
            check::sizes("resnet", field, numbers, LARGEST_STEM)?;
        }
        if self.block == ResNetBlock::Basic && (self.groups, self.width_per_group) != (1, 64) {
            let Self { groups, width_per_group, .. } = self;
            return Err(Error::argument(
                "resnet",
                format!("basic blocks with groups {groups}, width_per_group {width_per_group}"),
            )
            .expected("1 and 64, or blocks of the kind bottleneck"));
        }
        // Products of checked numbers, which don't overflow 64 bits.
        let inner = |layer: usize| (self.planes(layer) * self.width_per_group / 64).saturating_mul(self.groups);
        for layer in 0..self.layers.len() {
            if !(1..=most).contains(&inner(layer)) {
                let what = format!(
                    "width_per_group {} and groups {} give layer {} {} channels",
                    self.width_per_group,
                    self.groups,
                    layer + 1,
                    inner(layer)
                );
                return Err(Error::argument("resnet", what).expected(format!("1 to {most}")));
            }
        }
        // The planes of each layer are checked where they are given, and double otherwise.
        let narrowing = (1..self.layers.len()).any(|layer| self.planes(layer) < self.planes(layer - 1));
        if self.shortcut == ResNetShortcut::ZeroPadding
            && (narrowing || self.planes(0) * self.block.expansion() < self.width)
        {
            let what = format!("shortcut zero_padding with width {} and widths {:?}", self.width, self.widths);
            return Err(Error::argument("resnet", what).expected("channels that don't become fewer"));
        }
        let narrow = (0..self.layers.len()).find(|&layer| self.planes(layer) * self.block.expansion() < 16);
        if let (ResNetAttention::Cbam, Some(layer)) = (self.attention, narrow) {
            let what = format!("attention cbam with {} channels in layer {}", self.planes(layer), layer + 1);
            return Err(Error::argument("resnet", what).expected("16 at least, after the blocks' expansion"));
        }
        Ok(())
    }
}

impl Config for ResNetConfig {
    type Network = ResNet;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[1, 2, 3],
        about: "residual networks, also with groups (ResNeXt), wide ones, and with attention (SE, CBAM)",
        source: "He et al.: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385; ResNeXt: Xie et al. 2016, \
                 arXiv:1611.05431; wide: Zagoruyko and Komodakis 2016, arXiv:1605.07146; 3D: Hara et al. 2017, \
                 arXiv:1711.09577; Med3D: Chen et al. 2019, arXiv:1904.00625; SE: Hu et al. 2017, arXiv:1709.01507; CBAM: \
                 Woo et al. 2018, arXiv:1807.06521",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py"),
        weights_licence: Some(
            "BSD-3-Clause (torchvision), Apache-2.0 (timm), both trained on ImageNet, whose images are for research; MIT \
             (3D-ResNets-PyTorch, MedicalNet)",
        ),
    };

    fn presets() -> Vec<Preset<Self>> {
        use ResNetAttention::{Cbam, SqueezeExcitation};
        use ResNetBlock::{Basic, Bottleneck};
        let plain = |depth: usize| match depth {
            10 => (Basic, [1, 1, 1, 1]),
            18 => (Basic, [2, 2, 2, 2]),
            34 => (Basic, [3, 4, 6, 3]),
            50 => (Bottleneck, [3, 4, 6, 3]),
            101 => (Bottleneck, [3, 4, 23, 3]),
            152 => (Bottleneck, [3, 8, 36, 3]),
            _ => (Bottleneck, [3, 24, 36, 3]),
        };
        let of = |depth: usize, classes: usize| {
            let (block, layers) = plain(depth);
            Self::new(block, layers, classes)
        };
        let mut presets = Vec::new();
        let mut add = |name, channels, config, source: Option<&'static str>, size: Option<[usize; 3]>| {
            let size = size.map(Vec::from);
            presets.push(Preset { channels, source, size, ..Preset::new(name, config) });
        };
        let (resnext, wide) = (
            "Xie et al.: Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431",
            "Zagoruyko and Komodakis: Wide Residual Networks, 2016, arXiv:1605.07146",
        );
        let torchvision = [
            ("resnet18", 18, 1, 64),
            ("resnet34", 34, 1, 64),
            ("resnet50", 50, 1, 64),
            ("resnet101", 101, 1, 64),
            ("resnet152", 152, 1, 64),
            ("resnext50_32x4d", 50, 32, 4),
            ("resnext101_32x8d", 101, 32, 8),
            ("wide_resnet50_2", 50, 1, 128),
            ("wide_resnet101_2", 101, 1, 128),
        ];
        for (name, depth, groups, width_per_group) in torchvision {
            let source = match (groups, width_per_group) {
                (1, 64) => None,
                (1, _) => Some(wide),
                _ => Some(resnext),
            };
            add(name, Some(IMAGENET), Self { groups, width_per_group, ..of(depth, 1000) }, source, None);
        }
        let timm = [
            ("seresnet18", 18, 1, 64),
            ("seresnet34", 34, 1, 64),
            ("seresnet50", 50, 1, 64),
            ("seresnet101", 101, 1, 64),
            ("seresnet152", 152, 1, 64),
            ("seresnext50_32x4d", 50, 32, 4),
            ("seresnext101_32x4d", 101, 32, 4),
            ("seresnext101_32x8d", 101, 32, 8),
        ];
        for (name, depth, groups, width_per_group) in timm {
            let attention = SqueezeExcitation;
            let source = "Hu et al.: Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507";
            add(
                name,
                Some(IMAGENET),
                Self { groups, width_per_group, attention, ..of(depth, 1000) },
                Some(source),
                None,
            );
        }
        let cbam = [("cbam_resnet18", 18), ("cbam_resnet34", 34), ("cbam_resnet50", 50), ("cbam_resnet101", 101)];
        for (name, depth) in cbam {
            let source = "Woo et al.: CBAM: Convolutional Block Attention Module, 2018, arXiv:1807.06521";
            add(name, Some(IMAGENET), Self { attention: Cbam, ..of(depth, 1000) }, Some(source), None);
        }
        // In the order of the depths 10, 18, 34, 50, 101, 152 and 200.
        let volumes = [
            ("monai_resnet10_3d", "medicalnet_resnet10", "r3d10", 10),
            ("monai_resnet18_3d", "medicalnet_resnet18", "r3d18", 18),
            ("monai_resnet34_3d", "medicalnet_resnet34", "r3d34", 34),
            ("monai_resnet50_3d", "medicalnet_resnet50", "r3d50", 50),
            ("monai_resnet101_3d", "medicalnet_resnet101", "r3d101", 101),
            ("monai_resnet152_3d", "medicalnet_resnet152", "r3d152", 152),
            ("monai_resnet200_3d", "medicalnet_resnet200", "r3d200", 200),
        ];
        for (monai, medicalnet, r3d, depth) in volumes {
            let volume = Self { rank: 3, in_channels: 1, ..of(depth, 2) };
            let hara = Some(
                "Hara et al.: Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, 2017, arXiv:1711.09577",
            );
            let chen =
                Some("Chen et al.: Med3D: Transfer Learning for 3D Medical Image Analysis, 2019, arXiv:1904.00625");
            add(
                monai,
                None,
                Self { stem_stride: vec![1], shortcut_bias: true, zero_bias: true, ..volume.clone() },
                hara,
                None,
            );
            let zeros = depth == 18 || depth == 34;
            let shortcut = if zeros { ResNetShortcut::ZeroPadding } else { ResNetShortcut::Projection };
            add(medicalnet, None, Self { shortcut, dilations: vec![1, 1, 2, 4], ..volume }, chen, None);
            let config = Self { rank: 3, stem_stride: vec![1, 2, 2], ..of(depth, 700) };
            add(r3d, Some(KINETICS), config, hara, Some([16, 112, 112]));
        }
        presets
    }

    fn build(&self, scope: Scope<'_>) -> Result<ResNet> {
        ResNet::new(scope, self)
    }
}
