//! Kernel sizes, strides, norm and activation of U-Nets whose levels are given one by one (nnU-Net's kind).

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result};
use tomograd_nn::{Activation, NormKind, NormOptions};

use crate::check;

/// The norm after each convolution of a [`DynUNet`](crate::DynUNet) or [`NnUNet`](crate::NnUNet).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelNorm {
    /// Instance norm.
    #[default]
    Instance,
    /// Batch norm.
    Batch,
    /// Group norm with this number of groups.
    Group(usize),
    /// No norm.
    None,
}

impl LevelNorm {
    pub(super) fn options(self, affine: bool, epsilon: f64) -> Option<NormOptions> {
        let kind = match self {
            Self::Instance => NormKind::Instance,
            Self::Batch => NormKind::Batch,
            Self::Group(groups) => NormKind::Group(groups),
            Self::None => return None,
        };
        Some(NormOptions::new(kind).affine(affine).epsilon(epsilon))
    }
}

/// The leaky ReLU of this slope; 0 is a ReLU.
pub(super) fn leaky(slope: f64) -> Activation {
    if slope == 0.0 { Activation::Relu } else { Activation::LeakyRelu(slope) }
}

/// With more levels, an image of 2^(levels − 1) voxels along an axis would be larger than any.
pub(super) const MOST_LEVELS: usize = 24;
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
            check::length(operation, field, lists.len(), least, MOST_LEVELS)?;
            check::length(operation, field, lists.len(), self.strides.len(), self.strides.len())?;
            for (level, list) in lists.iter().enumerate() {
                let field = format!("{field}[{level}]");
                check::length(operation, &field, list.len(), rank, rank)?;
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

    /// Checks that the slope of the leaky ReLU and the ε of the norm are sensible.
    pub(super) fn check_numbers(&self, slope: f64, epsilon: f64) -> Result<()> {
        for (field, number, least, most) in
            [("negative_slope", slope, -1000.0, 1000.0), ("norm_epsilon", epsilon, 1e-12, 1000.0)]
        {
            if !(least..=most).contains(&number) {
                return Err(Error::argument(self.operation, format!("{field} is {number:?}"))
                    .expected(format!("a number from {least:?} to {most:?}")));
            }
        }
        Ok(())
    }

    /// Checks that the groups of the norm divide these numbers of channels.
    pub(super) fn check_norm(&self, norm: LevelNorm, channels: &[usize]) -> Result<()> {
        let LevelNorm::Group(groups) = norm else { return Ok(()) };
        if groups > 0 && channels.iter().all(|channels| channels.is_multiple_of(groups)) {
            return Ok(());
        }
        Err(Error::argument(self.operation, format!("norm has {groups} groups, and the levels {channels:?} channels"))
            .expected("a number of groups that divides them"))
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
    /// `first(stride, kernel)`: the first level divides a size by the first of these numbers, after adding the second, and rounds
    /// down. The other strides must divide the result.
    pub(super) fn new(levels: &Levels<'_>, norm: LevelNorm, first: impl Fn(usize, usize) -> (usize, usize)) -> Self {
        let Levels { operation, rank, kernels, strides, .. } = *levels;
        let all = levels.reductions().pop().unwrap_or_else(|| vec![1; rank]);
        let firsts = strides.first().into_iter().flatten().zip(kernels.first().into_iter().flatten());
        let first: Vec<(usize, usize)> = firsts.map(|(&stride, &kernel)| first(stride, kernel)).collect();
        let rest = all.iter().zip(&first).map(|(all, (divisor, _))| all / divisor).collect();
        Self { operation, units: [all, rest], first, several: norm == LevelNorm::Instance }
    }

    /// Checks that the shape of an input fits.
    pub(super) fn check(&self, shape: &[usize]) -> Result<()> {
        let Self { operation, units: [all, rest], first, several } = self;
        let spatial = shape.get(2..).unwrap_or_default();
        let smaller = |(size, (divisor, added)): (&usize, &(usize, usize))| size.saturating_add(*added) / divisor;
        let sizes: Vec<usize> = spatial.iter().zip(first).map(smaller).collect();
        let fits = |(size, unit): (&usize, &usize)| *size > 0 && size.is_multiple_of(*unit);
        if spatial.len() != all.len() || !sizes.iter().zip(rest).all(fits) {
            return Err(check::misfit(operation, shape, all));
        }
        if *several && sizes == *rest {
            return Err(Error::shape(*operation, "the coarsest level has one voxel, whose norm would be 0")
                .expected(format!("a size along one axis of twice that at least; sizes are multiples of {all:?}"))
                .shapes([shape]));
        }
        Ok(())
    }
}
