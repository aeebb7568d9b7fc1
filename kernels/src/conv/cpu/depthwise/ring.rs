//! A ring buffer of packed source planes.

use super::DepthwiseConv;
use super::taps::{MOST_ROWS, SLACK};
use crate::conv::cpu::tensors::Inputs;
use crate::simd::{Real, Simd};
use std::ops::Range;

/// The packed source planes that a plane of positions reads. Each plane is packed once and overwrites one that isn't needed
/// any more. The padding is zero from the start and is never written.
pub(super) struct Ring<'a, T> {
    plan: &'a DepthwiseConv<'a, T>,
    source: Inputs<'a, T>,
    memory: &'a mut [T],
    /// The number of elements of a packed plane, and the number of planes in the buffer.
    size: usize,
    span: usize,
    packed: Range<usize>,
    /// The planes in use: one for each plane of taps that reads inside the source, starting with plane of taps `first`.
    planes: Vec<*const T>,
    first: usize,
}

impl<'a, T: Real> Ring<'a, T> {
    /// The required number of elements, including what tiles may read beyond the end of their rows.
    pub fn room(plan: &DepthwiseConv<'_, T>) -> usize {
        let (reading, [_, _, pitch]) = (&plan.reading, plan.reading.extent(plan.plane()));
        reading.lead() + plan.span() * reading.channel_size(plan.plane()) + MOST_ROWS * pitch + SLACK
    }

    /// Makes the ring in `memory`, which is zero and holds [`room`](Self::room) elements.
    pub fn new(plan: &'a DepthwiseConv<'a, T>, source: Inputs<'a, T>, memory: &'a mut [T]) -> Self {
        assert!(memory.len() >= Self::room(plan), "room for the planes of a channel");
        let size = plan.reading.channel_size(plan.plane());
        let planes = Vec::with_capacity(plan.shifts.len());
        Ring { plan, source, memory, size, span: plan.span(), packed: 0..0, planes, first: 0 }
    }

    /// Starts with another channel or image.
    pub fn restart(&mut self) {
        self.packed = 0..0;
    }

    /// Packs the source planes that plane `z` of positions reads. `z` must increase from call to call.
    #[inline(always)]
    pub fn turn<S: Simd>(&mut self, n: usize, channel: usize, z: usize) {
        let DepthwiseConv { source_size: size, shifts, reading, .. } = self.plan;
        let inside = |shift: isize| ((z * self.plan.step) as isize + shift).clamp(0, size[0] as isize) as usize;
        let read = inside(shifts[0])..inside(shifts[shifts.len() - 1] + 1);
        for plane in read.start.max(self.packed.end)..read.end {
            let place = reading.lead() + self.place(plane);
            let to = &mut self.memory[place..][..self.size];
            let (channels, start) = (channel..channel + 1, [plane, 0, 0]);
            // SAFETY: the slice has the size of a packed plane.
            unsafe {
                let positions = self.plan.plane();
                reading.pack_over::<S, T, false>(&self.source, *size, n, channels, start, positions, to.as_mut_ptr());
            }
        }
        self.packed = read;
        self.planes.clear();
        for (i, shift) in shifts.iter().enumerate() {
            let plane = (z * self.plan.step) as isize + shift;
            if (0..size[0] as isize).contains(&plane) {
                if self.planes.is_empty() {
                    self.first = i;
                }
                self.planes.push(self.memory[self.place(plane as usize)..].as_ptr());
            }
        }
    }

    /// The offset of the slot of a source plane.
    fn place(&self, plane: usize) -> usize {
        // The numbers are small, and a 32-bit division is faster.
        (plane as u32 % self.span as u32) as usize * self.size
    }

    /// The planes in use, and the plane of taps that reads the first of them.
    pub fn planes(&self) -> (&[*const T], usize) {
        (&self.planes, self.first)
    }

    /// The address of the source planes that follow those that plane `z` of positions reads. It may lie in the next channel
    /// or beyond the source: it is only used for prefetching.
    pub fn ahead(&self, n: usize, channel: usize, z: usize) -> *const T {
        let [depth, height, width] = self.plan.source_size;
        let from = self.source.channel(n, channel, depth * height * width).as_ptr();
        let last = (z * self.plan.step) as isize + self.plan.shifts[self.plan.shifts.len() - 1];
        from.wrapping_offset((last + 1) * (height * width) as isize)
    }
}
