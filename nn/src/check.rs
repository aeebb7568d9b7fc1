//! Checks of constructor arguments.

use std::ops::RangeInclusive;

use tomograd_core::{Error, Result};
use tomograd_kernels::elementwise::Function;

/// Upper bound of rates, factors and the like, so that neither they nor their usual products overflow an f32.
pub(crate) const LARGEST: f64 = 1e30;
/// Lower bound of numbers that prevent a division by zero, such as ε, so that they aren't zero in f32.
pub(crate) const SMALLEST: f64 = 1e-30;

/// Checks that `value` is in `range`; NaN never is.
pub(crate) fn number(operation: &str, name: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    // `{:?}` writes large numbers with an exponent.
    Err(Error::argument(operation, format!("{name} is {value:?}"))
        .expected(format!("a number from {least:?} to {most:?}")))
}

/// Checks that none of `sizes` (channels, elements, steps) is 0; `name` is what the error calls them.
pub(crate) fn sizes(operation: &str, name: &str, sizes: &[usize]) -> Result<()> {
    if sizes.iter().all(|&size| size > 0) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{name}: {sizes:?}")).expected("1 at least"))
}

/// Checks that `groups` divides each of these numbers of channels.
pub(crate) fn groups(operation: &str, groups: usize, channels: &[usize]) -> Result<()> {
    sizes(operation, "channels", channels)?;
    if groups > 0 && channels.iter().all(|channels| channels.is_multiple_of(groups)) {
        return Ok(());
    }
    let list: Vec<String> = channels.iter().map(usize::to_string).collect();
    Err(Error::argument(operation, format!("{groups} groups of {} channels", list.join(" and ")))
        .expected("a number of groups that divides the channels"))
}

/// Checks the numbers of an activation that a layer is made with: within 1e30 of 0, so that usual products don't overflow an
/// f32, and bounds in their order.
///
/// # Errors
/// When a number doesn't fit; the error begins with `operation`.
pub fn check_activation(operation: &str, function: Function) -> Result<()> {
    let fits = match function {
        Function::Add(number)
        | Function::Multiply(number)
        | Function::LeakyRelu(number)
        | Function::Elu(number)
        | Function::Power(number) => number.abs() <= LARGEST,
        Function::Clamp(low, high) => low <= high,
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{function:?}"))
        .expected("numbers within 1e30 of 0, and bounds in their order"))
}
