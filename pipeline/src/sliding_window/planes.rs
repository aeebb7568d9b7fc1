//! Where windows take their voxels: from an image in memory, or from planes that are read when they are needed.

use tomograd_core::{Result, room_for};

/// The planes of an image `(C, D, H, W)`.
pub(crate) trait Planes {
    /// The values of some planes that hold `from..to`, `(C, n, H, W)`, the first of them and their number n.
    fn slab(&mut self, from: usize, to: usize) -> Result<(&[f32], usize, usize)>;
}

/// All planes of an image in memory.
pub(super) struct Whole<'a> {
    pub(super) voxels: &'a [f32],
    pub(super) depth: usize,
}

impl Planes for Whole<'_> {
    fn slab(&mut self, _: usize, _: usize) -> Result<(&[f32], usize, usize)> {
        Ok((self.voxels, 0, self.depth))
    }
}

/// Planes of an image of one channel; those that the next row of windows needs too are kept, the others read.
pub(crate) struct Streamed<F> {
    read: F,
    /// The number of voxels of a plane.
    plane: usize,
    values: Vec<f32>,
    first: usize,
}

impl<F: FnMut(usize, usize, &mut Vec<f32>) -> Result<()>> Streamed<F> {
    /// `read(from, to, values)` appends the planes `from..to`.
    pub(crate) fn new(plane: usize, read: F) -> Self {
        Self { read, plane, values: Vec::new(), first: 0 }
    }
}

impl<F: FnMut(usize, usize, &mut Vec<f32>) -> Result<()>> Planes for Streamed<F> {
    fn slab(&mut self, from: usize, to: usize) -> Result<(&[f32], usize, usize)> {
        let held = self.values.len() / self.plane.max(1);
        let kept = if from >= self.first { held.saturating_sub(from - self.first) } else { 0 };
        if self.values.capacity() < (to - from) * self.plane {
            let mut values = room_for("sliding_window", (to - from) * self.plane)?;
            values.extend_from_slice(&self.values[self.values.len() - kept * self.plane..]);
            self.values = values;
        } else {
            let start = self.values.len() - kept * self.plane;
            self.values.copy_within(start.., 0);
            self.values.truncate(kept * self.plane);
        }
        self.first = from;
        if from + kept < to {
            (self.read)(from + kept, to, &mut self.values)?;
        }
        Ok((&self.values, from, self.values.len() / self.plane.max(1)))
    }
}
