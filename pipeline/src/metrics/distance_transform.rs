//! Exact Euclidean distances between surfaces.
//!
//! Distances along x are found for all voxels. Surfaces are mostly close to each other: so for a voxel whose distance is asked for, the
//! few rows that may hold something nearer than what was found are looked through. Where surfaces are far apart, that would take too
//! long; there the distance transform goes on along y and z (Felzenszwalb and Huttenlocher, *Distance Transforms of Sampled Functions*,
//! 2012): the lower envelope of one parabola per voxel, along one axis after the other. Planes, then columns of them, are shared among
//! threads.

use tomograd_core::{Result, pieces};

use super::surface::Surface;

/// Looks at voxels, for each voxel of a slice, after which the slice's distance transform is made instead. It takes about twice as long as
/// these looks.
const PATIENCE: usize = 16;
/// More than what rounding makes of a bound.
const SLACK: f64 = 1.0 + 1e-12;

/// The squared distances (mm²) of the voxels of `from` to the nearest voxel of `to`, ordered by x, then z, then y; infinite if `to` has
/// no voxels. `spacing` is along z, y and x.
pub(super) fn squared_distances(from: &Surface, to: &Surface, spacing: [f64; 3]) -> Result<Vec<f64>> {
    let [depth, height, width] = to.size;
    let plane = height * width;
    // Along x alone, column by column: (z, x, y).
    let mut squares = vec![0.0; depth * plane];
    pieces::each(&mut squares, plane, |z, squares| {
        along_rows(&to.planes[z], squares, [height, width], spacing[2]);
        Ok(())
    })?;
    let mut columns: Vec<(Vec<[u32; 2]>, Vec<f64>)> = vec![Default::default(); width];
    for (z, voxels) in (0..).zip(&from.planes) {
        voxels.iter().for_each(|&[y, x]| columns[x as usize].0.push([z, y]));
    }
    pieces::each(&mut columns, 1, |x, column| {
        let [(voxels, distances)] = column else { return Ok(()) };
        if !voxels.is_empty() {
            let lines = squares.chunks_exact(plane).map(|plane| &plane[x * height..][..height]).collect();
            *distances = Slice::new(lines, [spacing[0], spacing[1]]).distances(voxels, PATIENCE);
        }
        Ok(())
    })?;
    Ok(columns.into_iter().flat_map(|(_, distances)| distances).collect())
}

/// The squared distances to the sites of a plane (sorted by y and x) along its rows; infinite in a row without sites.
fn along_rows(sites: &[[u32; 2]], squares: &mut [f64], [height, width]: [usize; 2], dx: f64) {
    let mut rows = sites.chunk_by(|a, b| a[0] == b[0]).peekable();
    let mut steps = vec![0u32; width];
    for y in 0..height {
        let column = squares[y..].iter_mut().step_by(height);
        if let Some(row) = rows.next_if(|row| row[0][0] as usize == y) {
            nearest_in_row(row, &mut steps);
            column.zip(&steps).for_each(|(square, steps)| *square = (f64::from(*steps) * dx).powi(2));
        } else {
            column.for_each(|square| *square = f64::INFINITY);
        }
    }
}

/// The slice (z, y) of one x: the squared distance along x of each voxel.
struct Slice<'a> {
    lines: Vec<&'a [f64]>,
    spacing: [f64; 2],
    /// The squares of 0, 1, 2… steps along y, before them those of −1, −2…
    along_y: Vec<f64>,
}

impl<'a> Slice<'a> {
    fn new(lines: Vec<&'a [f64]>, spacing: [f64; 2]) -> Self {
        let height = lines.first().map_or(0, |line| line.len());
        let along_y = (0..2 * height).map(|i| (i.abs_diff(height) as f64 * spacing[1]).powi(2)).collect();
        Self { lines, spacing, along_y }
    }

    /// The squared distances of voxels (z, y), which are ordered.
    fn distances(&self, voxels: &[[u32; 2]], patience: usize) -> Vec<f64> {
        let mut left = patience.saturating_mul(self.lines.len()).saturating_mul(self.along_y.len() / 2);
        let mut distances: Vec<f64> = Vec::with_capacity(voxels.len());
        let mut limit = f64::INFINITY;
        for (i, &voxel) in voxels.iter().enumerate() {
            if left == 0 {
                distances.extend(self.by_envelopes(&voxels[i..]));
                break;
            }
            let square = self.nearest(voxel, limit, &mut left);
            distances.push(square);
            // The next voxel isn't farther than by way of this one.
            limit = voxels.get(i + 1).map_or(limit, |next| {
                let steps = [0, 1].map(|axis| f64::from(next[axis].abs_diff(voxel[axis])) * self.spacing[axis]);
                (square.sqrt() + steps[0].hypot(steps[1])).powi(2) * SLACK
            });
        }
        distances
    }

    /// The squared distance of a voxel, which is below `limit`; takes from `left` how many voxels were looked at.
    fn nearest(&self, [z, y]: [u32; 2], limit: f64, left: &mut usize) -> f64 {
        let (z, y, height) = (z as usize, y as usize, self.along_y.len() / 2);
        let mut best = limit;
        for step in 0..self.lines.len() {
            let along_z = (step as f64 * self.spacing[0]).powi(2);
            if along_z >= best {
                break;
            }
            let below = z.checked_sub(step).filter(|_| step > 0);
            for line in [Some(z + step), below].into_iter().flatten().filter_map(|z| self.lines.get(z)) {
                // Where it may be nearer.
                let reach = ((best - along_z).sqrt() / self.spacing[1]) as usize;
                let (low, high) = (y.saturating_sub(reach), y.saturating_add(reach).min(height - 1) + 1);
                *left = left.saturating_sub(high - low);
                for (square, along_y) in line[low..high].iter().zip(&self.along_y[height + low - y..]) {
                    best = best.min(square + along_y + along_z);
                }
            }
        }
        best
    }

    /// As [`distances`](Self::distances), by the distance transform of the slice.
    fn by_envelopes(&self, voxels: &[[u32; 2]]) -> Vec<f64> {
        let mut lines: Vec<Vec<f64>> = self.lines.iter().map(|line| line.to_vec()).collect();
        let mut envelope = Envelope::new(self.spacing[1]);
        for line in &mut lines {
            envelope.of(line);
            let mut sampled = envelope.sample();
            line.iter_mut().enumerate().for_each(|(y, square)| *square = sampled(y));
        }
        let mut order: Vec<usize> = (0..voxels.len()).collect();
        order.sort_unstable_by_key(|&i| [voxels[i][1], voxels[i][0]]);
        let (mut distances, mut column) = (vec![0.0; voxels.len()], Vec::new());
        let mut envelope = Envelope::new(self.spacing[0]);
        for same in order.chunk_by(|&a, &b| voxels[a][1] == voxels[b][1]) {
            let y = voxels[same[0]][1] as usize;
            column.clear();
            column.extend(lines.iter().map(|line| line[y]));
            envelope.of(&column);
            let mut sampled = envelope.sample();
            same.iter().for_each(|&i| distances[i] = sampled(voxels[i][0] as usize));
        }
        distances
    }
}

/// How many steps each voxel of a row is from the nearest of these sites, of which there are some, in order.
fn nearest_in_row(sites: &[[u32; 2]], steps: &mut [u32]) {
    let mut begin = 0;
    for (at, &[_, site]) in sites.iter().enumerate() {
        // Up to the middle between this site and the next.
        let end = sites.get(at + 1).map_or(steps.len(), |next| ((site + next[1]) / 2) as usize + 1);
        for (x, steps) in (begin..).zip(&mut steps[begin as usize..end]) {
            *steps = site.abs_diff(x);
        }
        begin = end as u32;
    }
}

/// A parabola of the lower envelope: its voxel, vertex and height, and the position from which on it is the lowest.
struct Parabola {
    voxel: usize,
    centre: f64,
    height: f64,
    from: f64,
}

/// The lower envelope of parabolas over the voxels of a line.
struct Envelope {
    spacing: f64,
    parabolas: Vec<Parabola>,
}

impl Envelope {
    fn new(spacing: f64) -> Self {
        Self { spacing, parabolas: Vec::new() }
    }

    /// Makes it that of parabolas of these heights; infinite ones are none.
    fn of(&mut self, heights: &[f64]) {
        self.parabolas.clear();
        for (i, &height) in heights.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let centre = i as f64 * self.spacing;
            let mut from = f64::NEG_INFINITY;
            while let Some(last) = self.parabolas.last() {
                // The position from which on the new parabola is below the last one.
                let rise = (height + centre * centre) - (last.height + last.centre * last.centre);
                from = rise / (2.0 * (centre - last.centre));
                if from > last.from {
                    break;
                }
                self.parabolas.pop();
                from = f64::NEG_INFINITY;
            }
            self.parabolas.push(Parabola { voxel: i, centre, height, from });
        }
    }

    /// The envelope at voxels that are asked for in order; infinite if it has no parabola.
    fn sample(&self) -> impl FnMut(usize) -> f64 {
        let mut current = 0;
        move |voxel| {
            let at = voxel as f64 * self.spacing;
            while self.parabolas.get(current + 1).is_some_and(|next| next.from <= at) {
                current += 1;
            }
            // As `Slice::nearest` has it.
            let square = |parabola: &Parabola| (voxel.abs_diff(parabola.voxel) as f64 * self.spacing).powi(2);
            self.parabolas.get(current).map_or(f64::INFINITY, |parabola| parabola.height + square(parabola))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tomograd_core::Seed;

    use super::*;

    proptest! {
        /// Far and near, with and without rows and planes that have no sites.
        #[test]
        fn both_ways_give_the_least_of_all_distances(
            size in [1usize..9, 1usize..20, 1usize..20],
            spacing in [0.1f64..5.0, 0.1f64..5.0, 0.1f64..5.0],
            sites in 1usize..12,
            close in any::<bool>(),
            patience in 0usize..20,
            seed: u64,
        ) {
            let mut random = Seed::new(seed).random();
            let mut surface = |count: usize, far: bool| {
                let mut planes = vec![Vec::new(); size[0]];
                for _ in 0..count {
                    let [z, y, x] = size.map(|side| random.below(if far { side.div_ceil(3) } else { side } as u64) as u32);
                    planes[z as usize].push([y, x]);
                }
                planes.iter_mut().for_each(|plane| {
                    plane.sort_unstable();
                    plane.dedup();
                });
                Surface { size, planes }
            };
            let (from, to) = (surface(40, false), surface(sites, !close));
            let all = |surface: &Surface| -> Vec<[u32; 3]> {
                let mut all: Vec<_> =
                    (0..).zip(&surface.planes).flat_map(|(z, plane)| plane.iter().map(move |&[y, x]| [x, z, y])).collect();
                all.sort_unstable();
                all
            };
            let spacings = [spacing[2], spacing[0], spacing[1]];
            let distance = |a: [u32; 3], b: [u32; 3]| -> f64 {
                (0..3).map(|axis| (f64::from(a[axis].abs_diff(b[axis])) * spacings[axis]).powi(2)).sum()
            };
            // With little patience the rest is done by envelopes.
            for x in 0..size[2] as u32 {
                let lines: Vec<Vec<f64>> = (0..size[0])
                    .map(|z| {
                        let sites = &to.planes[z];
                        (0..size[1] as u32).map(|y| {
                            let row = sites.iter().filter(|site| site[0] == y);
                            row.map(|site| (f64::from(site[1].abs_diff(x)) * spacing[2]).powi(2)).fold(f64::INFINITY, f64::min)
                        }).collect()
                    })
                    .collect();
                let slice = Slice::new(lines.iter().map(|line| &line[..]).collect(), [spacing[0], spacing[1]]);
                let asked: Vec<[u32; 3]> = all(&from).into_iter().filter(|voxel| voxel[0] == x).collect();
                let voxels: Vec<[u32; 2]> = asked.iter().map(|&[_, z, y]| [z, y]).collect();
                for (found, voxel) in slice.distances(&voxels, patience).into_iter().zip(asked) {
                    let expected = all(&to).into_iter().map(|site| distance(voxel, site)).fold(f64::INFINITY, f64::min);
                    prop_assert!((found - expected).abs() <= 1e-12 * expected, "{} {}", found, expected);
                }
            }
        }
    }
}
