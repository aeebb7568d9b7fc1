//! The exact Euclidean distance transform (Felzenszwalb and Huttenlocher, *Distance Transforms of Sampled Functions*, 2012): the
//! lower envelope of one parabola per voxel, along one axis after the other.
//!
//! The last axis is done for those voxels alone whose distance is asked for. Planes, then columns, are shared among threads.

use tomograd_core::{Result, pieces};

use super::surface::Surface;

/// The squared distances (mm²) of the voxels of `from` to the nearest voxel of `to`, ordered by x, then y, then z; infinite if `to` has
/// no voxels. `spacing` is along z, y and x.
pub(super) fn squared_distances(from: &Surface, to: &Surface, spacing: [f64; 3]) -> Result<Vec<f64>> {
    let [depth, height, width] = to.size;
    let plane = height * width;
    // Column by column: (z, x, y).
    let mut squares = vec![0.0; depth * plane];
    pieces::each(&mut squares, plane, |z, squares| {
        match &to.planes[z][..] {
            [] => squares.fill(f64::INFINITY),
            sites => in_plane(sites, squares, [height, width], [spacing[1], spacing[2]]),
        }
        Ok(())
    })?;
    let mut columns: Vec<(Vec<[u32; 2]>, Vec<f64>)> = vec![Default::default(); width];
    for (z, voxels) in from.planes.iter().enumerate() {
        voxels.iter().for_each(|&[y, x]| columns[x as usize].0.push([y, z as u32]));
    }
    pieces::each(&mut columns, 1, |x, column| {
        let [(voxels, distances)] = column else { return Ok(()) };
        voxels.sort_unstable();
        let (mut line, mut envelope) = (vec![0.0; depth], Envelope::new(spacing[0]));
        let (Some(first), Some(last)) = (voxels.first(), voxels.last()) else { return Ok(()) };
        let (first, rows) = (first[0] as usize, (last[0] - first[0]) as usize + 1);
        // A piece of each plane, so that the values of a column aren't fetched one by one from far away.
        let slab: Vec<f64> =
            squares.chunks_exact(plane).flat_map(|plane| &plane[x * height + first..][..rows]).copied().collect();
        for voxels in voxels.chunk_by(|a, b| a[0] == b[0]) {
            let y = voxels[0][0] as usize - first;
            line.iter_mut().zip(slab[y..].iter().step_by(rows)).for_each(|(to, from)| *to = *from);
            envelope.of(&line);
            let mut sampled = envelope.sample();
            distances.extend(voxels.iter().map(|&[_, z]| sampled(z as usize)));
        }
        Ok(())
    })?;
    Ok(columns.into_iter().flat_map(|(_, distances)| distances).collect())
}

/// The squared distances of a plane to sites in it, of which there are some, sorted by y and x. The result is column by column.
fn in_plane(sites: &[[u32; 2]], squares: &mut [f64], [height, width]: [usize; 2], [dy, dx]: [f64; 2]) {
    let mut rows = sites.chunk_by(|a, b| a[0] == b[0]).peekable();
    let mut steps = vec![0u32; width];
    for y in 0..height {
        let Some(row) = rows.next_if(|row| row[0][0] as usize == y) else {
            squares[y..].iter_mut().step_by(height).for_each(|square| *square = f64::INFINITY);
            continue;
        };
        nearest_in_row(row, &mut steps);
        for (square, steps) in squares[y..].iter_mut().step_by(height).zip(&steps) {
            *square = (f64::from(*steps) * dx).powi(2);
        }
    }
    let mut envelope = Envelope::new(dy);
    for column in squares.chunks_exact_mut(height) {
        envelope.of(column);
        let mut sampled = envelope.sample();
        column.iter_mut().enumerate().for_each(|(y, square)| *square = sampled(y));
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

/// A parabola of the lower envelope: its vertex and height, and the position from which on it is the lowest.
struct Parabola {
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
            self.parabolas.push(Parabola { centre, height, from });
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
            self.parabolas
                .get(current)
                .map_or(f64::INFINITY, |parabola| (at - parabola.centre).powi(2) + parabola.height)
        }
    }
}
