//! Packing the input for the dense and depthwise kernels: zero-padded, and deinterleaved by the stride.

use super::Inputs;
use crate::simd::{Real, Simd, Vector};

/// One tap: the offset of the source coordinate that it reads, and its index in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub shift: [isize; 3],
    pub index: usize,
}

/// Which source elements a box of output positions reads, and how they are packed.
///
/// Along each axis, position p reads the source coordinate `p * step + shift`. With the shift written as `index * step +
/// phase`, position p reads element `p + index` of the subsequence of coordinates that are `phase` modulo the step. Packing
/// stores each phase separately, so every tap is a constant memory offset and vectors hold consecutive positions, whatever
/// the stride.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub step: [usize; 3],
    pub taps: Vec<Tap>,
    /// The smallest index over all taps.
    low: [isize; 3],
    /// The largest index minus the smallest, over all taps.
    pub halo: [usize; 3],
    /// The phases that taps read.
    phases: Vec<[usize; 3]>,
    /// Elements before the first row, which taps may read.
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

    /// The same reading with aligned rows, for rows of `positions` positions in a source of `source` columns: each packed row
    /// starts with the source's first column, and the row pitch is a multiple of sixteen elements (whole cache lines). Taps
    /// that read before the start of a row read the zeros at the end of the row above; before the first row there are
    /// [`lead`](Self::lead) zeros, which the offsets include.
    pub fn aligned(mut self, source: usize, positions: usize) -> Self {
        let [left, right] = [-self.low[2], self.low[2] + self.halo[2] as isize].map(|reach| reach.max(0) as usize);
        let mut pitch = (positions + right).max(source.div_ceil(self.step[2]) + left).next_multiple_of(16);
        if pitch.is_multiple_of(128) {
            // With this pitch the rows of a tile would map to few sets of the L1 cache.
            pitch += 16;
        }
        (self.lead, self.low[2], self.halo[2]) = (left.next_multiple_of(16), 0, pitch - positions);
        self
    }

    /// The number of zeros before the first row.
    pub fn lead(&self) -> usize {
        self.lead
    }

    fn phase(&self, tap: usize) -> [usize; 3] {
        std::array::from_fn(|axis| self.taps[tap].shift[axis].rem_euclid(self.step[axis] as isize) as usize)
    }

    /// The packed size of one phase of a box of positions.
    pub fn extent(&self, positions: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| positions[axis] + self.halo[axis])
    }

    /// The number of elements of one channel of a packed box.
    pub fn channel_size(&self, positions: [usize; 3]) -> usize {
        self.phases.len() * self.extent(positions).iter().product::<usize>()
    }

    /// The offset of each tap in a packed channel, relative to the element of the position.
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

    /// Packs channels `channels` of image `n`: the elements that the box of `positions` positions from `start` reads.
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

    /// [`pack`](Self::pack); unless `ZEROS`, it doesn't write the padding, for memory where the padding is zero already.
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
            let from = source.channel(n, channel, size.iter().product());
            let mut phases = &self.phases[..];
            while let [phase, rest @ ..] = phases {
                // With a stride of 2, both phases of a row are deinterleaved in one pass; they are adjacent in the list of
                // phases.
                let pair = self.step[2] == 2 && rest.first().is_some_and(|next| next[..2] == phase[..2]);
                let coordinate = |axis: usize, at: usize, phase: usize| {
                    (base[axis] + at as isize) * self.step[axis] as isize + phase as isize
                };
                // The packed indices along an axis whose coordinates lie inside the source.
                let inside = |axis: usize, count: usize, phase: usize| {
                    let (first, step) = (coordinate(axis, 0, phase), self.step[axis] as isize);
                    let begin = (-first).max(0).div_ceil_positive(step).min(count as isize) as usize;
                    let end = (size[axis] as isize - first).max(0).div_ceil_positive(step).min(count as isize) as usize;
                    begin..end.max(begin)
                };
                let phase_size = depth * height * width;
                let (own, other) = (phase[2], if pair { rest[0][2] } else { phase[2] });
                let (rows, columns) = (inside(1, height, phase[1]), inside(2, width, own.min(other)));
                let odd = inside(2, width, own.max(other));
                let first = coordinate(2, columns.start, own.min(other)).max(0) as usize;
                // The destinations of the even and the odd columns; the same if only one phase is packed.
                let [even_to, odd_to] =
                    [own > other, own < other].map(|second| to.wrapping_add(usize::from(second) * phase_size));
                for z in 0..depth {
                    let plane = z * height * width;
                    let z = coordinate(0, z, phase[0]);
                    let outside = z < 0 || z as usize >= size[0] || columns.is_empty();
                    let rows = if outside { 0..0 } else { rows.clone() };
                    let places = [(even_to, &columns), (odd_to, &odd)];
                    let places = &places[..if pair { 2 } else { 1 }];
                    // SAFETY: the caller provides room for all packed rows of `width` elements. Reads stay inside the source
                    // channel, of which `left` elements remain.
                    unsafe {
                        for (to, columns) in places.iter().filter(|_| ZEROS) {
                            let to = to.add(plane);
                            zero::<S, T>(to, rows.start * width);
                            zero::<S, T>(to.add(rows.end * width), (height - rows.end) * width);
                            for row in rows.clone() {
                                zero::<S, T>(to.add(row * width), columns.start);
                                zero::<S, T>(to.add(row * width + columns.end), width - columns.end);
                            }
                        }
                        // Both offsets are advanced by additions, since a depthwise convolution packs many short rows.
                        let y = coordinate(1, rows.start, phase[1]).max(0) as usize;
                        let mut at = (z.max(0) as usize * size[1] + y) * size[2] + first;
                        let mut row = plane + rows.start * width + columns.start;
                        for _ in rows {
                            let left = from.len() - at;
                            let (from, to) = (from.as_ptr().add(at), even_to.add(row));
                            match self.step[2] {
                                1 => copy::<S, T>(from, to, columns.len()),
                                2 => {
                                    let odd = if pair { Some((odd_to.add(row), odd.len())) } else { None };
                                    take_apart::<S, T>(from, left, (to, columns.len()), odd);
                                }
                                step => (0..columns.len()).for_each(|x| *to.add(x) = *from.add(x * step)),
                            }
                            (at, row) = (at + self.step[1] * size[2], row + width);
                        }
                    }
                }
                let done = if pair { 2 } else { 1 };
                to = to.wrapping_add(done * phase_size);
                phases = &phases[done..];
            }
        }
    }
}

/// Writes a short run of zeros.
///
/// # Safety
/// `to` is writable for `count` elements.
#[inline(always)]
unsafe fn zero<S: Simd, T: Real>(to: *mut T, count: usize) {
    for x in (0..count).step_by(T::Vec::<S>::LANES) {
        // SAFETY: the caller's promise; a partial store stops at the last element.
        unsafe { T::Vec::<S>::zero().store_partial_ptr(to.add(x), count - x) };
    }
}

/// Copies a short row; a call of `memcpy` would cost more than the copy.
///
/// # Safety
/// `from` is readable and `to` writable for `count` elements.
#[inline(always)]
unsafe fn copy<S: Simd, T: Real>(from: *const T, to: *mut T, count: usize) {
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

/// Deinterleaves a row: copies `count` even elements and, if `odd` is given, its number of odd elements.
///
/// # Safety
/// `from` is readable for `left` elements, which include all that are copied, and the destinations are writable. There are as
/// many odd elements as even ones, or one less.
#[inline(always)]
unsafe fn take_apart<S: Simd, T: Real>(
    from: *const T,
    left: usize,
    (even, count): (*mut T, usize),
    odd: Option<(*mut T, usize)>,
) {
    let lanes = T::Vec::<S>::LANES;
    let whole = left / 2 / lanes * lanes;
    let whole = odd.map_or(count, |(_, count)| count).min(whole) / lanes * lanes;
    // SAFETY: the caller's promise; partial loads and stores stop at the last element.
    unsafe {
        for x in (0..whole).step_by(lanes) {
            let from = from.add(2 * x);
            let (a, b) = (T::Vec::<S>::load_ptr(from), T::Vec::<S>::load_ptr(from.add(lanes)));
            a.even(b).store_ptr(even.add(x));
            if let Some((odd, _)) = odd {
                a.odd(b).store_ptr(odd.add(x));
            }
        }
        for x in (whole..count).step_by(lanes) {
            let (from, left) = (from.add(2 * x), left - 2 * x);
            let first = left.min(lanes);
            let second = T::Vec::<S>::load_partial_ptr(from.add(first), left - first);
            let first = T::Vec::<S>::load_partial_ptr(from, first);
            first.even(second).store_partial_ptr(even.add(x), count - x);
            if let Some((odd, count)) = odd {
                first.odd(second).store_partial_ptr(odd.add(x), count - x);
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

/// The size of the blocks when `size` is cut into the fewest blocks of at most `most`, as equal as possible.
pub(super) fn equal_blocks(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1)).max(1)).max(1)
}
