//! Pictures of cases: slices where prediction and truth differ most, with the outlines of both.

use std::{collections::BTreeMap, path::PathBuf};

use tomograd::{io::Interpolation, prelude::*};

use super::{Evaluate, by_name, results::Case};
use crate::view::planes::{Grid, Plane};

/// The longest side of a slice in pixels.
const SIDE: usize = 300;
/// Millimetres around the labels.
const MARGIN: f64 = 15.0;

/// The files of the images by the names of their cases; one file is the image of every case.
pub(super) struct Images<'a> {
    options: &'a Evaluate,
    files: BTreeMap<String, PathBuf>,
}

impl<'a> Images<'a> {
    pub(super) fn new(options: &'a Evaluate) -> Result<Self> {
        let files = match &options.images {
            Some(folder) if folder.is_dir() => by_name(folder)?,
            _ => BTreeMap::new(),
        };
        Ok(Self { options, files })
    }

    /// The bytes of PNG files, a slice of each plane.
    pub(super) fn draw(&self, case: &Case) -> Result<Vec<Vec<u8>>> {
        let truth = flat(Volume::read(&case.masks.truth)?)?.reorient("LPS")?;
        let prediction = flat(Volume::read(&case.masks.prediction)?)?.reorient("LPS")?;
        if truth.voxels().shape() != prediction.voxels().shape() {
            return Err(Error::shape("evaluate", "masks of different sizes")
                .shapes([prediction.voxels().shape(), truth.voxels().shape()]));
        }
        let wanted = |mask: &Volume| match &self.options.labels {
            None => Ok(mask.clone()),
            Some(labels) => {
                let kept = |value: f64| if labels.iter().any(|l| f64::from(*l) == value) { value as i32 } else { 0 };
                let values: Vec<i32> = mask.voxels().to_vec_f64()?.into_iter().map(kept).collect();
                mask.with_voxels(Tensor::from_slice(&values, mask.voxels().shape(), Device::Cpu)?)
            }
        };
        let (truth, prediction) = (wanted(&truth)?, wanted(&prediction)?);
        let image = match self.image(case, &truth)? {
            Some(image) => image,
            None => truth.with_voxels(Tensor::zeros(truth.voxels().shape(), DType::U8, Device::Cpu)?)?,
        };
        let window = self.options.window.as_ref().and_then(|window| <[f64; 2]>::try_from(&window[..]).ok());
        let grid = Grid::new(&image, &[&truth, &prediction], window)?.around_labels(MARGIN);
        let planes: &[Plane] =
            if grid.is_solid() { &[Plane::Axial, Plane::Coronal, Plane::Sagittal] } else { &[Plane::Axial] };
        let scale = grid.scale(planes, SIDE);
        planes.iter().map(|&plane| grid.draw(plane, grid.most_different(plane), scale, true).png()).collect()
    }

    /// The image of a case on the grid of its truth.
    fn image(&self, case: &Case, truth: &Volume) -> Result<Option<Volume>> {
        let path = match (&self.options.images, self.files.get(&case.masks.name)) {
            (None, _) => return Ok(None),
            (Some(folder), None) if folder.is_dir() => return Ok(None),
            (Some(file), None) => file,
            (_, Some(file)) => file,
        };
        let volume = flat(Volume::read(path)?).map_err(|error| error.within(path.display().to_string()))?;
        let volume = volume.reorient("LPS")?;
        let near =
            volume.affine().iter().flatten().zip(truth.affine().iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-3);
        if near && volume.voxels().shape() == truth.voxels().shape() {
            return Ok(Some(volume));
        }
        volume.resample_to(truth, Interpolation::Linear).map(Some)
    }
}

/// The first volume of a file, (D, H, W).
fn flat(volume: Volume) -> Result<Volume> {
    let shape = volume.voxels().shape().to_vec();
    let Some(outer) = shape.len().checked_sub(3).filter(|outer| *outer > 0) else { return Ok(volume) };
    let inner = shape.get(outer..).unwrap_or_default().to_vec();
    let count: usize = shape.iter().take(outer).product();
    let flat = volume.voxels().reshape(&[&[count][..], &inner].concat())?;
    volume.with_voxels(flat.narrow(0, 0, 1)?.contiguous()?.reshape(&inner)?)
}
