//! U²-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Interpolation, Kernel, MaxPool, Module, Named, Network, NormKind,
    NormOptions, Pass, Scope, Stage, Window,
};

use super::outputs;
use crate::{
    blocks::{conv_norm, saving::add},
    check,
    classification::IMAGENET,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`U2Net`].
///
/// ```
/// use tomograd_models::U2NetConfig;
/// let config = U2NetConfig { in_channels: 1, sigmoid: false, ..U2NetConfig::small(3) };
/// assert_eq!(config.encoder, [[16, 64]; 6]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "u2net")]
pub struct U2NetConfig {
    /// The number of spatial axes.
    #[serde(default = "U2NetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of maps of each output.
    pub classes: usize,
    /// Inner and output channels of the blocks of the encoder, from the finest to the coarsest.
    pub encoder: [[usize; 2]; 6],
    /// Inner and output channels of the blocks of the decoder, from the coarsest to the finest.
    pub decoder: [[usize; 2]; 5],
    /// Whether the outputs are probabilities (a sigmoid of each map), as those of the original, instead of logits, which
    /// losses and predictions here need.
    #[serde(default = "U2NetConfig::yes")]
    pub sigmoid: bool,
}

impl U2NetConfig {
    /// The full network for photographs: 2D, three input channels, probabilities.
    pub fn new(classes: usize) -> Self {
        Self {
            rank: 2,
            in_channels: 3,
            classes,
            encoder: [[32, 64], [32, 128], [64, 256], [128, 512], [256, 512], [256, 512]],
            decoder: [[256, 512], [128, 256], [64, 128], [32, 64], [16, 64]],
            sigmoid: true,
        }
    }

    /// The small network, U²-Net†: 16 inner and 64 output channels everywhere.
    pub fn small(classes: usize) -> Self {
        Self { encoder: [[16, 64]; 6], decoder: [[16, 64]; 5], ..Self::new(classes) }
    }

    fn two() -> usize {
        2
    }

    fn yes() -> bool {
        true
    }
}

impl Config for U2NetConfig {
    type Network = U2Net;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "a U-Net whose blocks are small residual U-Nets, with outputs of all scales",
        source: "Qin et al.: U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection, 2020, arXiv:2005.09007",
        code: Some("https://github.com/xuebinqin/U-2-Net"),
        weights_licence: Some("Apache-2.0 (U-2-Net), trained on the photographs of DUTS-TR"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let preset = |name, config| Preset { channels: Some(IMAGENET), ..Preset::new(name, config).size([320, 320]) };
        vec![preset("u2net", Self::new(1)), preset("u2netp", Self::small(1))]
    }

    fn build(&self, scope: Scope<'_>) -> Result<U2Net> {
        U2Net::new(scope, self)
    }
}

/// The number of levels of each block of the encoder; blocks of the last two stages don't pool.
const HEIGHTS: [usize; 6] = [7, 6, 5, 4, 4, 4];

/// `x` interpolated to the spatial size of `like`.
fn sized_like(x: &Var, like: &Var) -> Result<Var> {
    if x.shape()[2..] == like.shape()[2..] {
        Ok(x.clone())
    } else {
        x.interpolate(&like.shape()[2..], Interpolation::Linear)
    }
}

fn halving() -> Result<MaxPool> {
    MaxPool::new(Window::new(2).ceil_mode(true))
}

/// A residual U-block (RSU): a U-Net of convolutions with batch norm and ReLU, plus its first convolution as a shortcut.
#[derive(Debug)]
struct ResidualU {
    input: ConvNormActivation,
    down: Vec<ConvNormActivation>,
    up: Vec<ConvNormActivation>,
    /// `None`: all levels have one size, and dilations grow instead.
    pool: Option<MaxPool>,
}

impl ResidualU {
    /// The block of the encoder's stage `stage`, or of the decoder's of the same size.
    fn new(
        mut scope: Scope<'_>,
        rank: usize,
        stage: usize,
        in_channels: usize,
        [inner, channels]: [usize; 2],
    ) -> Result<Self> {
        let (height, pooled) = (HEIGHTS[stage], stage < 4);
        let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
        let mut layer = |name: String, channels: [usize; 2], dilation: usize| {
            let kernel = Kernel::new(rank, 3).padding(dilation).dilation(dilation);
            conv_norm(&mut scope.at(name), ["conv_s1", "bn_s1"], channels, kernel, norm)
        };
        let input = layer("rebnconvin".to_owned(), [in_channels, channels], 1)?;
        let mut down = Vec::new();
        for level in 1..=height {
            let dilation = match pooled {
                false => 1 << (level - 1),
                true if level == height => 2,
                true => 1,
            };
            let from = if level == 1 { channels } else { inner };
            down.push(layer(format!("rebnconv{level}"), [from, inner], dilation)?);
        }
        let mut up = Vec::new();
        for level in (1..height).rev() {
            let dilation = if pooled { 1 } else { 1 << (level - 1) };
            let to = if level == 1 { channels } else { inner };
            up.push(layer(format!("rebnconv{level}d"), [2 * inner, to], dilation)?);
        }
        Ok(Self { input, down, up, pool: pooled.then(halving).transpose()? })
    }

    /// The output for `x`, and `skip` behind its channels.
    fn forward(&self, x: Var, skip: Option<Var>, pass: &Pass) -> Result<Var> {
        let input = match &skip {
            Some(skip) => self.input.forward_two(&x, skip, pass)?,
            None => self.input.forward(&x, pass)?,
        };
        drop((x, skip));
        let (mut y, mut skips) = (input.clone(), Vec::new());
        for (level, layer) in self.down.iter().enumerate() {
            // The coarsest two levels have one size.
            if let Some(pool) = self.pool.as_ref().filter(|_| level > 0 && level < self.up.len()) {
                y = pool.forward(&y, pass)?;
            }
            y = layer.forward(&y, pass)?;
            skips.push(y.clone());
        }
        skips.pop();
        for (layer, skip) in self.up.iter().zip(skips.into_iter().rev()) {
            y = sized_like(&y, &skip)?;
            y = layer.forward_two(&y, &skip, pass)?;
        }
        add(y, &input)
    }
}

/// U²-Net (Qin et al. 2020): a U-Net of six levels whose blocks are themselves U-Nets, without pretrained backbone. Each
/// decoder stage and the coarsest encoder stage have a side output, and the main output is a 1-wide convolution of all of
/// these. Input (N, C, spatial...) of any size; outputs (N, classes, spatial...), in training and in inference:
/// `probabilities`, then `probabilities_d1` (finest) to `probabilities_d6` (coarsest), or `logits`, `logits_d1`, … if the
/// configuration's `sigmoid` is false.
///
/// State-dict names are those of the authors' code: `stage1.rebnconvin.conv_s1`, `stage1.rebnconvin.bn_s1`,
/// `stage1.rebnconv1.conv_s1`, …, `stage1.rebnconv1d.conv_s1`, `stage5d.rebnconvin.conv_s1`, …, `side1`, `outconv`. Stages:
/// `stage1`, …, `stage6` of the encoder, each half the size of the previous one, and `stage5d`, …, `stage1d` of the decoder.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, U2NetConfig};
/// let config = U2NetConfig { encoder: [[1, 2]; 6], decoder: [[1, 2]; 5], sigmoid: false, ..U2NetConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 3, 21, 34], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.main()?.shape(), [1, 2, 21, 34]);
/// assert_eq!(outputs.names().collect::<Vec<_>>()[..2], ["logits", "logits_d1"]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct U2Net {
    rank: usize,
    sigmoid: bool,
    pool: MaxPool,
    encoder: Vec<(ResidualU, Stage)>,
    decoder: Vec<(ResidualU, Stage)>,
    /// From the finest to the coarsest.
    sides: Vec<Conv>,
    head: Conv,
}

impl U2Net {
    fn new(mut scope: Scope<'_>, config: &U2NetConfig) -> Result<Self> {
        let U2NetConfig { rank, in_channels, classes, ref encoder, ref decoder, sigmoid } = *config;
        check::sizes("u2net", "rank", &[rank], 3)?;
        for (field, sizes) in [
            ("in_channels", &[in_channels][..]),
            ("classes", &[classes]),
            ("encoder", encoder.as_flattened()),
            ("decoder", decoder.as_flattened()),
        ] {
            check::sizes("u2net", field, sizes, check::MOST_CHANNELS)?;
        }
        scope.whole(|scope| {
            let (mut left, mut channels) = (Vec::new(), in_channels);
            for (stage, &sizes) in encoder.iter().enumerate() {
                let name = format!("stage{}", stage + 1);
                let block = ResidualU::new(scope.at(&name), rank, stage, channels, sizes)?;
                channels = sizes[1];
                left.push((block, scope.stage(&name, channels, 1 << stage)?));
            }
            // The input channels of the side outputs, from the coarsest.
            let (mut right, mut at_sides) = (Vec::new(), vec![channels]);
            for (stage, &sizes) in (0..5).rev().zip(decoder) {
                let name = format!("stage{}d", stage + 1);
                let block = ResidualU::new(scope.at(&name), rank, stage, channels + encoder[stage][1], sizes)?;
                channels = sizes[1];
                at_sides.push(channels);
                right.push((block, scope.stage(&name, channels, 1 << stage)?));
            }
            let three = || Kernel::new(rank, 3).padding(1);
            let side = |(number, &channels): (usize, &usize)| {
                Conv::new(scope.at(format!("side{}", number + 1)), channels, classes, three())
            };
            let sides = at_sides.iter().rev().enumerate().map(side).collect::<Result<Vec<_>>>()?;
            let head = Conv::new(scope.at("outconv"), sides.len() * classes, classes, Kernel::new(rank, 1))?;
            Ok(Self { rank, sigmoid, pool: halving()?, encoder: left, decoder: right, sides, head })
        })
    }
}

impl Network for U2Net {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        check::smallest("u2net", image.shape(), self.rank, 1)?;
        let (mut x, mut skips) = (image.clone(), Vec::new());
        for (level, (block, stage)) in self.encoder.iter().enumerate() {
            if level > 0 {
                x = self.pool.forward(&x, pass)?;
            }
            x = pass.stage(*stage, block.forward(x, None, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        let mut sides = self.sides.iter().rev();
        let mut side = |x: &Var| sides.next().map(|side| side.forward(x, pass)).transpose();
        let mut maps: Vec<Var> = side(&x)?.into_iter().collect();
        for ((block, stage), skip) in self.decoder.iter().zip(skips.into_iter().rev()) {
            x = sized_like(&x, &skip)?;
            x = pass.stage(*stage, block.forward(x, Some(skip), pass)?)?;
            maps.extend(side(&x)?);
        }
        drop(x);
        let maps = maps.iter().rev().map(|map| sized_like(map, image)).collect::<Result<Vec<Var>>>()?;
        let main = self.head.forward(&Var::concat(&maps.iter().collect::<Vec<_>>(), 1)?, pass)?;
        let names = ["", "d1", "d2", "d3", "d4", "d5", "d6"];
        outputs::named(self.sigmoid, names.into_iter().zip(std::iter::once(main).chain(maps)))
    }
}
