//! The slab of planes that still receive contributions from windows.

use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::WindowGrid;

/// The sums of logits of as many planes as a window has.
pub(super) struct Slab {
    /// f32 `(depth, K, H, W)`; the plane comes first, because planes are finished one at a time.
    sums: Tensor,
    classes: usize,
    /// The sizes of the image.
    shape: [usize; 3],
    /// The image plane that is the first of the slab.
    first: usize,
    depth: usize,
}

impl Slab {
    pub fn new(classes: usize, shape: [usize; 3], grid: &WindowGrid) -> Result<Self> {
        let depth = grid.patch[0].min(shape[0]);
        let sums = Tensor::zeros(&[depth, classes, shape[1], shape[2]], DType::F32, Device::Cpu)?;
        Ok(Self { sums, classes, shape, first: 0, depth })
    }

    /// Checks that a window has as many classes as the first one.
    pub fn check(&self, classes: usize) -> Result<()> {
        if classes != self.classes {
            return Err(Error::shape("sliding_window", format!("logits of {classes} classes"))
                .expected(format!("{} as in the first window", self.classes)));
        }
        Ok(())
    }

    /// Adds the weighted logits `(K, patch)` of the window with index `window` along each axis.
    pub fn add(&mut self, logits: &[f32], grid: &WindowGrid, window: [usize; 3]) -> Result<()> {
        let start: [isize; 3] = std::array::from_fn(|axis| grid.axes[axis].starts[window[axis]]);
        let weights: [&[f32]; 3] = std::array::from_fn(|axis| &grid.axes[axis].weights[window[axis]][..]);
        // The part of the window inside the image.
        let from = start.map(|s| s.min(0).unsigned_abs());
        let to: [usize; 3] =
            std::array::from_fn(|axis| grid.patch[axis].min((self.shape[axis] as isize - start[axis]) as usize));
        let [_, height, width] = self.shape;
        let at = |axis: usize, i: usize| (start[axis] + i as isize) as usize;
        let (classes, first) = (self.classes, self.first);
        let sums = self.sums.as_mut_slice::<f32>()?;
        for z in from[0]..to[0] {
            for class in 0..classes {
                for y in from[1]..to[1] {
                    let weight = weights[0][z - from[0]] * weights[1][y - from[1]];
                    let source = ((class * grid.patch[0] + z) * grid.patch[1] + y) * grid.patch[2];
                    let target = (((at(0, z) - first) * classes + class) * height + at(1, y)) * width + at(2, from[2]);
                    let length = to[2] - from[2];
                    let row = &logits[source + from[2]..source + to[2]];
                    for ((sum, logit), w) in sums[target..target + length].iter_mut().zip(row).zip(weights[2]) {
                        *sum += logit * (weight * w);
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes on the planes before image plane `next`, and makes `next` the first plane of the slab.
    pub fn finish(&mut self, next: usize, finished: &mut impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let plane = self.classes * self.shape[1] * self.shape[2];
        let done = (next - self.first).min(self.depth);
        let sums = self.sums.as_mut_slice::<f32>()?;
        for (i, logits) in sums.chunks_exact_mut(plane).take(done).enumerate() {
            finished(self.first + i, logits)?;
        }
        sums.copy_within(done * plane.., 0);
        let kept = sums.len() - done * plane;
        sums[kept..].fill(0.0);
        self.first = next;
        Ok(())
    }
}
