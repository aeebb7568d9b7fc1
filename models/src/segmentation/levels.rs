//! Kernel sizes, strides, norm and activation of U-Nets whose levels are given one by one (nnU-Net's kind).

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Kernel, check_activation,
    init::{Distribution, Fan, Init},
};

use super::fit;
use crate::{
    blocks::{ActivationChoice, NormChoice},
    check,
};

/// The function that a configuration's `activation` names.
pub(super) fn function(operation: &str, activation: ActivationChoice) -> Result<Activation> {
    let function = activation.function().ok_or_else(|| {
        Error::argument(operation, format!("activation is {activation:?}"))
            .expected("a function without learned numbers")
    })?;
    check_activation("activation", function).map_err(|error| error.within(operation))?;
    Ok(function)
}

/// The slope of the leaky ReLU for which weights are initialised.
const SLOPE: f64 = 0.01;

/// The kernel with nnU-Net's initialisation: He et al. 2015 for a leaky ReLU of slope 0.01, whatever the activation is;
/// biases are 0.
pub(super) fn he(kernel: Kernel, bias: bool) -> Kernel {
    let gain = (2.0 / (1.0 + SLOPE * SLOPE)).sqrt();
    let kernel = kernel.weight(Init::Scaled { gain, fan: Fan::In, distribution: Distribution::Normal });
    if bias { kernel.bias_filled(Init::Constant(0.0)) } else { kernel.bias(false) }
}

/// Checks that the groups of a configuration's `norm` divide these numbers of channels, which follow from `field`.
pub(super) fn check_norm(operation: &str, norm: NormChoice, field: &str, channels: &[usize]) -> Result<()> {
    let NormChoice::Group(groups) = norm else { return Ok(()) };
    if groups > 0 && channels.iter().all(|channels| channels.is_multiple_of(groups)) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("norm has {groups} groups, and {field} gives {channels:?} channels"))
        .expected("a number of groups that divides them"))
}

/// The widest kernel.
const WIDEST: usize = 63;
/// The largest stride.
const LARGEST_STRIDE: usize = 32;

/// What the levels of a configuration have in common.
pub(super) struct Levels<'a> {
    pub(super) operation: &'static str,
    pub(super) rank: usize,
    /// The names of the fields.
    pub(super) fields: [&'static str; 2],
    pub(super) kernels: &'a [Vec<usize>],
    pub(super) strides: &'a [Vec<usize>],
}

impl Levels<'_> {
    /// Checks the numbers: at least `least` levels, each with an odd kernel size and a stride for each axis.
    pub(super) fn check(&self, least: usize) -> Result<()> {
        let Self { operation, rank, .. } = *self;
        check::sizes(operation, "rank", &[rank], 3)?;
        let lists = [(self.kernels, WIDEST), (self.strides, LARGEST_STRIDE)];
        for (field, (lists, most)) in self.fields.into_iter().zip(lists) {
            check::length(operation, field, lists.len(), least, check::MOST_LEVELS)?;
            check::length(operation, field, lists.len(), self.strides.len(), self.strides.len())?;
            for (level, list) in lists.iter().enumerate() {
                let field = format!("{field}[{level}]");
                if list.len() != rank {
                    let what = format!("{field} has {} entries, and rank is {rank}", list.len());
                    return Err(Error::argument(operation, what).expected("one for each axis"));
                }
                check::sizes(operation, &field, list, most)?;
            }
        }
        let even = |kernel: &Vec<usize>| kernel.iter().any(|size| size.is_multiple_of(2));
        match self.kernels.iter().position(even) {
            None => Ok(()),
            Some(level) => {
                let what = format!("{}[{level}] is {:?}", self.fields[0], self.kernels[level]);
                Err(Error::argument(operation, what).expected("odd sizes, which keep the image in place"))
            }
        }
    }

    /// The factor by which each level is smaller than the input, along each axis.
    pub(super) fn reductions(&self) -> Vec<Vec<usize>> {
        let mut reduction = vec![1usize; self.rank];
        let next = |stride: &Vec<usize>| {
            reduction.iter_mut().zip(stride).for_each(|(all, stride)| *all = all.saturating_mul(*stride));
            reduction.clone()
        };
        self.strides.iter().map(next).collect()
    }
}

/// Checks the sizes of inputs: what a network keeps of its [`Levels`].
#[derive(Debug)]
pub(super) struct InputSizes {
    operation: &'static str,
    /// The product of all strides along each axis, and the number that divides the sizes after the first level.
    units: [Vec<usize>; 2],
    /// By what the first level divides a size along each axis, rounding down, and what it adds before.
    first: Vec<(usize, usize)>,
    /// Whether the coarsest level must have more than one voxel, as instance norm needs.
    several: bool,
}

impl InputSizes {
    /// `first(stride, kernel)`: the first level divides a size by the first of these numbers, after adding the second,
    /// and rounds down. The other strides must divide the result.
    pub(super) fn new(levels: &Levels<'_>, norm: NormChoice, first: impl Fn(usize, usize) -> (usize, usize)) -> Self {
        let Levels { operation, rank, kernels, strides, .. } = *levels;
        let all = levels.reductions().pop().unwrap_or_else(|| vec![1; rank]);
        let firsts = strides.first().into_iter().flatten().zip(kernels.first().into_iter().flatten());
        let first: Vec<(usize, usize)> = firsts.map(|(&stride, &kernel)| first(stride, kernel)).collect();
        let rest = all.iter().zip(&first).map(|(all, (divisor, _))| all / divisor).collect();
        Self {
            operation,
            units: [all, rest],
            first,
            several: matches!(norm, NormChoice::Instance | NormChoice::InstanceAffine),
        }
    }

    /// Checks that an input fits.
    pub(super) fn check(&self, x: &Var) -> Result<()> {
        let Self { operation, units: [all, rest], first, several } = self;
        let spatial = x.shape().get(2..).unwrap_or_default();
        let smaller = |(size, (divisor, added)): (&usize, &(usize, usize))| size.saturating_add(*added) / divisor;
        let sizes: Vec<usize> = spatial.iter().zip(first).map(smaller).collect();
        let fits = |(size, unit): (&usize, &usize)| *size > 0 && size.is_multiple_of(*unit);
        if spatial.len() != all.len() || !sizes.iter().zip(rest).all(fits) {
            let what = format!("(N, C, spatial...) with {} spatial axes, multiples of {all:?}", all.len());
            return Err(fit::refused(operation, x, what));
        }
        if *several && sizes == *rest {
            let what = format!("more than one voxel at the coarsest level: multiples of {all:?}, not all of them once");
            return Err(fit::refused(operation, x, what));
        }
        Ok(())
    }
}
