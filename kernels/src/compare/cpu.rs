//! Comparisons on the CPU, in chunks of the output. An operand of one element is read once instead of being expanded.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Element, Result, Tensor, TensorBuilder};

use super::Compare;
use crate::{
    Meta,
    parallel::{Partition, parallel_for},
};

/// Elements of a parallel chunk.
pub(super) const GRAIN: usize = 1 << 16;

pub(super) fn compare<T: Element + PartialOrd>(
    compare: Compare,
    x: &Tensor,
    y: &Tensor,
    output: &Meta,
) -> Result<Tensor> {
    let side = |x: &Tensor| match x.count() {
        1 => x.contiguous(),
        _ => x.expand(&output.shape)?.contiguous(),
    };
    let (x, y) = (side(x)?, side(y)?);
    let (x, y) = (x.as_slice::<T>()?, y.as_slice::<T>()?);
    // x > y is y < x.
    let (x, y) = if matches!(compare, Compare::Greater | Compare::GreaterEqual) { (y, x) } else { (x, y) };
    let mut builder = TensorBuilder::<bool>::new("compare", &output.shape, output.device)?;
    let out = builder.uninit()?;
    let count = out.len();
    let target = Partition::new(out, GRAIN);
    parallel_for(count, GRAIN, |range| {
        let (x, y) = (part(x, &range), part(y, &range));
        let out = target.take(range);
        match compare {
            Compare::Equal => fill(out, x, y, |x, y| x == y),
            Compare::NotEqual => fill(out, x, y, |x, y| x != y),
            Compare::Less | Compare::Greater => fill(out, x, y, |x, y| x < y),
            Compare::LessEqual | Compare::GreaterEqual => fill(out, x, y, |x, y| x <= y),
        }
    })?;
    drop(target);
    // SAFETY: the chunks cover all elements, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

fn part<'a, T>(values: &'a [T], range: &Range<usize>) -> &'a [T] {
    if values.len() == 1 { values } else { &values[range.clone()] }
}

fn fill<T: Copy>(out: &mut [MaybeUninit<bool>], x: &[T], y: &[T], holds: impl Fn(T, T) -> bool) {
    match (x, y) {
        (&[x], &[y]) => out.fill(MaybeUninit::new(holds(x, y))),
        (&[x], y) => out.iter_mut().zip(y).for_each(|(out, &y)| _ = out.write(holds(x, y))),
        (x, &[y]) => out.iter_mut().zip(x).for_each(|(out, &x)| _ = out.write(holds(x, y))),
        (x, y) => out.iter_mut().zip(x.iter().zip(y)).for_each(|(out, (&x, &y))| _ = out.write(holds(x, y))),
    }
}
