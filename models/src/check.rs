//! Checks of network configurations.

use tomograd_core::{Error, Result};

/// The largest number of channels of a layer.
pub(crate) const MOST_CHANNELS: usize = 1 << 24;

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
    Err(Error::argument(operation, format!("{field} has {length} entries")).expected(format!("{least} to {most}")))
}

/// Checks that the configuration's `field` is a number from 0 to below 1.
pub(crate) fn probability(operation: &str, field: &str, probability: f64) -> Result<()> {
    if (0.0..1.0).contains(&probability) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{field} is {probability}")).expected("a number from 0 to below 1"))
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
        .expected(format!("(N, C, spatial...) with {rank} spatial axes, {smallest} voxels at least along each"))
        .shapes([shape]))
}
