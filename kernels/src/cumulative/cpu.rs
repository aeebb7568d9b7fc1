//! Cumulative sums on the CPU. A chunk owns whole planes (the axis and the axes after it), and processes each plane in blocks
//! of columns whose running sums stay in the L1 cache.

use tomograd_core::{Result, Tensor, TensorBuilder};

use crate::{
    parallel::{Partition, parallel_for},
    simd::Real,
};

/// The approximate number of elements of a parallel chunk.
pub(super) const GRAIN: usize = 1 << 14;
/// Columns of a block.
pub(super) const BLOCK: usize = 256;

pub(super) fn sum<T: Real>(x: &Tensor, axis: usize, reverse: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    let values = x.as_slice::<T>()?;
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let plane = size * inner;
    let mut builder = TensorBuilder::<T>::new("cumsum", x.shape(), x.device())?;
    let out = builder.uninit()?;
    let planes = out.len().checked_div(plane).unwrap_or(0);
    let grain = GRAIN.div_ceil(plane.max(1));
    let target = Partition::new(out, grain * plane);
    parallel_for(planes, grain, |range| {
        for (values, out) in values[range.start * plane..range.end * plane]
            .chunks_exact(plane)
            .zip(target.take(range.start * plane..range.end * plane).chunks_exact_mut(plane))
        {
            for first in (0..inner).step_by(BLOCK) {
                let width = BLOCK.min(inner - first);
                let mut sums = [0.0f64; BLOCK];
                for i in 0..size {
                    let row = if reverse { size - 1 - i } else { i } * inner + first;
                    let columns = out[row..][..width].iter_mut().zip(&values[row..][..width]);
                    for (sum, (out, value)) in sums.iter_mut().zip(columns) {
                        *sum += value.to_f64();
                        out.write(T::from_f64(*sum));
                    }
                }
            }
        }
    })?;
    drop(target);
    // SAFETY: the chunks cover all planes, and every row and column of a plane is written.
    Ok(unsafe { builder.assume_init() })
}
