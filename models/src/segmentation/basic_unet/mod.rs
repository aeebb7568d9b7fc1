//! MONAI's BasicUNet and BasicUNetPlusPlus, and the blocks that both have.

mod plain;
mod plus_plus;

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_kernels::index::PadMode;
use tomograd_nn::{
    Conv, ConvTranspose, Interpolation, Kernel, MaxPool, Module, Pass, Scope, Upsample, UpsampleOptions,
};

pub use plain::{BasicUNet, BasicUNetConfig};
pub use plus_plus::{BasicUNetPlusPlus, BasicUNetPlusPlusConfig};

use super::fit;
use crate::{
    blocks::{ActivationChoice, Adn, ConvAdn, NormChoice, SubpixelUpsample},
    check,
};

/// The upsampling of a [`BasicUNet`] or [`BasicUNetPlusPlus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BasicUpsampling {
    /// A transposed convolution of size and stride 2.
    Deconv,
    /// A convolution of width 1 that changes the channels (if they change), then linear interpolation with aligned corners.
    Nontrainable,
    /// A convolution that makes the voxels of the larger map as channels, and smoothing.
    Pixelshuffle,
}

/// The number of levels, which the original fixes.
const LEVELS: usize = 5;
/// The smallest size of an image: each pooling halves it.
const LEAST: usize = 1 << (LEVELS - 1);

/// The checked numbers that both networks have.
struct Plan {
    rank: usize,
    features: [usize; LEVELS + 1],
    adn: Adn,
    bias: bool,
    upsampling: BasicUpsampling,
}

/// The fields that both configurations have, to be checked.
struct Fields<'a> {
    operation: &'static str,
    rank: usize,
    in_channels: usize,
    classes: usize,
    features: &'a [usize],
    activation: ActivationChoice,
    norm: NormChoice,
    bias: bool,
    dropout: f64,
    upsampling: BasicUpsampling,
}

impl Fields<'_> {
    fn plan(&self) -> Result<Plan> {
        let name = self.operation;
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes(name, "classes", &[self.classes], check::MOST_CHANNELS)?;
        check::length(name, "features", self.features.len(), LEVELS + 1, LEVELS + 1)?;
        check::sizes(name, "features", self.features, check::MOST_CHANNELS)?;
        let features: [usize; LEVELS + 1] = std::array::from_fn(|at| self.features[at]);
        // Upsampling from these levels halves the channels.
        if let Some(at) = (2..LEVELS).find(|&at| features[at] < 2) {
            return Err(Error::argument(name, format!("features[{at}] is {}", features[at])).expected("2 at least"));
        }
        check::probability(name, "dropout", self.dropout)?;
        let adn = Adn::new(self.norm, self.activation).dropout(self.dropout);
        Ok(Plan { rank: self.rank, features, adn, bias: self.bias, upsampling: self.upsampling })
    }
}

fn default_features() -> Vec<usize> {
    vec![32, 32, 64, 128, 256, 32]
}

fn default_activation() -> ActivationChoice {
    ActivationChoice::LeakyRelu(0.1)
}

fn default_norm() -> NormChoice {
    NormChoice::InstanceAffine
}

fn default_upsampling() -> BasicUpsampling {
    BasicUpsampling::Deconv
}

fn three() -> usize {
    3
}

fn two() -> usize {
    2
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// Two 3-wide convolutions: `conv_0`, `conv_1`.
#[derive(Debug)]
struct TwoConv(ConvAdn, ConvAdn);

impl TwoConv {
    fn new(mut scope: Scope<'_>, plan: &Plan, from: usize, to: usize) -> Result<Self> {
        let kernel = || Kernel::new(plan.rank, 3).padding(1).bias(plan.bias);
        let first = ConvAdn::new(scope.at("conv_0"), from, to, kernel(), &plan.adn)?;
        Ok(Self(first, ConvAdn::new(scope.at("conv_1"), to, to, kernel(), &plan.adn)?))
    }
}

impl Module for TwoConv {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.1.forward(&self.0.forward(x, pass)?, pass)
    }
}

/// 2× max pooling and two convolutions: `convs`.
#[derive(Debug)]
struct Down(MaxPool, TwoConv);

impl Down {
    fn new(mut scope: Scope<'_>, plan: &Plan, from: usize, to: usize) -> Result<Self> {
        Ok(Self(MaxPool::new(2)?, TwoConv::new(scope.at("convs"), plan, from, to)?))
    }
}

impl Module for Down {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.1.forward(&self.0.forward(x, pass)?, pass)
    }
}

/// Upsampling by 2 (`upsample`), concatenation behind a map of the finer level, and two convolutions (`convs`).
#[derive(Debug)]
struct UpCat {
    up: Up,
    convs: TwoConv,
}

/// Upsampling by 2.
#[derive(Debug)]
enum Up {
    Deconv(ConvTranspose),
    /// With the convolution that changes the channels, if they change.
    Nontrainable(Option<Conv>, Upsample),
    Pixelshuffle(SubpixelUpsample),
}

impl Up {
    fn new(mut scope: Scope<'_>, plan: &Plan, from: usize, to: usize) -> Result<Self> {
        let rank = plan.rank;
        Ok(match plan.upsampling {
            BasicUpsampling::Deconv => {
                Self::Deconv(ConvTranspose::new(scope.at("deconv"), from, to, Kernel::new(rank, 2).stride(2))?)
            }
            BasicUpsampling::Nontrainable => {
                let narrow = || Conv::new(scope.at("preconv"), from, to, Kernel::new(rank, 1));
                let narrow = (from != to).then(narrow).transpose()?;
                let linear = UpsampleOptions::new(2).mode(Interpolation::LinearCorners);
                Self::Nontrainable(narrow, Upsample::new(linear)?)
            }
            BasicUpsampling::Pixelshuffle => {
                Self::Pixelshuffle(SubpixelUpsample::new(scope.at("pixelshuffle"), rank, from, to)?)
            }
        })
    }
}

impl Module for Up {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Deconv(layer) => layer.forward(x, pass),
            Self::Nontrainable(Some(narrow), up) => up.forward(&narrow.forward(x, pass)?, pass),
            Self::Nontrainable(None, up) => up.forward(x, pass),
            Self::Pixelshuffle(layer) => layer.forward(x, pass),
        }
    }
}

/// The channels of an [`UpCat`]: those of the coarse map, of the finer level's map, and of the output.
struct UpCatChannels {
    coarse: usize,
    fine: usize,
    out: usize,
    /// Whether upsampling halves the channels.
    halves: bool,
}

impl UpCat {
    fn new(mut scope: Scope<'_>, plan: &Plan, channels: UpCatChannels) -> Result<Self> {
        let UpCatChannels { coarse, fine, out, halves } = channels;
        let grown = if halves { coarse / 2 } else { coarse };
        let up = Up::new(scope.at("upsample"), plan, coarse, grown)?;
        Ok(Self { up, convs: TwoConv::new(scope.at("convs"), plan, fine + grown, out)? })
    }

    fn forward(&self, coarse: Var, fine: Var, pass: &Pass) -> Result<Var> {
        let grown = self.up.forward(&coarse, pass)?;
        drop(coarse);
        // Where the finer map has an odd size, the last voxel is repeated.
        let grown = fit::padded(grown, &fine.shape()[2..], PadMode::Replicate)?;
        let joined = self.convs.0.forward_two(fine, grown, pass)?;
        self.convs.1.forward(&joined, pass)
    }
}
