//! Checks that two grids coincide in world coordinates.
//!
//! Two files of one case may have the same grid with permuted or reversed axes. Then the voxels of one are reoriented to the
//! axes of the other, without interpolation. Any other difference is rejected: a network would otherwise learn from a label
//! that is displaced against its image.

use tomograd_core::{Device, Error, Result, Tensor};
use tomograd_io::geometry::{self, Affine};

use crate::{Scan, grid};

/// The default tolerance: the largest distance, in voxels, between the corners of a label and of its image.
pub const TOLERANCE: f64 = 0.01;

/// Checks a tolerance in voxels.
pub(crate) fn tolerance(voxels: f64) -> Result<f64> {
    if !(voxels >= 0.0 && voxels.is_finite()) {
        return Err(Error::argument("alignment", format!("a tolerance of {voxels} voxels"))
            .expected("a finite number of at least 0"));
    }
    Ok(voxels)
}

/// The class numbers of `label`, u8 `(D, H, W)` or `(H, W)`; `numbers` maps its values to class numbers, in row-major order.
///
/// # Errors
/// Those of `numbers`, and when the label has several channels.
pub(crate) fn label_numbers(label: &Scan, numbers: impl Fn(&Tensor) -> Result<Vec<u8>>) -> Result<Tensor> {
    let Some((&channels, spatial)) = label.values.shape().split_first() else {
        return Err(Error::shape("label", "a single number").expected("(1, D, H, W) or (1, H, W)"));
    };
    if channels != 1 {
        return Err(Error::shape("label", format!("a label of {channels} volumes"))
            .expected("one volume of class numbers, (D, H, W)")
            .shapes([label.values.shape()]));
    }
    Tensor::from_slice(&numbers(&label.values.squeeze(0)?)?, spatial, Device::Cpu)
}

/// As [`label_numbers`], reoriented to the axes of `image`, which errors call `other`.
///
/// # Errors
/// As [`label_numbers`], and when the grids of label and image don't coincide.
pub(crate) fn label_on(
    image: &Scan,
    other: &str,
    label: &Scan,
    numbers: impl Fn(&Tensor) -> Result<Vec<u8>>,
    tolerance: f64,
) -> Result<Tensor> {
    let numbers = label_numbers(label, numbers)?;
    let spatial = numbers.shape();
    let fits = || {
        Error::shape("label", format!("another spatial shape than that of the {other}"))
            .expected("(C, D, H, W) and (D, H, W)")
            .shapes([image.values.shape(), spatial])
    };
    match (&image.affine, &label.affine, image.values.shape()) {
        (Some(of_image), Some(of_label), &[_, d, h, w]) => {
            let &[depth, height, width] = spatial else { return Err(fits()) };
            let turn = Turn::between((of_label, [width, height, depth]), (of_image, other), tolerance)?;
            if turn.sizes([width, height, depth]) != [w, h, d] {
                return Err(fits());
            }
            turn.apply(&numbers)
        }
        (_, _, whole) => {
            if whole.get(1..) != Some(spatial) {
                return Err(fits());
            }
            same_spacing(image, other, label, "label")?;
            Ok(numbers)
        }
    }
}

/// Checks that two images of a case have the same grid, voxel for voxel; errors call the second one `other`.
///
/// # Errors
/// When shapes or spacings differ, or both have an affine and these differ.
pub(crate) fn same_grid(image: &Scan, other: &str, found: &Scan, tolerance: f64) -> Result<()> {
    let [expected, spatial] = [image, found].map(|scan| scan.values.shape().get(1..).unwrap_or_default());
    if expected != spatial {
        return Err(Error::shape("alignment", format!("another spatial shape than that of the {other}"))
            .expected("images of one case on one grid")
            .shapes([image.values.shape(), found.values.shape()]));
    }
    if let (Some(to), Some(from), &[d, h, w]) = (&image.affine, &found.affine, spatial) {
        let turn = Turn::between((from, [w, h, d]), (to, other), tolerance)?;
        if turn.axis != [0, 1, 2] || turn.backwards != [false; 3] {
            return Err(Error::format("alignment", "axes that are turned or mirrored")
                .expected(format!("those of the {other}, voxel for voxel")));
        }
        return Ok(());
    }
    same_spacing(image, other, found, "alignment")
}

fn same_spacing(image: &Scan, other: &str, found: &Scan, operation: &str) -> Result<()> {
    let differ = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-3 * a.abs() || (a - b).is_nan();
    if image.spacing.len() != found.spacing.len() || image.spacing.iter().zip(&found.spacing).any(differ) {
        return Err(Error::format(operation, format!("a spacing of {:?} mm", found.spacing))
            .expected(format!("{:?} mm, as the {other} has", image.spacing)));
    }
    Ok(())
}

/// The permutation and reversal of the axes x, y, z that map a grid onto another one.
struct Turn {
    /// For each axis of the other grid, the parallel axis of this one.
    axis: [usize; 3],
    /// For each axis of the other grid, whether this one is reversed.
    backwards: [bool; 3],
}

impl Turn {
    /// The turn that maps a grid of these sizes (x, y, z) onto one with affine `to`.
    ///
    /// # Errors
    /// When there is none: the centre of a corner voxel would be more than `tolerance` voxels from the corresponding one,
    /// measured by the map between the grids in world coordinates.
    fn between((from, sizes): (&Affine, [usize; 3]), (to, other): (&Affine, &str), tolerance: f64) -> Result<Self> {
        let map = geometry::compose(&geometry::inverse(to)?, from);
        let refused = |what: String| {
            let affines = format!("its affine is {}, that of the {other} {}", rows(from), rows(to));
            Error::format("alignment", format!("{what}: {affines}")).expected(format!(
                "grids that lie on each other to {tolerance} of a voxel, turned or mirrored at most \
                     (Dataset::alignment_tolerance allows more)"
            ))
        };
        // For each axis of this grid, the parallel axis of the other one.
        let along: [usize; 3] =
            std::array::from_fn(|j| (0..3).max_by(|&a, &b| map[a][j].abs().total_cmp(&map[b][j].abs())).unwrap_or(j));
        let find = |axis: usize| along.iter().position(|&other| other == axis);
        let (Some(x), Some(y), Some(z)) = (find(0), find(1), find(2)) else {
            return Err(refused(format!("two axes lie along one of the {other}")));
        };
        let axis = [x, y, z];
        let turn = Self { axis, backwards: std::array::from_fn(|i| map[i][axis[i]] < 0.0) };
        let mut worst = 0.0f64;
        // An axis of one voxel has a length too, so the position of a second voxel is its other corner.
        let far = sizes.map(|size| size.saturating_sub(1).max(1) as f64);
        for corner in 0..8 {
            let at: [f64; 3] = std::array::from_fn(|j| if corner >> j & 1 == 1 { far[j] } else { 0.0 });
            let there = geometry::apply(&map, at);
            let square = |i: usize| {
                let (at, last) = (at[axis[i]], sizes[axis[i]] as f64 - 1.0);
                (there[i] - if turn.backwards[i] { last - at } else { at }).powi(2)
            };
            let distance = (0..3).map(square).sum::<f64>().sqrt();
            // A NaN must not pass the check.
            worst = if distance.is_nan() { f64::INFINITY } else { worst.max(distance) };
        }
        if worst > tolerance {
            return Err(refused(format!("a corner lies {worst:.3} voxels beside that of the {other}")));
        }
        Ok(turn)
    }

    /// The sizes (x, y, z) of a grid after the turn.
    fn sizes(&self, sizes: [usize; 3]) -> [usize; 3] {
        self.axis.map(|axis| sizes[axis])
    }

    /// Applies the turn to the voxels, u8 `(D, H, W)`.
    fn apply(&self, voxels: &Tensor) -> Result<Tensor> {
        // The axes of the tensor are z, y, x.
        let order: [usize; 3] = std::array::from_fn(|axis| 2 - self.axis[2 - axis]);
        let mut turned = voxels.permute(&order)?.contiguous()?;
        let &[d, h, w] = turned.shape() else { return Ok(turned) };
        for axis in (0..3).filter(|axis| self.backwards[2 - axis]) {
            grid::flip(turned.as_mut_slice::<u8>()?, [d, h, w], axis);
        }
        Ok(turned)
    }
}

/// The first three rows of an affine as text.
fn rows(affine: &Affine) -> String {
    let row = |row: &[f64; 4]| format!("[{}]", row.map(|value| format!("{value:.5}")).join(", "));
    format!("[{}]", affine.iter().take(3).map(row).collect::<Vec<_>>().join(", "))
}
