//! Numbers for each axis, given as one number or a list.

use tomograd_core::{Error, Result};

/// One number for each axis: a number for all (`2`), or a list (`[1, 2, 2]`, a slice, a `Vec`) in the order of the shape.
///
/// ```
/// use tomograd_nn::PerAxis;
/// let sizes = vec![1, 2, 2];
/// assert_eq!(PerAxis::from(2), PerAxis::All(2));
/// assert_eq!(PerAxis::from([1, 2, 2]), PerAxis::from(&sizes[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerAxis {
    /// The same number for all axes.
    All(usize),
    /// One number for each axis, in the order of the shape.
    Each(Vec<usize>),
}

impl From<usize> for PerAxis {
    fn from(number: usize) -> Self {
        Self::All(number)
    }
}

/// Implements `From` for all forms of a list.
macro_rules! from_lists {
    ($type:ty: $numbers:ident => $made:expr) => {
        impl From<Vec<usize>> for $type {
            fn from($numbers: Vec<usize>) -> Self {
                $made
            }
        }

        impl From<&[usize]> for $type {
            fn from(numbers: &[usize]) -> Self {
                numbers.to_vec().into()
            }
        }

        impl From<&Vec<usize>> for $type {
            fn from(numbers: &Vec<usize>) -> Self {
                numbers.clone().into()
            }
        }

        impl<const N: usize> From<[usize; N]> for $type {
            fn from(numbers: [usize; N]) -> Self {
                numbers.to_vec().into()
            }
        }

        impl<const N: usize> From<&[usize; N]> for $type {
            fn from(numbers: &[usize; N]) -> Self {
                numbers.to_vec().into()
            }
        }
    };
}
pub(super) use from_lists;

from_lists!(PerAxis: numbers => Self::Each(numbers));

impl PerAxis {
    /// The numbers for `rank` axes; errors call them `name`.
    pub(super) fn numbers(&self, operation: &str, name: &str, rank: usize) -> Result<Vec<usize>> {
        match self {
            Self::All(number) => Ok(vec![*number; rank]),
            Self::Each(numbers) if numbers.len() == rank => Ok(numbers.clone()),
            Self::Each(numbers) => {
                Err(Error::argument(operation, format!("{name} {numbers:?} for {rank} spatial axes"))
                    .expected("one number for all, or one for each"))
            }
        }
    }

    /// The numbers as given.
    pub(crate) fn given(&self) -> &[usize] {
        match self {
            Self::All(number) => std::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }

    /// Checks that a list has one to three numbers, where the number of axes isn't known yet.
    pub(super) fn check_length(&self, operation: &str, name: &str) -> Result<()> {
        match self {
            Self::Each(numbers) if !(1..=3).contains(&numbers.len()) => {
                Err(Error::argument(operation, format!("{name} of {} axes", numbers.len()))
                    .expected("one number for all axes, or one for each of one to three"))
            }
            _ => Ok(()),
        }
    }
}
