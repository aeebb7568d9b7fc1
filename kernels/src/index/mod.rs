//! Operations that move elements: concatenation, indexing, padding.

mod concat;
mod cpu;
mod cuda;
mod gather;
mod one_hot;
mod pad;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
mod where_;

pub use concat::Concat;
pub use gather::{Gather, IndexSelect, ScatterAdd};
pub use one_hot::OneHot;
pub use pad::{Pad, PadMode};
pub use where_::Where;

use tomograd_core::{DType, Error, ErrorKind, Result};

use crate::Meta;

/// Checks that input `index` has this dtype.
fn check_dtype(operation: &str, inputs: &[Meta], index: usize, dtype: DType) -> Result<()> {
    if inputs[index].dtype == dtype {
        return Ok(());
    }
    let found = format!("input {index} holds {}", inputs[index].dtype);
    Err(Error::new(ErrorKind::DType, operation, found).expected(dtype.name()))
}

/// Checks that inputs `a` and `b` have the same dtype.
fn check_same_dtype(operation: &str, inputs: &[Meta], a: usize, b: usize) -> Result<()> {
    check_dtype(operation, inputs, b, inputs[a].dtype)
}

/// Checks that two shapes have the same rank and differ only along `axis`.
fn check_shapes(operation: &str, first: &[usize], second: &[usize], axis: usize) -> Result<()> {
    let fits = first.len() == second.len()
        && first.iter().zip(second).enumerate().all(|(a, (first, second))| a == axis || first == second);
    if fits {
        return Ok(());
    }
    Err(Error::shape(operation, "the inputs' shapes don't fit")
        .expected(format!("equal sizes of all axes but {axis}"))
        .shapes([first, second]))
}

/// The product of the sizes before `axis`, its size, and the product of the sizes after it.
fn split(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}
