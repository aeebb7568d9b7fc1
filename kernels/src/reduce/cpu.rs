//! Sums on the CPU: rows in sixteen f64 lanes, rows added in sequence, chunks over the outputs.
//!
//! The input is seen as (kept, reduced) with the kept axes in front. An output that has many terms, or a total, is cut into
//! segments of fixed length whose sums are added in order.

use tomograd_core::{DType, Error, ErrorKind, Result, Scratch, Tensor, TensorBuilder};

use crate::{
    parallel::{PartialSlots, Partition, parallel_for},
    simd::Real,
};

/// Terms of one segment: about 50 µs of work.
const SEGMENT: usize = 1 << 16;
/// Outputs from which rows are added to rows.
const COLUMNS: usize = 8;

/// factor · Σ over `axes`, as a tensor of the kept axes in their order.
pub(super) fn sum(x: &Tensor, axes: &[usize], factor: f64) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 => sum_of::<f32>(x, axes, factor),
        DType::F64 => sum_of::<f64>(x, axes, factor),
        DType::F16 | DType::BF16 => {
            let wide = crate::cast::cast(x, DType::F32)?;
            crate::cast::cast(&sum(&wide, axes, factor)?, x.dtype())
        }
        dtype => {
            Err(Error::new(ErrorKind::DType, "sum", format!("no kernel for {dtype}"))
                .expected("a floating-point dtype"))
        }
    }
}

fn sum_of<T: Real>(x: &Tensor, axes: &[usize], factor: f64) -> Result<Tensor> {
    let kept: Vec<usize> = (0..x.rank()).filter(|axis| !axes.contains(axis)).collect();
    let reduced: Vec<usize> = (0..x.rank()).filter(|axis| axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| x.shape()[axis]).collect();
    let terms: usize = reduced.iter().map(|&axis| x.shape()[axis]).product();
    let outputs: usize = shape.iter().product();
    let mut builder = TensorBuilder::<T>::new("sum", &shape, x.device())?;
    if terms == 0 || outputs == 0 {
        return builder.fill_with(|_| T::ZERO);
    }
    if x.is_contiguous() && reduced.iter().copied().eq(0..reduced.len()) && outputs >= COLUMNS {
        return column_sums(x.as_slice::<T>()?, builder, outputs, factor);
    }
    let ordered = x.permute(&[kept, reduced].concat())?.contiguous()?;
    let elements = ordered.as_slice::<T>()?;
    if terms > SEGMENT {
        let segments = terms.div_ceil(SEGMENT);
        let mut partial = vec![0.0f64; outputs * segments];
        let mut slots = PartialSlots::new(&mut partial, 1);
        let parts = slots.slots();
        parallel_for(outputs * segments, 1, |chunk| {
            for i in chunk {
                let (output, segment) = (i / segments, i % segments);
                let row = &elements[output * terms..][..terms];
                let part = &row[segment * SEGMENT..terms.min((segment + 1) * SEGMENT)];
                parts.block(i)[0] = row_sum(part);
            }
        })?;
        drop(parts);
        let sums = partial.chunks(segments).map(|parts| parts.iter().sum::<f64>());
        let values: Vec<T> = sums.map(|sum| T::from_f64(sum * factor)).collect();
        return builder.copy_from_slice(&values);
    }
    let grain = (SEGMENT / terms).max(1);
    let target = Partition::new(builder.uninit()?, grain);
    parallel_for(outputs, grain, |chunk| {
        for (out, output) in target.take(chunk.clone()).iter_mut().zip(chunk) {
            out.write(T::from_f64(row_sum(&elements[output * terms..][..terms]) * factor));
        }
    })?;
    // SAFETY: the chunks cover all outputs, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

/// The sums of columns, rows being added to rows: sums over leading axes read the input as it lies.
fn column_sums<T: Real>(x: &[T], builder: TensorBuilder<T>, columns: usize, factor: f64) -> Result<Tensor> {
    let (rows, grain) = (x.len() / columns, (SEGMENT / columns).max(1));
    let mut scratch = Scratch::<f64>::new("sum", rows.div_ceil(grain) * columns)?;
    let mut slots = PartialSlots::new(scratch.zeroed(), columns);
    let parts = slots.slots();
    parallel_for(rows, grain, |chunk| {
        let sums = parts.block(chunk.start / grain);
        for row in x[chunk.start * columns..chunk.end * columns].chunks_exact(columns) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value.to_f64();
            }
        }
    })?;
    drop(parts);
    let sums = slots.sum();
    builder.fill_with(|i| T::from_f64(sums[i] * factor))
}

/// The sum in sixteen f64 lanes, combined in one fixed order: the same for every instruction set, since each lane is a plain
/// sequence of additions.
fn row_sum<T: Real>(row: &[T]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let mut blocks = row.chunks_exact(16);
    for block in &mut blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value.to_f64();
        }
    }
    for (lane, value) in lanes.iter_mut().zip(blocks.remainder()) {
        *lane += value.to_f64();
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
