//! The gradient of the weights: vectors run over positions, in sixteen virtual lanes.

use super::Plan;
use crate::conv::ConvShape;
use crate::conv::cpu::tensors::Inputs;
use crate::parallel::{Partition, parallel_for};
use crate::simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Taps whose sums are in registers together.
const TAPS: usize = 8;

/// Computes the gradient of the weights; every element of `dw` is written.
pub(in crate::conv::cpu) fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    let plan = Plan::forward(shape, &[]);
    if plan.batch == 0 || plan.positions.contains(&0) {
        dw.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let partition = Partition::new(dw, plan.outputs * shape.taps());
    parallel_for(plan.channels, plan.grain(plan.channels), |range| {
        dispatch(Gradients { plan: &plan, range, x, dy, partition: &partition })
    })
}

struct Gradients<'a, T> {
    plan: &'a Plan<'a, T>,
    range: Range<usize>,
    x: Inputs<'a, T>,
    dy: &'a [T],
    partition: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for Gradients<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.plan;
        let block = plan.block();
        let channel_size = plan.reading.channel_size(block);
        let offsets = plan.reading.offsets(block);
        let [_, pitch_y, pitch] = plan.reading.extent(block);
        let room = plan.run_length().next_multiple_of(16);
        let scratch = |count: usize| Scratch::<T>::new("conv", count).expect("memory for packing");
        let mut packed = scratch(channel_size + 16);
        let packed = packed.zeroed().as_mut_ptr();
        // Zeros between the rows, so that what x has there doesn't count.
        let mut gradient = scratch(room);
        let gradient = gradient.zeroed();
        let mut totals = scratch(plan.outputs * offsets.len() * 16);
        let [depth, height, width] = plan.positions;
        for channel in self.range.clone() {
            let totals = totals.zeroed();
            for item in 0..plan.batch * plan.boxes {
                let (n, first) = (item / plan.boxes, item % plan.boxes * plan.deep);
                // SAFETY: as for the forward pass.
                unsafe {
                    let (size, channels) = (plan.source_size, channel..channel + 1);
                    plan.reading.pack::<S, T>(&self.x, size, n, channels, [first, 0, 0], block, packed);
                }
                for output in 0..plan.outputs {
                    let target = (n * plan.channels + channel) * plan.outputs + output;
                    let dy = &self.dy[target * depth * height * width..];
                    let totals = &mut totals[output * offsets.len() * 16..];
                    for z in 0..plan.deep.min(depth - first) {
                        for y in 0..height {
                            let from = ((first + z) * height + y) * width;
                            gradient[y * pitch..y * pitch + width].copy_from_slice(&dy[from..from + width]);
                        }
                        // SAFETY: a plane's positions and sixteen more are packed behind each offset.
                        let from = unsafe { packed.add(z * pitch_y * pitch).cast_const() };
                        let (groups, rest) = offsets.as_chunks::<TAPS>();
                        for (i, offsets) in groups.iter().enumerate() {
                            // SAFETY: as above.
                            unsafe { taps::<S, T, TAPS>(from, offsets, gradient, &mut totals[i * TAPS * 16..]) };
                        }
                        for (i, offset) in rest.iter().enumerate() {
                            let totals = &mut totals[(groups.len() * TAPS + i) * 16..];
                            // SAFETY: as above.
                            unsafe { taps::<S, T, 1>(from, &[*offset], gradient, totals) };
                        }
                    }
                }
            }
            let to = self.partition.block(channel);
            for (to, lanes) in to.iter_mut().zip(totals.chunks_exact(16)) {
                to.write(Lanes16::<T::Vec<S>>::load(lanes).horizontal_sum());
            }
        }
    }
}

/// Adds the products of a plane's gradient and what each of `N` taps reads, in sixteen lanes for each tap.
///
/// # Safety
/// `from` is readable for the gradient's length from each offset.
#[inline(always)]
unsafe fn taps<S: Simd, T: Real, const N: usize>(
    from: *const T,
    offsets: &[usize; N],
    gradient: &[T],
    totals: &mut [T],
) {
    let lanes = T::Vec::<S>::LANES;
    // The lanes of a wide register are sixteen; narrower ones take turns: their sums are as independent as their lanes.
    for part in (0..16).step_by(lanes) {
        let mut sums = [T::Vec::<S>::zero(); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = T::Vec::<S>::load(&totals[i * 16 + part..]);
        }
        for position in (part..gradient.len()).step_by(16) {
            let gradient = T::Vec::<S>::load(&gradient[position..]);
            for (sum, &offset) in sums.iter_mut().zip(offsets) {
                // SAFETY: the caller's promise.
                let x = unsafe { T::Vec::<S>::load_ptr(from.add(offset + position)) };
                *sum = x.mul_add(gradient, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store(&mut totals[i * 16 + part..]);
        }
    }
}
