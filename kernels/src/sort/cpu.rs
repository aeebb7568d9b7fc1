//! Sorting on the CPU: the axis is moved to the end, and a chunk sorts the positions of whole lines. If only some of the
//! elements are wanted, they are selected first, and only they are sorted.

use std::cmp::Ordering;

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::Sort;
use crate::{
    Meta, Op,
    parallel::{Partition, parallel_for},
    simd::Real,
};

/// Elements of a parallel chunk: some tens of nanoseconds each.
pub(super) const GRAIN: usize = 1 << 12;

/// Compares two elements; a NaN is the largest.
fn rising<T: Real>(a: T, b: T) -> Ordering {
    let is_nan = |x: T| x.partial_cmp(&x).is_none();
    a.partial_cmp(&b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

pub(super) fn sort<T: Real>(op: &Sort, x: &Tensor, output: &Meta) -> Result<(Tensor, Tensor)> {
    // The permutation that moves the axis to the end, and its inverse.
    let last = x.rank() - 1;
    let order: Vec<usize> = (0..=last).filter(|&axis| axis != op.axis).chain([op.axis]).collect();
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    let x = x.permute(&order)?.contiguous()?;
    let shape: Vec<usize> = order.iter().map(|&axis| output.shape[axis]).collect();
    let (size, count) = (x.shape()[last], shape[last]);

    let mut sorted = TensorBuilder::<T>::new(op.name(), &shape, x.device())?;
    let mut found = TensorBuilder::<i64>::new(op.name(), &shape, x.device())?;
    let mut all = TensorBuilder::<i64>::new(op.name(), if output.count() == 0 { &[0] } else { x.shape() }, x.device())?;
    let lines = output.count().checked_div(count).unwrap_or(0);
    let grain = GRAIN.div_ceil(size.max(1));
    let elements = x.as_slice::<T>()?;
    let values = Partition::new(sorted.uninit()?, grain * count);
    let places = Partition::new(found.uninit()?, grain * count);
    let work = Partition::new(all.uninit()?, grain * size);
    parallel_for(lines, grain, |range| {
        let outputs = range.start * count..range.end * count;
        let outputs =
            values.take(outputs.clone()).chunks_exact_mut(count).zip(places.take(outputs).chunks_exact_mut(count));
        let work = work.take(range.start * size..range.end * size).chunks_exact_mut(size);
        for ((line, work), (values, places)) in range.zip(work).zip(outputs) {
            for (i, place) in work.iter_mut().enumerate() {
                place.write(i as i64);
            }
            // SAFETY: the loop wrote every element.
            let work = unsafe { work.assume_init_mut() };
            let line = &elements[line * size..][..size];
            // Ties are broken by position, so that an unstable sort gives the result of a stable one.
            let before = |a: &i64, b: &i64| {
                let order = rising(line[*a as usize], line[*b as usize]);
                if op.descending { order.reverse() } else { order }.then(a.cmp(b))
            };
            if count < size {
                work.select_nth_unstable_by(count - 1, before);
            }
            let work = &mut work[..count];
            work.sort_unstable_by(before);
            for ((value, place), &at) in values.iter_mut().zip(places).zip(&*work) {
                value.write(line[at as usize]);
                place.write(at);
            }
        }
    })?;
    drop((values, places));
    // SAFETY: the chunks cover all lines, and each writes all outputs of its own.
    let (sorted, found) = unsafe { (sorted.assume_init(), found.assume_init()) };
    Ok((sorted.permute(&inverse)?, found.permute(&inverse)?))
}
