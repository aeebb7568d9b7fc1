//! Dice and cross-entropy on the CPU: blocks of voxels with their softmax in the L1 cache, sums in f64.

use tomograd_core::{Error, Result, Scratch, Tensor, TensorBuilder};

use super::{DiceCe, Sums, total_weight};
use crate::{
    Forward, Saved,
    parallel::{Grid, PartialSlots, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch, math},
};

/// Voxels of a parallel chunk.
const GRAIN: usize = 1 << 14;
/// Voxels of a block.
pub(super) const BLOCK: usize = 256;

/// The softmax of a block of voxels: `probabilities` is (classes, BLOCK), `logarithm` is the log-sum-exp of each voxel.
struct Softmax<'a, T> {
    /// The logits of an image, (classes, voxels), starting with the block's first voxel.
    logits: &'a [T],
    voxels: usize,
    classes: usize,
    length: usize,
    probabilities: &'a mut [T],
    logarithm: &'a mut [T],
}

impl<T: Real> Kernel for Softmax<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let lanes = T::Vec::<S>::LANES;
        for start in (0..self.length).step_by(lanes) {
            let end = self.length.min(start + lanes);
            let logit =
                |c: usize| T::Vec::<S>::load_partial(&self.logits[c * self.voxels + start..c * self.voxels + end]);
            let mut largest = logit(0);
            for c in 1..self.classes {
                largest = largest.max(logit(c));
            }
            let mut total = T::Vec::<S>::zero();
            for c in 0..self.classes {
                let power = math::exp(logit(c).sub(largest));
                total = total.add(power);
                power.store_partial(&mut self.probabilities[c * BLOCK + start..c * BLOCK + end]);
            }
            let inverse = T::Vec::<S>::splat(T::ONE).div(total);
            for c in 0..self.classes {
                let p = &mut self.probabilities[c * BLOCK + start..c * BLOCK + end];
                T::Vec::<S>::load_partial(p).mul(inverse).store_partial(p);
            }
            math::ln(total).add(largest).store_partial(&mut self.logarithm[start..end]);
        }
    }
}

/// The sizes (batch, classes, voxels), and the number of chunks of an image.
fn sizes(logits: &Tensor) -> (usize, usize, usize, usize) {
    let voxels: usize = logits.shape()[2..].iter().product();
    (logits.shape()[0], logits.shape()[1], voxels, voxels.div_ceil(GRAIN))
}

pub(super) fn check_labels(op: &DiceCe, labels: &[i64], classes: usize) -> Result<()> {
    let wrong = |label: &i64| !(0..classes as i64).contains(label) && Some(*label) != op.ignore_index;
    match labels.iter().position(wrong) {
        None => Ok(()),
        Some(place) => Err(Error::argument("dice_ce", format!("label {} at voxel {place}", labels[place])).expected(
            match op.ignore_index {
                Some(ignored) => format!("0 to {}, or {ignored} to be ignored", classes - 1),
                None => format!("0 to {}", classes - 1),
            },
        )),
    }
}

/// Calls `visit(chunk, first voxel of the block, its length, probabilities, logarithm)` for each block of voxels.
fn for_each_block<T: Real>(
    logits: &Tensor,
    chunk_range: std::ops::Range<usize>,
    mut visit: impl FnMut(usize, usize, usize, &mut [T], &[T]),
) -> Result<()> {
    let (_, classes, voxels, chunks) = sizes(logits);
    let x = logits.as_slice::<T>()?;
    let mut scratch = Scratch::<T>::new("dice_ce", (classes + 1) * BLOCK)?;
    let (probabilities, logarithm) = scratch.zeroed().split_at_mut(classes * BLOCK);
    for chunk in chunk_range {
        let (n, first) = (chunk / chunks, chunk % chunks * GRAIN);
        for start in (first..voxels.min(first + GRAIN)).step_by(BLOCK) {
            let length = (voxels.min(first + GRAIN) - start).min(BLOCK);
            dispatch(Softmax {
                logits: &x[n * classes * voxels + start..(n + 1) * classes * voxels],
                voxels,
                classes,
                length,
                probabilities,
                logarithm,
            });
            visit(n, start, length, probabilities, logarithm);
        }
    }
    Ok(())
}

/// The loss, with the sums of each group as state.
pub(super) fn forward<T: Real>(op: &DiceCe, logits: &Tensor, labels: &Tensor) -> Result<Forward> {
    let (logits, labels) = (logits.contiguous()?, labels.contiguous()?);
    let sums = sums::<T>(op, &logits, labels.as_slice::<i64>()?)?;
    let width = 3 * logits.shape()[1] + 2;
    let loss = op.value(&sums.chunks(width).map(Sums::from_slice).collect::<Vec<_>>());
    Ok(Forward {
        outputs: vec![Tensor::full(&[], loss, logits.dtype(), logits.device())?],
        state: vec![Tensor::from_slice(&sums, &[sums.len() / width, width], logits.device())?],
    })
}

/// gradient · ∂loss/∂logits.
pub(super) fn backward<T: Real>(op: &DiceCe, saved: &Saved, gradient: &Tensor) -> Result<Tensor> {
    let (logits, labels) = (saved.input(0)?.contiguous()?, saved.input(1)?.contiguous()?);
    let sums = saved.state(0)?;
    let sums: Vec<Sums> = sums.as_slice::<f64>()?.chunks(sums.shape()[1]).map(Sums::from_slice).collect();
    self::gradient::<T>(op, &logits, labels.as_slice::<i64>()?, &sums, gradient.to_scalar()?)
}

/// The fields of [`Sums`] as a row for each group of images.
fn sums<T: Real>(op: &DiceCe, logits: &Tensor, labels: &[i64]) -> Result<Vec<f64>> {
    let (batch, classes, voxels, chunks) = sizes(logits);
    check_labels(op, labels, classes)?;
    let width = 3 * classes + 2;
    let x = logits.as_slice::<T>()?;
    let mut scratch = Scratch::<f64>::new("dice_ce", batch * chunks * width)?;
    let numbers = scratch.zeroed();
    let mut slots = PartialSlots::new(&mut *numbers, width)?;
    let parts = slots.slots();
    parallel_for(batch * chunks, 1, |range| {
        let sums = parts.block(range.start);
        let outcome = for_each_block::<T>(logits, range, |n, start, length, probabilities, logarithm| {
            for v in 0..length {
                let label = labels[n * voxels + start + v];
                if Some(label) == op.ignore_index {
                    (0..classes).for_each(|c| probabilities[c * BLOCK + v] = T::ZERO);
                    continue;
                }
                let label = label as usize;
                let weight = op.class_weight(label);
                let logit = x[(n * classes + label) * voxels + start + v];
                sums[label] += probabilities[label * BLOCK + v].to_f64();
                sums[2 * classes + label] += 1.0;
                sums[3 * classes] += weight * (logarithm[v].to_f64() - logit.to_f64());
                sums[3 * classes + 1] += weight;
            }
            for c in 0..classes {
                let row = &probabilities[c * BLOCK..][..length];
                sums[classes + c] += row.iter().map(|p| p.to_f64()).sum::<f64>();
            }
        });
        or_give_up(outcome);
    })?;
    drop(parts);
    let groups = op.groups(batch);
    let mut rows = vec![0.0; groups * width];
    // The images of a group are adjacent; without voxels the sums stay zero.
    let slots = batch * chunks / groups.max(1) * width;
    if slots > 0 {
        for (row, group) in rows.chunks_mut(width).zip(numbers.chunks_mut(slots)) {
            row.copy_from_slice(&PartialSlots::filled(group, width)?.sum()[..width]);
        }
    }
    Ok(rows)
}

/// factor · ∂loss/∂logits.
fn gradient<T: Real>(op: &DiceCe, logits: &Tensor, labels: &[i64], groups: &[Sums], factor: f64) -> Result<Tensor> {
    let (batch, classes, voxels, chunks) = sizes(logits);
    let real = |values: Vec<f64>| -> Vec<T> { values.into_iter().map(|value| T::from_f64(value * factor)).collect() };
    let dice: Vec<(Vec<T>, Vec<T>)> = groups
        .iter()
        .map(|sums| op.dice_gradient(sums, groups.len()))
        .map(|(slope, bonus)| (real(slope), real(bonus)))
        .collect();
    let weight = total_weight(groups);
    let entropy: Vec<T> = real(
        (0..classes).map(|c| if weight == 0.0 { 0.0 } else { op.ce_weight * op.class_weight(c) / weight }).collect(),
    );
    let mut builder = TensorBuilder::<T>::new("dice_ce", logits.shape(), logits.device())?;
    let grid = Grid::new(builder.uninit()?, batch * classes, voxels, classes, GRAIN)?;
    parallel_for(batch * chunks, 1, |range| {
        let (image, chunk) = (range.start / chunks, range.start % chunks);
        let mut tile = grid.tile(image, chunk);
        let (slope, bonus) = &dice[if op.batch_dice { 0 } else { image }];
        let outcome = for_each_block::<T>(logits, range, |n, start, length, p, _| {
            let (mut mean, mut scale, mut label_of) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK], [usize::MAX; BLOCK]);
            for c in 0..classes {
                for v in 0..length {
                    mean[v] += p[c * BLOCK + v] * slope[c];
                }
            }
            for v in 0..length {
                let label = labels[n * voxels + start + v];
                if Some(label) != op.ignore_index {
                    let label = label as usize;
                    label_of[v] = label;
                    mean[v] += p[label * BLOCK + v] * bonus[label];
                    scale[v] = entropy[label];
                }
            }
            for c in 0..classes {
                let row = &mut tile.row(c)[start - chunk * GRAIN..][..length];
                for v in 0..length {
                    let p = p[c * BLOCK + v];
                    let mut value = p * (slope[c] - mean[v] + scale[v]);
                    if label_of[v] == c {
                        value += p * bonus[c] - scale[v];
                    }
                    row[v].write(if label_of[v] == usize::MAX { T::ZERO } else { value });
                }
            }
        });
        or_give_up(outcome);
    })?;
    drop(grid);
    // SAFETY: the tiles cover all classes and voxels of every image, and each row of a tile is written block by block.
    Ok(unsafe { builder.assume_init() })
}
