//! A piece of the input as the dense kernels read it: zero-padded, and with strides taken apart.

use super::Inputs;
use crate::simd::{Real, Simd, Vector};
use std::mem::MaybeUninit;

/// One tap: where it reads, relative to `position * step`, and its place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub shift: [isize; 3],
    pub index: usize,
}

/// How a box of output positions reads its source.
///
/// Position p reads coordinate `p * step + shift` along each axis. Write the shift as `index * step + phase`: then, within
/// the part of the source whose coordinates have that phase, position p reads place `p + index`. So with the phases stored
/// apart, every tap is a constant offset in memory and vectors run over consecutive positions, whatever the stride.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub step: [usize; 3],
    pub taps: Vec<Tap>,
    /// The smallest index over all taps.
    low: [isize; 3],
    /// How much further the largest reaches.
    pub halo: [usize; 3],
    /// The phases that taps use.
    phases: Vec<[usize; 3]>,
}

impl Reading {
    pub fn new(step: [usize; 3], taps: Vec<Tap>) -> Self {
        let index = |tap: &Tap, axis: usize| tap.shift[axis].div_euclid(step[axis] as isize);
        let low = std::array::from_fn(|axis| taps.iter().map(|tap| index(tap, axis)).min().unwrap_or(0));
        let halo = std::array::from_fn(|axis| {
            let high = taps.iter().map(|tap| index(tap, axis)).max().unwrap_or(0);
            (high - low[axis]) as usize
        });
        let mut reading = Reading { step, taps, low, halo, phases: Vec::new() };
        for tap in 0..reading.taps.len() {
            let phase = reading.phase(tap);
            if !reading.phases.contains(&phase) {
                reading.phases.push(phase);
            }
        }
        reading
    }

    fn phase(&self, tap: usize) -> [usize; 3] {
        std::array::from_fn(|axis| self.taps[tap].shift[axis].rem_euclid(self.step[axis] as isize) as usize)
    }

    /// The size of one phase of a box of positions.
    pub fn extent(&self, positions: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| positions[axis] + self.halo[axis])
    }

    /// Numbers of one channel of a packed box.
    pub fn channel_size(&self, positions: [usize; 3]) -> usize {
        self.phases.len() * self.extent(positions).iter().product::<usize>()
    }

    /// The offset of each tap, within a packed channel, from the position's own place.
    pub fn offsets(&self, positions: [usize; 3]) -> Vec<usize> {
        let [depth, height, width] = self.extent(positions);
        let offset = |tap: usize| {
            let phase = self.phase(tap);
            let phase = self.phases.iter().position(|&p| p == phase).expect("every tap's phase is listed");
            let [z, y, x] = std::array::from_fn(|axis| {
                (self.taps[tap].shift[axis].div_euclid(self.step[axis] as isize) - self.low[axis]) as usize
            });
            ((phase * depth + z) * height + y) * width + x
        };
        (0..self.taps.len()).map(offset).collect()
    }

    /// Packs channels `channels` of image `n`, as far as the box of `positions` from `start` on needs it.
    ///
    /// # Safety
    /// `to` is writable for `channels.len()` channels of `channel_size`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn pack<S: Simd, T: Real>(
        &self,
        source: &Inputs<'_, T>,
        size: [usize; 3],
        n: usize,
        channels: std::ops::Range<usize>,
        start: [usize; 3],
        positions: [usize; 3],
        to: *mut T,
    ) {
        let [depth, height, width] = self.extent(positions);
        let base: [isize; 3] = std::array::from_fn(|axis| start[axis] as isize + self.low[axis]);
        let mut to = to;
        for channel in channels {
            let from = source.channel(n, channel, size.iter().product());
            for phase in &self.phases {
                // The first coordinate of the row, and the places whose coordinates lie inside the source.
                let step = self.step[2] as isize;
                let first = base[2] * step + phase[2] as isize;
                let left = (-first).max(0).div_ceil_positive(step).min(width as isize) as usize;
                let inside = (size[2] as isize - first).max(0).div_ceil_positive(step).min(width as isize) as usize;
                let inside = inside.max(left);
                for z in 0..depth as isize {
                    let z = (base[0] + z) * self.step[0] as isize + phase[0] as isize;
                    for y in 0..height as isize {
                        let y = (base[1] + y) * self.step[1] as isize + phase[1] as isize;
                        // SAFETY: rows follow each other, as many as the caller made room for.
                        let row = unsafe { std::slice::from_raw_parts_mut(to.cast::<MaybeUninit<T>>(), width) };
                        // SAFETY: at most one past the end.
                        to = unsafe { to.add(width) };
                        if z < 0 || y < 0 || z as usize >= size[0] || y as usize >= size[1] || left == inside {
                            row.fill(MaybeUninit::new(T::ZERO));
                            continue;
                        }
                        let start = (z as usize * size[1] + y as usize) * size[2];
                        let from = &from[start..start + size[2]];
                        row[..left].fill(MaybeUninit::new(T::ZERO));
                        row[inside..].fill(MaybeUninit::new(T::ZERO));
                        let row = &mut row[left..inside];
                        let first = (first + left as isize * step) as usize;
                        if step == 1 {
                            copy_row::<S, T>(&from[first..first + row.len()], row);
                        } else {
                            let lanes = T::Vec::<S>::LANES;
                            let mut done = 0;
                            while step == 2 && done + lanes <= row.len() && first + 2 * (done + lanes) <= from.len() {
                                // SAFETY: both rows are long enough, by the condition above.
                                unsafe {
                                    T::Vec::<S>::load_even_ptr(from.as_ptr().add(first + 2 * done))
                                        .store_ptr(row.as_mut_ptr().cast::<T>().add(done));
                                }
                                done += lanes;
                            }
                            let rest = from[first..].iter().step_by(step as usize).skip(done);
                            for (to, &from) in row[done..].iter_mut().zip(rest) {
                                to.write(from);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Copies a short row: the call of `memcpy` costs more than the copy.
#[inline(always)]
pub(super) fn copy_row<S: Simd, T: Real>(from: &[T], to: &mut [MaybeUninit<T>]) {
    let lanes = T::Vec::<S>::LANES;
    let count = from.len().min(to.len());
    let mut x = 0;
    // SAFETY: only the first `count` elements of both are touched.
    unsafe {
        while x + lanes <= count {
            T::Vec::<S>::load_ptr(from.as_ptr().add(x)).store_ptr(to.as_mut_ptr().cast::<T>().add(x));
            x += lanes;
        }
        if x < count {
            T::Vec::<S>::load_partial_ptr(from.as_ptr().add(x), count - x)
                .store_partial_ptr(to.as_mut_ptr().cast::<T>().add(x), count - x);
        }
    }
}

trait DivCeil {
    fn div_ceil_positive(self, by: isize) -> isize;
}

impl DivCeil for isize {
    #[inline(always)]
    fn div_ceil_positive(self, by: isize) -> isize {
        (self + by - 1) / by
    }
}
