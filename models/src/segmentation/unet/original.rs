//! The U-Net of the paper, and its variants with padded convolutions and batch norm.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvTranspose, Dropout, Interpolation, Kernel, MaxPool, Module, Pass, Scope, Upsample,
    UpsampleOptions,
    init::{Fan, Init},
};

use super::{Fit, Layers, Level, Up, check as check_common, fit};
use crate::{
    blocks::{DoubleConvOptions, NormChoice},
    check,
    config::{Card, Config, Preset, Task},
};

/// The upsampling of a [`UNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UNetUpsampling {
    /// A transposed convolution of size and stride 2, which halves the channels.
    Transposed,
    /// (Bi-, tri-)linear interpolation with aligned corners. Channels are halved by the blocks before it, so the coarsest
    /// level has half its width.
    Linear,
}

/// The configuration of a [`UNet`].
///
/// ```
/// use tomograd_models::{UNetConfig, registry::Config};
/// let paper = UNetConfig::preset("unet_2015")?;
/// let volumes = UNetConfig { rank: 3, widths: vec![16, 32, 64], ..paper };
/// assert!(!volumes.padded);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "unet")]
pub struct UNetConfig {
    /// The number of spatial axes.
    #[serde(default = "UNetConfig::two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    #[serde(default = "UNetConfig::widths")]
    pub widths: Vec<usize>,
    /// Whether convolutions are padded with zeros. If they aren't, the output is smaller than the input: it has the voxels
    /// whose whole surroundings are in the image.
    #[serde(default = "UNetConfig::yes")]
    pub padded: bool,
    /// The norm after each 3-wide convolution.
    #[serde(default = "UNetConfig::batch")]
    pub norm: NormChoice,
    /// Whether 3-wide convolutions have a bias even if a norm follows them.
    #[serde(default)]
    pub bias: bool,
    /// The upsampling.
    #[serde(default = "UNetConfig::transposed")]
    pub upsampling: UNetUpsampling,
    /// The probability with which an element of the two coarsest levels of the encoder is dropped in training.
    #[serde(default)]
    pub dropout: f64,
}

impl UNetConfig {
    /// Pytorch-UNet's: 2D, widths 64, 128, 256, 512, 1024, padded, batch norm, transposed convolutions.
    pub fn new(in_channels: usize, classes: usize) -> Self {
        Self {
            rank: Self::two(),
            in_channels,
            classes,
            widths: Self::widths(),
            padded: Self::yes(),
            norm: Self::batch(),
            bias: false,
            upsampling: Self::transposed(),
            dropout: 0.0,
        }
    }

    fn two() -> usize {
        2
    }

    fn widths() -> Vec<usize> {
        vec![64, 128, 256, 512, 1024]
    }

    fn yes() -> bool {
        true
    }

    fn batch() -> NormChoice {
        NormChoice::Batch
    }

    fn transposed() -> UNetUpsampling {
        UNetUpsampling::Transposed
    }

    fn check(&self) -> Result<()> {
        check::sizes("unet", "rank", &[self.rank], 3)?;
        check_common(self.in_channels, self.classes, &self.widths)?;
        check::probability("unet", "dropout", self.dropout)?;
        // The inner levels have half their width behind linear upsampling; a transposed convolution gives half of it.
        if let Some(at) = self.widths.iter().skip(1).position(|width| width % 2 == 1) {
            return Err(Error::argument("unet", format!("widths[{}] is {}", at + 1, self.widths[at + 1]))
                .expected("an even number at all levels but the finest"));
        }
        Ok(())
    }
}

impl Config for UNetConfig {
    type Network = UNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "U-Net: the original one with unpadded convolutions, and Pytorch-UNet with padding and batch norm",
        source: "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, \
                 arXiv:1505.04597",
        code: Some("https://github.com/milesial/Pytorch-UNet"),
        weights_licence: Some("GPL-3.0 (Pytorch-UNet), trained on photographs of cars (Carvana)"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let padded = Self::new(3, 2);
        let paper = Self { padded: false, norm: NormChoice::None, bias: true, dropout: 0.5, ..Self::new(1, 2) };
        let bilinear = Self { upsampling: UNetUpsampling::Linear, ..padded.clone() };
        vec![
            Preset::new("unet_2015", paper),
            Preset::new("pytorch_unet", padded),
            Preset::new("pytorch_unet_bilinear", bilinear),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<UNet> {
        UNet::new(scope, self)
    }
}

/// The U-Net of Ronneberger et al. (2015), and Pytorch-UNet, its common variant: two 3-wide convolutions at each level, 2×
/// max pooling between levels; the decoder upsamples, concatenates the encoder's map before the upsampled one and convolves
/// twice again.
///
/// Input (N, C, spatial...), output (N, classes, spatial...). Padded networks take any size of at least 2^(levels − 1) and
/// give logits of the same size; where pooling drops a voxel, zeros are added in the decoder. Unpadded ones crop the encoder's
/// map to the middle; with five levels they take sizes 188, 204, 220, ..., 572, ... and give 184 voxels less.
///
/// Weights start as in PyTorch; without norms as in the paper, with a standard deviation of √(2 / fan_in).
///
/// State-dict names are Pytorch-UNet's: `inc.double_conv.0` (convolution), `inc.double_conv.1` (its norm), `.3`, `.4` (the
/// second ones; without a norm `.0`, `.2`), `down1.maxpool_conv.1.double_conv.0`, …, `up1.up` (transposed convolution),
/// `up1.conv.double_conv.0`, …, `outc.conv`. Stages: `inc`, `down1`, …, `up1`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, UNetConfig};
/// let config = UNetConfig { widths: vec![4, 8, 16], ..UNetConfig::new(1, 2) };
/// let image = |size: usize| Tensor::zeros(&[1, 1, size, 46], DType::F32, Device::Cpu);
/// assert_eq!(Model::new(&config, Device::Cpu, Seed::new(1))?.predict(&image(45)?)?.shape(), [1, 2, 45, 46]);
/// let unpadded = Model::new(&UNetConfig { padded: false, ..config }, Device::Cpu, Seed::new(1))?;
/// assert!(unpadded.predict(&image(45)?).unwrap_err().to_string().contains("44 or 48, not 45"));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UNet(Layers);

impl UNet {
    fn new(mut scope: Scope<'_>, config: &UNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Ok(Self(layers(scope, config)?)))
    }
}

impl Module for UNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.0.forward(x, pass)
    }
}

fn layers(scope: &mut Scope<'_>, config: &UNetConfig) -> Result<Layers> {
    let UNetConfig { rank, ref widths, padded, dropout, .. } = *config;
    let activation = Activation::Relu;
    let options = match config.norm.options() {
        Some(norm) => DoubleConvOptions::new(rank, norm, activation).bias(config.bias),
        // Without norms the scale of the weights matters: the paper's.
        None => DoubleConvOptions::without_norm(rank, activation).weight(Init::kaiming_normal(Fan::In)),
    };
    let options = options.padding(usize::from(padded));
    let last = widths.len() - 1;
    let linear = config.upsampling == UNetUpsampling::Linear;
    let (mut encoder, mut channels) = (Vec::new(), config.in_channels);
    for (depth, &width) in widths.iter().enumerate() {
        let width = if linear && depth == last && depth > 0 { width / 2 } else { width };
        let (name, inner) = match depth {
            0 => ("inc".to_owned(), "double_conv"),
            _ => (format!("down{depth}"), "maxpool_conv.1.double_conv"),
        };
        let mut level = level(scope, &name, inner, [channels, width], depth, options)?;
        if dropout != 0.0 && depth + 2 > last {
            level.dropout = Some(Dropout::new(scope.at(&name), dropout)?);
        }
        encoder.push(level);
        channels = width;
    }
    let (mut up, mut decoder) = (Vec::new(), Vec::new());
    for (place, depth) in (0..last).rev().enumerate() {
        let name = format!("up{}", place + 1);
        let skip = widths[depth];
        let (grown, width, options) = if linear {
            let upsample = Upsample::new(UpsampleOptions::new(2).mode(Interpolation::LinearCorners))?;
            up.push(Up::Linear(upsample));
            let width = if depth > 0 { skip / 2 } else { skip };
            (channels, width, options.middle((skip + channels) / 2))
        } else {
            let grown = channels / 2;
            let kernel = Kernel::new(rank, 2).stride(2);
            let kernel = match config.norm {
                // Each voxel of the output comes from one voxel.
                NormChoice::None => kernel.weight(Init::KaimingNormal(channels)),
                _ => kernel,
            };
            up.push(Up::Transposed(ConvTranspose::new(scope.at(&name).at("up"), channels, grown, kernel)?));
            (grown, skip, options)
        };
        decoder.push(level(scope, &name, "conv.double_conv", [skip + grown, width], depth, options)?);
        channels = width;
    }
    let head = Conv::new(scope.at("outc.conv"), channels, config.classes, Kernel::new(rank, 1))?;
    let fit = if padded { Fit::Pad } else { Fit::Crop };
    Ok(Layers { rank, skip_first: true, fit, pool: Some(MaxPool::new(2)?), encoder, up, decoder, head })
}

/// The level called `name`, whose convolutions are in `inner`.
fn level(
    scope: &mut Scope<'_>,
    name: &str,
    inner: &str,
    channels: [usize; 2],
    depth: usize,
    options: DoubleConvOptions,
) -> Result<Level> {
    let block = crate::blocks::DoubleConv::new(scope.at(name).at(inner), channels[0], channels[1], options)?;
    Ok(Level { block, dropout: None, stage: scope.stage(name, channels[1], 1 << depth)? })
}

/// The output size of an unpadded U-Net of this many levels below the first, if it takes images of `size` voxels along an axis.
fn unpadded_output(size: usize, levels: usize) -> Option<usize> {
    let convolved = |size: usize| size.checked_sub(4).filter(|&size| size > 0);
    let mut size = convolved(size)?;
    for _ in 0..levels {
        size = convolved(Some(size).filter(|size| size % 2 == 0)? / 2)?;
    }
    (0..levels).try_fold(size, |size, _| convolved(2 * size))
}

/// Checks the input of an unpadded U-Net.
pub(super) fn check_unpadded(x: &Var, rank: usize, levels: usize) -> Result<()> {
    if x.rank() != rank + 2 {
        return Err(fit::refused("unet", x, format_args!("(N, C, spatial...) with {rank} spatial axes")));
    }
    let Some(&wrong) = x.shape()[2..].iter().find(|&&size| unpadded_output(size, levels).is_none()) else {
        return Ok(());
    };
    // Sizes that fit are as many voxels apart as one of the coarsest level stands for; there, 8 are always enough.
    let unit = 1usize << levels;
    let of_coarsest = |size: usize| unit * size + 4 * (unit - 1);
    let fits = |&size: &usize| unpadded_output(size, levels).is_some();
    let least = (5..8).map(of_coarsest).find(fits).unwrap_or(of_coarsest(8));
    let expected = match wrong.checked_sub(least) {
        None => format!("at least {least}, not {wrong}"),
        Some(over) => {
            let below = least + over / unit * unit;
            format!("{below} or {}, not {wrong}", below.saturating_add(unit))
        }
    };
    Err(fit::refused("unet", x, format_args!("for {levels} levels of unpadded convolutions axes of {expected}")))
}

#[cfg(test)]
mod tests {
    use super::unpadded_output;

    #[test]
    fn unpadded_sizes_are_those_of_the_paper() {
        assert_eq!(unpadded_output(572, 4), Some(388));
        assert_eq!(unpadded_output(188, 4), Some(4));
        for size in 0..400 {
            let fits = size >= 188 && (size - 188) % 16 == 0;
            assert_eq!(unpadded_output(size, 4), fits.then(|| size - 184), "{size}");
        }
        assert_eq!((unpadded_output(5, 0), unpadded_output(4, 0)), (Some(1), None));
        for levels in 3..24 {
            let unit = 1usize << levels;
            assert_eq!(unpadded_output(12 * unit - 4, levels), Some(4), "{levels}");
            assert_eq!(unpadded_output(11 * unit - 4, levels), None, "{levels}");
        }
    }
}
