//! Resampling logits from the network's grid to the image's grid, plane by plane.
//!
//! Both grids have parallel axes and the same centre, so that linear interpolation is separable. A plane of the image is
//! between at most two planes of logits; only these are kept, whatever the depth of the volume.

use tomograd_core::{DType, Device, Result, Tensor};

/// The state of resampling planes of logits to another grid.
pub(super) struct Restore {
    /// For each axis: between which voxels of the network's grid each voxel of the image lies.
    axes: [Vec<Between>; 3],
    /// The sizes of the network's grid.
    from: [usize; 3],
    /// The sizes of the image's grid.
    to: [usize; 3],
    /// The previous plane of logits, f32 `(K, H, W)`.
    before: Tensor,
    /// A plane on the image's grid, f32 `(K, H, W)`.
    plane: Tensor,
    /// One map interpolated between two planes, f32 `(H, W)`.
    map: Tensor,
    /// The next plane of the image.
    next: usize,
}

/// A position between two neighbouring voxels, or on one.
struct Between {
    low: usize,
    high: usize,
    /// The position between them, from 0 (`low`) to 1 (`high`).
    part: f32,
}

impl Restore {
    /// From `maps` maps on a grid with sizes and spacings `from` to one with sizes and spacings `to` (millimetres).
    pub fn new(maps: usize, from: ([usize; 3], [f64; 3]), to: ([usize; 3], [f64; 3])) -> Result<Self> {
        let axis = |axis: usize| between((from.0[axis], from.1[axis]), (to.0[axis], to.1[axis]));
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu);
        let ([_, height, width], [_, rows, columns]) = (from.0, to.0);
        Ok(Self {
            axes: [axis(0), axis(1), axis(2)],
            from: from.0,
            to: to.0,
            before: zeros(&[maps, height, width])?,
            plane: zeros(&[maps, rows, columns])?,
            map: zeros(&[height, width])?,
            next: 0,
        })
    }

    /// Adds the logits `(K, H, W)` of the next plane, number `depth`, and calls `finished` with the index and the logits of
    /// each image plane up to it.
    pub fn take(&mut self, depth: usize, logits: &[f32], finished: &mut impl FnMut(usize, &mut [f32])) -> Result<()> {
        let [depths, heights, widths] = &self.axes;
        let ([_, height, width], [_, rows, columns]) = (self.from, self.to);
        while let Some(z) = depths.get(self.next).filter(|z| z.high <= depth) {
            let before = self.before.as_slice::<f32>()?.chunks_exact(height * width);
            let maps = self.plane.as_mut_slice::<f32>()?.chunks_exact_mut(rows * columns);
            let map = self.map.as_mut_slice::<f32>()?;
            for ((target, before), now) in maps.zip(before).zip(logits.chunks_exact(height * width)) {
                // Positions that aren't on this plane are between the previous one and this one.
                let low = if z.low == depth { now } else { before };
                map.iter_mut().zip(low.iter().zip(now)).for_each(|(to, (a, b))| *to = mix(*a, *b, z.part));
                for (row, y) in target.chunks_exact_mut(columns).zip(heights) {
                    let [low, high] = [y.low, y.high].map(|y| &map[y * width..(y + 1) * width]);
                    for (to, x) in row.iter_mut().zip(widths) {
                        let [a, b] = [x.low, x.high].map(|x| mix(low[x], high[x], y.part));
                        *to = mix(a, b, x.part);
                    }
                }
            }
            finished(self.next, self.plane.as_mut_slice::<f32>()?);
            self.next += 1;
        }
        self.before.as_mut_slice::<f32>()?.copy_from_slice(logits);
        Ok(())
    }
}

/// The difference of two equal infinities would be NaN.
fn mix(a: f32, b: f32, part: f32) -> f32 {
    if part == 0.0 || a == b { a } else { a + (b - a) * part }
}

/// The positions of the voxels of the grid `to` in the grid `from`, which has the same centre; positions outside are clamped.
fn between((size, step): (usize, f64), (to_size, to_step): (usize, f64)) -> Vec<Between> {
    let (last, ratio) = (size as f64 - 1.0, to_step / step);
    let first = (last - (to_size as f64 - 1.0) * ratio) / 2.0;
    let place = |index: usize| {
        let at = (first + index as f64 * ratio).clamp(0.0, last);
        let part = (at - at.floor()) as f32;
        let low = at.floor() as usize;
        Between { low, high: if part > 0.0 { low + 1 } else { low }, part }
    };
    (0..to_size).map(place).collect()
}
