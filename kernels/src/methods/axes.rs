//! The axes on which a method works.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo};

use tomograd_core::{Error, Result};

/// Axes of an operand, and whether they stay with size 1 after a reduction ([`keep`]) or are removed from the shape.
///
/// Methods accept every type that converts to `Axes`: all axes (`..`), those from the third on (`2..`), one (`1`), or several
/// (`[0, 2]`, a slice, a `Vec`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axes {
    which: Which,
    kept: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    These(Vec<usize>),
    /// From the first axis to the one before the second, or to the last axis.
    Range(usize, Option<usize>),
}

/// These axes, to be kept with size 1: `x.mean(keep(2..))` of (N, C, D, H, W) is (N, C, 1, 1, 1).
pub fn keep(axes: impl Into<Axes>) -> Axes {
    Axes { kept: true, ..axes.into() }
}

impl Axes {
    /// The selected axes of a shape of `rank` axes, each once.
    pub(super) fn of(&self, operation: &str, rank: usize) -> Result<Vec<usize>> {
        let fail = |axis: usize| {
            Error::argument(operation, format!("axis {axis} of a tensor of rank {rank}"))
                .expected(format!("axes below {rank}"))
        };
        match &self.which {
            Which::These(axes) => {
                for (i, &axis) in axes.iter().enumerate() {
                    if axis >= rank {
                        return Err(fail(axis));
                    }
                    if axes[..i].contains(&axis) {
                        return Err(Error::argument(operation, format!("axis {axis} is named twice"))
                            .expected("each axis once"));
                    }
                }
                Ok(axes.clone())
            }
            Which::Range(first, end) => {
                let end = end.unwrap_or(rank);
                if end > rank {
                    return Err(fail(end - 1));
                }
                if *first > end {
                    return Err(fail(*first));
                }
                Ok((*first..end).collect())
            }
        }
    }

    pub(super) fn kept(&self) -> bool {
        self.kept
    }

    fn range(range: impl RangeBounds<usize>) -> Self {
        let first = match range.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => Some(last.saturating_add(1)),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        Self { which: Which::Range(first, end), kept: false }
    }
}

impl From<usize> for Axes {
    fn from(axis: usize) -> Self {
        vec![axis].into()
    }
}

impl From<Vec<usize>> for Axes {
    fn from(axes: Vec<usize>) -> Self {
        Self { which: Which::These(axes), kept: false }
    }
}

impl From<&[usize]> for Axes {
    fn from(axes: &[usize]) -> Self {
        axes.to_vec().into()
    }
}

impl From<&Vec<usize>> for Axes {
    fn from(axes: &Vec<usize>) -> Self {
        axes.clone().into()
    }
}

impl<const N: usize> From<[usize; N]> for Axes {
    fn from(axes: [usize; N]) -> Self {
        axes.to_vec().into()
    }
}

impl<const N: usize> From<&[usize; N]> for Axes {
    fn from(axes: &[usize; N]) -> Self {
        axes.to_vec().into()
    }
}

macro_rules! ranges {
    ($($range:ty),*) => {$(
        impl From<$range> for Axes {
            fn from(range: $range) -> Self {
                Self::range(range)
            }
        }
    )*};
}

ranges!(RangeFull, RangeFrom<usize>, Range<usize>, RangeInclusive<usize>, RangeTo<usize>);
