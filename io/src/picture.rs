//! Pictures as volumes: where their pixels are.

use tomograd_core::{Result, Tensor};

use crate::{
    Volume,
    geometry::Affine,
    volume::Format,
    voxels::{Coding, Stored},
};

/// The size of a pixel in millimetres for pixels a millimetre along x and y, if these make sense.
pub(crate) fn spacing(density: [f64; 2]) -> Option<[f64; 3]> {
    let [x, y] = density.map(|density| 1.0 / density);
    let makes_sense = [x, y].iter().all(|step| step.is_finite() && *step > 0.0);
    makes_sense.then_some([x, y, 1.0])
}

/// A volume of planes (channels, H, W) or (channels, D, H, W); one channel has no axis of its own. Rows run to the left and
/// columns to the back, as in ITK, for which pictures lie in LPS.
pub(crate) fn volume(
    planes: Tensor,
    stored: Stored,
    spacing: Option<[f64; 3]>,
    format: Format,
    mut notes: Vec<String>,
) -> Result<Volume> {
    let mut shape = planes.shape().to_vec();
    if shape.len() == 3 {
        shape.insert(1, 1);
    }
    let channels = shape.first().copied().unwrap_or(1);
    if channels == 1 {
        shape.remove(0);
    }
    let place = "a picture doesn't say how it lies in the body: taken as LPS, its first pixel at 0";
    notes.push(match spacing {
        Some(_) => place.to_owned(),
        None => format!("{place}, pixels of 1 mm"),
    });
    let [x, y, z] = spacing.unwrap_or([1.0; 3]);
    let affine: Affine = [[-x, 0.0, 0.0, 0.0], [0.0, -y, 0.0, 0.0], [0.0, 0.0, z, 0.0], [0.0, 0.0, 0.0, 1.0]];
    Volume::of_array(planes.reshape(&shape)?, affine, None, Coding::several(stored, channels), format, notes)
}
