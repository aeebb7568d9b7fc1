//! The selective scan on the CPU: sixteen channels in the lanes of vectors, and their states processed one after the other.
//!
//! With this layout the state stays in a register, b_t and c_t are broadcast, the sum over states is a chain of FMAs, and no
//! step needs a reduction across lanes. Time is divided into chunks whose rows of sixteen channels stay in the L1 cache: u, Δ
//! and the output are transposed chunk by chunk. Only the gradients of b and c are sums over channels; their reductions are
//! done for sixteen steps at once.

mod backward;
mod forward;
mod rows;

use std::ops::Range;

use tomograd_core::{Result, Tensor};

use super::{SelectiveScan, Sizes};
use crate::simd::{Real, Vector, math};
pub(super) use backward::backward;
pub(super) use forward::{borders, forward};
use rows::{LANES, Row, expect, gather};

/// With this many channels in a group, each part of a backward pass with a single pair has one block.
pub(super) const PART_CHANNELS: usize = backward::PARTS * LANES;

/// Steps of a chunk: ten arrays of this many rows fit into the L1 cache in f32.
pub(super) const STEPS: usize = 64;

/// The elements of the inputs.
pub(super) struct Inputs<'a, T> {
    sizes: Sizes,
    softplus: bool,
    u: &'a [T],
    delta: &'a [T],
    a: &'a [T],
    b: &'a [T],
    c: &'a [T],
    skip: Option<&'a [T]>,
    gate: Option<&'a [T]>,
    bias: Option<&'a [T]>,
}

/// Up to sixteen channels of a group, which are computed together.
#[derive(Clone, Copy)]
struct Block {
    /// The index of the first channel, counted over all batch elements.
    row: usize,
    /// The index of the first channel within its batch element.
    channel: usize,
    /// The number of channels.
    count: usize,
    /// The offset of b and c of state 0.
    states: usize,
}

impl Block {
    /// The channels whose memory is prefetched during state `n` of `states`: after the last state, all of them have been.
    #[inline(always)]
    fn share(&self, n: usize, states: usize) -> Range<usize> {
        n * self.count / states..(n + 1) * self.count / states
    }
}

impl<'a, T: Real> Inputs<'a, T> {
    /// From contiguous tensors that `infer` has checked.
    pub(super) fn new(op: SelectiveScan, inputs: &'a [Tensor]) -> Result<Self> {
        let [u, delta, a, b, c] = [0, 1, 2, 3, 4].map(|i| inputs[i].as_slice::<T>());
        let [skip, gate, bias] =
            op.optional().map(|place| place.map(|place| inputs[place].as_slice::<T>()).transpose());
        let sizes = SelectiveScan::sizes(inputs[0].shape(), inputs[2].shape(), inputs[3].shape());
        let softplus = op.delta_softplus;
        Ok(Self { sizes, softplus, u: u?, delta: delta?, a: a?, b: b?, c: c?, skip: skip?, gate: gate?, bias: bias? })
    }

    /// The number of blocks of a group.
    fn group_blocks(&self) -> usize {
        (self.sizes.channels / self.sizes.groups).div_ceil(LANES)
    }

    /// Block `index` of a (batch element, group) pair.
    fn block(&self, pair: usize, index: usize) -> Block {
        let Sizes { groups, channels, states, length, .. } = self.sizes;
        let of_group = channels / groups;
        let channel = pair % groups * of_group + index * LANES;
        let count = LANES.min(of_group - index * LANES);
        Block { row: pair / groups * channels + channel, channel, count, states: pair * states * length }
    }

    /// The values of the block's channels; 0 for missing channels, and without an input.
    #[inline(always)]
    fn per_channel(&self, of: Option<&[T]>, block: &Block) -> Row<T> {
        let mut row = [T::ZERO; LANES];
        if let Some(of) = of {
            row[..block.count].copy_from_slice(&of[block.channel..][..block.count]);
        }
        row
    }

    /// `factor` · a of the block's channels, with a row for each state.
    #[inline(always)]
    fn rows_of_a(&self, block: &Block, factor: T, to: &mut [Row<T>]) {
        for (n, row) in to.iter_mut().enumerate() {
            for (lane, value) in row.iter_mut().enumerate() {
                let channel = block.channel + lane;
                *value = if lane < block.count { factor * self.a[channel * self.sizes.states + n] } else { T::ZERO };
            }
        }
    }

    /// The block's part of an input of shape (B, D, L), with a row for each step.
    #[inline(always)]
    fn gather<V: Vector<Elem = T>>(&self, from: &[T], block: &Block, steps: &Range<usize>, to: &mut [Row<T>]) {
        gather::<V>(&from[block.row * self.sizes.length + steps.start..], self.sizes.length, block.count, to);
    }

    /// Prefetches some of the block's rows of all inputs of shape (B, D, L), for a chunk that starts at step `from`.
    #[inline(always)]
    fn expect(&self, block: &Block, from: usize, rows: Range<usize>) {
        let length = self.sizes.length;
        if from < length {
            for input in [Some(self.u), Some(self.delta), self.gate].into_iter().flatten() {
                expect(input, block.row * length + from, length, rows.clone(), STEPS.min(length - from));
            }
        }
    }

    /// The part of state `n` of b or c for the given steps.
    #[inline(always)]
    fn of_state<'b>(&self, from: &'b [T], block: &Block, n: usize, steps: &Range<usize>) -> &'b [T] {
        &from[block.states + n * self.sizes.length..][steps.clone()]
    }

    /// Computes delta + bias (in place), Δ and Δ u from delta and u; returns whether |Δ| stays within `limit`.
    #[inline(always)]
    fn discretise<V: Vector<Elem = T>>(
        &self,
        bias: &Row<T>,
        limit: T,
        raw: &mut [Row<T>],
        u: &[Row<T>],
        delta: &mut [Row<T>],
        drive: &mut [Row<T>],
    ) -> bool {
        let mut beyond = [T::ZERO; LANES];
        for part in (0..LANES).step_by(V::LANES) {
            let (bias, limit, mut outside) = (V::load(&bias[part..]), V::splat(limit), V::zero());
            for (((raw, u), delta), drive) in raw.iter_mut().zip(u).zip(delta.iter_mut()).zip(drive.iter_mut()) {
                let mut step = V::load(&raw[part..]);
                if self.bias.is_some() {
                    step = step.add(bias);
                    step.store(&mut raw[part..]);
                }
                if self.softplus {
                    step = math::softplus(step);
                }
                step.store(&mut delta[part..]);
                step.mul(V::load(&u[part..])).store(&mut drive[part..]);
                outside = V::select(step.abs().le(limit), outside, V::splat(T::ONE));
            }
            outside.store(&mut beyond[part..]);
        }
        beyond.iter().all(|&outside| outside == T::ZERO)
    }
}

/// The largest |Δ| for which 2 to the Δ a is guaranteed to be a normal number for all a in these rows. NaN if an a is NaN, so
/// that no |Δ| is within the limit.
#[inline(always)]
fn limit<T: Real>(rows_of_a: &[Row<T>]) -> T {
    let largest = rows_of_a.as_flattened().iter().fold(T::ZERO, |largest, a| {
        // A NaN is kept as the maximum.
        if a.abs() <= largest || largest.partial_cmp(&largest).is_none() { largest } else { a.abs() }
    });
    T::from_f64(T::EXPONENT_BIAS as f64 - 2.0) / largest
}

/// 2 to the exponent. `BOUNDED` asserts that the result is a normal number, which takes fewer instructions for the same
/// result.
#[inline(always)]
fn power<V: Vector, const BOUNDED: bool>(exponent: V) -> V {
    if BOUNDED { math::exp2_in_range(exponent) } else { math::exp2_normal(exponent) }
}

/// The chunks of a scan over `length` steps.
fn chunks(length: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    (0..length.div_ceil(STEPS)).map(move |i| i * STEPS..length.min((i + 1) * STEPS))
}
