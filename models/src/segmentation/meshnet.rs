//! MeshNet.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Conv, ConvNormActivation, Kernel, Module, NormKind, NormOptions, Pass, Scope, Stage};

use crate::{
    blocks::conv_norm,
    check,
    config::{Card, Config, Preset, Task},
};

/// The sizes of a [`MeshNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "meshnet")]
pub struct MeshNetConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels of all blocks.
    pub width: usize,
    /// The dilation of each block.
    pub dilations: Vec<usize>,
}

impl Config for MeshNetConfig {
    type Network = MeshNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[3],
        about: "dilated convolutions of one small width at full resolution",
        source: "Fedorov et al.: End-to-end learning of brain tissue segmentation from imperfect labeling, 2017, \
                 arXiv:1612.00940",
        code: Some("https://github.com/Entodi/meshnet-pytorch"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let sizes =
            |classes, width, dilations: &[usize]| Self { in_channels: 1, classes, width, dilations: dilations.into() };
        vec![
            Preset::new("brain_tissue", sizes(3, 21, &[1, 1, 2, 4, 8, 16, 1])),
            Preset::new("stroke_lesions", sizes(2, 26, &[1, 2, 4, 8, 16, 16, 8, 4, 2])),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<MeshNet> {
        MeshNet::new(scope, self)
    }
}

/// MeshNet (Fedorov et al. 2017) without dropout: blocks of a convolution of 3³, batch norm and ReLU, more and more dilated,
/// then a convolution of 1³. Input (N, C, D, H, W), output (N, classes, D, H, W) for any sizes.
///
/// State-dict names: `L.0` the convolution of block L, `L.1` its norm, and behind the last block `L` the convolution of 1³.
/// Stages: `L`, the output of block L.
#[derive(Debug)]
pub struct MeshNet {
    blocks: Vec<(ConvNormActivation, Stage)>,
    head: Conv,
}

impl MeshNet {
    /// Makes the network's parameters in `scope`.
    ///
    /// # Errors
    /// When a number is 0 or beyond what makes sense, a name is taken, or memory runs out; then no parameter is made.
    pub fn new(mut scope: Scope<'_>, config: &MeshNetConfig) -> Result<Self> {
        let MeshNetConfig { in_channels, classes, width, ref dilations } = *config;
        for (field, size) in [("in_channels", in_channels), ("classes", classes), ("width", width)] {
            check::sizes("meshnet", field, &[size], check::MOST_CHANNELS)?;
        }
        check::length("meshnet", "dilations", dilations.len(), 1, 1000)?;
        check::sizes("meshnet", "dilations", dilations, 1 << 20)?;
        scope.whole(|scope| {
            let (mut blocks, mut channels) = (Vec::new(), in_channels);
            let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
            for (block, &dilation) in dilations.iter().enumerate() {
                let kernel = Kernel::d3(3).padding(dilation).dilation(dilation);
                let layer = conv_norm(&mut scope.at(block), ["0", "1"], [channels, width], kernel, norm)?;
                blocks.push((layer, scope.stage(&block.to_string(), width, 1)?));
                channels = width;
            }
            Ok(Self { blocks, head: Conv::new(scope.at(dilations.len()), width, classes, Kernel::d3(1))? })
        })
    }
}

impl Module for MeshNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut blocks = self.blocks.iter();
        let x = blocks.try_fold(x.clone(), |x, (block, stage)| pass.stage(*stage, block.forward(&x, pass)?))?;
        self.head.forward(&x, pass)
    }
}
