//! Numbers of axes, however they are written.

use tomograd_core::{Error, Result};

/// A number for each axis: one for all (`2`), or a list (`[1, 2, 2]`, a slice, a `Vec`) in the order of the shape.
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
    /// One for each, in the order of the shape.
    Each(Vec<usize>),
}

impl From<usize> for PerAxis {
    fn from(number: usize) -> Self {
        Self::All(number)
    }
}

/// Everything that is made from a number for each axis, is made from a list in all its forms.
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
    /// The numbers of `rank` axes; `name` says of what.
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

    /// The numbers as they are given.
    pub(crate) fn given(&self) -> &[usize] {
        match self {
            Self::All(number) => std::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }

    /// That a list, of which nobody knows yet how many axes it is for, has one to three numbers.
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
