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
    /// Numbers in front of all rows, which taps may read.
    lead: usize,
}

impl Reading {
    pub fn new(step: [usize; 3], taps: Vec<Tap>) -> Self {
        let index = |tap: &Tap, axis: usize| tap.shift[axis].div_euclid(step[axis] as isize);
        let low = std::array::from_fn(|axis| taps.iter().map(|tap| index(tap, axis)).min().unwrap_or(0));
        let halo = std::array::from_fn(|axis| {
            let high = taps.iter().map(|tap| index(tap, axis)).max().unwrap_or(0);
            (high - low[axis]) as usize
        });
        let mut reading = Reading { step, taps, low, halo, phases: Vec::new(), lead: 0 };
        for tap in 0..reading.taps.len() {
            let phase = reading.phase(tap);
            if !reading.phases.contains(&phase) {
                reading.phases.push(phase);
            }
        }
        reading
    }

    /// The same for rows of `positions` in a source of `source` columns, where each packed row begins with the source's first
    /// column and their distance is a multiple of sixteen: whole cache lines. What taps read before a row are the zeros
    /// behind the one above; before the first there must be [`lead`](Self::lead) more, which offsets count from.
    pub fn aligned(mut self, source: usize, positions: usize) -> Self {
        let [left, right] = [-self.low[2], self.low[2] + self.halo[2] as isize].map(|reach| reach.max(0) as usize);
        let mut pitch = (positions + right).max(source.div_ceil(self.step[2]) + left).next_multiple_of(16);
        if pitch.is_multiple_of(128) {
            // The rows of a tile would share few sets of the first cache.
            pitch += 16;
        }
        (self.lead, self.low[2], self.halo[2]) = (left.next_multiple_of(16), 0, pitch - positions);
        self
    }

    /// How many zeros come before the first row.
    pub fn lead(&self) -> usize {
        self.lead
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
                self.taps[tap].shift[axis].div_euclid(self.step[axis] as isize) - self.low[axis]
            });
            (self.lead + ((phase * depth + z as usize) * height + y as usize) * width).wrapping_add_signed(x)
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
        // SAFETY: the caller's promise.
        unsafe { self.pack_over::<S, T, true>(source, size, n, channels, start, positions, to) }
    }

    /// [`pack`](Self::pack), which leaves out what lies outside of the source unless `ZEROS`: for a place that holds the
    /// zeros already.
    ///
    /// # Safety
    /// As [`pack`](Self::pack).
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn pack_over<S: Simd, T: Real, const ZEROS: bool>(
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
            let from = source.channel(n, channel, size.iter().product()).as_ptr();
            for phase in &self.phases {
                let coordinate = |axis: usize, at: usize| {
                    (base[axis] + at as isize) * self.step[axis] as isize + phase[axis] as isize
                };
                // The places along an axis whose coordinates lie inside the source.
                let inside = |axis: usize, count: usize| {
                    let (first, step) = (coordinate(axis, 0), self.step[axis] as isize);
                    let begin = (-first).max(0).div_ceil_positive(step).min(count as isize) as usize;
                    let end = (size[axis] as isize - first).max(0).div_ceil_positive(step).min(count as isize) as usize;
                    begin..end.max(begin)
                };
                let (rows, columns) = (inside(1, height), inside(2, width));
                let first = coordinate(2, columns.start).max(0) as usize;
                for z in 0..depth {
                    let z = coordinate(0, z);
                    let outside = z < 0 || z as usize >= size[0] || columns.is_empty();
                    let rows = if outside { 0..0 } else { rows.clone() };
                    // SAFETY: rows of `width` follow each other, as many as the caller made room for; what is read of the
                    // source lies in one row of it, which is inside.
                    unsafe {
                        if ZEROS {
                            zero(to, rows.start * width);
                            zero(to.add(rows.end * width), (height - rows.end) * width);
                        }
                        let count = columns.len();
                        let next = self.step[1] * size[2];
                        let mut row = from.wrapping_add(
                            (z.max(0) as usize * size[1] + coordinate(1, rows.start).max(0) as usize) * size[2] + first,
                        );
                        let mut place = to.add(rows.start * width);
                        for _ in rows {
                            if ZEROS {
                                zero(place, columns.start);
                                zero(place.add(columns.end), width - columns.end);
                            }
                            let to = place.add(columns.start);
                            match self.step[2] {
                                1 => copy::<S, T>(row, to, count),
                                2 => copy_even::<S, T>(row, to, count, size[2] - first),
                                step => (0..count).for_each(|x| *to.add(x) = *row.add(x * step)),
                            }
                            (row, place) = (row.wrapping_add(next), place.wrapping_add(width));
                        }
                        to = to.add(height * width);
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
