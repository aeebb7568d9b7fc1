//! Operations that move elements: along an axis, by index, into a border.

mod choose;
mod concat;
mod cpu;
mod gather;
mod one_hot;
mod pad;
mod reference;

pub use choose::Where;
pub use concat::Concat;
pub use gather::{Gather, IndexSelect, ScatterAdd};
pub use one_hot::OneHot;
pub use pad::{Pad, PadMode};

use tomograd_core::{DType, Error, ErrorKind, Random, Result};

use crate::{Meta, registry};

/// That input `index` holds `dtype`.
fn check_dtype(operation: &str, inputs: &[Meta], index: usize, dtype: DType) -> Result<()> {
    if inputs[index].dtype == dtype {
        return Ok(());
    }
    let found = format!("input {index} holds {}", inputs[index].dtype);
    Err(Error::new(ErrorKind::DType, operation, found).expected(dtype.name()))
}

/// That inputs `a` and `b` hold the same dtype.
fn check_same_dtype(operation: &str, inputs: &[Meta], a: usize, b: usize) -> Result<()> {
    check_dtype(operation, inputs, b, inputs[a].dtype)
}

/// That two shapes have one rank and differ along `axis` only.
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

/// A random shape of `least` to `most` axes for a case whose output has `each` elements for each of it. Now and then a parallel
/// chunk ends within one of its rows.
fn shape_of_case(random: &mut Random, least: usize, most: usize, each: usize) -> Vec<usize> {
    if random.bernoulli(0.05) && most > 1 {
        let rows = 2 + random.below(3) as usize;
        return vec![rows, cpu::GRAIN / (rows * each) + 1 + random.below(9) as usize];
    }
    registry::shape(random, least, most)
}

/// How many indices along an axis a case has for x of `shape`: few, or around some vectors.
fn length_of_case(random: &mut Random, shape: &[usize]) -> usize {
    match shape.iter().product::<usize>() {
        4096.. => random.below(5) as usize,
        _ if random.bernoulli(0.2) => registry::around(random, &registry::VECTORS),
        _ => random.below(12) as usize,
    }
}

/// The sizes before `axis`, of it, and after it.
fn split(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}
