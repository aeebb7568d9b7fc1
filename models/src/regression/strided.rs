//! The networks that condense an image into a few numbers: MONAI's `Regressor`, on which its `Classifier`, `Discriminator` and
//! `Critic` are based.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{Linear, Module, Pass, Scope, Stage};

use crate::{
    Sizes,
    blocks::{ConvStyle, Place, Unit, levels, size_behind},
    check,
};

/// The fields of such a network's configuration.
pub(crate) struct Fields<'a> {
    pub(crate) operation: &'static str,
    pub(crate) in_channels: usize,
    pub(crate) size: &'a [usize],
    pub(crate) channels: &'a [usize],
    pub(crate) strides: &'a [Sizes],
    pub(crate) residual_units: usize,
    pub(crate) style: &'a ConvStyle,
}

/// Strided layers, `net.layer_0`, …, and the linear layer `final.1` if it has outputs. Input (N, C, spatial...), output (N,
/// outputs), or without the linear layer (N, numbers).
#[derive(Debug)]
pub(crate) struct Strided {
    operation: &'static str,
    input: Vec<usize>,
    layers: Vec<(Unit, Stage)>,
    last: Option<Linear>,
}

impl Strided {
    pub(crate) fn new(scope: &mut Scope<'_>, fields: &Fields<'_>, outputs: Option<usize>) -> Result<Self> {
        let Fields { operation, in_channels, size, channels, residual_units, style, .. } = *fields;
        check::length(operation, "size", size.len(), 1, 3)?;
        check::sizes(operation, "size", size, check::MOST_CHANNELS)?;
        check::sizes(operation, "in_channels", &[in_channels], check::MOST_CHANNELS)?;
        let units = style.layers(operation, size.len())?;
        let strides = levels(operation, size.len(), channels, fields.strides, residual_units)?;
        let mut condensed = size_behind(size, &strides);
        condensed.extend(channels.last());
        let flat = check::product(operation, "the numbers behind the layers, of size and channels,", &condensed)?;
        let (mut from, mut reduction, mut layers) = (in_channels, vec![1usize; size.len()], Vec::new());
        for (layer, (&to, stride)) in channels.iter().zip(&strides).enumerate() {
            let place = Place::new([from, to], stride).bare(layer + 1 == channels.len());
            let unit = units.layer(scope.at(format!("net.layer_{layer}")), place, residual_units)?;
            reduction.iter_mut().zip(stride).for_each(|(all, stride)| *all = all.saturating_mul(*stride));
            layers.push((unit, scope.stage(&format!("layer_{layer}"), to, &reduction[..])?));
            from = to;
        }
        let last = outputs.map(|outputs| Linear::new(scope.at("final.1"), flat, outputs)).transpose()?;
        Ok(Self { operation, input: [&[in_channels], size].concat(), layers, last })
    }
}

impl Module for Strided {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::image_shape(self.operation, x.shape(), &self.input)?;
        let mut x = x.clone();
        for (unit, stage) in &self.layers {
            x = pass.stage(*stage, unit.forward(&x, pass)?)?;
        }
        let flat = x.flatten(1..)?;
        self.last.as_ref().map_or(Ok(flat.clone()), |last| last.forward(&flat, pass))
    }
}
