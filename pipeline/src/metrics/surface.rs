//! The voxels of a class in two grids of class numbers, how many there are and where, and the surface of them.

use tomograd_core::{Result, pieces};

/// How many voxels of a class two grids have, and the box in which they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tally {
    /// In each of the grids.
    pub(super) counts: [usize; 2],
    /// In both at once.
    pub(super) both: usize,
    /// The first voxel of the box, and the first behind it, along z, y and x.
    low: [usize; 3],
    high: [usize; 3],
}

/// A part of a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Box3 {
    pub(super) start: [usize; 3],
    pub(super) size: [usize; 3],
}

impl Tally {
    const NONE: Self = Self { counts: [0; 2], both: 0, low: [usize::MAX; 3], high: [0; 3] };

    /// Counts the voxels of `class`.
    pub(super) fn of(numbers: [&[u8]; 2], class: u8, shape: [usize; 3]) -> Result<Self> {
        let [depth, height, width] = shape;
        let mut planes = vec![Self::NONE; depth];
        pieces::each(&mut planes, 1, |z, tally| {
            let planes = numbers.map(|numbers| &numbers[z * height * width..][..height * width]);
            tally[0] = Self::of_plane(planes, class, z, width);
            Ok(())
        })?;
        Ok(planes.into_iter().fold(Self::NONE, |all, plane| Self {
            counts: [0, 1].map(|i| all.counts[i] + plane.counts[i]),
            both: all.both + plane.both,
            low: [0, 1, 2].map(|axis| all.low[axis].min(plane.low[axis])),
            high: [0, 1, 2].map(|axis| all.high[axis].max(plane.high[axis])),
        }))
    }

    fn of_plane(planes: [&[u8]; 2], class: u8, z: usize, width: usize) -> Self {
        let mut tally = Self::NONE;
        for (y, (first, second)) in planes[0].chunks_exact(width).zip(planes[1].chunks_exact(width)).enumerate() {
            let [mut counts, mut both] = [[0u32; 2], [0; 2]];
            for (a, b) in first.iter().zip(second) {
                let (a, b) = (u32::from(*a == class), u32::from(*b == class));
                counts = [counts[0] + a, counts[1] + b];
                both[0] += a & b;
            }
            if counts == [0; 2] {
                continue;
            }
            tally.counts = [0, 1].map(|i| tally.counts[i] + counts[i] as usize);
            tally.both += both[0] as usize;
            let any = |x: &usize| first[*x] == class || second[*x] == class;
            let (low, high) = ((0..width).find(any).unwrap_or(0), (0..width).rfind(any).unwrap_or(0) + 1);
            tally.low = [z, tally.low[1].min(y), tally.low[2].min(low)];
            tally.high = [z + 1, y + 1, tally.high[2].max(high)];
        }
        tally
    }

    /// The box of all voxels; there must be some.
    pub(super) fn bounds(&self) -> Box3 {
        Box3 { start: self.low, size: [0, 1, 2].map(|axis| self.high[axis] - self.low[axis]) }
    }
}

/// Voxels of a box: for each plane their y and x within it, in order.
pub(super) struct Surface {
    pub(super) size: [usize; 3],
    pub(super) planes: Vec<Vec<[u32; 2]>>,
}

impl Surface {
    /// The voxels of `class` in the box that have a neighbour of another class, or none, along the last `rank` axes. All voxels of the
    /// class are in the box.
    pub(super) fn of(numbers: &[u8], class: u8, shape: [usize; 3], rank: usize, within: Box3) -> Result<Self> {
        let [depth, height, width] = shape;
        let Box3 { start, size } = within;
        // A row outside of the grid has no voxels of the class.
        let row = |z: usize, y: usize| -> Option<&[u8]> {
            (z < depth && y < height).then(|| &numbers[(z * height + y) * width..][..width])
        };
        let mut planes = vec![Vec::new(); size[0]];
        pieces::each(&mut planes, 1, |plane, found| {
            let z = start[0] + plane;
            let mut inner = vec![0u8; width];
            for y in start[1]..start[1] + size[1] {
                let Some(here) = row(z, y) else { continue };
                inner_of_row(here, class, &mut inner);
                let neighbours = [
                    (rank > 2).then(|| row(z.wrapping_sub(1), y)),
                    (rank > 2).then(|| row(z + 1, y)),
                    Some(row(z, y.wrapping_sub(1))),
                    Some(row(z, y + 1)),
                ];
                for neighbour in neighbours.into_iter().flatten() {
                    match neighbour {
                        Some(row) => {
                            inner.iter_mut().zip(row).for_each(|(inner, beside)| *inner &= u8::from(*beside == class));
                        }
                        None => inner.fill(0),
                    }
                }
                let columns = start[2]..start[2] + size[2];
                let places = (0u32..).zip(here[columns.clone()].iter().zip(&inner[columns]));
                let surface = places.filter(|(_, (here, inner))| **here == class && **inner == 0);
                found[0].extend(surface.map(|(x, _)| [(y - start[1]) as u32, x]));
            }
            Ok(())
        })?;
        Ok(Self { size, planes })
    }
}

/// 1 for the voxels of a row whose two neighbours in it are of the class, else 0.
fn inner_of_row(row: &[u8], class: u8, inner: &mut [u8]) {
    inner.fill(0);
    for (inner, around) in inner.iter_mut().skip(1).zip(row.windows(3)) {
        *inner = u8::from(around[0] == class) & u8::from(around[2] == class);
    }
}
