//! Volumes: voxels with their geometry.

mod format;
mod info;
mod reorient;
mod resample;
mod slabs;

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{
    geometry::{self, Affine},
    nifti::{self, Source},
    voxels::{Coding, Stored},
};
pub use format::{Format, WriteOptions};
pub use info::{Info, info};
pub use resample::Interpolation;
pub use slabs::Slabs;
pub(crate) use slabs::{Placed, one_voxel};

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
    /// The geometry of an affine alone: an sform of code 2.
    fn of_affine(affine: Affine) -> Self {
        let [x, y, z] = geometry::spacing(&affine);
        let [r0, r1, r2, _] = affine;
        Self {
            affine,
            pixdim: [1.0, x, y, z, 1.0, 1.0, 1.0, 1.0],
            qform_code: 0,
            quaternion: [0.0; 6],
            sform_code: 2,
            sform: [r0, r1, r2],
            units: 2,
        }
    }

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
/// W) for RGB, 4 with alpha, (2, D, H, W) of f32 or f64, real and imaginary part, for complex numbers, and (N, D, H, W) for
/// vectors of other formats.
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
    /// The header and extensions of the source file, if it was NIfTI.
    source: Option<Arc<Source>>,
    /// The format of the source file.
    format: Option<Format>,
    /// What reading the file assumed or left out.
    notes: Vec<String>,
}

impl Volume {
    /// A volume of voxels (D, H, W) or (T, D, H, W) with an affine from (i, j, k) to world coordinates (RAS+, millimetres).
    ///
    /// # Errors
    /// When the voxels have another rank (unsqueeze a 2D image (H, W) first) or an empty axis, or the affine isn't finite,
    /// isn't invertible, or its last row isn't (0, 0, 0, 1).
    pub fn new(voxels: Tensor, affine: Affine) -> Result<Self> {
        Self::with_geometry(voxels, Geometry::of_affine(affine))
    }

    pub(crate) fn from_file(voxels: Tensor, geometry: Geometry, source: Arc<Source>, coding: Coding) -> Result<Self> {
        let format = Some(Format::Nifti);
        Ok(Self { source: Some(source), coding: Some(coding), format, ..Self::with_geometry(voxels, geometry)? })
    }

    /// A volume of a file of another format; `step` is that of the axis in front of (D, H, W), in seconds for time.
    pub(crate) fn of_array(
        voxels: Tensor,
        affine: Affine,
        step: Option<f64>,
        coding: Coding,
        format: Format,
        notes: Vec<String>,
    ) -> Result<Self> {
        let mut geometry = Geometry::of_affine(affine);
        if let Some(step) = step {
            let [qfac, x, y, z, _, rest @ ..] = geometry.pixdim;
            geometry.pixdim = [qfac, x, y, z, step, rest[0], rest[1], rest[2]];
        }
        Ok(Self { coding: Some(coding), format: Some(format), notes, ..Self::with_geometry(voxels, geometry)? })
    }

    fn with_geometry(voxels: Tensor, geometry: Geometry) -> Result<Self> {
        if !(3..=7).contains(&voxels.rank()) || voxels.count() == 0 {
            return Err(Error::shape("volume", format!("{} voxels of rank {}", voxels.count(), voxels.rank()))
                .expected("(D, H, W) or (T, D, H, W), none of them 0")
                .shapes([voxels.shape()]));
        }
        geometry::inverse(&geometry.affine)?;
        Ok(Self { voxels, geometry, coding: None, source: None, format: None, notes: Vec::new() })
    }

    /// Reads a file, whose [`Format`] is found by its content: NIfTI, NRRD, MetaImage, PNG; TIFF and JPEG with the features of
    /// these names. The two files of a NIfTI pair `.hdr` and `.img` (each may have `.gz` appended), and those of a detached
    /// header `.nhdr` or `.mhd`, are in one folder; a pair is given by either path, the others by their header.
    ///
    /// The checksums of compressed files are verified to their end. The geometry is in millimetres and RAS+, whatever the
    /// file's unit and axes; of NIfTI, the affine is that of the sform if its code is set and it is valid, else that of the
    /// qform, else it is made from the spacing. Pictures lie in the plane z = 0, their rows towards the left and their
    /// columns towards the back, as ITK has it. [`Volume::notes`] says what the file didn't.
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
        format::read(path.as_ref())
    }

    /// Reads the bytes of a file, as [`Volume::read`] does.
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
    /// When they contradict their header, or the data is in another file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        format::read_bytes(bytes)
    }

    /// Reads the bytes of a NIfTI pair, the contents of `.hdr` and `.img`, each compressed or not.
    ///
    /// # Errors
    /// As [`Volume::read`].
    pub fn from_pair(header: &[u8], image: &[u8]) -> Result<Self> {
        nifti::read_pair(header, image)
    }

    /// Writes a file of the format that the name says: `.nii`, `.nii.gz`, `.nrrd`, `.mha`; `.nhdr` and `.mhd` with their data
    /// in a second file; `.png` (one plane of whole numbers); `.tif` (feature `tiff`).
    ///
    /// The stored datatype and, in NIfTI, the scaling are those of the file that the volume was read from, if the format has
    /// them and they reproduce every voxel; otherwise the datatype is that of the dtype (bool: u8; f16 and bf16: f32). A volume
    /// that was read from NIfTI and is written as NIfTI keeps the source's header, byte order, version and extensions; a new
    /// NIfTI file is version 1, unless an axis exceeds 32767 or the affine exceeds the range of 32-bit floats.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// # let path = std::env::temp_dir().join(format!("tomograd-write-doc-{}.nrrd", std::process::id()));
    /// let image = Volume::new(Tensor::zeros(&[4, 5, 6], DType::F32, Device::Cpu)?, geometry::from_orientation("LPS")?)?;
    /// image.write(&path)?; // NRRD
    /// assert_eq!(Volume::read(&path)?.affine(), image.affine());
    /// assert!(image.write("scan.dat").is_err()); // no format that it knows
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the name says no format that is written, the format can't represent the volume, or the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write_with(path, WriteOptions::default())
    }

    /// As [`Volume::write`], compressed or not.
    ///
    /// # Errors
    /// As [`Volume::write`], and when the name of a NIfTI file says otherwise.
    pub fn write_with(&self, path: impl AsRef<Path>, options: WriteOptions) -> Result<()> {
        format::write(path.as_ref(), self, options)
    }

    /// The files that [`Volume::write_with`] makes or replaces under a name: two for a detached header, the data file first.
    ///
    /// ```
    /// use tomograd_io::{Volume, WriteOptions};
    /// let files = Volume::files("scan.mhd", WriteOptions::default())?;
    /// assert_eq!(files, [std::path::Path::new("scan.zraw"), std::path::Path::new("scan.mhd")]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the name says no format that is written.
    pub fn files(path: impl AsRef<Path>, options: WriteOptions) -> Result<Vec<PathBuf>> {
        format::files(path.as_ref(), options)
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

    /// The format of the file that the volume was read from.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// What reading the file assumed because it didn't say it (a space, a spacing), or left out, in plain words.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
