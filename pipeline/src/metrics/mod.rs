//! Segmentation metrics per class: Dice, IoU, and surface distances; the ROC curve of classification.

mod bootstrap;
mod confusion_matrix;
mod distance_transform;
mod ranking;
mod surface;

#[cfg(test)]
mod tests;

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::Volume;

pub use self::{
    bootstrap::bootstrap_interval,
    confusion_matrix::{confusion, confusion_volumes},
    ranking::roc_auc,
};
use self::{
    distance_transform::squared_distances,
    surface::{Surface, Tally},
};
use crate::{Scan, alignment, grid, sample::class_numbers};

/// The metrics of one class. Undefined quantities are NaN.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{ClassMetrics, evaluate};
/// let empty = Tensor::zeros(&[4, 4], DType::U8, Device::Cpu)?;
/// let full = Tensor::ones(&[4, 4], DType::U8, Device::Cpu)?;
/// let missed: ClassMetrics = evaluate(&empty, &full, &[1.0; 2], 2)?[0];
/// assert!(missed.dice == 0.0 && missed.hd95.is_nan());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassMetrics {
    /// The Dice coefficient 2 |P ∩ T| / (|P| + |T|); NaN if both masks are empty.
    pub dice: f64,
    /// Intersection over union |P ∩ T| / |P ∪ T|; NaN if both masks are empty.
    pub iou: f64,
    /// The 95 % Hausdorff distance in millimetres: the larger of the 95th percentiles (with linear interpolation) of the
    /// distances from the surface of the prediction to that of the truth, and vice versa. NaN if either mask is empty.
    pub hd95: f64,
    /// The average symmetric surface distance in millimetres: the mean of the distances in both directions. NaN if either
    /// mask is empty.
    pub assd: f64,
}

/// What [`compare_volumes`] says of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Overlap and distances.
    pub metrics: ClassMetrics,
    /// The surface Dice coefficient (Nikolov et al., arXiv:1809.04430), counted in voxels: the part of both surfaces that is
    /// within the tolerance of the other surface. NaN if both masks are empty, 0 if one is.
    pub surface_dice: f64,
    /// The volume of the prediction in millilitres.
    pub predicted_ml: f64,
    /// The volume of the truth in millilitres.
    pub true_ml: f64,
}

/// The metrics of `prediction` against `truth`, class numbers `(D, H, W)` or `(H, W)` of any integer dtype, for the
/// foreground classes `1..classes` in order. `spacing` is in millimetres, in the order of the shape.
///
/// The surface of a mask is the set of its voxels that have a face neighbour outside it; outside the image is background.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_pipeline::evaluate;
/// let truth = Tensor::from_slice(&[1u8, 1, 0, 0, 1, 1, 0, 0], &[2, 4], Device::Cpu)?;
/// let prediction = Tensor::from_slice(&[0u8, 1, 1, 0, 0, 1, 1, 0], &[2, 4], Device::Cpu)?;
/// let metrics = evaluate(&prediction, &truth, &[1.0, 2.0], 2)?;
/// assert_eq!((metrics[0].dice, metrics[0].hd95, metrics[0].assd), (0.5, 2.0, 1.0));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When shapes differ, the spacing doesn't fit, `classes` isn't 1 to 256, or a value isn't a class number.
pub fn evaluate(prediction: &Tensor, truth: &Tensor, spacing: &[f64], classes: usize) -> Result<Vec<ClassMetrics>> {
    if prediction.shape() != truth.shape() {
        return Err(Error::shape("metrics", "prediction and truth have different shapes")
            .shapes([prediction.shape(), truth.shape()]));
    }
    let shape = grid::dims("metrics", truth.shape())?;
    let spacing = grid::spacings("metrics", spacing, truth.rank())?;
    let prediction = class_numbers(prediction, classes).map_err(|error| error.within("prediction"))?;
    let truth_numbers = class_numbers(truth, classes).map_err(|error| error.within("truth"))?;
    let compared = classes_of([&prediction, &truth_numbers], shape, spacing, truth.rank(), classes, 0.0);
    Ok(compared?.into_iter().map(|comparison| comparison.metrics).collect())
}

/// The comparison of each foreground class.
fn classes_of(
    numbers: [&[u8]; 2],
    shape: [usize; 3],
    spacing: [f64; 3],
    rank: usize,
    classes: usize,
    tolerance: f64,
) -> Result<Vec<Comparison>> {
    // There are 256 at most.
    (1..classes).map(|class| compare(numbers, class as u8, shape, spacing, rank, tolerance)).collect()
}

/// As [`evaluate`], for two volumes: a prediction whose axes are permuted or reversed against the truth is reoriented; if its
/// corners are more than `tolerance` voxels away, it is rejected (see [`TOLERANCE`](alignment::TOLERANCE)).
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_io::{Volume, geometry};
/// use tomograd_pipeline::{alignment, evaluate_volumes};
/// let voxels = Tensor::from_slice(&[0u8, 1, 1, 0, 0, 1, 0, 0], &[2, 2, 2], Device::Cpu)?;
/// let truth = Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?;
/// let prediction = truth.reorient("PIL")?; // the same mask with other axes
/// assert_eq!(evaluate_volumes(&prediction, &truth, 2, alignment::TOLERANCE)?[0].dice, 1.0);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// As [`evaluate`], and when the grids don't coincide.
pub fn evaluate_volumes(
    prediction: &Volume,
    truth: &Volume,
    classes: usize,
    tolerance: f64,
) -> Result<Vec<ClassMetrics>> {
    let compared = compare_volumes(prediction, truth, classes, tolerance, 0.0)?;
    Ok(compared.into_iter().map(|comparison| comparison.metrics).collect())
}

/// As [`evaluate_volumes`], with surface Dice at `surface_tolerance` millimetres, and volumes.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_io::{Volume, geometry};
/// use tomograd_pipeline::{alignment, compare_volumes};
/// let mask = |values: &[u8]| {
///     let voxels = Tensor::from_slice(values, &[1, 1, 6], Device::Cpu)?;
///     Volume::new(voxels, geometry::from_spacing([10.0, 10.0, 10.0])?) // a millilitre a voxel
/// };
/// let (prediction, truth) = (mask(&[0, 1, 1, 1, 0, 0])?, mask(&[0, 0, 1, 1, 1, 1])?);
/// let compared = compare_volumes(&prediction, &truth, 2, alignment::TOLERANCE, 10.0)?[0];
/// assert_eq!((compared.predicted_ml, compared.true_ml), (3.0, 4.0));
/// assert_eq!(compared.surface_dice, 6.0 / 7.0); // one voxel of the truth is 20 mm away
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// As [`evaluate_volumes`], and when a tolerance is negative or not finite.
pub fn compare_volumes(
    prediction: &Volume,
    truth: &Volume,
    classes: usize,
    tolerance: f64,
    surface_tolerance: f64,
) -> Result<Vec<Comparison>> {
    if !(surface_tolerance >= 0.0 && surface_tolerance.is_finite()) {
        return Err(Error::argument("metrics", format!("a surface tolerance of {surface_tolerance}"))
            .expected("millimetres, 0 or more"));
    }
    let ([prediction, truth], spacing) = aligned(prediction, truth, classes, tolerance)?;
    let shape = grid::dims("metrics", truth.shape())?;
    let spacing = grid::spacings("metrics", &spacing, truth.rank())?;
    let masks = [prediction.as_slice::<u8>()?, truth.as_slice::<u8>()?];
    classes_of(masks, shape, spacing, truth.rank(), classes, surface_tolerance)
}

/// The class numbers u8 of prediction and truth on the grid of the truth, and its spacing in the order of the shape.
fn aligned(prediction: &Volume, truth: &Volume, classes: usize, tolerance: f64) -> Result<([Tensor; 2], Vec<f64>)> {
    let tolerance = alignment::tolerance(tolerance)?;
    let [prediction, truth] = [Scan::of_volume(prediction)?, Scan::of_volume(truth)?];
    let on_truth = |scan: &Scan, what: &str| {
        let numbers = |values: &Tensor| class_numbers(values, classes);
        alignment::label_on(&truth, "truth", scan, numbers, tolerance).map_err(|error| error.within(what.to_owned()))
    };
    let numbers = [on_truth(&prediction, "prediction")?, on_truth(&truth, "truth")?];
    Ok((numbers, truth.spacing))
}

fn compare(
    numbers: [&[u8]; 2],
    class: u8,
    shape: [usize; 3],
    spacing: [f64; 3],
    rank: usize,
    tolerance: f64,
) -> Result<Comparison> {
    let tally = Tally::of(numbers, class, shape)?;
    let [predicted, true_count] = tally.counts.map(|count| count as f64);
    let both = tally.both as f64;
    let (hd95, assd, surface_dice) = if predicted == 0.0 || true_count == 0.0 {
        // 0 / 0 is NaN, as documented.
        (f64::NAN, f64::NAN, 0.0 / (predicted + true_count))
    } else {
        // Voxels outside of the box of both masks affect neither the surfaces nor the distances between them.
        let surface = |numbers| Surface::of(numbers, class, shape, rank, tally.bounds());
        surface_distances(&surface(numbers[0])?, &surface(numbers[1])?, spacing, tolerance)?
    };
    let millilitres = spacing.iter().product::<f64>() / 1000.0;
    Ok(Comparison {
        metrics: ClassMetrics {
            dice: 2.0 * both / (predicted + true_count),
            iou: both / (predicted + true_count - both),
            hd95,
            assd,
        },
        surface_dice,
        predicted_ml: predicted * millilitres,
        true_ml: true_count * millilitres,
    })
}

/// HD95, ASSD and surface Dice of two surfaces that aren't empty.
fn surface_distances(first: &Surface, second: &Surface, spacing: [f64; 3], tolerance: f64) -> Result<(f64, f64, f64)> {
    let mut there = distances(first, second, spacing)?;
    let mut back = distances(second, first, spacing)?;
    let sum: f64 = there.iter().chain(&back).sum();
    let all = (there.len() + back.len()) as f64;
    let near = there.iter().chain(&back).filter(|distance| **distance <= tolerance).count() as f64;
    Ok((percentile(&mut there, 0.95).max(percentile(&mut back, 0.95)), sum / all, near / all))
}

/// The distance of each voxel of `from` to the nearest voxel of `to`.
fn distances(from: &Surface, to: &Surface, spacing: [f64; 3]) -> Result<Vec<f64>> {
    let mut distances = squared_distances(from, to, spacing)?;
    distances.iter_mut().for_each(|distance| *distance = distance.sqrt());
    Ok(distances)
}

/// The quantile `fraction` (0 to 1) of the values, with linear interpolation between them (NumPy's default). Puts them in another
/// order. NaN of no values.
///
/// ```
/// use tomograd_pipeline::quantile;
/// assert_eq!(quantile(&mut [4.0, 1.0, 2.0], 0.75)?, 3.0);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the fraction isn't one from 0 to 1.
pub fn quantile(values: &mut [f64], fraction: f64) -> Result<f64> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Error::argument("metrics", format!("the quantile {fraction}")).expected("0 to 1"));
    }
    Ok(percentile(values, fraction))
}

/// As [`quantile`], of a fraction that is one.
fn percentile(values: &mut [f64], fraction: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = fraction * last as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let (_, &mut value, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    // An infinite value is that of its own place, not NaN.
    if part == 0.0 {
        return value;
    }
    value + (above.iter().copied().min_by(f64::total_cmp).unwrap_or(value) - value) * part
}
