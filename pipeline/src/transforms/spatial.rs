//! The map by which a spatial transform moves all fields of a sample.

use tomograd_core::{Error, Result};
use tomograd_io::geometry::Affine;

use crate::{Field, Sample};

pub(super) type Matrix = [[f64; 3]; 3];

/// The map from new to old positions: voxel `p` of the result comes from `matrix · p + offset`, in coordinates in which voxel
/// centres are integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub(super) matrix: Matrix,
    pub(super) offset: [f64; 3],
}

impl Map {
    /// The map of a window that starts at `start`.
    pub(super) fn window(start: [isize; 3]) -> Self {
        let matrix = std::array::from_fn(|i| std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 }));
        Self { matrix, offset: start.map(|start| start as f64) }
    }

    fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| (0..3).map(|j| self.matrix[i][j] * p[j]).sum::<f64>() + self.offset[i])
    }

    /// The inverse map, from old to new positions.
    fn inverse(&self) -> Result<Self> {
        let m = &self.matrix;
        let minor = |i: usize, j: usize| {
            let ([a, b], [c, d]) = ([(i + 1) % 3, (i + 2) % 3], [(j + 1) % 3, (j + 2) % 3]);
            m[a][c] * m[b][d] - m[a][d] * m[b][c]
        };
        let determinant: f64 = (0..3).map(|j| m[0][j] * minor(0, j)).sum();
        if determinant == 0.0 || !determinant.is_finite() {
            return Err(Error::argument("spatial map", format!("a determinant of {determinant}"))
                .expected("a map that can be inverted"));
        }
        let inverse = Self {
            matrix: std::array::from_fn(|i| std::array::from_fn(|j| minor(j, i) / determinant)),
            offset: [0.0; 3],
        };
        Ok(Self { offset: inverse.apply(self.offset).map(|x| 0.0 - x), ..inverse })
    }

    /// The same map for voxel indices (i, j, k), which are in the reverse order of the axes.
    fn affine(&self) -> Affine {
        std::array::from_fn(|row| {
            std::array::from_fn(|column| match (row, column) {
                (3, 3) => 1.0,
                (3, _) => 0.0,
                (_, 3) => self.offset[2 - row],
                _ => self.matrix[2 - row][2 - column],
            })
        })
    }

    /// Moves boxes and points with their voxels, for a result of `size` voxels. A box becomes the bounding box of its moved
    /// corners, clipped to the grid; a box of which nothing remains is dropped with its class. All points are kept. The
    /// affine is updated.
    pub(super) fn move_shapes(&self, sample: &mut Sample, size: [usize; 3]) -> Result<()> {
        sample.note_move(&self.affine());
        let mut there = None;
        for (_, field) in sample.fields_mut() {
            if !matches!(field, Field::Boxes(_) | Field::Points(_)) {
                continue;
            }
            let map = match there {
                Some(map) => map,
                None => *there.insert(self.inverse()?),
            };
            match field {
                Field::Points(points) => points.at.iter_mut().for_each(|point| *point = map.apply(*point)),
                Field::Boxes(boxes) => {
                    let moved = boxes.edges.iter().map(|edges| map.bounds(*edges, size)).zip(&boxes.classes);
                    let (edges, classes) = moved
                        .filter(|([low, high], _)| (0..3).all(|axis| low[axis] < high[axis]))
                        .map(|(edges, &class)| (edges, class))
                        .unzip();
                    (boxes.edges, boxes.classes) = (edges, classes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The bounding box of the moved corners of a box, clipped to `0..size`.
    fn bounds(&self, edges: [[f64; 3]; 2], size: [usize; 3]) -> [[f64; 3]; 2] {
        let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
        for corner in 0..8 {
            // An edge at e is half a voxel before the centre of voxel e.
            let at = self.apply(std::array::from_fn(|axis| edges[corner >> axis & 1][axis] - 0.5));
            for axis in 0..3 {
                low[axis] = low[axis].min(at[axis] + 0.5);
                high[axis] = high[axis].max(at[axis] + 0.5);
            }
        }
        let clipped = |edge: [f64; 3]| std::array::from_fn(|axis| edge[axis].clamp(0.0, size[axis] as f64));
        [clipped(low), clipped(high)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let map = Map { matrix: [[2.0, 1.0, 0.0], [0.0, -0.5, 3.0], [1.0, 0.0, 1.0]], offset: [1.0, -2.0, 7.5] };
        let inverse = map.inverse().unwrap();
        for p in [[0.0, 0.0, 0.0], [3.0, -4.0, 5.5]] {
            let back = inverse.apply(map.apply(p));
            assert!(back.iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-12), "{back:?}");
        }
        assert!(Map { matrix: [[0.0; 3]; 3], ..map }.inverse().is_err());
    }
}
