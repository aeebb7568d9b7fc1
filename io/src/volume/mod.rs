//! A volume: voxels and where they lie in the world.

mod info;
mod reorient;
mod resample;

use std::{io::Write, path::Path, sync::Arc};

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{
    geometry::{self, Affine},
    nifti::{self, Coding, Source, Stored},
};
pub use info::{Info, info};
pub use resample::Interpolation;

/// What a NIfTI header says of the geometry, in millimetres, kept so that a file written from it says the same.
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
    /// Codes of the units of space (2: millimetres, 0: not said, and taken for millimetres) and time.
    pub units: u8,
}

impl Geometry {
    /// Millimetres along i, j and k as pixdim says them: 0 counts as 1, and the sign is of no meaning, as the format's
    /// reference library has it.
    pub(crate) fn steps(&self) -> [f64; 3] {
        let [_, x, y, z, ..] = self.pixdim;
        [x, y, z].map(|step| if step == 0.0 { 1.0 } else { step.abs() })
    }

    /// The affine of the sform, whatever its code.
    pub(crate) fn sform_affine(&self) -> Result<Affine> {
        let [r0, r1, r2] = self.sform;
        geometry::checked([r0, r1, r2, [0.0, 0.0, 0.0, 1.0]])
    }

    /// The affine of the qform, whatever its code.
    pub(crate) fn qform_affine(&self) -> Result<Affine> {
        let ([b, c, d, x, y, z], [qfac, ..]) = (self.quaternion, self.pixdim);
        // Whatever isn't −1 is 1.
        let qfac = if qfac < 0.0 { -1.0 } else { 1.0 };
        geometry::from_quaternion([b, c, d], [x, y, z], self.steps(), qfac)
    }
}

/// A volume: voxels with their geometry.
///
/// The voxels are a tensor (D, H, W): k, j, i of the file, so that memory lies as in the file, i running fastest. A file with
/// more axes gives (T, D, H, W), also if T is 1. Voxels of several numbers have their channels in front: (3, D, H, W) of u8
/// for RGB, 4 with opacity, and (2, D, H, W) of f32 or f64, real and imaginary part, for complex numbers.
///
/// The affine of every volume has an inverse, and no axis is empty.
#[derive(Debug, Clone)]
pub struct Volume {
    voxels: Tensor,
    geometry: Geometry,
    /// How the voxels are stored in the file that they were read from, when they are unchanged.
    coding: Option<Coding>,
    /// What else that file said.
    source: Option<Arc<Source>>,
}

impl Volume {
    /// A volume of voxels (D, H, W) or (T, D, H, W) and an affine from (i, j, k) to RAS+ millimetres.
    ///
    /// # Errors
    /// When the voxels have another rank (a picture (H, W) is unsqueezed first) or an empty axis, or the affine isn't finite,
    /// has no inverse, or its last row isn't (0, 0, 0, 1).
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
        Self::with_geometry(voxels, geometry)
    }

    pub(crate) fn from_file(voxels: Tensor, geometry: Geometry, source: Arc<Source>, coding: Coding) -> Result<Self> {
        Ok(Self { source: Some(source), coding: Some(coding), ..Self::with_geometry(voxels, geometry)? })
    }

    fn with_geometry(voxels: Tensor, geometry: Geometry) -> Result<Self> {
        if !(3..=7).contains(&voxels.rank()) || voxels.count() == 0 {
            return Err(Error::shape("volume", format!("{} voxels of rank {}", voxels.count(), voxels.rank()))
                .expected("(D, H, W) or (T, D, H, W), none of them 0")
                .shapes([voxels.shape()]));
        }
        geometry::inverse(&geometry.affine)?;
        Ok(Self { voxels, geometry, coding: None, source: None })
    }

    /// Reads a NIfTI file, `.nii` or `.nii.gz`, or the pair `.hdr` and `.img` of which `path` names one (each of them may have
    /// `.gz` behind it; they lie in one folder).
    ///
    /// A compressed file is compared with its checksums to the last byte; zeros after its end are padding. The geometry is in
    /// millimetres, whatever the header's unit. The affine is the sform's if that has a code and is one, else the qform's, else
    /// it comes from the spacing alone.
    ///
    /// # Errors
    /// When the file can't be read, isn't what its header says, or is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        nifti::read(path.as_ref())
    }

    /// Reads the bytes of a NIfTI file, compressed or not.
    ///
    /// # Errors
    /// When they aren't what their header says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        nifti::read_bytes(bytes)
    }

    /// Reads the bytes of a pair: what `.hdr` and `.img` hold, each compressed or not.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub fn from_pair(header: &[u8], image: &[u8]) -> Result<Self> {
        nifti::read_pair(header, image)
    }

    /// Writes a NIfTI file, compressed when the name ends in `.nii.gz`. A volume that was read keeps the header of its file, its
    /// byte order, version and extensions, and the stored type and scaling as long as they reproduce every voxel; otherwise
    /// the stored type is that of the dtype (bool: u8; f16 and bf16: f32), and the version is 1 unless an axis exceeds 32767
    /// or its 32-bit numbers can't say the affine.
    ///
    /// # Errors
    /// When the name ends in neither `.nii` nor `.nii.gz`, no header can say what the volume is, or the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        nifti::write(path.as_ref(), self)
    }

    /// Writes the bytes of a NIfTI file, as [`Volume::write`] does, to any writer.
    ///
    /// # Errors
    /// When a size doesn't fit the format, or the writer fails.
    pub fn write_to(&self, writer: &mut dyn Write, compressed: bool) -> Result<()> {
        nifti::write_to(writer, self, compressed)
    }

    /// Other voxels with the geometry of this volume, to the voxel: a mask for an image.
    ///
    /// A file written from it has this one's matrices, codes, units, version and byte order. What its header said about the
    /// voxels is left out, as it need not be true of others: intent, display range, description, slice timing and extensions.
    ///
    /// # Errors
    /// When the spatial size differs, or an axis is empty.
    pub fn with_voxels(&self, voxels: Tensor) -> Result<Self> {
        let spatial = |tensor: &Tensor| tensor.shape().iter().rev().take(3).copied().collect::<Vec<_>>();
        if spatial(&voxels) != spatial(&self.voxels) {
            return Err(Error::shape("volume", "the voxels don't fit the geometry")
                .shapes([voxels.shape(), self.voxels.shape()]));
        }
        let source = self.source.as_ref().map(|source| Arc::new(source.emptied()));
        Ok(Self { source, ..Self::with_geometry(voxels, self.geometry.clone())? })
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

    /// The type that the voxels are stored as, in the file that they were read from or will be written to: `int16`, `float32`,
    /// `rgb24`, `complex64`.
    pub fn stored_dtype(&self) -> &'static str {
        self.coding.unwrap_or_else(|| Coding::plain(Stored::of(self.voxels.dtype()))).name()
    }

    pub(crate) fn coding(&self) -> Option<Coding> {
        self.coding
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_deref()
    }

    /// The voxels as f32.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_f32(&self) -> Result<Tensor> {
        self.voxels.converted(DType::F32)
    }
}
