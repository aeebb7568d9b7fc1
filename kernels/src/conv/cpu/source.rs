//! A piece of the input as the dense kernels read it: zero-padded, and with strides taken apart.

use super::Inputs;
use crate::simd::{Real, Simd, Vector};

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
                let first = (first + left as isize * step).max(0) as usize;
                for z in 0..depth as isize {
                    let z = (base[0] + z) * self.step[0] as isize + phase[0] as isize;
                    for y in 0..height as isize {
                        let y = (base[1] + y) * self.step[1] as isize + phase[1] as isize;
                        let outside = z < 0 || y < 0 || z as usize >= size[0] || y as usize >= size[1];
                        // SAFETY: rows of `width` follow each other, as many as the caller made room for; what is read
                        // of the source lies in one row of it, which is inside.
                        unsafe {
                            if outside || left == inside {
                                zero(to, width);
                            } else {
                                zero(to, left);
                                zero(to.add(inside), width - inside);
                                let start = (z as usize * size[1] + y as usize) * size[2] + first;
                                let (from, to) = (from.as_ptr().add(start), to.add(left));
                                match step {
                                    1 => copy::<S, T>(from, to, inside - left),
                                    2 => copy_even::<S, T>(from, to, inside - left, size[2] - first),
                                    _ => (0..inside - left).for_each(|x| *to.add(x) = *from.add(x * step as usize)),
                                }
                            }
                            to = to.add(width);
                        }
                    }
                }
            }
        }
    }
}

/// Writes a few zeros.
///
/// # Safety
/// `to` is writable for as many.
#[inline(always)]
unsafe fn zero<T: Real>(to: *mut T, count: usize) {
    for x in 0..count {
        // SAFETY: the caller's promise.
        unsafe { *to.add(x) = T::ZERO };
    }
}

/// Copies a short row: the call of `memcpy` costs more than the copy.
///
/// # Safety
/// `from` is readable and `to` writable for `count` numbers.
#[inline(always)]
pub(super) unsafe fn copy<S: Simd, T: Real>(from: *const T, to: *mut T, count: usize) {
    let lanes = T::Vec::<S>::LANES;
    let mut x = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while x + lanes <= count {
            T::Vec::<S>::load_ptr(from.add(x)).store_ptr(to.add(x));
            x += lanes;
        }
        if x < count {
            T::Vec::<S>::load_partial_ptr(from.add(x), count - x).store_partial_ptr(to.add(x), count - x);
        }
    }
}

/// Copies every other number: `count` of them, of `length` that are there.
///
/// # Safety
/// `from` is readable for `length` >= 2 count - 1 numbers, and `to` writable for `count`.
#[inline(always)]
unsafe fn copy_even<S: Simd, T: Real>(from: *const T, to: *mut T, count: usize, length: usize) {
    let lanes = T::Vec::<S>::LANES;
    // SAFETY: the caller's promise; partial loads stop where the numbers do.
    unsafe {
        for x in (0..count).step_by(lanes) {
            let here = lanes.min(count - x);
            let (from, left) = (from.add(2 * x), length - 2 * x);
            if left >= 2 * lanes {
                let even = T::Vec::<S>::load_ptr(from).even(T::Vec::<S>::load_ptr(from.add(lanes)));
                if here == lanes { even.store_ptr(to.add(x)) } else { even.store_partial_ptr(to.add(x), here) }
            } else {
                let first = T::Vec::<S>::load_partial_ptr(from, left.min(lanes));
                let second = T::Vec::<S>::load_partial_ptr(from.add(left.min(lanes)), left.saturating_sub(lanes));
                first.even(second).store_partial_ptr(to.add(x), here);
            }
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

/// Cuts `size` into equal blocks of at most `most`.
pub(super) fn equal_blocks(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1)).max(1)).max(1)
}
