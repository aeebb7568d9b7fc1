//! The layers that MONAI's smaller networks are made of: convolutions, residual units and transposed convolutions of one style.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Conv, Kernel, Module, Pass, Scope};

use super::{ActivationChoice, Adn, ConvAdn, NormChoice, saving::add};
use crate::{Sizes, check};

/// What all convolutions of a network have in common. Fields that are left out in JSON have MONAI's defaults.
///
/// ```
/// use tomograd_models::blocks::{ActivationChoice, ConvStyle, NormChoice};
/// let style = ConvStyle { activation: ActivationChoice::Relu, norm: NormChoice::Batch, ..ConvStyle::default() };
/// assert!(style.bias && style.dropout == 0.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConvStyle {
    /// The size of the kernels, odd numbers; 3 by default.
    pub kernel: Sizes,
    /// The activation; PReLU by default.
    pub activation: ActivationChoice,
    /// The norm; instance norm without weight and bias by default.
    pub norm: NormChoice,
    /// The probability with which an element is dropped in training; 0 by default.
    pub dropout: f64,
    /// Whether convolutions have a bias; they have by default.
    pub bias: bool,
}

impl Default for ConvStyle {
    fn default() -> Self {
        let (kernel, activation, norm) = (Sizes::All(3), ActivationChoice::Prelu, NormChoice::Instance);
        Self { kernel, activation, norm, dropout: 0.0, bias: true }
    }
}

/// The largest stride.
const MOST_STRIDE: usize = 1 << 10;
/// The most convolutions in a residual unit.
pub(crate) const MOST_UNITS: usize = 64;

impl ConvStyle {
    /// The layers of this style in the network that errors call `operation`, for `rank` axes.
    pub(crate) fn layers(&self, operation: &str, rank: usize) -> Result<Units> {
        check::sizes(operation, "rank", &[rank], 3)?;
        check::probability(operation, "style.dropout", self.dropout)?;
        let adn = Adn::new(self.norm, self.activation).dropout(self.dropout);
        Ok(Units::new(rank, self.kernel.odd(operation, "style.kernel", rank)?, self.bias, adn))
    }
}

/// The strides of each level after a check that there are as many as `channels`, with 1 level at least, and that `units`, the
/// number of convolutions of a residual unit, makes sense.
pub(crate) fn levels(
    operation: &str,
    rank: usize,
    channels: &[usize],
    strides: &[Sizes],
    units: usize,
) -> Result<Vec<Vec<usize>>> {
    check::length(operation, "channels", channels.len(), 1, check::MOST_LEVELS)?;
    check::sizes(operation, "channels", channels, check::MOST_CHANNELS)?;
    check::counts(operation, "residual_units", units, MOST_UNITS)?;
    checked_strides(operation, rank, strides, channels.len())
}

/// The strides along each of `rank` axes, after a check that there are `count` of them.
pub(crate) fn checked_strides(
    operation: &str,
    rank: usize,
    strides: &[Sizes],
    count: usize,
) -> Result<Vec<Vec<usize>>> {
    check::length(operation, "strides", strides.len(), count, count)?;
    let stride = |(at, sizes): (usize, &Sizes)| sizes.checked(operation, &format!("strides[{at}]"), rank, MOST_STRIDE);
    strides.iter().enumerate().map(stride).collect()
}

/// The size of an image behind layers of these strides, which round up.
pub(crate) fn size_behind(size: &[usize], strides: &[Vec<usize>]) -> Vec<usize> {
    let behind = |size: Vec<usize>, stride: &Vec<usize>| {
        size.iter().zip(stride).map(|(size, stride)| size.div_ceil(*stride)).collect()
    };
    strides.iter().fold(size.to_vec(), behind)
}

/// Makes layers of one [`ConvStyle`].
#[derive(Debug)]
pub(crate) struct Units {
    pub(crate) rank: usize,
    kernel: Vec<usize>,
    bias: bool,
    adn: Adn,
}

/// Where a layer is, and what it does besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) channels: [usize; 2],
    pub(crate) stride: &'a [usize],
    pub(crate) dilation: usize,
    /// Whether nothing stands behind the (last) convolution.
    pub(crate) bare: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn new(channels: [usize; 2], stride: &'a [usize]) -> Self {
        Self { channels, stride, dilation: 1, bare: false }
    }

    #[must_use]
    pub(crate) fn bare(self, bare: bool) -> Self {
        Self { bare, ..self }
    }

    #[must_use]
    pub(crate) fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }
}

impl Units {
    /// Layers with this odd size of kernels, and this behind each convolution.
    pub(crate) fn new(rank: usize, kernel: Vec<usize>, bias: bool, adn: Adn) -> Self {
        Self { rank, kernel, bias, adn }
    }

    /// A kernel whose padding keeps the size of the image but for the stride.
    fn same(&self, size: &[usize], stride: &[usize], dilation: usize) -> Kernel {
        let padding: Vec<usize> = size.iter().map(|size| size / 2 * dilation).collect();
        Kernel::new(self.rank, size).stride(stride).padding(padding).dilation(dilation).bias(self.bias)
    }

    fn adn(&self, bare: bool) -> Adn {
        if bare { Adn::none() } else { self.adn.clone() }
    }

    /// A residual unit of `units` convolutions, or with 0 a single convolution.
    pub(crate) fn layer(&self, scope: Scope<'_>, place: Place<'_>, units: usize) -> Result<Unit> {
        if units > 0 {
            return self.residual(scope, place, units);
        }
        let kernel = self.same(&self.kernel, place.stride, place.dilation);
        let [from, to] = place.channels;
        Ok(Unit { convs: vec![ConvAdn::new(scope, from, to, kernel, &self.adn(place.bare))?], shortcut: None })
    }

    /// A residual unit of `units` convolutions.
    pub(crate) fn residual(&self, mut scope: Scope<'_>, place: Place<'_>, units: usize) -> Result<Unit> {
        let (Place { channels: [from, to], stride, dilation, bare }, ones) = (place, vec![1; self.rank]);
        let mut convs = Vec::new();
        for unit in 0..units {
            let (from, stride) = if unit == 0 { (from, stride) } else { (to, &ones[..]) };
            let kernel = self.same(&self.kernel, stride, dilation);
            let adn = self.adn(bare && unit + 1 == units);
            convs.push(ConvAdn::new(scope.at(format!("conv.unit{unit}")), from, to, kernel, &adn)?);
        }
        let is_strided = stride.iter().any(|&stride| stride > 1);
        let shortcut = if is_strided || from != to {
            // A projection that only changes channels has a kernel of 1.
            let size = if is_strided { &self.kernel } else { &ones };
            Shortcut::Projection(Conv::new(scope.at("residual"), from, to, self.same(size, stride, 1))?)
        } else {
            Shortcut::Identity
        };
        Ok(Unit { convs, shortcut: Some(shortcut) })
    }

    /// A transposed convolution with a kernel of this (odd) size, which multiplies sizes by its stride.
    pub(crate) fn up(&self, scope: Scope<'_>, place: Place<'_>, size: &[usize]) -> Result<ConvAdn> {
        let rest: Vec<usize> = place.stride.iter().map(|stride| stride - 1).collect();
        let kernel = self.same(size, place.stride, 1).output_padding(rest);
        ConvAdn::transposed(scope, place.channels[0], place.channels[1], kernel, &self.adn(place.bare))
    }

    /// The size of the kernels.
    pub(crate) fn kernel(&self) -> &[usize] {
        &self.kernel
    }
}

#[derive(Debug)]
enum Shortcut {
    Identity,
    Projection(Conv),
}

/// A convolution, or a residual unit of several ([`ConvAdn`] each): MONAI's `Convolution` and `ResidualUnit`, whose state-dict
/// names are `conv.unit0`, … and `residual`.
#[derive(Debug)]
pub(crate) struct Unit {
    convs: Vec<ConvAdn>,
    shortcut: Option<Shortcut>,
}

impl Module for Unit {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let y = self.convs.iter().try_fold(x.clone(), |y, conv| conv.forward(&y, pass))?;
        match &self.shortcut {
            None => Ok(y),
            Some(Shortcut::Identity) => add(y, x),
            Some(Shortcut::Projection(conv)) => add(y, &conv.forward(x, pass)?),
        }
    }
}
