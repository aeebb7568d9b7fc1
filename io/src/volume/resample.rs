//! Resampling volumes to another grid.

use tomograd_core::{DType, Device, Element, Error, Result, Tensor, TensorBuilder};

use super::Volume;
use crate::{
    element::with_element,
    geometry::{self, Affine},
};

/// The interpolation mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Nearest neighbour; the dtype is kept. For labels, since no new values arise. A point within 10⁻⁴ voxels of halfway
    /// between two voxels takes the one with the larger index, as in SciPy, ITK and PyTorch's `nearest-exact`.
    Nearest,
    /// Trilinear, computed in f64; the result is f64 for f64 voxels and f32 for all others. For images.
    Linear,
}

impl Volume {
    /// Resamples the volume to another spacing (millimetres along x, y, z), with the same axes and the same centre. The size
    /// of an axis is the old extent divided by the new spacing, rounded, at least 1. The sampling positions depend on the
    /// ratio of the spacings only, not on the orientation.
    ///
    /// Downsampling doesn't smooth first. See [`Volume::resample_to`] for the boundary.
    ///
    /// # Errors
    /// When a spacing isn't positive and finite, or memory runs out.
    pub fn resample(&self, spacing: [f64; 3], interpolation: Interpolation) -> Result<Self> {
        if !spacing.iter().all(|step| step.is_finite() && *step > 0.0) {
            return Err(Error::argument("resample", format!("a spacing of {spacing:?}")).expected("positive numbers"));
        }
        let mut map: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
        let mut sizes = [1usize; 3];
        let axes = sizes.iter_mut().zip(self.spatial()).zip(spacing.into_iter().zip(self.spacing()));
        for (axis, (row, ((size, old_size), (new, old)))) in map.iter_mut().zip(axes).enumerate() {
            let ratio = new / old;
            // The cast saturates, and a size that is too large is rejected when the tensor is created.
            *size = ((old_size as f64 / ratio).round() as usize).max(1);
            if let Some(entry) = row.get_mut(axis) {
                *entry = ratio;
            }
            row[3] = ((old_size as f64 - 1.0) - (*size as f64 - 1.0) * ratio) / 2.0;
        }
        self.resampled(sizes, &map, interpolation)
    }

    /// Resamples the volume to the grid of another one, by world coordinates. Matrices and codes become the other's; other
    /// metadata is kept.
    ///
    /// Positions up to half a voxel outside the outermost voxel centres take the boundary value; beyond that, the value is 0.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn resample_to(&self, other: &Volume, interpolation: Interpolation) -> Result<Self> {
        let sizes = other.spatial();
        let map = geometry::compose(&geometry::inverse(self.affine())?, other.affine());
        let mut resampled = self.resampled(sizes, &straightened(map, sizes), interpolation)?;
        // Geometry is copied bit for bit from `other`; the steps of time and channels are kept from this volume.
        let mut geometry = other.geometry.clone();
        for (step, own) in geometry.pixdim.iter_mut().zip(self.geometry.pixdim).skip(4) {
            *step = own;
        }
        geometry.units = geometry.units & 7 | self.geometry.units & !7;
        resampled.geometry = geometry;
        Ok(resampled)
    }

    /// The volume on a grid of these sizes, where `map` maps new to old voxel indices.
    fn resampled(&self, sizes: [usize; 3], map: &Affine, interpolation: Interpolation) -> Result<Self> {
        geometry::inverse(map)?;
        let voxels = self.voxels().contiguous()?;
        let grid = Grid { from: self.spatial(), to: sizes, map: *map };
        let made = match interpolation {
            Interpolation::Nearest => with_element!(voxels.dtype(), T => grid.nearest::<T>(&voxels)?),
            Interpolation::Linear => with_element!(voxels.dtype(), T => match voxels.dtype() {
                DType::F64 => grid.linear::<T, f64>(&voxels)?,
                _ => grid.linear::<T, f32>(&voxels)?,
            }),
        };
        let mut moved = self.moved(made, map)?;
        if interpolation == Interpolation::Linear {
            moved.coding = None;
        }
        Ok(moved)
    }
}

/// The largest rounding error, in voxels, assumed for 32-bit headers and for maps between grids.
const SLACK: f64 = 1e-4;

/// If the axes of both grids are parallel, removes the off-axis rounding errors of the map. Then an index depends on one
/// other index only, and ties are broken the same way everywhere.
fn straightened(map: Affine, sizes: [usize; 3]) -> Affine {
    let mut straight = map;
    for row in straight.iter_mut().take(3) {
        let largest = row.iter().take(3).fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
        let mut beside = 0.0;
        for (entry, size) in row.iter_mut().zip(sizes) {
            if entry.abs() < largest {
                beside += entry.abs() * (size as f64 - 1.0);
                *entry = 0.0;
            }
        }
        if beside > SLACK {
            return map;
        }
    }
    if geometry::inverse(&straight).is_ok() { straight } else { map }
}

/// Two grids, and the map from voxel indices of the new one to the old one.
struct Grid {
    from: [usize; 3],
    to: [usize; 3],
    map: Affine,
}

impl Grid {
    /// Computes the tensor of the new grid by `value(old voxels of one channel, position)`, channel by channel.
    fn fill<T: Element, U: Element>(
        &self,
        voxels: &Tensor,
        value: impl Fn(&[T], [f64; 3]) -> Option<U>,
    ) -> Result<Tensor> {
        let [x, y, z] = self.to;
        let base = voxels.rank().saturating_sub(3);
        let mut shape: Vec<usize> = voxels.shape().iter().take(base).copied().collect();
        shape.extend([z, y, x]);
        let channel = self.from.iter().product::<usize>().max(1);
        let mut channels = voxels.as_slice::<T>()?.chunks(channel);
        let mut current = channels.next().unwrap_or_default();
        let (mut i, mut j, mut k) = (0usize, 0usize, 0usize);
        TensorBuilder::<U>::new("resample", &shape, Device::Cpu)?.fill_with(|_| {
            let made = value(current, geometry::apply(&self.map, [i as f64, j as f64, k as f64]));
            i += 1;
            if i == x {
                (i, j) = (0, j + 1);
            }
            if j == y {
                (j, k) = (0, k + 1);
            }
            if k == z {
                k = 0;
                current = channels.next().unwrap_or_default();
            }
            made.unwrap_or_default()
        })
    }

    /// Clamps a position that is at most half a voxel outside; `None` if it is further outside.
    fn inside(&self, place: [f64; 3]) -> Option<[f64; 3]> {
        // The tolerance keeps the outermost voxels in spite of rounding in the map.
        let mut inside = [0.0; 3];
        for ((to, at), size) in inside.iter_mut().zip(place).zip(self.from) {
            let last = size as f64 - 1.0;
            if !(-0.5 - SLACK..=last + 0.5 + SLACK).contains(&at) {
                return None;
            }
            *to = at.clamp(0.0, last);
        }
        Some(inside)
    }

    fn nearest<T: Element>(&self, voxels: &Tensor) -> Result<Tensor> {
        let [width, height, _] = self.from;
        self.fill::<T, T>(voxels, |values, place| {
            let [x, y, z] = self.inside(place)?.map(|at| (at + 0.5 + SLACK).floor() as usize);
            // The position is clamped, so rounding up stays on the grid.
            values.get((z * height + y) * width + x).copied()
        })
    }

    fn linear<T: Element, U: Element>(&self, voxels: &Tensor) -> Result<Tensor> {
        let [width, height, depth] = self.from;
        self.fill::<T, U>(voxels, |values, place| {
            let [x, y, z] = self.inside(place)?;
            let corner = [x.floor(), y.floor(), z.floor()];
            let [fx, fy, fz] = [x - corner[0], y - corner[1], z - corner[2]];
            let [x, y, z] = corner.map(|at| at as usize);
            let (right, back, up) = ((x + 1).min(width - 1), (y + 1).min(height - 1), (z + 1).min(depth - 1));
            let at = |x: usize, y: usize, z: usize| {
                values.get((z * height + y) * width + x).map_or(0.0, |value| value.to_f64())
            };
            // The difference of two equal infinities would be NaN.
            let mix = |a: f64, b: f64, t: f64| if t == 0.0 || a == b { a } else { a + (b - a) * t };
            let row = |y, z| mix(at(x, y, z), at(right, y, z), fx);
            let plane = |z| mix(row(y, z), row(back, z), fy);
            Some(U::from_f64(mix(plane(z), plane(up), fz)))
        })
    }
}
