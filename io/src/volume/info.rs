//! A summary of a volume, for the program's `info` and for reports.

use std::{fmt, path::Path};

use tomograd_core::{DType, Result};

use super::{Format, Volume};
use crate::{element::with_element, geometry::Affine};

/// A summary of a volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// The name of the file's format; empty if the volume wasn't read from one.
    pub format: &'static str,
    /// The size of each axis of the file: x, y, z, then time; channels (RGB, complex numbers) come last.
    pub shape: Vec<usize>,
    /// The stored datatype, such as `int16`.
    pub stored: &'static str,
    /// The dtype after reading.
    pub dtype: DType,
    /// The voxel spacing along x, y, z in millimetres.
    pub spacing: [f64; 3],
    /// The orientation code, such as `RAS`.
    pub orientation: String,
    /// From voxel indices to world coordinates (RAS+, millimetres).
    pub affine: Affine,
    /// The qform code.
    pub qform_code: i32,
    /// The sform code.
    pub sform_code: i32,
    /// The minimum, ignoring NaN; NaN if all voxels are.
    pub min: f64,
    /// The maximum, ignoring NaN; NaN if all voxels are.
    pub max: f64,
    /// The sum, ignoring NaN.
    pub sum: f64,
    /// The number of NaN voxels.
    pub nan: usize,
    /// The number of voxels.
    pub count: usize,
    /// What reading the file assumed or left out.
    pub notes: Vec<String>,
}

/// Reads a file and summarises it.
///
/// ```
/// # use tomograd_core::{DType, Device, Tensor};
/// # use tomograd_io::{Volume, geometry};
/// # let path = std::env::temp_dir().join(format!("tomograd-info-doc-{}.nii.gz", std::process::id()));
/// # let voxels = Tensor::arange(24, DType::I32, Device::Cpu)?.reshape(&[2, 3, 4])?;
/// # Volume::new(voxels, geometry::from_spacing([1.0, 1.0, 3.0])?)?.write(&path)?;
/// let info = tomograd_io::info(&path)?;
/// assert_eq!((&info.shape[..], info.stored, &info.orientation[..]), (&[4, 3, 2][..], "int32", "RAS"));
/// assert_eq!((info.spacing, info.min, info.max), ([1.0, 1.0, 3.0], 0.0, 23.0));
/// println!("{info}");
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the file can't be read or contradicts its header.
pub fn info(path: impl AsRef<Path>) -> Result<Info> {
    Volume::read(path)?.info()
}

impl Volume {
    /// Summarises the volume; reads every voxel.
    ///
    /// # Errors
    /// When the voxels aren't in host memory.
    pub fn info(&self) -> Result<Info> {
        let (mut min, mut max, mut sum, mut nan) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0);
        let voxels = self.voxels().contiguous()?;
        with_element!(voxels.dtype(), T => {
            for &voxel in voxels.as_slice::<T>()? {
                let value = tomograd_core::Element::to_f64(voxel);
                if value.is_nan() {
                    nan += 1;
                } else {
                    min = f64::min(min, value);
                    max = f64::max(max, value);
                    sum += value;
                }
            }
        });
        if nan == voxels.count() {
            (min, max) = (f64::NAN, f64::NAN);
        }
        Ok(Info {
            format: self.format().map_or("", Format::name),
            shape: self.file_shape(),
            stored: self.stored_dtype(),
            dtype: voxels.dtype(),
            spacing: self.spacing(),
            orientation: self.orientation(),
            affine: *self.affine(),
            qform_code: self.geometry().qform_code,
            sform_code: self.geometry().sform_code,
            min,
            max,
            sum,
            nan,
            count: voxels.count(),
            notes: self.notes().to_vec(),
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        if !self.format.is_empty() {
            writeln!(f, "format       {}", self.format)?;
        }
        let spacing: Vec<String> = self.spacing.iter().map(|step| format!("{step:.4}")).collect();
        writeln!(f, "shape        {} (x, y, z, ...)", shape.join(" × "))?;
        writeln!(f, "stored as    {} (read as {})", self.stored, self.dtype)?;
        writeln!(f, "spacing      {} mm", spacing.join(" × "))?;
        writeln!(f, "orientation  {}", self.orientation)?;
        writeln!(f, "codes        qform {}, sform {}", self.qform_code, self.sform_code)?;
        for (i, row) in self.affine.iter().take(3).enumerate() {
            let row: Vec<String> = row.iter().map(|value| format!("{value:>11.4}")).collect();
            writeln!(f, "{}{}", if i == 0 { "affine      " } else { "            " }, row.join(" "))?;
        }
        let mean = self.sum / (self.count - self.nan) as f64;
        write!(f, "voxels       {} to {}, mean {mean:.6}", self.min, self.max)?;
        if self.nan > 0 {
            write!(f, ", {} NaN", self.nan)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\nnote         {note}"))
    }
}
