//! Loops over voxel grids, shared by transforms, metrics and the sliding window.
//!
//! All grids have three axes here; a 2D image is one plane. Slices are row-major.

use tomograd_core::{Error, Result};

/// The sizes of a spatial shape of rank 1 to 3, padded with leading ones.
pub(crate) fn dims(operation: &str, shape: &[usize]) -> Result<[usize; 3]> {
    match *shape {
        [w] => Ok([1, 1, w]),
        [h, w] => Ok([1, h, w]),
        [d, h, w] => Ok([d, h, w]),
        _ => Err(Error::shape(operation, format!("{} spatial axes", shape.len())).expected("1 to 3").shapes([shape])),
    }
}

/// Valid spacings in millimetres: their squares and quotients are far from the limits of f64.
const SPACINGS: std::ops::RangeInclusive<f64> = 1e-50..=1e50;

/// The spacing along each of the three axes (1 along padded ones), checked to be positive and to match the `rank`.
pub(crate) fn spacings(operation: &str, spacing: &[f64], rank: usize) -> Result<[f64; 3]> {
    if spacing.len() != rank || rank > 3 || !spacing.iter().all(|s| SPACINGS.contains(s)) {
        return Err(Error::argument(operation, format!("spacing {spacing:?}"))
            .expected(format!("{rank} positive numbers of millimetres (1e-50 to 1e50)")));
    }
    let mut all = [1.0; 3];
    all[3 - rank..].copy_from_slice(spacing);
    Ok(all)
}

/// Splits the shape of a nonempty image into channels and spatial sizes.
pub(crate) fn image_dims(operation: &str, shape: &[usize]) -> Result<(usize, [usize; 3])> {
    match shape.split_first() {
        Some((&channels, spatial)) if !shape.contains(&0) => Ok((channels, dims(operation, spatial)?)),
        _ => Err(Error::shape(operation, "not an image, or an empty one")
            .expected("(C, D, H, W) or (C, H, W)")
            .shapes([shape])),
    }
}

/// Copies the window of `size` voxels at `start` of a grid into `target`. Voxels outside the grid are left unchanged.
pub(crate) fn copy_window<T: Copy>(
    source: &[T],
    shape: [usize; 3],
    start: [isize; 3],
    target: &mut [T],
    size: [usize; 3],
) {
    // The part inside the grid, in window coordinates.
    let from = start.map(|s| s.min(0).unsigned_abs());
    let to: [usize; 3] =
        std::array::from_fn(|axis| size[axis].min((shape[axis] as isize - start[axis]).max(0) as usize));
    if (0..3).any(|axis| from[axis] >= to[axis]) {
        return;
    }
    let inside = |axis: usize, at: usize| (start[axis] + at as isize) as usize;
    let (first, length) = (inside(2, from[2]), to[2] - from[2]);
    for z in from[0]..to[0] {
        for y in from[1]..to[1] {
            let row = (inside(0, z) * shape[1] + inside(1, y)) * shape[2] + first;
            let place = (z * size[1] + y) * size[2] + from[2];
            target[place..place + length].copy_from_slice(&source[row..row + length]);
        }
    }
}

/// Reverses `axis` of each grid of `shape` in `values`, which are stored one after the other.
pub(crate) fn flip<T>(values: &mut [T], shape: [usize; 3], axis: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    let count = shape[axis];
    if inner * count == 0 {
        return;
    }
    for block in values.chunks_exact_mut(count * inner) {
        if inner == 1 {
            block.reverse();
            continue;
        }
        for i in 0..count / 2 {
            let (low, high) = block.split_at_mut((count - 1 - i) * inner);
            low[i * inner..(i + 1) * inner].swap_with_slice(&mut high[..inner]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_reach_outside() {
        let source: Vec<u8> = (0..6).collect();
        let mut target = [9; 6];
        copy_window(&source, [1, 2, 3], [0, -1, 1], &mut target, [1, 2, 3]);
        assert_eq!(target, [9, 9, 9, 1, 2, 9]);
        copy_window(&source, [1, 2, 3], [0, 5, 0], &mut target, [1, 2, 3]);
        copy_window(&source, [1, 2, 3], [0, -5, 0], &mut target, [1, 2, 3]);
        assert_eq!(target, [9, 9, 9, 1, 2, 9]);
    }

    #[test]
    fn flips_along_each_axis() {
        let grid: Vec<u8> = (0..8).collect();
        for (axis, expected) in
            [[4, 5, 6, 7, 0, 1, 2, 3], [2, 3, 0, 1, 6, 7, 4, 5], [1, 0, 3, 2, 5, 4, 7, 6]].into_iter().enumerate()
        {
            let mut flipped = grid.clone();
            flip(&mut flipped, [2, 2, 2], axis);
            assert_eq!(flipped, expected);
        }
    }
}
