//! Volumes: voxels with their geometry.

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

/// The geometry fields of a NIfTI header, in millimetres, kept so that a file written from the volume has the same ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// From voxel indices (i, j, k) to world coordinates (RAS+, millimetres).
    pub affine: Affine,
    /// pixdim: qfac, then the spacing of every axis.
    pub pixdim: [f64; 8],
    /// The qform code.
    pub qform_code: i32,
    /// Quaternion b, c, d and offsets x, y, z of the qform.
    pub quaternion: [f64; 6],
    /// The sform code.
    pub sform_code: i32,
    /// The three rows of the sform.
    pub sform: [[f64; 4]; 3],
    /// The unit codes of space (2: millimetres, 0: unknown, taken as millimetres) and time.
    pub units: u8,
}

impl Geometry {
    /// The spacing along i, j and k from pixdim: 0 counts as 1, and the sign is ignored, as in the format's reference
    /// library.
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
        // Any qfac other than −1 means 1.
        let qfac = if qfac < 0.0 { -1.0 } else { 1.0 };
        geometry::from_quaternion([b, c, d], [x, y, z], self.steps(), qfac)
    }
}

/// A volume: voxels with their geometry.
///
/// The voxels are a tensor (D, H, W), that is k, j, i of the file, with the memory order of the file (i is contiguous). A
/// file with more axes gives (T, D, H, W), even if T is 1. Voxels with several numbers get a leading channel axis: (3, D, H,
/// W) of u8 for RGB, 4 with alpha, and (2, D, H, W) of f32 or f64, real and imaginary part, for complex numbers.
///
/// The affine of a volume is always invertible, and no axis is empty.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::{Interpolation, Volume, geometry};
/// let voxels = Tensor::arange(24, DType::F32, Device::Cpu)?.reshape(&[2, 3, 4])?; // (D, H, W)
/// let volume = Volume::new(voxels, geometry::from_spacing([1.0, 1.0, 2.0])?)?;
/// assert_eq!((volume.orientation(), volume.spacing()), ("RAS".to_owned(), [1.0, 1.0, 2.0]));
/// let fine = volume.reorient("LPS")?.resample([1.0; 3], Interpolation::Linear)?;
/// assert_eq!(fine.voxels().shape(), [4, 3, 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Volume {
    voxels: Tensor,
    geometry: Geometry,
    /// The coding of the voxels in the source file, if they are unchanged.
    coding: Option<Coding>,
    /// The header and extensions of the source file.
    source: Option<Arc<Source>>,
}

impl Volume {
    /// A volume of voxels (D, H, W) or (T, D, H, W) with an affine from (i, j, k) to world coordinates (RAS+, millimetres).
    ///
    /// # Errors
    /// When the voxels have another rank (unsqueeze a 2D image (H, W) first) or an empty axis, or the affine isn't finite,
    /// isn't invertible, or its last row isn't (0, 0, 0, 1).
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

    /// Reads a NIfTI file, `.nii` or `.nii.gz`, or a pair of `.hdr` and `.img` in one folder, given by either path (each may
    /// have `.gz` appended).
    ///
    /// The checksums of a compressed file are verified to its end; trailing zeros are accepted as padding. The geometry is in
    /// millimetres, whatever the header's unit. The affine is that of the sform if its code is set and it is valid, else that
    /// of the qform, else it is made from the spacing.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// # let path = std::env::temp_dir().join(format!("tomograd-read-doc-{}.nii.gz", std::process::id()));
    /// let image = Volume::new(Tensor::zeros(&[4, 5, 6], DType::F32, Device::Cpu)?, geometry::from_orientation("LPS")?)?;
    /// image.write(&path)?;
    /// let image = Volume::read(&path)?;
    /// assert_eq!((image.voxels().shape(), &image.orientation()[..]), (&[4, 5, 6][..], "LPS"));
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read, contradicts its header, or is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        nifti::read(path.as_ref())
    }

    /// Reads the bytes of a NIfTI file, compressed or not.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// let image = Volume::new(Tensor::ones(&[2, 2, 2], DType::U8, Device::Cpu)?, geometry::from_spacing([1.0; 3])?)?;
    /// let mut bytes = Vec::new();
    /// image.write_to(&mut bytes, true)?; // compressed
    /// assert_eq!(Volume::from_bytes(&bytes)?.voxels().to_vec::<u8>()?, [1; 8]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When they contradict their header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        nifti::read_bytes(bytes)
    }

    /// Reads the bytes of a pair, the contents of `.hdr` and `.img`, each compressed or not.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub fn from_pair(header: &[u8], image: &[u8]) -> Result<Self> {
        nifti::read_pair(header, image)
    }

    /// Writes a NIfTI file, compressed if the name ends in `.nii.gz`. A volume that was read keeps the source's header, byte
    /// order, version and extensions, and its datatype and scaling if they reproduce every voxel; otherwise the datatype is
    /// that of the dtype (bool: u8; f16 and bf16: f32). A new file is version 1, unless an axis exceeds 32767 or the affine
    /// exceeds the range of 32-bit floats.
    ///
    /// # Errors
    /// When the name ends in neither `.nii` nor `.nii.gz`, no header can represent the volume, or the file can't be written.
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

    /// Other voxels with exactly the geometry of this volume, such as a mask of an image.
    ///
    /// A file written from the result has this volume's matrices, codes, units, version and byte order. Header fields about
    /// the values are dropped, since they may not apply: intent, display range, description, slice timing and extensions.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// let image = Volume::new(Tensor::zeros(&[4, 5, 6], DType::F32, Device::Cpu)?, geometry::from_orientation("PIR")?)?;
    /// let mask = image.with_voxels(Tensor::ones(&[4, 5, 6], DType::U8, Device::Cpu)?)?;
    /// assert_eq!(mask.affine(), image.affine());
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
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

    /// From voxel indices (i, j, k) to world coordinates (RAS+, millimetres).
    pub fn affine(&self) -> &Affine {
        &self.geometry.affine
    }

    /// The voxel spacing along i, j and k in millimetres.
    pub fn spacing(&self) -> [f64; 3] {
        geometry::spacing(&self.geometry.affine)
    }

    /// The orientation code of i, j and k, such as `RAS` or `LPI`.
    pub fn orientation(&self) -> String {
        geometry::orientation(&self.geometry.affine)
    }

    /// The stored datatype in the source file, or the one that will be written: `int16`, `float32`, `rgb24`, `complex64`.
    pub fn stored_dtype(&self) -> &'static str {
        self.coding.unwrap_or_else(|| Coding::plain(Stored::of(self.voxels.dtype()))).name()
    }

    pub(crate) fn coding(&self) -> Option<Coding> {
        self.coding
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_deref()
    }

    /// The voxels converted to f32.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_f32(&self) -> Result<Tensor> {
        self.voxels.converted(DType::F32)
    }
}
