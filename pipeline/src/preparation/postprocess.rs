//! Postprocessing of masks: largest component of a class, hole filling.
//!
//! Connected components are found by runs: runs of voxels along the last axis are merged with those of neighbouring rows, so
//! that memory is proportional to the number of runs, not voxels.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result};

use super::OPERATION;

/// A postprocessing step of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Postprocess {
    /// Keeps the largest component of a class (of equal ones the first, by its first voxel in the network's orientation); the
    /// others become background. Voxels that share a face, an edge or a corner are connected (26 neighbours in 3D, 8 in 2D),
    /// as in nnU-Net.
    LargestComponent {
        /// The number of the class, 1 or more.
        class: usize,
    },
    /// Fills holes: background that can't be reached from the border through face neighbours (6 in 3D, 4 in 2D) without
    /// crossing the class becomes that class, as SciPy's `binary_fill_holes`. Voxels of other classes inside stay unchanged.
    FillHoles {
        /// The number of the class, 1 or more.
        class: usize,
    },
}

impl Postprocess {
    /// Checks that the class is a foreground class among `classes` classes.
    pub(super) fn check(&self, classes: usize) -> Result<()> {
        let (Self::LargestComponent { class } | Self::FillHoles { class }) = *self;
        if (1..classes).contains(&class) {
            return Ok(());
        }
        Err(Error::argument(OPERATION, format!("post-processing of class {class}"))
            .expected(format!("the number of a class, 1 to {}", classes - 1)))
    }

    /// Processes class numbers of `shape` (D, H, W); a `flat` mask is one plane without neighbours before and after it.
    pub(super) fn apply(&self, labels: &mut [u8], shape: [usize; 3], flat: bool) {
        match *self {
            Self::LargestComponent { class } => {
                let found = Components::find(labels, shape, Connected::Corners, |label| usize::from(label) == class);
                let sizes = found.sizes();
                let Some(largest) = (0..sizes.len()).rev().max_by_key(|&root| sizes[root]) else { return };
                for (run, root) in found.runs.iter().zip(&found.roots) {
                    if *root != largest {
                        labels[run.start..run.end].fill(0);
                    }
                }
            }
            Self::FillHoles { class } => {
                let found = Components::find(labels, shape, Connected::Faces, |label| usize::from(label) != class);
                let mut open = vec![false; found.runs.len()];
                for (run, &root) in found.runs.iter().zip(&found.roots) {
                    open[root] |= run.at_border(shape, flat);
                }
                for (run, &root) in found.runs.iter().zip(&found.roots) {
                    if !open[root] {
                        let enclosed = labels[run.start..run.end].iter_mut().filter(|label| **label == 0);
                        enclosed.for_each(|label| *label = class as u8);
                    }
                }
            }
        }
    }
}

/// The connectivity of voxels.
#[derive(Clone, Copy, PartialEq)]
enum Connected {
    /// By faces.
    Faces,
    /// By faces, edges or corners.
    Corners,
}

/// A run of neighbouring voxels in one row, by their indices in the grid.
struct Run {
    start: usize,
    end: usize,
}

impl Run {
    fn at_border(&self, [depth, height, width]: [usize; 3], flat: bool) -> bool {
        let (row, first) = (self.start / width, self.start % width);
        let (z, y) = (row / height, row % height);
        let end = first + (self.end - self.start);
        first == 0 || end == width || y == 0 || y + 1 == height || !flat && (z == 0 || z + 1 == depth)
    }
}

/// The connected components of a mask: its runs in order, and for each the index of the first run of its component
/// (union-find).
struct Components {
    runs: Vec<Run>,
    roots: Vec<usize>,
}

impl Components {
    fn find(labels: &[u8], [_, height, width]: [usize; 3], connected: Connected, inside: impl Fn(u8) -> bool) -> Self {
        let mut found = Self { runs: Vec::new(), roots: Vec::new() };
        // The index of the first run of each row.
        let mut rows = vec![0];
        for (row, values) in labels.chunks_exact(width).enumerate() {
            let first = found.runs.len();
            let mut x = 0;
            while let Some(from) = values[x..].iter().position(|&label| inside(label)).map(|at| x + at) {
                let length = values[from..].iter().position(|&label| !inside(label)).unwrap_or(width - from);
                x = from + length;
                found.runs.push(Run { start: row * width + from, end: row * width + x });
                found.roots.push(found.roots.len());
            }
            rows.push(found.runs.len());
            let (z, y) = (row / height, row % height);
            // The preceding rows that touch this one, in this plane and in the previous one.
            let above = (y > 0).then(|| row - 1);
            let before = (z > 0).then(|| row - height);
            let corners = match (before, connected) {
                (Some(before), Connected::Corners) => {
                    [(y > 0).then(|| before - 1), (y + 1 < height).then(|| before + 1)]
                }
                _ => [None; 2],
            };
            for other in [above, before].into_iter().chain(corners).flatten() {
                found.join(first..found.runs.len(), rows[other]..rows[other + 1], width, connected);
            }
        }
        for run in 0..found.roots.len() {
            found.roots[run] = found.root(run);
        }
        found
    }

    /// Merges the touching runs of two neighbouring rows.
    fn join(&mut self, these: std::ops::Range<usize>, those: std::ops::Range<usize>, width: usize, by: Connected) {
        let (mut a, mut b) = (these.start, those.start);
        // Diagonal neighbours are one voxel further.
        let reach = usize::from(by == Connected::Corners);
        while a < these.end && b < those.end {
            let [(a_start, a_end), (b_start, b_end)] = [a, b].map(|run| {
                let run = &self.runs[run];
                let first = run.start % width;
                (first, first + run.end - run.start)
            });
            if a_start < b_end + reach && b_start < a_end + reach {
                let (one, other) = (self.root(a), self.root(b));
                self.roots[one.max(other)] = one.min(other);
            }
            if a_end < b_end { a += 1 } else { b += 1 }
        }
    }

    /// The first run of the component of a run, with path halving.
    fn root(&mut self, mut run: usize) -> usize {
        while self.roots[run] != run {
            self.roots[run] = self.roots[self.roots[run]];
            run = self.roots[run];
        }
        run
    }

    /// The number of voxels of each component, at the index of its first run.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.runs.len()];
        self.runs.iter().zip(&self.roots).for_each(|(run, &root)| sizes[root] += run.end - run.start);
        sizes
    }
}
