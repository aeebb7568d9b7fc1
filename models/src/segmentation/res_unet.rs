//! Residual U-Net.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Kernel, Module, Named, Network, Norm, NormKind, NormOptions,
    Pass, Scope, Stage,
};

use super::{fit, outputs};
use crate::{
    blocks::{conv_norm, saving::add},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`ResUNet`].
///
/// ```
/// use tomograd_models::ResUNetConfig;
/// let config = ResUNetConfig { in_channels: 1, widths: vec![16, 32, 64], sigmoid: false, ..ResUNetConfig::new(2) };
/// assert_eq!(config.classes, 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "res_unet")]
pub struct ResUNetConfig {
    /// The number of spatial axes.
    #[serde(default = "ResUNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of output maps; one in the original.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    #[serde(default = "ResUNetConfig::original_widths")]
    pub widths: Vec<usize>,
    /// Whether the outputs are probabilities (a sigmoid of each map), as those of the original, instead of logits, which
    /// losses and predictions here need.
    #[serde(default = "ResUNetConfig::yes")]
    pub sigmoid: bool,
}

impl ResUNetConfig {
    /// The original's network: 2D, three input channels, widths 64, 128, 256, 512, probabilities.
    pub fn new(classes: usize) -> Self {
        Self { rank: 2, in_channels: 3, classes, widths: Self::original_widths(), sigmoid: true }
    }

    fn original_widths() -> Vec<usize> {
        vec![64, 128, 256, 512]
    }

    fn two() -> usize {
        2
    }

    fn yes() -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        check::sizes("res_unet", "rank", &[self.rank], 3)?;
        check::length("res_unet", "widths", self.widths.len(), 2, check::MOST_LEVELS)?;
        for (field, sizes) in
            [("in_channels", &[self.in_channels][..]), ("classes", &[self.classes]), ("widths", &self.widths)]
        {
            check::sizes("res_unet", field, sizes, check::MOST_CHANNELS)?;
        }
        Ok(())
    }
}

impl Config for ResUNetConfig {
    type Network = ResUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "a U-Net of pre-activated residual blocks with strided convolutions",
        source: "Zhang, Liu, Wang: Road Extraction by Deep Residual U-Net, 2018, arXiv:1711.10684",
        code: Some("https://github.com/rishikksh20/ResUnet"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![Preset::new("res_unet", Self::new(1))]
    }

    fn build(&self, scope: Scope<'_>) -> Result<ResUNet> {
        ResUNet::new(scope, self)
    }
}

/// A residual block: (norm → ReLU → convolution) twice, the first with the stride, plus a strided convolution with a norm.
#[derive(Debug)]
struct Residual {
    norm: Norm,
    first: ConvNormActivation,
    second: Conv,
    shortcut: ConvNormActivation,
    stage: Stage,
}

impl Residual {
    /// The block called `name`, whose feature map is downsampled by 2^`depth` along each axis.
    fn new(
        scope: &mut Scope<'_>,
        name: &str,
        rank: usize,
        [in_channels, channels]: [usize; 2],
        stride: usize,
        depth: usize,
    ) -> Result<Self> {
        let mut block = scope.at(name);
        let mut main = block.at("conv_block");
        let three = |stride: usize| Kernel::new(rank, 3).stride(stride).padding(1);
        let (plain, relu) = (NormOptions::new(NormKind::Batch), Activation::Relu);
        let norm = Norm::new(main.at(0), in_channels, plain.activation(relu))?;
        let first = conv_norm(&mut main, ["2", "3"], [in_channels, channels], three(stride), plain.activation(relu))?;
        let second = Conv::new(main.at(5), channels, channels, three(1))?;
        let mut side = block.at("conv_skip");
        let shortcut = conv_norm(&mut side, ["0", "1"], [in_channels, channels], three(stride), plain)?;
        Ok(Self { norm, first, second, shortcut, stage: scope.stage(name, channels, 1 << depth)? })
    }

    fn forward(&self, x: Var, pass: &Pass) -> Result<Var> {
        let shortcut = self.shortcut.forward(&x, pass)?;
        let mut y = self.norm.forward(&x, pass)?;
        drop(x);
        y = self.first.forward(&y, pass)?;
        y = self.second.forward(&y, pass)?;
        pass.stage(self.stage, add(y, &shortcut)?)
    }
}

/// The residual U-Net (Zhang et al. 2018, as in its common PyTorch version): pre-activated residual blocks, downsampling by
/// strided convolutions, upsampling by transposed ones, skip connections by concatenation. Input (N, C, spatial...), sizes
/// multiples of 2^(levels − 1), 8 in the original; output (N, classes, spatial...): `probabilities`, or `logits` if the
/// configuration's `sigmoid` is false.
///
/// State-dict names are those of the original: `input_layer.0`, `input_layer.1` (norm), `input_layer.3`, `input_skip.0`,
/// `residual_conv_1.conv_block.0` (norm), `residual_conv_1.conv_block.2`, …, `residual_conv_1.conv_skip.0`, …, `bridge.…`,
/// `upsample_1.upsample`, `up_residual_conv1.…`, …, `output_layer.0`. Stages: `input`, `residual_conv_1`, …, `bridge`, each half
/// the size of the previous one, and `up_residual_conv1`, … of the decoder.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, ResUNetConfig};
/// let config = ResUNetConfig { rank: 3, in_channels: 1, widths: vec![2, 3, 4], sigmoid: false, ..ResUNetConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 8, 4, 12], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2, 8, 4, 12]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ResUNet {
    rank: usize,
    sigmoid: bool,
    input: (ConvNormActivation, Conv, Conv),
    stage: Stage,
    encoder: Vec<Residual>,
    decoder: Vec<(ConvTranspose, Residual)>,
    head: Conv,
}

impl ResUNet {
    fn new(mut scope: Scope<'_>, config: &ResUNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &ResUNetConfig) -> Result<Self> {
        let ResUNetConfig { rank, in_channels, classes, ref widths, sigmoid } = *config;
        let three = || Kernel::new(rank, 3).padding(1);
        let relu = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
        let (finest, last) = (widths[0], widths.len() - 1);
        let first = conv_norm(&mut scope.at("input_layer"), ["0", "1"], [in_channels, finest], three(), relu)?;
        let second = Conv::new(scope.at("input_layer").at(3), finest, finest, three())?;
        let shortcut = Conv::new(scope.at("input_skip").at(0), in_channels, finest, three())?;
        let stage = scope.stage("input", finest, 1)?;
        let mut encoder = Vec::new();
        for (depth, pair) in (1..).zip(widths.windows(2)) {
            let name = if depth == last { "bridge".to_owned() } else { format!("residual_conv_{depth}") };
            encoder.push(Residual::new(scope, &name, rank, [pair[0], pair[1]], 2, depth)?);
        }
        let mut decoder = Vec::new();
        for (number, depth) in (1..).zip((0..last).rev()) {
            let (coarse, fine) = (widths[depth + 1], widths[depth]);
            let mut place = scope.at(format!("upsample_{number}"));
            let up = ConvTranspose::new(place.at("upsample"), coarse, coarse, Kernel::new(rank, 2).stride(2))?;
            let name = format!("up_residual_conv{number}");
            decoder.push((up, Residual::new(scope, &name, rank, [coarse + fine, fine], 1, depth)?));
        }
        let head = Conv::new(scope.at("output_layer").at(0), finest, classes, Kernel::new(rank, 1))?;
        Ok(Self { rank, sigmoid, input: (first, second, shortcut), stage, encoder, decoder, head })
    }
}

impl Network for ResUNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let image = inputs.get("image")?;
        fit::multiples("res_unet", image, &vec![1 << self.encoder.len(); self.rank])?;
        let (first, second, shortcut) = &self.input;
        let mut x = second.forward(&first.forward(image, pass)?, pass)?;
        x = pass.stage(self.stage, add(x, &shortcut.forward(image, pass)?)?)?;
        let mut skips = Vec::new();
        for block in &self.encoder {
            skips.push(x.clone());
            x = block.forward(x, pass)?;
        }
        for ((up, block), skip) in self.decoder.iter().zip(skips.into_iter().rev()) {
            x = up.forward(&x, pass)?;
            x = Var::concat(&[&x, &skip], 1)?;
            drop(skip);
            x = block.forward(x, pass)?;
        }
        outputs::named(self.sigmoid, [("", self.head.forward(&x, pass)?)])
    }
}
