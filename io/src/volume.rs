//! A volume: voxels and where they lie in the world.

use std::path::Path;

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{
    geometry::{self, Affine},
    nifti,
};

/// What a NIfTI header says of the geometry, kept so that a file written from it says the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Voxel indices (i, j, k) to world coordinates, RAS+ millimetres.
    pub affine: Affine,
    /// pixdim: qfac, then the spacing of every axis.
    pub pixdim: [f64; 8],
    /// qform code, and quaternion b, c, d with offsets x, y, z.
    pub qform_code: i32,
    /// See `qform_code`.
    pub quaternion: [f64; 6],
    /// sform code, and the three rows.
    pub sform_code: i32,
    /// See `sform_code`.
    pub sform: [[f64; 4]; 3],
    /// Codes of the units of space and time.
    pub units: u8,
}

/// A volume: voxels with their geometry.
///
/// The voxels are a tensor (D, H, W): k, j, i of the file, so that memory lies as in the file, i running fastest. A file with
/// more axes gives (T, D, H, W).
#[derive(Debug, Clone)]
pub struct Volume {
    voxels: Tensor,
    geometry: Geometry,
    /// The NIfTI datatype code that the voxels were stored as, when they are unchanged.
    stored: Option<i16>,
}

impl Volume {
    /// A volume of voxels (D, H, W) or (T, D, H, W) and an affine from (i, j, k) to RAS+ millimetres.
    ///
    /// # Errors
    /// When the voxels have another rank.
    pub fn new(voxels: Tensor, affine: Affine) -> Result<Self> {
        let [x, y, z] = geometry::spacing(&affine);
        let [r0, r1, r2, _] = affine;
        let geometry = Geometry {
            affine,
            pixdim: [1.0, x, y, z, 1.0, 1.0, 1.0, 1.0],
            qform_code: 0,
            quaternion: [0.0; 6],
            sform_code: 2,
            sform: [r0, r1, r2],
            units: 2,
        };
        Self::with_geometry(voxels, geometry, None)
    }

    pub(crate) fn with_geometry(voxels: Tensor, geometry: Geometry, stored: Option<i16>) -> Result<Self> {
        if !(2..=7).contains(&voxels.rank()) {
            return Err(Error::shape("volume", format!("voxels of rank {}", voxels.rank()))
                .expected("(D, H, W) or (T, D, H, W)")
                .shapes([voxels.shape()]));
        }
        Ok(Self { voxels, geometry, stored })
    }

    /// Reads a NIfTI file, `.nii` or `.nii.gz`.
    ///
    /// # Errors
    /// When the file can't be read or isn't what its header says.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        nifti::read(path.as_ref())
    }

    /// Writes a NIfTI-1 file, compressed when the name ends in `.gz`, with the geometry that was read.
    ///
    /// # Errors
    /// When a size doesn't fit the format, or the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        nifti::write(path.as_ref(), self)
    }

    /// Other voxels with the geometry of this volume, to the voxel: a mask for an image.
    ///
    /// # Errors
    /// When the spatial size differs.
    pub fn with_voxels(&self, voxels: Tensor) -> Result<Self> {
        let spatial = |tensor: &Tensor| tensor.shape().iter().rev().take(3).copied().collect::<Vec<_>>();
        if spatial(&voxels) != spatial(&self.voxels) {
            return Err(Error::shape("volume", "the voxels don't fit the geometry")
                .shapes([voxels.shape(), self.voxels.shape()]));
        }
        Self::with_geometry(voxels, self.geometry.clone(), None)
    }

    /// The voxels, (D, H, W) or (T, D, H, W).
    pub fn voxels(&self) -> &Tensor {
        &self.voxels
    }

    /// Codes and matrices of the geometry.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// From voxel indices (i, j, k) to world coordinates, RAS+ millimetres.
    pub fn affine(&self) -> &Affine {
        &self.geometry.affine
    }

    /// Millimetres along i, j and k.
    pub fn spacing(&self) -> [f64; 3] {
        geometry::spacing(&self.geometry.affine)
    }

    /// Where i, j and k point: `RAS`, `LPI`.
    pub fn orientation(&self) -> String {
        geometry::orientation(&self.geometry.affine)
    }

    /// The type that the voxels have, or will have, in a file: `int16`.
    pub fn stored_dtype(&self) -> &'static str {
        nifti::stored_dtype(self)
    }

    pub(crate) fn stored(&self) -> Option<i16> {
        self.stored
    }

    /// The voxels as f32.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_f32(&self) -> Result<Tensor> {
        self.voxels.converted(DType::F32)
    }
}
