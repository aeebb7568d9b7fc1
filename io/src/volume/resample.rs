//! Resampling volumes to another grid.

use tomograd_core::{DType, Device, Element, Error, Result, Tensor, TensorBuilder, room_for};

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

/// The least number of voxels that one thread works on at a time.
const PIECE: usize = 1 << 16;
/// The least number of planes that one thread makes: the two old planes between which they lie are shared.
const PLANES: usize = 8;

impl Grid {
    /// The memory of the new grid, with the channels of `voxels`. It comes first: sizes that no memory can hold are refused here.
    fn builder<U: Element>(&self, voxels: &Tensor) -> Result<TensorBuilder<U>> {
        let [x, y, z] = self.to;
        let base = voxels.rank().saturating_sub(3);
        let mut shape: Vec<usize> = voxels.shape().iter().take(base).copied().collect();
        shape.extend([z, y, x]);
        TensorBuilder::new("resample", &shape, Device::Cpu)
    }

    /// Makes the tensor of the new grid by `planes(old voxels of one channel, first new plane, new planes)`, which are zeros before.
    /// Several threads make some planes each.
    fn fill<T: Element, U: Element>(
        &self,
        builder: TensorBuilder<U>,
        voxels: &Tensor,
        planes: impl Fn(&[T], usize, &mut [U]) -> Result<()> + Sync,
    ) -> Result<Tensor> {
        let [x, y, z] = self.to;
        let channel = self.from.iter().product::<usize>().max(1);
        let values = voxels.as_slice::<T>()?;
        let plane = x * y;
        let size = PLANES.max(PIECE / plane.max(1)) * plane;
        builder.fill_pieces(size, |index, piece| {
            // A piece may go on in the next channel.
            let mut first = index * (size / plane);
            let mut rest = piece;
            while !rest.is_empty() {
                let count = (z - first % z).min(rest.len() / plane);
                let (part, after) = rest.split_at_mut(count * plane);
                let from = first / z * channel;
                planes(values.get(from..from + channel).unwrap_or_default(), first % z, part)?;
                (rest, first) = (after, first + count);
            }
            Ok(())
        })
    }

    /// Whether the axes of both grids are parallel and in the same order, so that an index depends on one other index only.
    fn is_straight(&self) -> bool {
        let rows = self.map.iter().take(3).enumerate();
        rows.flat_map(|(at, row)| row.iter().take(3).enumerate().filter(move |(column, _)| *column != at))
            .all(|(_, entry)| *entry == 0.0)
    }

    /// What `tap` makes of the position on an axis of the old grid of each index of the same axis of the new one, if the axes are
    /// parallel; `None` outside of the old grid.
    fn taps<P>(&self, axis: usize, tap: impl Fn(f64) -> P) -> Result<Vec<Option<P>>> {
        let size = self.to.get(axis).copied().unwrap_or(0);
        let last = self.from.get(axis).map_or(0.0, |size| *size as f64 - 1.0);
        // Much longer than its voxels' row, where these are bytes.
        let mut taps = room_for("resample", size)?;
        taps.extend((0..size).map(|index| {
            let mut place = [0.0; 3];
            place.iter_mut().skip(axis).take(1).for_each(|at| *at = index as f64);
            let at = geometry::apply(&self.map, place).into_iter().nth(axis)?;
            clamped(at, last).map(&tap)
        }));
        Ok(taps)
    }

    /// Clamps a position that is at most half a voxel outside; `None` if it is further outside.
    fn inside(&self, place: [f64; 3]) -> Option<[f64; 3]> {
        let mut inside = [0.0; 3];
        for ((to, at), size) in inside.iter_mut().zip(place).zip(self.from) {
            *to = clamped(at, size as f64 - 1.0)?;
        }
        Some(inside)
    }

    /// The voxels of some planes one by one, whatever the map.
    fn each_voxel<U: Element>(&self, first: usize, planes: &mut [U], value: impl Fn([f64; 3]) -> Option<U>) {
        let [x, y, _] = self.to;
        for (k, plane) in (first..).zip(planes.chunks_mut(x * y)) {
            for (j, row) in plane.chunks_mut(x).enumerate() {
                for (i, to) in row.iter_mut().enumerate() {
                    let place = geometry::apply(&self.map, [i as f64, j as f64, k as f64]);
                    *to = self.inside(place).and_then(&value).unwrap_or_default();
                }
            }
        }
    }

    fn nearest<T: Element>(&self, voxels: &Tensor) -> Result<Tensor> {
        let [width, height, _] = self.from;
        // The position is clamped, so rounding up stays on the grid.
        let nearest = |at: f64| (at + 0.5 + SLACK).floor() as usize;
        if !self.is_straight() {
            return self.fill::<T, T>(self.builder(voxels)?, voxels, |values, first, planes| {
                self.each_voxel(first, planes, |place| {
                    let [x, y, z] = place.map(nearest);
                    values.get((z * height + y) * width + x).copied()
                });
                Ok(())
            });
        }
        let made = self.builder::<T>(voxels)?;
        let (across, down, through) = (self.taps(0, nearest)?, self.taps(1, nearest)?, self.taps(2, nearest)?);
        let [x, y, _] = self.to;
        self.fill::<T, T>(made, voxels, |values, first, planes| {
            for (plane, z) in planes.chunks_mut(x * y).zip(through.iter().skip(first)) {
                for (row, y) in plane.chunks_mut(x).zip(&down) {
                    let Some((z, y)) = z.zip(*y) else { continue };
                    let from = values.get((z * height + y) * width..).unwrap_or_default();
                    for (to, x) in row.iter_mut().zip(&across) {
                        *to = x.and_then(|x| from.get(x).copied()).unwrap_or_default();
                    }
                }
            }
            Ok(())
        })
    }

    fn linear<T: Element, U: Element>(&self, voxels: &Tensor) -> Result<Tensor> {
        if self.is_straight() {
            let made = self.builder(voxels)?;
            let taps = [self.taps(0, Tap::at)?, self.taps(1, Tap::at)?, self.taps(2, Tap::at)?];
            return self.fill::<T, U>(made, voxels, |values, first, planes| {
                Separable { from: self.from, to: self.to, taps: &taps }.planes(values, first, planes)
            });
        }
        let [width, height, depth] = self.from;
        self.fill::<T, U>(self.builder(voxels)?, voxels, |values, first, planes| {
            self.each_voxel(first, planes, |place| {
                let [x, y, z] = place.map(Tap::at);
                let (right, back, up) =
                    ((x.low + 1).min(width - 1), (y.low + 1).min(height - 1), (z.low + 1).min(depth - 1));
                let at = |x: usize, y: usize, z: usize| {
                    values.get((z * height + y) * width + x).map_or(0.0, |value| value.to_f64())
                };
                let column = |x, y| mix(at(x, y, z.low), at(x, y, up), z.part);
                let plane = |x| mix(column(x, y.low), column(x, back), y.part);
                Some(U::from_f64(mix(plane(x.low), plane(right), x.part)))
            });
            Ok(())
        })
    }
}

/// Clamps a position that is at most half a voxel outside of 0 to `last`; `None` if it is further outside.
fn clamped(at: f64, last: f64) -> Option<f64> {
    // The tolerance keeps the outermost voxels in spite of rounding in the map.
    (-0.5 - SLACK..=last + 0.5 + SLACK).contains(&at).then(|| at.clamp(0.0, last))
}

/// The value `t` of the way from `a` to `b`.
#[inline(always)]
fn mix(a: f64, b: f64, t: f64) -> f64 {
    // The difference of two equal infinities would be NaN.
    if t == 0.0 || a == b { a } else { a + (b - a) * t }
}

/// A position on an axis: the index before it, and how far it is on the way to the next.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    part: f64,
}

impl Tap {
    fn at(position: f64) -> Self {
        let low = position.floor();
        Self { low: low as usize, part: position - low }
    }

    /// The index of the other value; the same where it has no part.
    fn high(self) -> usize {
        if self.part == 0.0 { self.low } else { self.low + 1 }
    }
}

/// Trilinear interpolation axis by axis, where the axes of both grids are parallel: the same operations in the same order as voxel
/// by voxel (along z, y, then x), but rows are interpolated as a whole, and what neighbours have in common is computed once.
struct Separable<'a> {
    from: [usize; 3],
    to: [usize; 3],
    taps: &'a [Vec<Option<Tap>>; 3],
}

impl Separable<'_> {
    /// Makes planes of the new grid, which are zeros before.
    fn planes<T: Element, U: Element>(&self, values: &[T], first: usize, planes: &mut [U]) -> Result<()> {
        let ([width, height, _], [x, y, _], [across, down, through]) = (self.from, self.to, self.taps);
        let mut rows = Pair::new(width)?;
        // Its last value twice, since a position at the end has no next one.
        let mut line = zeros(width + 1)?;
        for (plane, z) in planes.chunks_mut(x * y).zip(through.iter().skip(first)) {
            let Some(z) = *z else { continue };
            rows.forget();
            for (row, y) in plane.chunks_mut(x).zip(down) {
                let Some(y) = *y else { continue };
                let [low, high] = rows.get([y.low, y.high()], |at, row| {
                    let old = |z: usize| values.get((z * height + at) * width..).unwrap_or_default();
                    mixed(row, old(z.low), old(z.high()), z.part);
                });
                mixed(&mut line, low, high, y.part);
                if let [.., last, after] = &mut line[..] {
                    *after = *last;
                }
                for (to, x) in row.iter_mut().zip(across) {
                    let Some(x) = *x else { continue };
                    if let Some([low, high]) = line.get(x.low..x.low + 2) {
                        *to = U::from_f64(mix(*low, *high, x.part));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Interpolates between two rows.
#[inline(always)]
fn mixed<T: Element>(to: &mut [f64], low: &[T], high: &[T], part: f64) {
    if part == 0.0 {
        to.iter_mut().zip(low).for_each(|(to, low)| *to = low.to_f64());
    } else {
        let rows = low.iter().zip(high);
        to.iter_mut().zip(rows).for_each(|(to, (low, high))| *to = mix(low.to_f64(), high.to_f64(), part));
    }
}

fn zeros(size: usize) -> Result<Vec<f64>> {
    let mut zeros = room_for("resample", size)?;
    zeros.resize(size, 0.0);
    Ok(zeros)
}

/// The two rows that were made last, since the next mostly lies between the same ones.
struct Pair {
    made: [Option<usize>; 2],
    values: [Vec<f64>; 2],
}

impl Pair {
    fn new(size: usize) -> Result<Self> {
        Ok(Self { made: [None; 2], values: [zeros(size)?, zeros(size)?] })
    }

    fn forget(&mut self) {
        self.made = [None; 2];
    }

    /// The rows of two indices; those that aren't there are made by `make(index, row)`.
    fn get(&mut self, [low, high]: [usize; 2], mut make: impl FnMut(usize, &mut [f64])) -> [&[f64]; 2] {
        let [first, second] = &mut self.values;
        let [in_first, in_second] = &mut self.made;
        let mut have = |index: usize, made: &mut Option<usize>, row: &mut [f64]| {
            if *made != Some(index) {
                make(index, row);
                *made = Some(index);
            }
        };
        // The one that is there stays where it is.
        if *in_second == Some(low) || (*in_first == Some(high) && low != high) {
            have(low, in_second, second);
            if low == high {
                return [second, second];
            }
            have(high, in_first, first);
            return [second, first];
        }
        have(low, in_first, first);
        if low == high {
            return [first, first];
        }
        have(high, in_second, second);
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tomograd_core::{Random, Seed, pieces};

    use super::*;

    /// The trilinear value at a place, from its eight neighbours; the plainest form.
    fn plain(values: &[f32], [width, height, depth]: [usize; 3], place: [f64; 3]) -> f32 {
        let mut clamped = [0.0; 3];
        for ((to, at), size) in clamped.iter_mut().zip(place).zip([width, height, depth]) {
            let last = size as f64 - 1.0;
            if at < -0.5 - SLACK || at > last + 0.5 + SLACK {
                return 0.0;
            }
            *to = at.clamp(0.0, last);
        }
        let low = clamped.map(f64::floor);
        let t: Vec<f64> = clamped.iter().zip(low).map(|(at, low)| at - low).collect();
        let low = low.map(|at| at as usize);
        let at = |dx: usize, dy: usize, dz: usize| {
            let (x, y, z) = ((low[0] + dx).min(width - 1), (low[1] + dy).min(height - 1), (low[2] + dz).min(depth - 1));
            f64::from(values[(z * height + y) * width + x])
        };
        let between = |a: f64, b: f64, t: f64| if t == 0.0 || a == b { a } else { a + (b - a) * t };
        let column = |dx, dy| between(at(dx, dy, 0), at(dx, dy, 1), t[2]);
        let plane = |dx| between(column(dx, 0), column(dx, 1), t[1]);
        between(plane(0), plane(1), t[0]) as f32
    }

    fn values(random: &mut Random, count: usize) -> Vec<f32> {
        let special = [0.0, -0.0, f32::INFINITY, 1e30];
        let mut value = |_| match random.uniform_in(0.0, 40.0) as usize {
            at @ 0..4 => special[at],
            _ => random.uniform_in(-10.0, 10.0) as f32,
        };
        (0..count).map(&mut value).collect()
    }

    proptest! {
        #[test]
        fn every_path_and_number_of_threads_gives_the_bits_of_the_plain_form(
            from in [1usize..9, 1usize..9, 1usize..9],
            to in [1usize..24, 1usize..24, 1usize..24],
            channels in 1usize..3,
            steps in [-2.0f64..2.0, -2.0f64..2.0, -2.0f64..2.0],
            whole in 0usize..3,
            turned in any::<bool>(),
            seed: u64,
        ) {
            let mut random = Seed::new(seed).random();
            let count = from.iter().product::<usize>();
            let all = values(&mut random, channels * count);
            let shape = [channels, from[2], from[1], from[0]];
            let voxels = Tensor::from_slice(&all, &shape, Device::Cpu).unwrap();
            let mut map: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
            for axis in 0..3 {
                // Whole and half steps meet the borders and the middles.
                map[axis][axis] = if whole == axis { steps[axis].signum() * 0.5 } else { steps[axis] };
                map[axis][3] = if steps[axis] < 0.0 { from[axis] as f64 - 1.0 } else { 0.0 } - 0.5 * steps[axis].abs();
                if turned {
                    map[axis][(axis + 1) % 3] = 0.3 * steps[axis];
                }
            }
            let grid = Grid { from, to, map };
            prop_assert_eq!(grid.is_straight(), !turned || steps.iter().all(|step| *step == 0.0));
            let mut expected = Vec::new();
            for channel in all.chunks(count) {
                for (k, j, i) in (0..to[2]).flat_map(|k| (0..to[1]).flat_map(move |j| (0..to[0]).map(move |i| (k, j, i)))) {
                    let place = geometry::apply(&map, [i as f64, j as f64, k as f64]);
                    expected.push(plain(channel, from, place));
                }
            }
            for threads in [1, 3] {
                let made = pieces::with_threads(threads, || grid.linear::<f32, f32>(&voxels)).unwrap();
                prop_assert_eq!(made.shape(), &[channels, to[2], to[1], to[0]]);
                let made = made.to_vec::<f32>().unwrap();
                for (at, (a, b)) in made.iter().zip(&expected).enumerate() {
                    // A zero outside has no sign.
                    prop_assert!(a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0), "{}: {} {}", at, a, b);
                }
            }
            // The nearest voxel's value is that of a voxel, the same on both ways.
            let made = grid.nearest::<f32>(&voxels).unwrap().to_vec::<f32>().unwrap();
            let places = (0..channels).flat_map(|channel| {
                (0..to[2]).flat_map(move |k| {
                    (0..to[1]).flat_map(move |j| (0..to[0]).map(move |i| (channel, [i as f64, j as f64, k as f64])))
                })
            });
            for (made, (channel, place)) in made.into_iter().zip(places) {
                let place = geometry::apply(&map, place);
                let near = |at: f64, size: usize| {
                    let last = size as f64 - 1.0;
                    let inside = at >= -0.5 - SLACK && at <= last + 0.5 + SLACK;
                    inside.then(|| (at.clamp(0.0, last) + 0.5 + SLACK).floor() as usize)
                };
                let value = near(place[0], from[0]).zip(near(place[1], from[1])).zip(near(place[2], from[2]));
                let value = value.map_or(0.0, |((x, y), z)| all[channel * count + (z * from[1] + y) * from[0] + x]);
                prop_assert_eq!(made.to_bits(), value.to_bits());
            }
        }
    }
}
