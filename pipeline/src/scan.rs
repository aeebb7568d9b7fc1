//! The contents of an image or label file: values, spacing, affine.

use std::path::Path;

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::{Volume, geometry::Affine};

/// An image or a label as returned by a reader.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::Scan;
/// // A reader of a custom format returns values and spacing, or all fields.
/// let scan = Scan::from((Tensor::zeros(&[1, 8, 8], DType::F32, Device::Cpu)?, vec![0.7, 0.7]));
/// assert!(scan.affine.is_none());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scan {
    /// `(C, D, H, W)` or `(C, H, W)`; a label has one channel.
    pub values: Tensor,
    /// The spacing in millimetres along the spatial axes, in the order of the shape.
    pub spacing: Vec<f64>,
    /// From voxel indices (i, j, k), where i is the last axis, to world coordinates in millimetres; `None` if the format has
    /// none.
    pub affine: Option<Affine>,
}

/// Values and spacing of a format without affine.
impl From<(Tensor, Vec<f64>)> for Scan {
    fn from((values, spacing): (Tensor, Vec<f64>)) -> Self {
        Self { values, spacing, affine: None }
    }
}

impl Scan {
    /// A volume as channels: `(D, H, W)` becomes `(1, D, H, W)`, and the volumes of a 4D file (x, y, z, t) are the
    /// channels of `(T, D, H, W)`. With more axes, all but one of the others must have size 1.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// use tomograd_pipeline::Scan;
    /// let voxels = Tensor::zeros(&[2, 4, 5, 6], DType::F32, Device::Cpu)?; // two volumes
    /// let scan = Scan::of_volume(&Volume::new(voxels, geometry::from_spacing([1.0, 2.0, 3.0])?)?)?;
    /// assert_eq!((scan.values.shape(), &scan.spacing[..]), (&[2, 4, 5, 6][..], &[3.0, 2.0, 1.0][..]));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When more than one axis besides the spatial ones is longer than 1.
    pub fn of_volume(volume: &Volume) -> Result<Self> {
        let voxels = volume.voxels();
        let (beyond, spatial) = voxels.shape().split_at(voxels.rank().saturating_sub(3));
        if beyond.iter().filter(|&&size| size != 1).count() > 1 {
            return Err(Error::shape("scan", format!("{} axes beyond the spatial ones", beyond.len()))
                .expected("(D, H, W), or (C, D, H, W) for an image of several channels")
                .shapes([voxels.shape()]));
        }
        let shape = [&[beyond.iter().product()], spatial].concat();
        let [x, y, z] = volume.spacing();
        Ok(Self { values: voxels.reshape(&shape)?, spacing: vec![z, y, x], affine: Some(*volume.affine()) })
    }

    /// Reads an image: a NIfTI file, or a PNG image with colours as channels (and 1 mm between pixels).
    ///
    /// ```
    /// use tomograd_pipeline::Scan;
    /// # let path = std::env::temp_dir().join(format!("tomograd-scan-doc-{}.png", std::process::id()));
    /// tomograd_io::write_rgb(&path, 4, 2, &[9; 4 * 2 * 3])?;
    /// assert_eq!(Scan::read_image(&path)?.values.shape(), [3, 2, 4]);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read or is malformed.
    pub fn read_image(path: &Path) -> Result<Self> {
        if is_png(path) { Ok((tomograd_io::read_png(path)?, vec![1.0; 2]).into()) } else { read_volume(path) }
    }

    /// Reads a label: a NIfTI file with one volume, or a PNG image whose pixels (or palette indices) are class numbers.
    ///
    /// ```
    /// use tomograd_pipeline::Scan;
    /// # let path = std::env::temp_dir().join(format!("tomograd-scan-label-doc-{}.png", std::process::id()));
    /// tomograd_io::write_gray(&path, 2, 1, &[0, 1])?;
    /// assert_eq!(Scan::read_label(&path)?.values.to_vec::<u8>()?, [0, 1]);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read or is malformed.
    pub fn read_label(path: &Path) -> Result<Self> {
        if is_png(path) { Ok((tomograd_io::read_png_labels(path)?, vec![1.0; 2]).into()) } else { read_volume(path) }
    }
}

fn read_volume(path: &Path) -> Result<Scan> {
    Scan::of_volume(&Volume::read(path)?).map_err(|error| error.within(path.display().to_string()))
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}
