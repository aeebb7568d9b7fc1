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

/// Checks that an input is (N, C, spatial...) with as many spatial axes as `units` has entries, whose sizes are multiples of these
/// and not 0.
pub(crate) fn multiples(operation: &str, shape: &[usize], units: &[usize]) -> Result<()> {
    let spatial = shape.get(2..).unwrap_or_default();
    let fits = |(&size, &unit): (&usize, &usize)| size > 0 && size.is_multiple_of(unit);
    if spatial.len() == units.len() && spatial.iter().zip(units).all(fits) {
        return Ok(());
    }
    Err(misfit(operation, shape, units))
}

/// The error for an input that [`multiples`] refuses.
pub(crate) fn misfit(operation: &str, shape: &[usize], units: &[usize]) -> Error {
    let all_same = units.windows(2).all(|pair| pair[0] == pair[1]);
    let of = match units {
        [1, ..] if all_same => String::new(),
        [unit, ..] if all_same => format!(" whose sizes are multiples of {unit}"),
        _ => format!(" whose sizes are multiples of {units:?}"),
    };
    Error::shape(operation, "the input's size doesn't fit the network")
        .expected(format!("(N, C, spatial...) with {} spatial axes{of}", units.len()))
        .shapes([shape])
}
