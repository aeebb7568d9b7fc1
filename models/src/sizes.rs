//! Numbers for each spatial axis in configurations.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result};
use tomograd_nn::PerAxis;

use crate::check;

/// One number for each spatial axis in a configuration: a number for all (`2` in JSON), or a list (`[1, 2, 2]`).
///
/// ```
/// use tomograd_models::Sizes;
/// assert_eq!(Sizes::from(2), Sizes::All(2));
/// assert_eq!(Sizes::from([1, 2, 2]), Sizes::Each(vec![1, 2, 2]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sizes {
    /// The same number for all axes.
    All(usize),
    /// One number for each axis, in the order of the shape.
    Each(Vec<usize>),
}

impl From<usize> for Sizes {
    fn from(size: usize) -> Self {
        Self::All(size)
    }
}

impl<const N: usize> From<[usize; N]> for Sizes {
    fn from(sizes: [usize; N]) -> Self {
        Self::Each(sizes.into())
    }
}

impl From<&Sizes> for PerAxis {
    fn from(sizes: &Sizes) -> Self {
        match sizes {
            Sizes::All(size) => Self::All(*size),
            Sizes::Each(sizes) => Self::Each(sizes.clone()),
        }
    }
}

impl Sizes {
    /// The number of each of `rank` axes, after a check that there is one for each, from 1 to `most`; errors call them
    /// `field`.
    pub(crate) fn checked(&self, operation: &str, field: &str, rank: usize, most: usize) -> Result<Vec<usize>> {
        let sizes = match self {
            Self::All(size) => vec![*size; rank],
            Self::Each(sizes) if sizes.len() == rank => sizes.clone(),
            Self::Each(sizes) => {
                return Err(Error::argument(operation, format!("{field} {sizes:?} for {rank} spatial axes"))
                    .expected("one number for all, or one for each"));
            }
        };
        check::sizes(operation, field, &sizes, most)?;
        Ok(sizes)
    }

    /// As [`Sizes::checked`], for the sizes of kernels whose padding keeps the size of an image: odd ones.
    pub(crate) fn odd(&self, operation: &str, field: &str, rank: usize) -> Result<Vec<usize>> {
        let sizes = self.checked(operation, field, rank, MOST_KERNEL)?;
        match sizes.iter().all(|size| size % 2 == 1) {
            true => Ok(sizes),
            false => Err(Error::argument(operation, format!("{field} {sizes:?}")).expected("odd numbers")),
        }
    }
}

/// The largest kernel.
const MOST_KERNEL: usize = 1 << 10;
