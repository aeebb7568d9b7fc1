//! Checks of the values of images and labels.

use tomograd_core::{DType, Error, Result, Tensor, room_for};

/// Class numbers are stored in a byte.
pub(crate) const MOST_CLASSES: usize = 256;

/// Checks a number of classes, including the background.
pub(crate) fn check_classes(operation: &str, classes: usize) -> Result<()> {
    if !(1..=MOST_CLASSES).contains(&classes) {
        return Err(Error::argument(operation, format!("{classes} classes"))
            .expected(format!("1 to {MOST_CLASSES}, with the background")));
    }
    Ok(())
}

/// Checks that all voxels of an image `(C, spatial)` are finite: a statistic over all of them would otherwise be NaN, and one
/// over some of them misleading.
pub(crate) fn check_finite(operation: &str, image: &Tensor) -> Result<()> {
    let contiguous = image.contiguous()?;
    let values = contiguous.as_slice::<f32>()?;
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let place = voxel(at, image.shape());
    let (channel, place) = place.split_first().map_or((0, &[][..]), |(&channel, place)| (channel, place));
    Err(Error::argument(operation, format!("{} at voxel {place:?} of channel {channel}", values[at]))
        .expected("finite intensities"))
}

/// The class numbers of a label of any dtype, in row-major order.
///
/// # Errors
/// When `classes` isn't 1 to 256, or a value isn't a class number; the error has the value and its voxel.
pub(crate) fn class_numbers(label: &Tensor, classes: usize) -> Result<Vec<u8>> {
    check_classes("label", classes)?;
    // Masks are bytes mostly, and class numbers as they are.
    if label.dtype() == DType::U8 {
        let numbers = label.to_vec::<u8>()?;
        if numbers.iter().all(|number| usize::from(*number) < classes) {
            return Ok(numbers);
        }
    }
    let number = |value: f64| {
        let number = value as u8;
        (f64::from(number) == value && usize::from(number) < classes).then_some(number)
    };
    numbers_of(label, number, || format!("whole numbers in 0..={}", classes - 1))
}

/// Applies `number` to each value of a tensor of any dtype, in row-major order.
///
/// # Errors
/// When `number` returns `None`; the error has the value, its voxel, and `expected`.
pub(crate) fn numbers_of(
    label: &Tensor,
    number: impl Fn(f64) -> Option<u8>,
    expected: impl Fn() -> String,
) -> Result<Vec<u8>> {
    let mut numbers: Vec<u8> = room_for("label", label.count())?;
    // Plane by plane, since the values as f64 take eight times the memory of the result.
    let planes = label.shape().first().copied().unwrap_or(1);
    for plane in 0..planes {
        let values = if label.rank() == 0 { label.to_vec_f64()? } else { label.narrow(0, plane, 1)?.to_vec_f64()? };
        for value in values {
            numbers.push(number(value).ok_or_else(|| {
                Error::argument("label", format!("value {value} at voxel {:?}", voxel(numbers.len(), label.shape())))
                    .expected(expected())
            })?);
        }
    }
    Ok(numbers)
}

/// The multi-index of element `index` of a tensor.
pub(crate) fn voxel(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (place, size) in place.iter_mut().zip(shape).rev() {
        (*place, index) = (index % size, index / size);
    }
    place
}
