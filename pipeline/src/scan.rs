//! What a file of a case holds: values, their spacing, and where they lie in the world.

use std::path::Path;

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::{Volume, geometry::Affine};

/// An image or a label as a reader gives it.
#[derive(Clone, Debug)]
pub struct Scan {
    /// `(C, D, H, W)` or `(C, H, W)`; a label has one channel.
    pub values: Tensor,
    /// Millimetres between voxels along the spatial axes, in the order of the shape.
    pub spacing: Vec<f64>,
    /// From voxel indices (i, j, k), i along the last axis, to the world in millimetres; `None` for a format that doesn't say.
    pub affine: Option<Affine>,
}

/// Values and spacing of a format without a place in the world.
impl From<(Tensor, Vec<f64>)> for Scan {
    fn from((values, spacing): (Tensor, Vec<f64>)) -> Self {
        Self { values, spacing, affine: None }
    }
}

impl Scan {
    /// A volume as channels: `(D, H, W)` becomes `(1, D, H, W)`, and the volumes of a file of four axes (x, y, z, t) are the
    /// channels of `(T, D, H, W)`. Of more axes, all but one must be 1.
    ///
    /// # Errors
    /// When more than one axis beyond the spatial ones is longer than 1.
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

    /// Reads an image: a NIfTI file, or a PNG picture with its colours as channels (and 1 mm between pixels).
    ///
    /// # Errors
    /// When the file can't be read, or isn't what it says.
    pub fn read_image(path: &Path) -> Result<Self> {
        if is_png(path) { Ok((tomograd_io::read_png(path)?, vec![1.0; 2]).into()) } else { read_volume(path) }
    }

    /// Reads a label: a NIfTI file of one volume, or a PNG picture whose pixels, or the numbers of their colours in a palette,
    /// are class numbers.
    ///
    /// # Errors
    /// When the file can't be read, or isn't what it says.
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
