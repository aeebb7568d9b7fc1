//! Checks of network configurations.

use std::ops::RangeInclusive;

use tomograd_core::{Error, Result};

/// The largest number of channels of a layer.
pub(crate) const MOST_CHANNELS: usize = 1 << 24;

/// The most levels of a network, each half the size of the one before: with more, an image of 2^(levels − 1) voxels along an axis
/// would be larger than any.
pub(crate) const MOST_LEVELS: usize = 24;

/// Checks that all `sizes` of the configuration's `field` are from 1 to `most`.
pub(crate) fn sizes(operation: &str, field: &str, sizes: &[usize], most: usize) -> Result<()> {
    let Some(place) = sizes.iter().position(|size| !(1..=most).contains(size)) else { return Ok(()) };
    let index = if sizes.len() > 1 { format!("[{place}]") } else { String::new() };
    Err(Error::argument(operation, format!("{field}{index} is {}", sizes[place]))
        .expected(format!("a number from 1 to {most}")))
}

/// Checks that the number of entries of the configuration's `field` is from `least` to `most`.
pub(crate) fn length(operation: &str, field: &str, length: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&length) {
        return Ok(());
    }
    let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Err(Error::argument(operation, format!("{field} has {length} entries")).expected(expected))
}

/// Checks that the configuration's `field` is in `range`; NaN never is.
pub(crate) fn number(operation: &str, field: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    // `{:?}` writes large numbers with an exponent.
    Err(Error::argument(operation, format!("{field} is {value:?}"))
        .expected(format!("a number from {least:?} to {most:?}")))
}

/// Checks that the configuration's `field` is a number from 0 to below 1.
pub(crate) fn probability(operation: &str, field: &str, probability: f64) -> Result<()> {
    if (0.0..1.0).contains(&probability) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{field} is {probability}")).expected("a number from 0 to below 1"))
}

/// Checks that the input of a network is an image with `rank` spatial axes.
pub(crate) fn rank(operation: &str, shape: &[usize], rank: usize) -> Result<()> {
    if shape.len() == rank + 2 {
        return Ok(());
    }
    Err(Error::shape(operation, format!("an input of {} axes", shape.len()))
        .expected(format!("(N, C, spatial...) with {rank} spatial axes"))
        .shapes([shape]))
}

/// Checks that the configuration's `field`, which may be 0, is at most `most`.
pub(crate) fn counts(operation: &str, field: &str, count: usize, most: usize) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{field} is {count}")).expected(format!("a number from 0 to {most}")))
}

/// Checks that the input of a network is an image with `rank` spatial axes, each of `smallest` voxels at least.
pub(crate) fn smallest(operation: &str, shape: &[usize], rank: usize, smallest: usize) -> Result<()> {
    if shape.len() == rank + 2 && shape[2..].iter().all(|&size| size >= smallest) {
        return Ok(());
    }
    let what = match shape.len() == rank + 2 {
        true => "the input is too small".to_owned(),
        false => format!("an input of {} axes", shape.len()),
    };
    Err(Error::shape(operation, what)
        .expected(format!("(N, C, spatial...) with {rank} spatial axes, all at least {smallest}"))
        .shapes([shape]))
}

/// Checks that the input of a network has `count` numbers for each image, in any shape: (N, ...).
pub(crate) fn numbers(operation: &str, shape: &[usize], count: usize) -> Result<()> {
    let found = shape.iter().skip(1).fold(1usize, |product, &size| product.saturating_mul(size));
    if shape.len() > 1 && found == count {
        return Ok(());
    }
    Err(Error::shape(operation, "the input doesn't fit the network")
        .expected(format!("(N, ...) with {count} numbers for each of N"))
        .shapes([shape]))
}

/// The product of `sizes`, which errors call `field`, after a check that it is from 1 to the most channels.
pub(crate) fn product(operation: &str, field: &str, sizes: &[usize]) -> Result<usize> {
    let product = sizes.iter().fold(1usize, |product, &size| product.saturating_mul(size));
    self::sizes(operation, field, &[product], MOST_CHANNELS)?;
    Ok(product)
}

/// Checks that the input of a network has this shape behind the batch axis: (C, spatial...).
pub(crate) fn image_shape(operation: &str, shape: &[usize], expected: &[usize]) -> Result<()> {
    if shape.get(1..) == Some(expected) {
        return Ok(());
    }
    let sizes: Vec<String> = expected.iter().map(usize::to_string).collect();
    Err(Error::shape(operation, "the input's shape doesn't fit the network")
        .expected(format!("(N, {})", sizes.join(", ")))
        .shapes([shape]))
}
