//! Reorienting volumes, and the geometry of moved voxels.

use tomograd_core::{Element, Layout, Result, Tensor};

use super::{Geometry, Volume};
use crate::{
    element::with_element,
    geometry::{self, Affine},
    nifti,
};

impl Volume {
    /// Reorients the volume so that x, y and z have the orientation `codes` (`RAS`, `LPS`, `PIR`, ...): axes are permuted and
    /// flipped without interpolation, so that the inverse restores the voxels exactly. World coordinates of voxels don't
    /// change.
    ///
    /// The codes of qform and sform are kept; both matrices are updated, even if they differ.
    ///
    /// # Errors
    /// When `codes` isn't three letters, one each of R/L, A/P and S/I, or memory runs out.
    pub fn reorient(&self, codes: &str) -> Result<Self> {
        let (from, to) = (geometry::axes(&self.orientation())?, geometry::axes(codes)?);
        let [x, y, z] = self.spatial();
        // For each new axis: the old axis along the same world axis, and whether it is reversed.
        let turn = to.map(|(world, positive)| {
            let old = from.iter().position(|axis| axis.0 == world).unwrap_or(0);
            (old, from.get(old).is_some_and(|axis| axis.1 != positive))
        });
        if turn == [(0, false), (1, false), (2, false)] {
            return Ok(self.clone());
        }
        let sizes = [x, y, z];
        // The map from new to old voxel indices, column by column.
        let mut map: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
        for (new, &(old, flip)) in turn.iter().enumerate() {
            if let (Some(row), Some(&size)) = (map.get_mut(old), sizes.get(old)) {
                if let Some(entry) = row.get_mut(new) {
                    *entry = if flip { -1.0 } else { 1.0 };
                }
                row[3] = if flip { size as f64 - 1.0 } else { 0.0 };
            }
        }
        let voxels = with_element!(self.voxels().dtype(), T => turned::<T>(self.voxels(), turn)?);
        self.moved(voxels, &map)
    }

    /// Other voxels on another grid, where `map` maps new to old voxel indices. Qform and sform are both composed with it and
    /// keep their codes; a qform that would need a shear loses its code.
    pub(crate) fn moved(&self, voxels: Tensor, map: &Affine) -> Result<Self> {
        let old = self.geometry();
        let affine = geometry::compose(&old.affine, map);
        let sform = if old.sform_code > 0 { geometry::compose(&old.sform_affine()?, map) } else { affine };
        // The qform of code 0 has no meaning, so it approximates the affine.
        let qform = if old.qform_code > 0 { geometry::compose(&old.qform_affine()?, map) } else { affine };
        let (quaternion, qfac, exact) = geometry::to_quaternion(&qform)?;
        let qform_code = if exact { old.qform_code.max(0) } else { 0 };
        // The affine must come from the sform if the qform can't represent it: a 32-bit header rounds the quaternion, which
        // moves voxels of rotations near a half turn.
        let rounded = quaternion.map(|value| f64::from(value as f32));
        let [b, c, d, x, y, z] = rounded;
        let lengths = geometry::spacing(&qform);
        let longest = lengths.into_iter().fold(0.0, f64::max);
        // Offsets beyond the range of f32 become infinite, and the qform is then invalid.
        let represented = geometry::from_quaternion([b, c, d], [x, y, z], lengths, qfac).ok();
        let near = |(represented, qform): (&[f64; 4], &[f64; 4])| {
            represented.iter().zip(qform).take(3).all(|(a, b)| (a - b).abs() <= 1e-5 * longest)
        };
        let is_represented =
            qform_code > 0 && represented.is_some_and(|represented| represented.iter().zip(&qform).all(near));
        let sform_code = if old.sform_code > 0 || is_represented { old.sform_code.max(0) } else { 2 };
        // pixdim belongs to the qform, if there is one.
        let [x, y, z] = geometry::spacing(if qform_code > 0 { &qform } else { &affine });
        let [_, _, _, _, t, u, v, w] = old.pixdim;
        let [r0, r1, r2, _] = sform;
        let geometry = Geometry {
            affine,
            pixdim: [qfac, x, y, z, t, u, v, w],
            qform_code,
            quaternion,
            sform_code,
            sform: [r0, r1, r2],
            units: old.units,
        };
        Ok(Self {
            coding: self.coding,
            source: self.source.clone(),
            format: self.format,
            notes: self.notes.clone(),
            ..Self::with_geometry(voxels, geometry)?
        })
    }

    /// The number of voxels along x, y and z.
    pub(crate) fn spatial(&self) -> [usize; 3] {
        let mut sizes = self.voxels().shape().iter().rev().copied();
        [sizes.next().unwrap_or(1), sizes.next().unwrap_or(1), sizes.next().unwrap_or(1)]
    }

    /// The size of each axis of the file: x, y, z, then the others; channels (RGB, complex numbers) come last.
    pub fn file_shape(&self) -> Vec<usize> {
        nifti::file_sizes(self.voxels().shape(), self.source())
    }
}

/// Permutes and flips: new axis n (x, y, z) is old axis `turn[n].0`, reversed if `turn[n].1`.
fn turned<T: Element>(voxels: &Tensor, turn: [(usize, bool); 3]) -> Result<Tensor> {
    let rank = voxels.rank();
    let base = rank.saturating_sub(3);
    // The axes of the tensor are z, y, x.
    let mut order: Vec<usize> = (0..base).collect();
    order.extend(turn.iter().rev().map(|&(old, _)| base + (2 - old)));
    let view = voxels.permute(&order)?;
    let shape = view.shape().to_vec();
    let values = view.as_storage_slice::<T>()?;
    let mut turned = Tensor::zeros(&shape, T::DTYPE, voxels.device())?;
    let flips: Vec<bool> = std::iter::repeat_n(false, base).chain(turn.iter().rev().map(|&(_, flip)| flip)).collect();
    let (Some(&length), Some(&stride), Some(&backwards)) = (shape.last(), view.strides().last(), flips.last()) else {
        return Ok(turned);
    };
    let starts = row_starts(view.layout(), &flips);
    for (row, start) in turned.as_mut_slice::<T>()?.chunks_mut(length).zip(starts) {
        for (i, to) in row.iter_mut().enumerate() {
            let i = if backwards { length - 1 - i } else { i };
            *to = values.get(start + i * stride).copied().unwrap_or_default();
        }
    }
    Ok(turned)
}

/// The start offset of each row of the last axis, in row-major order, where `flips` marks reversed axes.
fn row_starts<'a>(layout: &'a Layout, flips: &'a [bool]) -> impl Iterator<Item = usize> + 'a {
    let outer = layout.rank().saturating_sub(1);
    let rows: usize = layout.shape().iter().take(outer).product();
    (0..rows).map(move |mut row| {
        let mut place = layout.offset();
        for axis in (0..outer).rev() {
            let (Some(&size), Some(&stride)) = (layout.shape().get(axis), layout.strides().get(axis)) else { continue };
            let index = row % size;
            row /= size;
            let backwards = flips.get(axis).copied().unwrap_or(false);
            place += stride * if backwards { size - 1 - index } else { index };
        }
        place
    })
}
