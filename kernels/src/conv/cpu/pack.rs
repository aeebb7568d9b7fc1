//! A piece of the input as the dense kernels read it: zero-padded, and with strides deinterleaved.

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
            // The rows of a tile would share few sets of the L1 cache.
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
            let from = source.channel(n, channel, size.iter().product());
            let mut phases = &self.phases[..];
            while let [phase, rest @ ..] = phases {
                // With a stride of 2, the two phases of a row are deinterleaved together: taps list them one after the other.
                let pair = self.step[2] == 2 && rest.first().is_some_and(|next| next[..2] == phase[..2]);
                let coordinate = |axis: usize, at: usize, phase: usize| {
                    (base[axis] + at as isize) * self.step[axis] as isize + phase as isize
                };
                // The places along an axis whose coordinates lie inside the source.
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
                // Where the even and the odd columns go; without a pair they are the same.
                let [even_to, odd_to] =
                    [own > other, own < other].map(|second| to.wrapping_add(usize::from(second) * phase_size));
                for z in 0..depth {
                    let plane = z * height * width;
                    let z = coordinate(0, z, phase[0]);
                    let outside = z < 0 || z as usize >= size[0] || columns.is_empty();
                    let rows = if outside { 0..0 } else { rows.clone() };
                    let places = [(even_to, &columns), (odd_to, &odd)];
                    let places = &places[..if pair { 2 } else { 1 }];
                    // SAFETY: rows of `width` follow each other, as many as the caller made room for; what is read of the
                    // source lies in its channel, which is as long as `left` says.
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
                        // Both go on by additions: a depthwise convolution packs many short rows.
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

/// Writes a few zeros.
///
/// # Safety
/// `to` is writable for as many.
#[inline(always)]
unsafe fn zero<S: Simd, T: Real>(to: *mut T, count: usize) {
    for x in (0..count).step_by(T::Vec::<S>::LANES) {
        // SAFETY: the caller's promise; a partial store stops at the last number.
        unsafe { T::Vec::<S>::zero().store_partial_ptr(to.add(x), count - x) };
    }
}

/// Copies a short row: the call of `memcpy` costs more than the copy.
///
/// # Safety
/// `from` is readable and `to` writable for `count` numbers.
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

/// Copies the even numbers of `left` that there are, and the odd ones too if there is a place for them: each as many as said.
///
/// # Safety
/// `from` is readable for `left` numbers, among them all that are copied, and the places are writable. There are as many
/// odd ones as even ones, or one less.
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
    // SAFETY: the caller's promise; partial loads and stores stop where the numbers do.
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

/// Cuts `size` into equal blocks of at most `most`.
pub(super) fn equal_blocks(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1)).max(1)).max(1)
}
