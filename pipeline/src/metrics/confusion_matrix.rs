//! Confusion matrices of class numbers.

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::Volume;

use super::aligned;
use crate::sample::class_numbers;

/// How many voxels of each true class were predicted as each class: `matrix[truth][prediction]`, the background first.
/// `prediction` and `truth` are class numbers of one shape and of any integer dtype.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_pipeline::confusion;
/// let truth = Tensor::from_slice(&[0u8, 0, 1, 1, 2], &[1, 5], Device::Cpu)?;
/// let prediction = Tensor::from_slice(&[0u8, 1, 1, 1, 0], &[1, 5], Device::Cpu)?;
/// assert_eq!(confusion(&prediction, &truth, 3)?, [[1, 1, 0], [0, 2, 0], [1, 0, 0]]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When shapes differ, `classes` isn't 1 to 256, or a value isn't a class number.
pub fn confusion(prediction: &Tensor, truth: &Tensor, classes: usize) -> Result<Vec<Vec<u64>>> {
    if prediction.shape() != truth.shape() {
        return Err(Error::shape("metrics", "prediction and truth have different shapes")
            .shapes([prediction.shape(), truth.shape()]));
    }
    let prediction = class_numbers(prediction, classes).map_err(|error| error.within("prediction"))?;
    let truth = class_numbers(truth, classes).map_err(|error| error.within("truth"))?;
    Ok(counted(&prediction, &truth, classes))
}

/// As [`confusion`], for two volumes: a prediction whose axes are permuted or reversed against the truth is reoriented, as in
/// [`compare_volumes`](crate::compare_volumes).
///
/// # Errors
/// As [`confusion`], and when the grids don't coincide to `tolerance` voxels.
pub fn confusion_volumes(prediction: &Volume, truth: &Volume, classes: usize, tolerance: f64) -> Result<Vec<Vec<u64>>> {
    let [prediction, truth] = aligned(prediction, truth, classes, tolerance)?.0;
    Ok(counted(prediction.as_slice::<u8>()?, truth.as_slice::<u8>()?, classes))
}

fn counted(prediction: &[u8], truth: &[u8], classes: usize) -> Vec<Vec<u64>> {
    let mut matrix = vec![vec![0u64; classes]; classes];
    for (&predicted, &true_class) in prediction.iter().zip(truth) {
        matrix[usize::from(true_class)][usize::from(predicted)] += 1;
    }
    matrix
}
